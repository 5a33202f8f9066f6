"""What a program gets about rows and ledgers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batcher.files import is_url
from batcher.ledger.queries.settled import Result
from batcher.reports.run_report import Credits, OpenHalt


@dataclass(frozen=True, slots=True, kw_only=True)
class RowError:
    """Why a row has no audio: the provider's code and message, or the reason why the row is invalid."""

    code: str | None = None
    message: str | None = None
    request_id: str | None = None
    http_status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a manifest with its result.

    `state` is that of its item, or `invalid` or `empty` for a skipped row. `path` is the row's audio, None until that
    is in place, and always in an object store: there `url` is, such as s3://bucket/prefix/name.mp3. `credits` is what
    its item's task has cost; rows with the same inputs share an item. `extra` holds the columns that are only copied.
    None is unknown.
    """

    batch: str
    row: int  # number in the manifest
    id: str
    state: str
    path: Path | None
    audio_seconds: float | None
    credits: float | None
    error: RowError | None
    key: str | None
    task_id: str | None
    take: int | None
    bytes: int | None
    sha256: str | None
    url: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    ignored: Sequence[str] = ()  # parameters that the model ignored


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """The last run on a ledger. Without `ended_at` it is active, or was killed. Times are ISO 8601 in UTC."""

    run_id: str
    started_at: str
    ended_at: str | None
    pid: int
    host: str
    exit_code: int | None
    outcome: str | None
    message: str | None
    created: int | None
    collected: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCredits(Credits):
    """Credits of a whole ledger, with what open tasks and items in doubt cost or may have cost, and the balance that
    was read last."""

    in_flight: float | None = None
    in_doubt: float | None = None
    left: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A ledger: its batches, their rows and items, items by state, the open halt, credits, and the last run.

    `credits.spent` covers all tasks of the ledger; `start` and `end` are the balances of the last run.
    """

    batches: list[str]
    rows: int
    items: int
    states: dict[str, int]
    halt: OpenHalt | None
    credits: LedgerCredits
    last_run: LastRun | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A row whose file was put at its `path` at `linked_at` (ISO 8601, UTC), new or in place of another."""

    batch: str
    row: int  # number in the manifest
    id: str
    path: Path
    key: str
    take: int
    sha256: str | None
    bytes: int | None
    audio_seconds: float | None
    linked_at: str


def row_of(result: Result, folder: Path) -> Row:
    """A row of a ledger that lies in this folder."""
    line = dict(result.line)
    output, error = line.pop("output"), line.pop("error")
    out_dir = result.batch.out_dir
    is_remote = is_url(out_dir)
    return Row(
        **line | {"ignored": tuple(line["ignored"] or ())},
        path=None if output is None or is_remote else Path(os.path.normpath(folder / out_dir / output)),
        url=f"{out_dir}/{output}" if output is not None and is_remote else None,
        credits=result.credits,
        error=None if error is None else RowError(**error),
    )


def change_of(found: Mapping[str, Any], folder: Path) -> Change:
    """A change of a ledger that lies in this folder."""
    facts = dict(found)
    return Change(path=Path(os.path.normpath(folder / facts.pop("output"))), **facts)


def status_of(found: Mapping[str, Any]) -> Status:
    """The status of a ledger, from what `status --json` shows."""
    halt, run = found["halt"], found["last_run"]
    typed = {
        "halt": None if halt is None else OpenHalt(**halt),
        "credits": LedgerCredits(**found["credits"]),
        "last_run": None if run is None else LastRun(**run),
    }
    return Status(**dict(found) | typed)
