"""From pending to submitted: the verbs around a create, each a function of an open transaction (see `Ledger.do`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    and_,
    bindparam,
    func,
    insert,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.item import Event, Inputs, State
from batcher.ledger.lifecycle import halts
from batcher.ledger.lifecycle.transitions import move
from batcher.ledger.money.spending import Budget
from batcher.ledger.queries.item_counts import are_few
from batcher.ledger.records import AnswerRecord, Claimed, OpenTask, Wanted
from batcher.ledger.storage.schema import attempts, items, of_batch, of_wanted, rows, runs, tasks
from batcher.ledger.storage.statements import Prepared, either, every

Cursor = tuple[int, int]
"""Where in the wanted batches a run's claiming stands: index of the batch, number of the last row."""


def claim(
    conn: Connection,
    prepare: Callable[[Inputs], bytes],
    *,
    run_id: str,
    account_id: int,
    wanted: Sequence[Wanted],
    cursor: Cursor,
    limit: int,
    at: float,
    budget: Budget | None = None,
) -> tuple[list[Claimed], Cursor]:
    """Make the intent to create up to `limit` wanted items durable, in the order of their rows behind `cursor`.

    Checks in this same transaction that the run is alive and that no halt is open; with a halt that this run may
    probe, at most one item is claimed until its answer is recorded; with a budget, one that its batch can afford.
    Claims nothing when nothing is due.
    """
    alive = _ALIVE.run(conn, {"_run": run_id}).fetchone()
    allowed = halts.allowance(conn, account_id, run_id, limit)
    if alive is None or allowed == 0:
        return [], cursor
    found, cursor = _pending(conn, run_id, wanted, cursor, allowed if budget is None else 1, at, budget)
    claimed = [_claimed(row, prepare) for row in found]
    for one, row in zip(claimed, found, strict=True):
        values = {"item_key": one.key, "attempt": one.attempt, "run_id": run_id, "account_id": account_id}
        _INTEND.run(conn, values | {"intended_at": at, "batch_id": row.batch_id})
        move(conn, Event.CLAIM, one.key, one.attempt - 1, at=at, run_id=run_id, attempt=one.attempt)
    if claimed:
        halts.note_probe(conn, account_id, run_id, claimed[0].key)
    return claimed, cursor


_FEW: Final = 50
"""So few pending items are sorted for each claim; more are come across on the way through the rows."""
_ALIVE: Final = Prepared(select(runs.c.id).where(runs.c.id == bindparam("_run"), runs.c.ended_at.is_(None)))
_INTEND: Final = Prepared(
    insert(attempts).values(every("item_key", "attempt", "run_id", "account_id", "intended_at", "batch_id"))
)


def _pending(
    conn: Connection,
    run_id: str,
    wanted: Sequence[Wanted],
    cursor: Cursor,
    limit: int,
    at: float,
    budget: Budget | None,
) -> tuple[list[Any], Cursor]:
    found: dict[str, Any] = {}
    index, number = cursor
    query = _next_rows(are_few(conn, State.PENDING, _FEW))
    while index < len(wanted) and len(found) < limit:
        place = {"_batch": wanted[index].batch_id, "_number": number, "_limit": limit - len(found)}
        page = query.rows(conn, place | {"_run": run_id, "_at": at})
        if budget is not None:
            page = [row for row in page if budget.affords(conn, row.batch_id, row.model, row.bytes)]
        found |= {row.key: row for row in page}
        index, number = (index, page[-1].number) if page else (index + 1, 0)
    return list(found.values()), (index, number)


@cache
def _next_rows(by_item: bool) -> Prepared:
    """The claimable rows of a batch behind a number, with their items."""
    return Prepared(
        select(items, rows.c.number, rows.c.batch_id)
        .join(rows, rows.c.item_key == items.c.key)
        .where(of_batch(bindparam("_batch"), by_item=by_item), rows.c.number > bindparam("_number"))
        .where(_claimable(bindparam("_run")), items.c.not_before_at <= bindparam("_at"))
        .order_by(rows.c.number)
        .limit(bindparam("_limit"))
    )


def _claimable(run_id: str | BindParameter[str]) -> ColumnElement[bool]:
    """To be created, and if a task failed for lack of credits, read once more in this very run."""
    rechecked = or_(items.c.recheck_task_id.is_(None), items.c.recheck_run_id == run_id)
    return and_(items.c.state == State.PENDING, rechecked)


def next_due_at(conn: Connection, run_id: str, wanted: Sequence[Wanted]) -> float | None:
    """When the next wanted item may be claimed (which may be past), or None when none waits to be created."""
    query = select(func.min(items.c.not_before_at)).join(rows, rows.c.item_key == items.c.key)
    ours = of_wanted(wanted, by_item=are_few(conn, State.PENDING))
    due: float | None = conn.execute(query.where(ours, _claimable(run_id))).scalar()
    return due


def _claimed(row: Any, prepare: Callable[[Inputs], bytes]) -> Claimed:
    body = prepare(_inputs(row))
    return Claimed(
        key=row.key,
        attempt=row.attempt + 1,
        format=row.format,
        chars=len(row.text),
        model=row.model,
        body=body,
    )


def _inputs(row: Any) -> Inputs:
    params: dict[str, Any] = json.loads(row.params)
    return Inputs(text=row.text, voice=row.voice, model=row.model, format=row.format, params=params, take=row.take)


def record_answer(conn: Connection, record: AnswerRecord, *, max_in_doubt: int) -> Event:
    """Write down the answer to a create: its task id first, then the attempt, then the item's step, then any halt.

    An answer may be recorded twice. Returns the event that was recorded: `lost` when the task id belongs to another
    item. A late answer moves the item only while that same attempt is in doubt.
    """
    event = record.event
    if event is Event.ACCEPTED and not _own_task(conn, record):
        event = Event.LOST
    _answer_attempt(conn, record, event)
    _step(conn, record, event)
    halts.after_answer(conn, record, event, max_in_doubt)
    return event


