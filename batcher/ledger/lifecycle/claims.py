"""From pending to submitted: the verbs around a create, each a function of an open transaction (see `Ledger.do`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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
    or_,
    select,
    update,
)

from batcher.item import Event, Inputs, State
from batcher.ledger.lifecycle import halts
from batcher.ledger.lifecycle.transitions import move
from batcher.ledger.money.spending import Budget
from batcher.ledger.queries.item_counts import are_few
from batcher.ledger.records import Batch, Claimed, OpenTask
from batcher.ledger.storage.filters import of_batch, of_wanted
from batcher.ledger.storage.schema import attempts, items, rows, runs
from batcher.ledger.storage.statements import Prepared, every

Cursor = tuple[int, int]
"""Where in the wanted batches a run's claiming stands: index of the batch, number of the last row."""


def claim(
    conn: Connection,
    prepare: Callable[[Inputs], bytes],
    *,
    run_id: str,
    account_id: int,
    wanted: Sequence[Batch],
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
    wanted: Sequence[Batch],
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


def next_due_at(conn: Connection, run_id: str, wanted: Sequence[Batch]) -> float | None:
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


def rechecks(conn: Connection, account_id: int, wanted: Sequence[Batch]) -> list[OpenTask]:
    """Batch items whose task failed for lack of credits, with that old task: to be read before a new create."""
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
