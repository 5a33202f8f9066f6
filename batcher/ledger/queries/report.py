"""Queries of `report`: the rows of batches, the tasks created for them, and where the credits went."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, null, or_, select

from batcher.item import Inputs, State
from batcher.ledger.money import top_ups
from batcher.ledger.queries.status import balance_of
from batcher.ledger.records import Batch
from batcher.ledger.storage.filters import of_attempt, of_wanted
from batcher.ledger.storage.schema import REPEAT_MARK, attempts, batches, files, halts, items, rows, runs, tasks

Fate = Literal["produced", "open", "in_doubt", "lost"]
_RUNS: Final = 12
"""Maximum number of runs in a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """One row with everything that a report contains about it.

    `inputs` and `key` are None for a skipped row. `output` is relative to the batch's output folder, and None until the
    file exists. `error_code` is `invalid` for a row skipped as invalid.
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
    ignored: str | None  # parameters that the model ignored, separated by commas
    extra: dict[str, Any]

    @property
    def error(self) -> str | None:
        """The error in one or two words: its code, else its HTTP status. None without an error."""
        if self.error_code is not None:
            return self.error_code
        if self.error_http_status is not None:
            return f"HTTP {self.error_http_status}"
        return None if self.error_message is None else "no code"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTimes:
    """Times of one task (unix seconds), its item, its number of polls, and the length of its text and of its audio."""

    key: str
    created_at: float
    rendered_at: float | None
    saved_at: float | None
    polls: int
    chars: int
    audio_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Creates of one model with the same fate, and their credits as far as reported.

    `priced` of the `creates` report a cost. Fates: `produced` has audio, `open` is in progress, `in_doubt` may have
    been bought, `lost` was created but has no audio.
    """

    model: str | None
    fate: Fate
    creates: int
    priced: int
    credits: float
    audio_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """One run: its balance before and after (None if unknown), its work for the batches, and how it ended."""

    run_id: str
    started_at: float
    ended_at: float | None
    balance_start: float | None
    balance_end: float | None
    created: int
    spent: float | None
    exit_code: int | None
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCredits:
    """Credits around the latest runs for some batches. None is unknown.

    `start` and `end` are the balances before the first and after the last of these runs, `topped_up` about what was
    added between. `spent` is the reported cost of all tasks of the batches; `is_complete` if none of them lacks it.
    """

    start: float | None
    end: float | None
    spent: float | None
    topped_up: float
    is_complete: bool


def report_rows(conn: Connection, chosen: Sequence[Batch]) -> Iterator[ReportRow]:
    """The rows of these batches one at a time, in manifest order."""
    is_linked = and_(rows.c.linked_key == rows.c.item_key, rows.c.linked_output == rows.c.output)
    query = (
        select(rows, case((is_linked, rows.c.output), else_=null()).label("linked"), batches.c.name, batches.c.out_dir)
        .add_columns(*(items.c[name] for name in ("state", "text", "voice", "model", "format", "params", "task_id")))
        .add_columns(
            items.c.error_code, items.c.error_message, items.c.error_http_status, items.c.take.label("item_take")
        )
        .add_columns(files.c.audio_seconds, tasks.c.ignored)
        .join(batches, batches.c.id == rows.c.batch_id)
        .outerjoin(items, items.c.key == rows.c.item_key)
        .outerjoin(tasks, and_(tasks.c.account_id == items.c.account_id, tasks.c.task_id == items.c.task_id))
        .outerjoin(files, and_(files.c.item_key == rows.c.item_key, items.c.state == State.DONE))
        .where(of_wanted(chosen))
        .order_by(rows.c.batch_id, rows.c.number)
    )
    return map(_report_row, conn.execute(query))


def _report_row(row: Row[Any]) -> ReportRow:
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
        output=row.linked,
        audio_seconds=row.audio_seconds,
        task_id=row.task_id,
        error_code="invalid" if invalid else row.error_code,
        error_message=row.reason if invalid else row.error_message,
        error_http_status=row.error_http_status,
        ignored=row.ignored,
        extra=json.loads(row.extra),
    )


def _inputs(row: Row[Any]) -> Inputs:
    return Inputs(
        text=row.text,
        voice=row.voice,
        model=row.model,
        format=row.format,
        params=json.loads(row.params),
        take=row.item_take,
    )


def row_states(conn: Connection, chosen: Sequence[Batch]) -> dict[str, int]:
    """Number of rows by state; skipped rows count as `invalid` or `empty`."""
    state = func.coalesce(rows.c.skipped, items.c.state)
    query = select(state, func.count()).outerjoin(items, items.c.key == rows.c.item_key)
    return dict(conn.execute(query.where(of_wanted(chosen)).group_by(state)).all())


def audio_total(conn: Connection, chosen: Sequence[Batch]) -> tuple[float, int]:
    """Seconds and bytes of the audio at the rows' outputs. Audio that rows share counts once."""
    ours = select(rows.c.item_key).where(of_wanted(chosen), rows.c.linked_key == rows.c.item_key)
    query = select(func.total(files.c.audio_seconds), func.total(files.c.bytes)).where(files.c.item_key.in_(ours))
    seconds, size = conn.execute(query).one()
    return seconds, int(size)


