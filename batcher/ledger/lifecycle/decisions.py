"""Decisions on items that only the user makes: settle a doubt, abandon, retry, retake."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.item import Event, Inputs, State, sources
from batcher.ledger.lifecycle.transitions import NO_ERROR, add_event, move, new_item
from batcher.ledger.storage.schema import batches, items, rows, tasks


def buy_again(conn: Connection, key: str, attempt: int, *, at: float, who: str) -> bool:
    """Allow another create of an item in doubt: if it was bought, it costs twice."""
    return move(conn, Event.BUY_AGAIN, key, attempt, at=at, run_id=None, detail=f"by {who}", values=NO_ERROR)


def abandon(conn: Connection, key: str, attempt: int, *, at: float, who: str) -> bool:
    """Give up an item that is in doubt or ended badly; its cost, if it was bought, is lost."""
    return move(conn, Event.ABANDON, key, attempt, at=at, run_id=None, detail=f"by {who}")


def retry(conn: Connection, key: str, attempt: int, *, at: float, who: str) -> bool:
    """Allow another create of an item that ended badly."""
    values = NO_ERROR | {"task_id": None, "not_before_at": 0.0, "deferrals": 0}
    return move(conn, Event.RETRY, key, attempt, at=at, run_id=None, detail=f"by {who}", values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retake:
    """The `take` that a row now uses, and the `state` of its item; `is_new` if the retake added that item."""

    take: int
    state: State
    is_new: bool = False


def retake(conn: Connection, batch_id: int, row_id: str, *, at: float, who: str) -> Retake | None:
    """Switch the row to another output of the same inputs: one take above the highest that it has used.

    The take is a separate item, shared by rows with the same inputs that are retaken as well. A higher take that was
    requested and never bought is used instead of one above it. Returns None, changing nothing, if the row's item is not
    done.
    """
    old = _row(conn, batch_id, row_id)
    take = _highest(old)
    if not _is_untouched(conn, _key_of_take(old, take)):
        take += 1
    key = _key_of_take(old, take)
    if not move(conn, Event.RETAKE, old.key, old.attempt, at=at, run_id=None, detail=f"by {who}: take {take}, {key}"):
        return None
    state = _state_of(conn, key)
    if state is None:
        same = {
            name: getattr(old, name) for name in ("text_hash", "text", "voice", "model", "format", "params", "bytes")
        }
        conn.execute(insert(items).values(same | new_item(at) | {"key": key, "take": take}))
    _use_take(conn, old, key, take)
    return Retake(take=take, state=state or State.PENDING, is_new=state is None)


SWITCHABLE: Final = (State.SUBMITTED, State.RENDERED, State.DONE)
"""States of a take that a row can switch to at no cost: it is paid for, and its audio is there or will be."""


def switch_take(conn: Connection, batch_id: int, row_id: str, take: int, *, at: float, who: str) -> Retake | None:
    """Switch the row to an existing take of the same inputs, which costs nothing.

    Returns None, changing nothing, if that take does not exist or is not paid for.
    """
    old = _row(conn, batch_id, row_id)
    key = _key_of_take(old, take)
    state = _state_of(conn, key)
    if state not in SWITCHABLE:
        return None
    if key != old.key:
        add_event(conn, Event.RETAKE, key, at=at, detail=f"by {who}: row {row_id} uses take {take} again")
        _use_take(conn, old, key, take)
    return Retake(take=take, state=state)


def _row(conn: Connection, batch_id: int, row_id: str) -> Row[Any]:
    """The row's item, and the highest take that the row has used."""
    query = select(items, rows.c.batch_id, rows.c.id.label("row_id"), rows.c.highest_take)
    query = query.join(rows, rows.c.item_key == items.c.key)
    return conn.execute(query.where(rows.c.batch_id == batch_id, rows.c.id == row_id)).one()


def _highest(row: Row[Any]) -> int:
    return int(row.highest_take or 1)


def _use_take(conn: Connection, row: Row[Any], key: str, take: int) -> None:
    values = {"item_key": key, "take": take, "highest_take": max(_highest(row), take)}
    conn.execute(update(rows).where(rows.c.batch_id == row.batch_id, rows.c.id == row.row_id).values(values))
    # The row's file name may depend on its take: the next run reads the manifest again, though it is unchanged.
    conn.execute(update(batches).where(batches.c.id == row.batch_id).values(trusted=None))


def _is_untouched(conn: Connection, key: str) -> bool:
    """Whether the item exists and no create was ever sent for it."""
    untouched = (items.c.key == key, items.c.state == State.PENDING, items.c.attempt == 0)
    return conn.execute(select(items.c.key).where(*untouched)).first() is not None


def _state_of(conn: Connection, key: str) -> State | None:
    state: str | None = conn.execute(select(items.c.state).where(items.c.key == key)).scalar()
    return None if state is None else State(state)


def _key_of_take(item: Row[Any], take: int) -> str:
    params = json.loads(item.params)
    return Inputs(
        text=item.text, voice=item.voice, model=item.model, format=item.format, params=params, take=take
    ).key()


def task_owner(conn: Connection, account_id: int, task_id: str) -> str | None:
    """The key of the item that has this task; None if no item has it."""
    is_task = (tasks.c.account_id == account_id, tasks.c.task_id == task_id)
    owner: str | None = conn.execute(select(tasks.c.item_key).where(*is_task)).scalar()
    return owner


def adopt(conn: Connection, key: str, attempt: int, *, account_id: int, task_id: str, at: float, who: str) -> bool:
    """Assign the task to the item, which is then collected.

    Returns False, changing nothing, if another item has the task or the item's state does not allow it.
    """
    fits = (items.c.key == key, items.c.attempt == attempt, items.c.state.in_(sources(Event.ADOPTED)))
    if (
        task_owner(conn, account_id, task_id) not in (None, key)
        or not conn.execute(select(items.c.key).where(*fits)).first()
    ):
        return False
    new = upsert(tasks).values(
        account_id=account_id,
        task_id=task_id,
        item_key=key,
        attempt=attempt,
        accepted_at=at,
        looks=0,
        missing_looks=0,
        unusable_looks=0,
    )
    # An end recorded earlier no longer holds: the task is polled again.
    reopened = {"ended_at": None, "missing_since_at": None, "missing_looks": 0}
    conn.execute(new.on_conflict_do_update(index_elements=["account_id", "task_id"], set_=reopened))
    values = NO_ERROR | {"account_id": account_id, "task_id": task_id, "recheck_task_id": None}
    return move(conn, Event.ADOPTED, key, attempt, at=at, run_id=None, detail=f"by {who}: {task_id}", values=values)