def _own_task(conn: Connection, record: AnswerRecord) -> bool:
    """Whether the task id that the answer names is this attempt's, now that it is inserted."""
    values = {"account_id": record.account_id, "task_id": record.task_id, "item_key": record.key}
    new = {"attempt": record.attempt, "accepted_at": record.at, "credits": record.credits}
    owner: tuple[str, int] = _MAKE_TASK.run(conn, values | new).fetchone()
    return owner == (record.key, record.attempt)


_MAKE_TASK: Final = Prepared(
    upsert(tasks)
    .values(every("account_id", "task_id", "item_key", "attempt", "accepted_at", "credits"))
    .values(looks=0, missing_looks=0, unusable_looks=0)
    .on_conflict_do_update(index_elements=["account_id", "task_id"], set_={"looks": tasks.c.looks})  # says whose it is
    .returning(tasks.c.item_key, tasks.c.attempt)
)


def _answer_attempt(conn: Connection, record: AnswerRecord, event: Event) -> None:
    values = {
        "_key": record.key,
        "_attempt": record.attempt,
        "_account": record.account_id,
        "answered_at": record.at,
        "outcome": event.value,
        "cause": record.cause if event is record.event else "owned_by_another",
        "http_status": record.http_status,
        "error_code": record.error_code,
        "error_message": record.error_message,
        "request_id": record.request_id,
        "credits": record.credits,
        "raw": record.raw or None,
    }
    _answer(event is Event.LOST).run(conn, values)


@cache
def _answer(lost: bool) -> Prepared:
    # The attempt's own answer may come after it was given up for lost, never after a definite one.
    known = ("accepted", "deferred", "rejected", *(["lost"] if lost else []))
    ours = attempts.alias("ours")
    last = select(func.coalesce(func.max(ours.c.answer_no), 0) + 1).where(ours.c.account_id == bindparam("_account"))
    said = ("answered_at", "outcome", "cause", "http_status", "error_code", "error_message", "request_id", "credits")
    return Prepared(
        update(attempts)
        .where(attempts.c.item_key == bindparam("_key"), attempts.c.attempt == bindparam("_attempt"))
        .where(or_(attempts.c.outcome.is_(None), not_(either(attempts.c.outcome, known))))
        .values(answer_no=last.scalar_subquery(), **every(*said, "raw"))
    )


def _step(conn: Connection, record: AnswerRecord, event: Event) -> None:
    error = {
        "error_code": record.error_code,
        "error_message": record.error_message,
        "error_request_id": record.request_id,
        "error_http_status": record.http_status,
    }
    values: Mapping[str, Any]
    if event is Event.ACCEPTED:
        values = dict.fromkeys(error) | {"task_id": record.task_id, "account_id": record.account_id, "deferrals": 0}
        values |= {"recheck_task_id": None, "recheck_run_id": None}
    elif event is Event.DEFERRED:
        values = {"not_before_at": record.not_before_at}
    else:
        values = error
    detail = record.cause
    moved = move(conn, event, record.key, record.attempt, at=record.at, run_id=record.run_id, detail=detail, **values)
    if not moved and event is Event.ACCEPTED:
        move(
            conn,
            Event.EVIDENCE,
            record.key,
            record.attempt,
            at=record.at,
            run_id=record.run_id,
            detail=detail,
            **values,
        )


def doubt_unanswered(conn: Connection, *, at: float, run_id: str) -> int:
    """Put every create that no living run owns in doubt. Only the holder of the owner's lock may call this."""
    found = conn.execute(select(items.c.key, items.c.attempt).where(items.c.state == State.SUBMITTING)).all()
    for key, attempt in found:
        conn.execute(
            update(attempts)
            .where(attempts.c.item_key == key, attempts.c.attempt == attempt, attempts.c.outcome.is_(None))
            .values(answered_at=at, outcome="lost", cause="vanished")
        )
        error = "the run that sent the create ended before its answer was recorded"
        move(conn, Event.LOST, key, attempt, at=at, run_id=run_id, detail="vanished", error_message=error)
    return len(found)


def rechecks(conn: Connection, account_id: int, wanted: Sequence[Wanted]) -> list[OpenTask]:
    """Wanted items whose task failed for lack of credits, with that old task: to be read before a new create."""
    query = (
        select(items.c.key, items.c.attempt, items.c.recheck_task_id.label("task_id"), items.c.format, items.c.model)
        .add_columns(func.length(items.c.text).label("chars"), items.c.changed_at.label("accepted_at"))
        .join(rows, rows.c.item_key == items.c.key)
        .where(of_wanted(wanted, by_item=True), items.c.state == State.PENDING, items.c.recheck_task_id.is_not(None))
        .where(items.c.account_id == account_id)
        .distinct()
    )
    return [OpenTask(account_id=account_id, **row._mapping) for row in conn.execute(query)]


def recheck_confirmed(conn: Connection, task: OpenTask, *, run_id: str) -> None:
    """The old task still failed for lack of credits and charged nothing: this run may create its item again."""
    where = (items.c.key == task.key, items.c.recheck_task_id == task.task_id)
    conn.execute(update(items).where(*where).values(recheck_run_id=run_id))


def readopt(conn: Connection, task: OpenTask, *, at: float, run_id: str, detail: str) -> bool:
    """The item's old task is not what it was taken for: it is collected instead of being created again."""
    return move(
        conn,
        Event.ADOPTED,
        task.key,
        task.attempt,
        at=at,
        run_id=run_id,
        detail=detail,
        task_id=task.task_id,
        recheck_task_id=None,
    )
