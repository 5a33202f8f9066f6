"""What a run says at the end: its exit code, its words for people, its JSON for programs, its results files."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from batcher.clock import utc
from batcher.formatting import counted
from batcher.item import NEEDS_PERSON, State
from batcher.ledger.queries.item_counts import Counts
from batcher.ledger.records import Halt
from batcher.pipeline.stop import Reason, Stop
from batcher.reports.tally import Tally

SCHEMA: Final = 1
OUTCOMES: Final = {
    0: "done",
    1: "bug",
    2: "refused",
    3: "needs_person",
    4: "halted",
    5: "credentials",
    6: "stopped",
    7: "locked",
    8: "trouble",
    130: "interrupted",
}
_EXITS: Final = {Reason.CREDENTIALS: 5, Reason.CREDITS: 4, Reason.TROUBLE: 8, Reason.ASKED: 6}
_RESULT_COLUMNS: Final = (
    *("batch", "row", "id", "state", "output", "key", "task_id", "take"),
    *("sha256", "bytes", "audio_seconds", "error"),
)
RESULTS: Final = ".results"
"""What the name of a results file has after the batch's."""
REPORT: Final = ".report"
"""What the name of a page, or a workbook, has after the batch's."""
UNFINISHED: Final = (State.PENDING, State.SUBMITTING, State.SUBMITTED, State.RENDERED)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The end of a run. Its fields, in this order, are the keys of `run --json`; None stands for unknown."""

    schema: int = SCHEMA
    run_id: str | None = None
    exit_code: int
    outcome: str
    message: str
    ledger: str | None = None
    out_dir: str | None = None
    batches: list[str] = field(default_factory=list)
    rows: int | None = None
    items: int | None = None
    states: dict[str, int] = field(default_factory=dict)
    created: int = 0
    collected: int = 0
    halt: dict[str, Any] | None = None
    credits: dict[str, float | None] = field(
        default_factory=lambda: dict.fromkeys(("start", "end", "spent", "estimated_needed"))
    )
    requests: dict[str, int] = field(default_factory=lambda: Tally().requests())
    elapsed_seconds: float = 0.0

    def to_json(self) -> str:
        """One JSON object on one line."""
        return json.dumps(asdict(self), ensure_ascii=False)


def halt_of(halts: Sequence[Halt]) -> dict[str, Any] | None:
    """The `halt` of a report: the account's oldest open one."""
    if not halts:
        return None
    halt = halts[0]
    return {"kind": halt.kind, "since": utc(halt.since_at), "detail": halt.detail}


def conclude(stop: Stop, counts: Counts, *, refused: str | None, unwritten: int, rows_named: bool) -> tuple[int, str]:
    """Exit code and message of a run that came to its end.

    The first that applies, in the order of the table of exit codes; a reason to stop counts only while it leaves
    something undone. `refused` says why the manifest was not taken; `unwritten` counts outputs and results files that
    could not be written. Where no manifest was named (`rows_named`), what waits to be created was not asked for.
    """
    unfinished = sum(counts.states[state] for state in UNFINISHED if rows_named or state is not State.PENDING)
    if stop.interrupted:
        return 130, "interrupted; answers that had come are recorded"
    if refused is not None:
        return 2, refused
    for reason in sorted(stop.reasons):
        if unfinished or unwritten or reason is Reason.CREDENTIALS:
            return _EXITS[reason], stop.reasons[reason]
    if unfinished:
        return 6, f"{counted(unfinished, 'item')} still to be finished"
    if unwritten:
        return 8, f"{counted(unwritten, 'output')} could not be written"
    if not rows_named:
        return 0, "every open task is collected"
    waiting = sum(counts.states[state] for state in NEEDS_PERSON)
    if waiting or counts.invalid:
        parts = [counted(waiting, "item")] * bool(waiting)
        parts += [counted(counts.invalid, "invalid row")] * bool(counts.invalid)
        return 3, f"finished; a person is needed for {' and '.join(parts)}"
    return 0, "every row is done or settled"


def results_paths(out_dir: Path, batches: Sequence[str]) -> list[Path]:
    """The results files of these batches."""
    return [out_dir / f"{batch}{RESULTS}.{ending}" for batch in batches for ending in ("jsonl", "csv")]


def write_results(out_dir: Path, batch: str, lines: Iterator[dict[str, Any]]) -> None:
    """Replace `BATCH.results.jsonl` and `.csv` in the output folder, each as a whole.

    Raises:
        OSError: the folder does not take them; the old ones stay.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = results_paths(out_dir, [batch])
    drafts = [path.with_name(f".{path.name}.part") for path in paths]
    try:
        with drafts[0].open("wb") as jsonl, drafts[1].open("w", encoding="utf-8", newline="") as table:
            _write_lines(jsonl, table, lines)
            for file in (jsonl, table):
                file.flush()
                os.fsync(file.fileno())
        for draft, path in zip(drafts, paths, strict=True):
            draft.replace(path)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def _write_lines(jsonl: IO[bytes], table: IO[str], lines: Iterator[dict[str, Any]]) -> None:
    writer = csv.writer(table)
    writer.writerow((*_RESULT_COLUMNS, "extra"))
    for line in lines:
        jsonl.write(_JSON.encode(line) + b"\n")
        line["error"], line["extra"] = _cell(line["error"]), _cell(line["extra"] or None)
        writer.writerow(line.values())


def _cell(value: dict[str, Any] | None) -> str | None:
    return None if value is None else _JSON.encode(value).decode()


_JSON: Final = msgspec.json.Encoder()
