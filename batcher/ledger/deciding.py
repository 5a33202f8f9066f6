"""What only a person decides about an item: a doubt settled, another create wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, select
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.item import Event, sources
from batcher.ledger.machine import move
from batcher.ledger.schema import accounts, attempts, items, tasks

_NO_ERROR: dict[str, Any] = {
    "error_code": None,
    "error_message": None,
    "error_request_id": None,
    "error_http_status": None,
}


def evidence(conn: Connection, keys: Sequence[str]) -> list[Row[Any]]:
    """Each item with its latest attempt: when it was sent, by which account, what came back."""
    query = (
        select(items.c.key, items.c.state, items.c.attempt, items.c.voice, items.c.text, items.c.account_id)
        .add_columns(items.c.task_id, attempts.c.intended_at, attempts.c.answered_at, attempts.c.cause)
        .add_columns(attempts.c.http_status, attempts.c.error_code, attempts.c.error_message, attempts.c.request_id)
        .add_columns(attempts.c.raw, attempts.c.account_id.label("attempt_account_id"))
        .add_columns(accounts.c.origin, accounts.c.user_id)
        .outerjoin(attempts, and_(attempts.c.item_key == items.c.key, attempts.c.attempt == items.c.attempt))
        .outerjoin(accounts, accounts.c.id == attempts.c.account_id)
    )
    found = (conn.execute(query.where(items.c.key == key)).one() for key in keys)
    return list(found)


def buy_again(conn: Connection, key: str, attempt: int, *, at: float, who: str) -> bool:
    """The item may be created again although it may have been bought: it may cost twice."""
    return move(conn, Event.BUY_AGAIN, key, attempt, at=at, run_id=None, detail=f"by {who}", **_NO_ERROR)


def abandon(conn: Connection, key: str, attempt: int, *, at: float, who: str) -> bool:
    """The item is given up; what it may have cost is lost."""
    return move(conn, Event.ABANDON, key, attempt, at=at, run_id=None, detail=f"by {who}")


def retry(conn: Connection, key: str, attempt: int, *, at: float, who: str) -> bool:
    """The item may be created again."""
    values = _NO_ERROR | {"task_id": None, "not_before_at": 0.0, "deferrals": 0}
    return move(conn, Event.RETRY, key, attempt, at=at, run_id=None, detail=f"by {who}", **values)


def task_owner(conn: Connection, account_id: int, task_id: str) -> str | None:
    """The key of the item that has this task, or None."""
    same = (tasks.c.account_id == account_id, tasks.c.task_id == task_id)
    owner: str | None = conn.execute(select(tasks.c.item_key).where(*same)).scalar()
    return owner


def adopt(conn: Connection, key: str, attempt: int, *, account_id: int, task_id: str, at: float, who: str) -> bool:
    """The task is the item's: it is collected from now on.

    Returns False, changing nothing, when another item has it or the item's state does not allow it.
    """
    fits = (items.c.key == key, items.c.attempt == attempt, items.c.state.in_(sources(Event.ADOPTED)))
    if (
        task_owner(conn, account_id, task_id) not in (None, key)
        or not conn.execute(select(items.c.key).where(*fits)).first()
    ):
        return False
    values = {"account_id": account_id, "task_id": task_id, "item_key": key, "attempt": attempt, "accepted_at": at}
    counters = {"looks": 0, "missing_looks": 0, "unusable_looks": 0}
    # What was recorded of an earlier end no longer holds: the task is looked at anew.
    anew = {"ended_at": None, "missing_since_at": None, "missing_looks": 0}
    conn.execute(
        upsert(tasks)
        .values(**values, **counters)
        .on_conflict_do_update(index_elements=["account_id", "task_id"], set_=anew)
    )
    new = _NO_ERROR | {"account_id": account_id, "task_id": task_id, "recheck_task_id": None}
    return move(conn, Event.ADOPTED, key, attempt, at=at, run_id=None, detail=f"by {who}: {task_id}", **new)
