"""What `report` tells of batches: their rows one by one, the tasks made for them, and where the credits went."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, null, or_, select

from batcher.item import Inputs, State
from batcher.ledger.queries.status import balance_of
from batcher.ledger.records import Batch
from batcher.ledger.storage.filters import of_attempt, of_wanted
from batcher.ledger.storage.schema import REPEAT_MARK, attempts, batches, files, halts, items, rows, runs, tasks

Fate = Literal["made", "open", "in_doubt", "lost"]
_RUNS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """One row with everything that a report says of it.

    `inputs` and `key` are None for a skipped row. `output` is relative to the batch's output folder, and None until the
    file is there. `error_code` is `invalid` for a row that was skipped as such.
    """

    batch: str
    out_dir: str
    number: int
    id: str
    state: str
    inputs: Inputs | None
    key: str | None
    take: int
    output: str | None
    audio_seconds: float | None
    task_id: str | None
    error_code: str | None
    error_message: str | None
    error_http_status: int | None
    extra: dict[str, Any]

    @property
    def error(self) -> str | None:
        """The error in one or two words: its code, else its HTTP status, None where nothing went wrong."""
        if self.error_code is not None:
            return self.error_code
        if self.error_http_status is not None:
            return f"HTTP {self.error_http_status}"
        return None if self.error_message is None else "no code"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTimes:
    """One task: when it was created, had its audio made, had that saved; how long its text is, and its audio."""

    created_at: float
    rendered_at: float | None
    saved_at: float | None
    looks: int
    chars: int
    audio_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Credits of the creates of one model that came to the same; `told` of the `creates` say what they cost.

    `made` has audio, `open` is under way, `in_doubt` may have been bought, `lost` was spent without audio to show.
    """

    model: str | None
    fate: Fate
    creates: int
    told: int
    credits: float
    audio_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """One run: its balance before and after (None where unknown), what it did for the batches, how it ended."""

    run_id: str
    started_at: float
    ended_at: float | None
    balance_start: float | None
    balance_end: float | None
    created: int
    spent: float | None
    exit_code: int | None
    message: str | None


def source_of(conn: Connection, batch: Batch) -> tuple[str, str]:
    """The file that the batch was read from last, and the SHA-256 of what was in it."""
    row = conn.execute(select(batches.c.source, batches.c.digest).where(batches.c.id == batch.batch_id)).one()
    return row.source, row.digest


def batches_of(conn: Connection, source: Path) -> list[str]:
    """The names of the batches that were read from this manifest."""
    query = select(batches.c.name, batches.c.source).order_by(batches.c.id)
    return [row.name for row in conn.execute(query) if Path(row.source).resolve() == source.resolve()]


def report_rows(conn: Connection, wanted: Sequence[Batch]) -> Iterator[ReportRow]:
    """The rows of these batches one at a time, in manifest order."""
    there = and_(rows.c.linked_key == rows.c.item_key, rows.c.linked_output == rows.c.output)
    query = (
        select(rows, case((there, rows.c.output), else_=null()).label("there"), batches.c.name, batches.c.out_dir)
        .add_columns(*(items.c[name] for name in ("state", "text", "voice", "model", "format", "params", "task_id")))
        .add_columns(
            items.c.error_code, items.c.error_message, items.c.error_http_status, items.c.take.label("item_take")
        )
        .add_columns(files.c.audio_seconds)
        .join(batches, batches.c.id == rows.c.batch_id)
        .outerjoin(items, items.c.key == rows.c.item_key)
        .outerjoin(files, and_(files.c.item_key == rows.c.item_key, items.c.state == State.DONE))
        .where(of_wanted(wanted))
        .order_by(rows.c.batch_id, rows.c.number)
    )
    return map(_told, conn.execute(query))


def _told(row: Row[Any]) -> ReportRow:
    invalid = row.skipped == "invalid"
    return ReportRow(
        batch=row.name,
        out_dir=row.out_dir,
        number=row.number,
        id=row.id.partition(REPEAT_MARK)[0],
        state=row.skipped or row.state,
        inputs=None if row.item_key is None else _inputs(row),
        key=row.item_key,
        take=row.take,
        output=row.there,
        audio_seconds=row.audio_seconds,
        task_id=row.task_id,
        error_code="invalid" if invalid else row.error_code,
        error_message=row.reason if invalid else row.error_message,
        error_http_status=row.error_http_status,
        extra=json.loads(row.extra),
    )


def _inputs(row: Row[Any]) -> Inputs:
    same = {name: getattr(row, name) for name in ("text", "voice", "model", "format")}
    return Inputs(**same, params=json.loads(row.params), take=row.item_take)


def row_states(conn: Connection, wanted: Sequence[Batch]) -> dict[str, int]:
    """How many rows are in each state; skipped ones as `invalid` and `empty`."""
    state = func.coalesce(rows.c.skipped, items.c.state)
    query = select(state, func.count()).outerjoin(items, items.c.key == rows.c.item_key)
    return dict(conn.execute(query.where(of_wanted(wanted)).group_by(state)).all())


