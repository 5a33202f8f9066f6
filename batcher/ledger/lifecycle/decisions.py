"""What only a person decides about an item: a doubt settled, another create wanted."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.item import Event, Inputs, sources
from batcher.ledger.lifecycle.transitions import move, new_item
from batcher.ledger.storage.schema import batches, items, rows, tasks
from batcher.manifest.rows import path_of_take

_NO_ERROR: dict[str, Any] = {
    "error_code": None,
    "error_message": None,
    "error_request_id": None,
    "error_http_status": None,
}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Retake:
    """The row stands for `take` now, whose item is in `state`, and `is_new` if none had asked for it before.

    Where another row has the `output` that it would have (`rival`: its id and batch), nothing has changed.
    """

    take: int
    output: str
    state: str
    is_new: bool
    rival: tuple[str, str] | None = None


def retake(conn: Connection, batch_id: int, row_id: str, *, at: float, who: str) -> Retake | None:
    """Let the row stand for another output of the same inputs, one take above its latest.

    That is an item of its own, which rows with the same inputs share as they shared the one before. Returns None,
    changing nothing, when the row's item is not done.
    """
    this = (rows.c.batch_id == batch_id, rows.c.id == row_id)
    query = select(items, rows.c.output, rows.c.take.label("row_take")).join(rows, rows.c.item_key == items.c.key)
    old = conn.execute(query.where(*this)).one()
    take = max(old.take, old.row_take) + 1
    params = json.loads(old.params)
    inputs = Inputs(text=old.text, voice=old.voice, model=old.model, format=old.format, params=params, take=take)
    key, output = inputs.key(), path_of_take(old.output, take, old.take)
    if (rival := _row_at(conn, batch_id, output)) is not None:
        return Retake(take=take, output=output, state=old.state, is_new=False, rival=rival)
    if not move(conn, Event.RETAKE, old.key, old.attempt, at=at, run_id=None, detail=f"by {who}: take {take}, {key}"):
        return None
    same = {name: getattr(old, name) for name in ("text_hash", "text", "voice", "model", "format", "params", "bytes")}
    new = upsert(items).values(**same, **new_item(at), key=key, take=take).on_conflict_do_nothing()
    is_new = conn.execute(new).rowcount == 1
    conn.execute(update(rows).where(*this).values(item_key=key, take=take, output=output))
    state = conn.execute(select(items.c.state).where(items.c.key == key)).scalar_one()
    return Retake(take=take, output=output, state=state, is_new=is_new)


def _row_at(conn: Connection, batch_id: int, output: str) -> tuple[str, str] | None:
    """The row, by its id and batch, that has the path `output` of this batch as its own, wherever its batch lies."""
    known = conn.execute(select(batches.c.id, batches.c.name, batches.c.out_dir)).all()
    path = next(PurePosixPath(batch.out_dir, output) for batch in known if batch.id == batch_id)
    for batch in known:
        there = os.path.relpath(path, batch.out_dir)
        taken = (rows.c.batch_id == batch.id, rows.c.is_current == 1, rows.c.skipped.is_(None), rows.c.output == there)
        row_id: str | None = conn.execute(select(rows.c.id).where(*taken).limit(1)).scalar()
        if row_id is not None:
            return row_id, batch.name
    return None


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
