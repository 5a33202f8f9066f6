"""Claims: records the intent before each create request. Each function runs in an open transaction (`Ledger.do`)."""

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
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from batcher.item import COLLECTABLE, Event, Inputs, State
from batcher.ledger.lifecycle import halts
from batcher.ledger.lifecycle.account import Limits, is_overdue, lock_account, note_claimed, room
from batcher.ledger.lifecycle.transitions import move
from batcher.ledger.money.spending import Budget
from batcher.ledger.queries.item_counts import few_items_in, rows_in
from batcher.ledger.records import Batch, Claimed, OpenTask
from batcher.ledger.storage.chosen import chosen, in_state, is_chosen, of_chosen, with_items
from batcher.ledger.storage.filters import is_few, of_batch, of_wanted
from batcher.ledger.storage.planner import UNLINKED
from batcher.ledger.storage.schema import attempts, batches, items, recalled, rows, runs
from batcher.ledger.storage.sharing import is_shared, take_turn
from batcher.ledger.storage.statements import Prepared, every

Cursor = tuple[int, int]
"""Position of a run's claims in the wanted batches: index of the batch, number of the last row."""


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
    limits: Limits | None = None,
    budget: Budget | None = None,
    only_chosen: bool = False,
) -> tuple[list[Claimed], Cursor]:
    """Record the intent to create up to `limit` wanted items, in the order of their rows after `cursor`; with
    `only_chosen`, items of rows in the table `chosen`.

    Checks in the same transaction that the run is alive, that no halt is open, and that the `limits` of all runs of the
    account together permit it. With a halt that this run may probe, claims at most one item until its answer is
    recorded; with a budget, one item that its batch can afford.
    """
    if budget is not None or (limits is not None and limits.max_items is not None):
        take_turn(conn, "claim")  # these limits hold for all accounts
    lock_account(conn, account_id)
    alive = _ALIVE.run(conn, {"_run": run_id}).fetchone()
    allowed = halts.allowance(conn, account_id, run_id, limit)
    allowed = room(conn, run_id, account_id, allowed, limits).creates if allowed else 0
    if alive is None or allowed == 0:
        return [], cursor
    query = _next_chosen_rows() if only_chosen else _next_rows(few_items_in(conn, State.PENDING, _SORT_UP_TO))
    found, cursor = _pending(conn, query, run_id, wanted, cursor, allowed if budget is None else 1, budget)
    claimed = [_claimed(row, prepare) for row in found]
    for item, row in zip(claimed, found, strict=True):
        intent = {
            "item_key": item.key,
            "attempt": item.attempt,
            "run_id": run_id,
            "account_id": account_id,
            "intended_at": at,
            "batch_id": row.batch_id,
        }
        _INSERT_ATTEMPT.run(conn, intent)
        claim_of = {"attempt": item.attempt, "run_id": run_id}
        move(conn, Event.CLAIM, item.key, item.attempt - 1, at=at, run_id=run_id, values=claim_of)
    if claimed:
        halts.note_probe(conn, account_id, run_id, claimed[0].key)
        note_claimed(conn, run_id, account_id, len(claimed), limits)
    return claimed, cursor


_GIVEN_UP_SECONDS: Final = 60.0
"""After this time beyond its due time, a download that has failed is taken for given up until a later run."""
_SORT_UP_TO: Final = 50
"""Fewer pending items than this are found and sorted for each claim; otherwise the rows are scanned in order."""
_ALIVE: Final = Prepared(select(runs.c.id).where(runs.c.id == bindparam("_run"), runs.c.ended_at.is_(None)))
_INSERT_ATTEMPT: Final = Prepared(
    insert(attempts).values(every("item_key", "attempt", "run_id", "account_id", "intended_at", "batch_id"))
)


def _pending(
    conn: Connection,
    query: Prepared,
    run_id: str,
    wanted: Sequence[Batch],
    cursor: Cursor,
    limit: int,
    budget: Budget | None,
) -> tuple[list[Any], Cursor]:
    found: dict[str, Any] = {}
    index, number = cursor
    while index < len(wanted) and len(found) < limit:
        if not is_current(conn, wanted[index]):
            index, number = index + 1, 0
            continue
        parameters = {
            "_batch": wanted[index].batch_id,
            "_number": number,
            "_limit": limit - len(found),
            "_run": run_id,
        }
        page = query.rows(conn, parameters)
        if budget is not None:
            page = [row for row in page if budget.affords(conn, row.batch_id, row.model, row.bytes)]
        found |= {row.key: row for row in page}
        index, number = (index, page[-1].number) if page else (index + 1, 0)
    return list(found.values()), (index, number)


def is_current(conn: Connection, batch: Batch) -> bool:
    """Whether no other run has imported another version since: its rows are for that run to check and to buy."""
    return not is_shared(conn) or _VERSION.run(conn, {"_batch": batch.batch_id}).fetchone() == (batch.version,)


_VERSION: Final = Prepared(select(batches.c.version).where(batches.c.id == bindparam("_batch")))