def audio_made(conn: Connection, wanted: Sequence[Batch]) -> tuple[float, int]:
    """Seconds and bytes of the audio that stands at the rows' outputs; what rows share is counted once."""
    ours = select(rows.c.item_key).where(of_wanted(wanted), rows.c.linked_key == rows.c.item_key)
    query = select(func.total(files.c.audio_seconds), func.total(files.c.bytes)).where(files.c.item_key.in_(ours))
    seconds, size = conn.execute(query).one()
    return seconds, int(size)


def task_times(conn: Connection, wanted: Sequence[Batch]) -> Iterator[TaskTimes]:
    """The tasks that were created for these batches, earlier takes and failed ones included, in order of creation."""
    lives = and_(items.c.account_id == tasks.c.account_id, items.c.task_id == tasks.c.task_id)
    ended_well = and_(lives, items.c.state.in_((State.RENDERED, State.DONE)))
    saved = and_(files.c.item_key == items.c.key, lives, items.c.state == State.DONE)
    query = (
        select(
            tasks.c.accepted_at.label("created_at"),
            case((ended_well, tasks.c.ended_at)).label("rendered_at"),
            files.c.saved_at,
            tasks.c.looks,
            func.length(items.c.text).label("chars"),
            files.c.audio_seconds,
        )
        .select_from(
            tasks.join(attempts, of_attempt).join(items, items.c.key == tasks.c.item_key).outerjoin(files, saved)
        )
        .where(_for(wanted))
        .order_by(tasks.c.accepted_at)
    )
    return (TaskTimes(**row._mapping) for row in conn.execute(query))


def spent(conn: Connection, wanted: Sequence[Batch]) -> list[Spent]:
    """What the creates for these batches came to, by model; those that certainly made nothing are left out."""
    told = func.coalesce(tasks.c.credits, attempts.c.credits)
    lives = and_(items.c.account_id == tasks.c.account_id, items.c.task_id == tasks.c.task_id)
    saved = and_(files.c.item_key == items.c.key, lives, items.c.state == State.DONE)
    fate = case(
        (and_(lives, items.c.state.in_((State.RENDERED, State.DONE))), "made"),
        (and_(attempts.c.outcome == "lost", tasks.c.task_id.is_(None)), "in_doubt"),
        (or_(attempts.c.outcome.is_(None), tasks.c.ended_at.is_(None)), "open"),
        else_="lost",
    ).label("fate")
    columns = (func.count().label("creates"), func.count(told).label("told"), func.total(told).label("credits"))
    joined = attempts.join(items, items.c.key == attempts.c.item_key).outerjoin(tasks, of_attempt)
    nothing_made = and_(attempts.c.outcome.in_(("deferred", "rejected")), func.coalesce(told, 0) == 0)
    query = (
        select(items.c.model, fate, *columns, func.total(files.c.audio_seconds).label("audio_seconds"))
        .select_from(joined.outerjoin(files, saved))
        .where(_for(wanted), or_(attempts.c.outcome.is_(None), ~nothing_made))
        .group_by(items.c.model, fate)
        .order_by(items.c.model, fate)
    )
    return [Spent(**row._mapping) for row in conn.execute(query)]


def report_runs(conn: Connection, wanted: Sequence[Batch]) -> list[RunFacts]:
    """The latest runs that created something for these batches, oldest first."""
    told = func.coalesce(tasks.c.credits, attempts.c.credits)
    did = (
        select(attempts.c.run_id, func.count(tasks.c.task_id).label("created"), func.sum(told).label("spent"))
        .select_from(attempts.outerjoin(tasks, of_attempt))
        .where(_for(wanted))
        .group_by(attempts.c.run_id)
        .subquery()
    )
    query = select(runs, did.c.created.label("for_us"), did.c.spent).join(did, did.c.run_id == runs.c.id)
    latest = conn.execute(query.order_by(runs.c.started_at.desc()).limit(_RUNS)).all()
    return [_run(row) for row in reversed(latest)]


def _run(row: Row[Any]) -> RunFacts:
    return RunFacts(
        run_id=row.id,
        started_at=row.started_at,
        ended_at=row.ended_at,
        balance_start=balance_of(row.profile_start),
        balance_end=balance_of(row.profile_end),
        created=row.for_us,
        spent=row.spent,
        exit_code=row.exit_code,
        message=row.message,
    )


def open_halts(conn: Connection) -> list[tuple[str, float, str]]:
    """Why nothing is created at present: kind, since when, in words."""
    query = select(halts.c.kind, halts.c.since_at, halts.c.detail).where(halts.c.closed_at.is_(None))
    return [(row[0], row[1], row[2]) for row in conn.execute(query.order_by(halts.c.since_at))]


def _for(wanted: Sequence[Batch]) -> ColumnElement[bool]:
    """Attempts that were made for these batches."""
    return attempts.c.batch_id.in_([batch.batch_id for batch in wanted])
