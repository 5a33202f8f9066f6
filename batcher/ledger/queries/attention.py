"""What needs attention: rows whose items no run can finish, and tasks that belong to another account."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select

from batcher.item import COLLECTABLE, State
from batcher.ledger.queries.item_counts import few_items_in
from batcher.ledger.records import Batch
from batcher.ledger.storage import cached_facts
from batcher.ledger.storage.chosen import in_state, of_chosen, with_items
from batcher.ledger.storage.filters import numbers_of, of_wanted
from batcher.ledger.storage.planner import with_index
from batcher.ledger.storage.schema import accounts, items, rows


def foreign_tasks(conn: Connection, wanted: Sequence[Batch], account_id: int | None) -> dict[str, int]:
    """Number of open tasks of wanted rows in each other account, by the account's name."""
    name = accounts.c.user_id + " at " + accounts.c.origin
    query = (
        select(name, func.count(items.c.key.distinct()))
        .join(items, items.c.account_id == accounts.c.id)
        .join(rows, rows.c.item_key == items.c.key)
        .where(of_wanted(wanted, by_item=True), accounts.c.id.is_distinct_from(account_id))
        .group_by(name)
    )
    found: dict[str, int] = {}
    # Two queries instead of one with OR: each has an index.
    rechecked = and_(items.c.recheck_task_id.is_not(None), with_index(items.c.account_id))
    for condition in (items.c.state.in_(COLLECTABLE), rechecked):
        for account, number in conn.execute(query.where(condition)):
            found[account] = found.get(account, 0) + number
    return found


def needing_attention(
    conn: Connection, wanted: Sequence[Batch], state: State, limit: int, *, only_chosen: bool = False
) -> list[list[str]]:
    """Id and error of the first `limit` rows whose item is in `state`, in manifest order; with `only_chosen`, of those
    in the table `chosen`."""
    query = select(rows.c.id, func.coalesce(items.c.error_code, items.c.error_message, items.c.state))
    query = query.order_by(rows.c.batch_id, rows.c.number).limit(limit)
    if only_chosen:
        return [list(row) for row in conn.execute(with_items(query).where(of_chosen(wanted), in_state(state)))]
    query = query.join(items, items.c.key == rows.c.item_key).where(
        of_wanted(wanted, by_item=few_items_in(conn, state)), items.c.state == state
    )
    name = f"first {limit} {state} {numbers_of(wanted)}"
    found: list[list[str]] = cached_facts.get_or_compute(
        conn, name, "rows", lambda: [list(row) for row in conn.execute(query)]
    )
    return found


def undelivered(
    conn: Connection, wanted: Sequence[Batch], limit: int, *, only_chosen: bool = False
) -> tuple[int, list[list[str]]]:
    """Number of items whose audio could not be downloaded so far, and id and reason of the first `limit` rows; with
    `only_chosen`, of those in the table `chosen`."""

    def over(*columns: ColumnElement[Any]) -> Select[Any]:
        query = select(*columns).where(items.c.error_message.is_not(None))
        if only_chosen:
            return with_items(query).where(of_chosen(wanted), in_state(State.RENDERED))
        of_batches = of_wanted(wanted, by_item=few_items_in(conn, State.RENDERED))
        joined = query.select_from(rows).join(items, items.c.key == rows.c.item_key)
        return joined.where(of_batches, items.c.state == State.RENDERED)

    number = conn.execute(over(func.count(items.c.key.distinct()))).scalar() or 0
    first = over(rows.c.id, items.c.error_message).order_by(rows.c.batch_id, rows.c.number).limit(limit)
    return number, [list(row) for row in conn.execute(first)]
