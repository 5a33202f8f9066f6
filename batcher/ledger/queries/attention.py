"""What needs attention: rows whose items no run can finish, and tasks that belong to another account."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select

from batcher.item import COLLECTABLE, State
from batcher.ledger.queries.item_counts import rows_in
from batcher.ledger.records import Batch
from batcher.ledger.storage import cached_facts
from batcher.ledger.storage.chosen import in_state, of_chosen, with_items
from batcher.ledger.storage.filters import IS_FREE, numbers_of, of_wanted
from batcher.ledger.storage.planner import with_index
from batcher.ledger.storage.schema import accounts, items, rows


def foreign_tasks(conn: Connection, wanted: Sequence[Batch], account_id: int | None) -> dict[str, int]:
    """Number of open tasks of wanted rows in each other account that no run collects, by the account's name."""
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
    for condition in (and_(items.c.state.in_(COLLECTABLE), IS_FREE), rechecked):
        for account, number in conn.execute(query.where(condition)):
            found[account] = found.get(account, 0) + number
    return found


def needing_attention(
    conn: Connection, wanted: Sequence[Batch], state: State, limit: int, *, only_chosen: bool = False
) -> list[list[Any]]:
    """The first `limit` items in `state`, in manifest order: the ids of their rows, and their error; with
    `only_chosen`, those of rows in the table `chosen`."""
    query = select(items.c.key, func.coalesce(items.c.error_code, items.c.error_message, items.c.state))
    query = query.order_by(rows.c.batch_id, rows.c.number)
    if only_chosen:
        return _first_items(conn, wanted, with_items(query).where(of_chosen(wanted), in_state(state)), limit)
    query = query.select_from(rows).join(items, items.c.key == rows.c.item_key).where(rows_in(conn, wanted, state))
    name = f"first {limit} items {state} {numbers_of(wanted)}"
    found: list[list[Any]] = cached_facts.get_or_compute(
        conn, name, "rows", lambda: _first_items(conn, wanted, query, limit)
    )
    return found


def _first_items(conn: Connection, wanted: Sequence[Batch], query: Select[Any], limit: int) -> list[list[Any]]:
    """The first items of a query that returns key and error of each row: the ids of their rows, and the error."""
    errors: dict[str, str] = {}
    with conn.execute(query) as found:
        for key, error in found:
            errors.setdefault(key, error)
            if len(errors) == limit:
                break
    ids: dict[str, list[str]] = {key: [] for key in errors}
    of_items = select(rows.c.item_key, rows.c.id).where(of_wanted(wanted, by_item=True), rows.c.item_key.in_(errors))
    for key, row_id in conn.execute(of_items.order_by(rows.c.batch_id, rows.c.number)):
        ids[key].append(row_id)
    return [[ids[key], error] for key, error in errors.items()]


def undelivered(
    conn: Connection, wanted: Sequence[Batch], limit: int, *, only_chosen: bool = False
) -> tuple[int, list[list[Any]]]:
    """Number of items whose audio could not be downloaded so far, and of the first `limit` the ids of their rows and
    the reason; with `only_chosen`, of those of rows in the table `chosen`."""

    def over(*columns: ColumnElement[Any]) -> Select[Any]:
        query = select(*columns).where(items.c.error_message.is_not(None))
        if only_chosen:
            return with_items(query).where(of_chosen(wanted), in_state(State.RENDERED))
        joined = query.select_from(rows).join(items, items.c.key == rows.c.item_key)
        return joined.where(rows_in(conn, wanted, State.RENDERED))

    number = conn.execute(over(func.count(items.c.key.distinct()))).scalar() or 0
    first = over(items.c.key, items.c.error_message).order_by(rows.c.batch_id, rows.c.number)
    return number, _first_items(conn, wanted, first, limit)