def task_times(conn: Connection, chosen: Sequence[Batch]) -> Iterator[TaskTimes]:
    """The tasks created for these batches in order of creation, including earlier takes and failed tasks."""
    is_current = and_(items.c.account_id == tasks.c.account_id, items.c.task_id == tasks.c.task_id)
    ended_well = and_(is_current, items.c.state.in_((State.RENDERED, State.DONE)))
    saved = and_(files.c.item_key == items.c.key, is_current, items.c.state == State.DONE)
    query = (
        select(
            tasks.c.item_key.label("key"),
            tasks.c.accepted_at.label("created_at"),
            case((ended_well, tasks.c.ended_at)).label("rendered_at"),
            files.c.saved_at,
            tasks.c.looks.label("polls"),
            func.length(items.c.text).label("chars"),
            files.c.audio_seconds,
        )
        .select_from(
            tasks.join(attempts, of_attempt).join(items, items.c.key == tasks.c.item_key).outerjoin(files, saved)
        )
        .where(_for(chosen))
        .order_by(tasks.c.accepted_at, tasks.c.task_id)
    )
    return (TaskTimes(**row._mapping) for row in conn.execute(query))


def spent(conn: Connection, chosen: Sequence[Batch]) -> list[Spent]:
    """Creates for these batches by model and fate, except those that certainly bought nothing."""
    cost = func.coalesce(tasks.c.credits, attempts.c.credits)
    is_current = and_(items.c.account_id == tasks.c.account_id, items.c.task_id == tasks.c.task_id)
    saved = and_(files.c.item_key == items.c.key, is_current, items.c.state == State.DONE)
    was_lost = and_(attempts.c.outcome == "lost", tasks.c.task_id.is_(None))
    in_doubt = and_(items.c.state == State.IN_DOUBT, items.c.attempt == attempts.c.attempt)
    fate = case(
        (and_(is_current, items.c.state.in_((State.RENDERED, State.DONE))), "produced"),
        (and_(was_lost, in_doubt), "in_doubt"),
        (was_lost, "settled"),
        (or_(attempts.c.outcome.is_(None), tasks.c.ended_at.is_(None)), "open"),
        else_="lost",
    ).label("fate")
    columns = (func.count().label("creates"), func.count(cost).label("priced"), func.total(cost).label("credits"))
    joined = attempts.join(items, items.c.key == attempts.c.item_key).outerjoin(tasks, of_attempt)
    bought_nothing = and_(attempts.c.outcome.in_(("deferred", "rejected")), func.coalesce(cost, 0) == 0)
    query = (
        select(items.c.model, fate, *columns, func.total(files.c.audio_seconds).label("audio_seconds"))
        .select_from(joined.outerjoin(files, saved))
        .where(_for(chosen), or_(attempts.c.outcome.is_(None), ~bought_nothing))
        .group_by(items.c.model, fate)
        .order_by(items.c.model.nulls_first(), fate)
    )
    return [Spent(**row._mapping) for row in conn.execute(query)]


def report_runs(conn: Connection, chosen: Sequence[Batch]) -> list[RunFacts]:
    """The latest runs that created something for these batches, oldest first."""
    cost = func.coalesce(tasks.c.credits, attempts.c.credits)
    work = (
        select(attempts.c.run_id, func.count(tasks.c.task_id).label("created"), func.sum(cost).label("spent"))
        .select_from(attempts.outerjoin(tasks, of_attempt))
        .where(_for(chosen))
        .group_by(attempts.c.run_id)
        .subquery()
    )
    query = select(runs, work.c.created.label("for_us"), work.c.spent).join(work, work.c.run_id == runs.c.id)
    latest = conn.execute(query.order_by(runs.c.started_at.desc()).limit(_RUNS)).all()
    return [_run(row) for row in reversed(latest)]


def report_credits(conn: Connection, latest: Sequence[RunFacts], costs: Sequence[Spent]) -> ReportCredits:
    """The credits of batches, from the results of `report_runs` and `spent`."""
    start, end = (latest[0].balance_start, latest[-1].balance_end) if latest else (None, None)
    added = top_ups.topped_up(conn, since=latest[0].started_at, until=latest[-1].ended_at) if latest else 0.0
    return ReportCredits(
        start=start,
        end=end,
        spent=sum(one.credits for one in costs) if any(one.priced for one in costs) else None,
        topped_up=added,
        is_complete=all(one.priced == one.creates for one in costs),
    )


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
    """Open halts: kind, start (unix seconds) and detail."""
    query = select(halts.c.kind, halts.c.since_at, halts.c.detail).where(halts.c.closed_at.is_(None))
    return [(row[0], row[1], row[2]) for row in conn.execute(query.order_by(halts.c.since_at))]


def _for(chosen: Sequence[Batch]) -> ColumnElement[bool]:
    """Attempts for these batches."""
    return attempts.c.batch_id.in_([batch.batch_id for batch in chosen])
