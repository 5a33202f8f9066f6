"""Verbs that record the answer to a create: task id first, then attempt, item and halt."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    Connection,
    bindparam,
    func,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.item import Event, State
from batcher.ledger.lifecycle import halts
from batcher.ledger.lifecycle.transitions import move
from batcher.ledger.records import AnswerRecord
from batcher.ledger.storage.schema import attempts, items, tasks
from batcher.ledger.storage.statements import Prepared, either, every


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
