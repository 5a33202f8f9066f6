"""Decisions on items that only the user makes: settle a doubt, retry, retake."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import Connection, Row, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.item import Event, Inputs, sources
from batcher.ledger.lifecycle.transitions import NO_ERROR, move, new_item
from batcher.ledger.storage.schema import batches, items, rows, tasks
from batcher.manifest.outputs import path_of_take


def buy_again(conn: Connection, key: str, attempt: int, *, at: float, who: str) -> bool:
    """Allow another create of an item in doubt: if it was bought, it costs twice."""
    return move(conn, Event.BUY_AGAIN, key, attempt, at=at, run_id=None, detail=f"by {who}", values=NO_ERROR)


def abandon(conn: Connection, key: str, attempt: int, *, at: float, who: str) -> bool:
    """Give up an item in doubt; its cost, if it was bought, is lost."""
    return move(conn, Event.ABANDON, key, attempt, at=at, run_id=None, detail=f"by {who}")


def retry(conn: Connection, key: str, attempt: int, *, at: float, who: str) -> bool:
    """Allow another create of an item that ended badly."""
    values = NO_ERROR | {"task_id": None, "not_before_at": 0.0, "deferrals": 0}
    return move(conn, Event.RETRY, key, attempt, at=at, run_id=None, detail=f"by {who}", values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retake:
    """The row's new `take` and `output`, and the `state` of its item; `is_new` if the retake added that item.

    If another row has that output already (`rival`: its id and batch), nothing has changed.
    """

    take: int
    output: str
    state: str
    is_new: bool
    rival: tuple[str, str] | None = None


def retake(conn: Connection, batch_id: int, row_id: str, *, at: float, who: str) -> Retake | None:
    """Switch the row to another output of the same inputs, one take above its latest.

    The take is a separate item, shared by rows with the same inputs that are retaken as well. Returns None, changing
    nothing, if the row's item is not done.
    """
    is_row = (rows.c.batch_id == batch_id, rows.c.id == row_id)
    query = select(items, rows.c.output, rows.c.take.label("row_take")).join(rows, rows.c.item_key == items.c.key)
    old = conn.execute(query.where(*is_row)).one()
    take = max(old.take, old.row_take) + 1
    key, output = _key_of_take(old, take), path_of_take(old.output, take, old.take)
    if (rival := _row_at(conn, batch_id, output)) is not None:
        return Retake(take=take, output=output, state=old.state, is_new=False, rival=rival)
    if not move(conn, Event.RETAKE, old.key, old.attempt, at=at, run_id=None, detail=f"by {who}: take {take}, {key}"):
        return None
    same = {name: getattr(old, name) for name in ("text_hash", "text", "voice", "model", "format", "params", "bytes")}
    new = upsert(items).values(same | new_item(at) | {"key": key, "take": take}).on_conflict_do_nothing()
    is_new = conn.execute(new).rowcount == 1
    conn.execute(update(rows).where(*is_row).values(item_key=key, take=take, output=output))
    state = conn.execute(select(items.c.state).where(items.c.key == key)).scalar_one()
    return Retake(take=take, output=output, state=state, is_new=is_new)


def _key_of_take(item: Row[Any], take: int) -> str:
    params = json.loads(item.params)
    return Inputs(
        text=item.text, voice=item.voice, model=item.model, format=item.format, params=params, take=take
    ).key()


def _row_at(conn: Connection, batch_id: int, output: str) -> tuple[str, str] | None:
    """Id and batch name of the row, in any batch, whose output is this batch's path `output`; None if it is free."""
    known = conn.execute(select(batches.c.id, batches.c.name, batches.c.out_dir)).all()
    path = next(PurePosixPath(batch.out_dir, output) for batch in known if batch.id == batch_id)
    for batch in known:
        in_batch = os.path.relpath(path, batch.out_dir)
        of_batch = (rows.c.batch_id == batch.id, rows.c.is_current == 1, rows.c.skipped.is_(None))
        query = select(rows.c.id).where(*of_batch, rows.c.output == in_batch)
        row_id: str | None = conn.execute(query.limit(1)).scalar()
        if row_id is not None:
            return row_id, batch.name
    return None


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