@cache
def _next_rows(by_item: bool) -> Prepared:
    """The claimable rows of a batch after a row number, with their items.

    Without an index on states, rows are passed until a pending one comes. Those that have their audio have none: an
    item that is done never becomes pending again.
    """
    few = (is_few(State.PENDING, _SORT_UP_TO),) if by_item else (UNLINKED.of(rows),)
    return Prepared(
        select(items, rows.c.number, rows.c.batch_id)
        .join(rows, rows.c.item_key == items.c.key)
        .where(*few)
        .where(of_batch(bindparam("_batch"), by_item=by_item), rows.c.number > bindparam("_number"))
        .where(_claimable(bindparam("_run"), by_row=not by_item))
        .order_by(rows.c.number)
        .limit(bindparam("_limit"))
        .with_for_update(of=items, skip_locked=True)
    )


@cache
def _next_chosen_rows() -> Prepared:
    """The claimable ones of the batch's chosen rows after a row number, with their items."""
    return Prepared(
        with_items(select(items, rows.c.number, rows.c.batch_id))
        .where(chosen.c.batch_id == bindparam("_batch"), chosen.c.number > bindparam("_number"))
        .where(_claimable(bindparam("_run"), by_row=True))
        .order_by(chosen.c.number)
        .limit(bindparam("_limit"))
        .with_for_update(of=items, skip_locked=True)
    )


def _claimable(run_id: str | BindParameter[str], *, by_row: bool) -> ColumnElement[bool]:
    """Pending items; those whose task failed for lack of credits only after a recheck in this run, and none that a
    results file reports as bought.

    `by_row`: the query goes from rows to their items.
    """
    rechecked = or_(items.c.recheck_task_id.is_(None), items.c.recheck_run_id == run_id)
    unknown = ~exists().where(recalled.c.item_key == items.c.key)  # another run may be about to apply it
    return and_(in_state(State.PENDING) if by_row else items.c.state == State.PENDING, rechecked, unknown)


def has_claimable(conn: Connection, run_id: str, wanted: Sequence[Batch], *, only_chosen: bool = False) -> bool:
    """Whether a wanted item is waiting to be created; with `only_chosen`, an item of a row in the table `chosen`."""
    wanted = [batch for batch in wanted if is_current(conn, batch)]
    query = select(items.c.key)
    if only_chosen:
        query = with_items(query).where(of_chosen(wanted))
    else:
        query = query.join(rows, rows.c.item_key == items.c.key)
        query = query.where(rows_in(conn, wanted, State.PENDING))
    return conn.execute(query.where(_claimable(run_id, by_row=only_chosen)).limit(1)).first() is not None


def held_by_others(
    conn: Connection, run_id: str, wanted: Sequence[Batch], *, at: float, only_chosen: bool = False
) -> bool:
    """Whether other runs have wanted items that they are about to finish or to return.

    Not those with an overdue task, and not those whose download has failed and has not been tried again in time: two
    runs that have given up would wait for each other.
    """
    if not is_shared(conn):
        return False
    given_up = and_(
        items.c.state == State.RENDERED,
        items.c.not_before_at > 0,
        items.c.not_before_at < at - _GIVEN_UP_SECONDS,
    )
    used = exists().where(rows.c.item_key == items.c.key, of_wanted(wanted, by_item=True))
    used = used.where(is_chosen) if only_chosen else used
    query = select(items.c.key).join(runs, runs.c.id == items.c.run_id).where(used)
    query = query.where(items.c.state.in_((State.SUBMITTING, *COLLECTABLE)), ~given_up, ~is_overdue)
    return conn.execute(query.where(runs.c.ended_at.is_(None), runs.c.id != run_id).limit(1)).first() is not None


def _claimed(row: Any, prepare: Callable[[Inputs], bytes]) -> Claimed:
    return Claimed(
        key=row.key,
        attempt=row.attempt + 1,
        format=row.format,
        chars=len(row.text),
        model=row.model,
        body=prepare(_inputs(row)),
    )


def _inputs(row: Any) -> Inputs:
    params: dict[str, Any] = json.loads(row.params)
    return Inputs(text=row.text, voice=row.voice, model=row.model, format=row.format, params=params, take=row.take)


def rechecks(conn: Connection, account_id: int, wanted: Sequence[Batch]) -> list[OpenTask]:
    """Tasks of wanted items that failed for lack of credits: each is read again before a new create."""
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
    """The old task is still unfunded and charged nothing: this run may create its item again."""
    same_task = (items.c.key == task.key, items.c.recheck_task_id == task.task_id)
    conn.execute(update(items).where(*same_task).values(recheck_run_id=run_id))


def readopt(conn: Connection, task: OpenTask, *, at: float, run_id: str, detail: str) -> bool:
    """The item's old task is not unfunded after all: collect it instead of creating the item again."""
    return move(
        conn,
        Event.ADOPTED,
        task.key,
        task.attempt,
        at=at,
        run_id=run_id,
        detail=detail,
        values={"task_id": task.task_id, "recheck_task_id": None, "run_id": run_id},
    )
