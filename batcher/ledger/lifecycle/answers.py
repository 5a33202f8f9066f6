"""Records the answer to a create request: task id first, then attempt, item and halt."""

from __future__ import annotations

import socket
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, not_, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.item import Event, State
from batcher.ledger.lifecycle import halts
from batcher.ledger.lifecycle.account import note_returned
from batcher.ledger.lifecycle.transitions import NO_ERROR, move
from batcher.ledger.records import AnswerRecord
from batcher.ledger.storage.schema import attempts, items, runs, tasks
from batcher.ledger.storage.statements import Prepared, either, every


def record_answer(conn: Connection, record: AnswerRecord, *, max_in_doubt: int) -> Event:
    """Record the answer to a create: its task id first, then the attempt, then the item's transition, then any halt.

    Recording an answer twice changes nothing. A late answer moves the item only while the same attempt is in doubt.

    Returns the recorded event: `lost` instead of `accepted` if the task id belongs to another item.
    """
    event = record.event
    if event is Event.ACCEPTED and not _insert_task(conn, record):
        event = Event.LOST
    _answer_attempt(conn, record, event)
    _move_item(conn, record, event)
    halts.after_answer(conn, record, event, max_in_doubt)
    return event


def _insert_task(conn: Connection, record: AnswerRecord) -> bool:
    """Insert the task id. Returns whether it belongs to this attempt and not to another."""
    values = {
        "account_id": record.account_id,
        "task_id": record.task_id,
        "item_key": record.key,
        "attempt": record.attempt,
        "accepted_at": record.at,
        "credits": record.credits,
        "ignored": record.ignored,
    }
    owner: tuple[str, int] = _INSERT_TASK.run(conn, values).fetchone()
    return owner == (record.key, record.attempt)


_INSERT_TASK: Final = Prepared(
    upsert(tasks)
    .values(every("account_id", "task_id", "item_key", "attempt", "accepted_at", "credits", "ignored"))
    .values(looks=0, missing_looks=0, unusable_looks=0)
    # An update that changes nothing, so that RETURNING names the owner of an existing id.
    .on_conflict_do_update(index_elements=["account_id", "task_id"], set_={"looks": tasks.c.looks})
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
    changed = _update_attempt(event is Event.LOST).run(conn, values).rowcount
    if changed and event is Event.DEFERRED:
        note_returned(conn, record.key, record.attempt)


@cache
def _update_attempt(lost: bool) -> Prepared:
    # An attempt's own answer may replace `lost`, but no later answer replaces a definite one.
    final = ("accepted", "deferred", "rejected", *(["lost"] if lost else []))
    earlier = attempts.alias("earlier")
    next_no = select(func.coalesce(func.max(earlier.c.answer_no), 0) + 1)
    next_no = next_no.where(earlier.c.account_id == bindparam("_account"))
    names = ("answered_at", "outcome", "cause", "http_status", "error_code", "error_message", "request_id", "credits")
    return Prepared(
        update(attempts)
        .where(attempts.c.item_key == bindparam("_key"), attempts.c.attempt == bindparam("_attempt"))
        .where(or_(attempts.c.outcome.is_(None), not_(either(attempts.c.outcome, final))))
        .values(every(*names, "raw") | {"answer_no": next_no.scalar_subquery()})
    )


def _move_item(conn: Connection, record: AnswerRecord, event: Event) -> None:
    values = _item_values(record, event)
    key, attempt, at, run_id, detail = record.key, record.attempt, record.at, record.run_id, record.cause
    moved = move(conn, event, key, attempt, at=at, run_id=run_id, detail=detail, values=values)
    if not moved and event is Event.ACCEPTED:
        move(conn, Event.EVIDENCE, key, attempt, at=at, run_id=run_id, detail=detail, values=values)


def _item_values(record: AnswerRecord, event: Event) -> dict[str, Any]:
    if event is Event.DEFERRED:
        return {}
    if event is Event.ACCEPTED:
        return NO_ERROR | {
            "task_id": record.task_id,
            "account_id": record.account_id,
            "deferrals": 0,
            "recheck_task_id": None,
            "recheck_run_id": None,
        }
    return {
        "error_code": record.error_code,
        "error_message": record.error_message,
        "error_request_id": record.request_id,
        "error_http_status": record.http_status,
    }


def doubt_unanswered(conn: Connection, *, at: float, run_id: str) -> int:
    """Put in doubt every create whose run has ended without recording an answer. Returns their number."""
    query = select(items.c.key, items.c.attempt, runs.c.host)
    query = query.outerjoin(runs, runs.c.id == items.c.run_id).where(items.c.state == State.SUBMITTING)
    ended = or_(runs.c.id.is_(None), runs.c.ended_at.is_not(None))
    number = 0
    for key, attempt, host in conn.execute(query.where(ended).order_by(items.c.key)).all():
        conn.execute(
            update(attempts)
            .where(attempts.c.item_key == key, attempts.c.attempt == attempt, attempts.c.outcome.is_(None))
            .values(answered_at=at, outcome="lost", cause="vanished")
        )
        where = "" if host in (None, socket.gethostname()) else f" on {host}"
        error = f"the run{where} that sent the create ended before its answer was recorded"
        values = {"error_message": error}
        number += move(conn, Event.LOST, key, attempt, at=at, run_id=run_id, detail="vanished", values=values)
    return number
