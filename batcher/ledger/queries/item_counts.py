"""What the ledger can tell of rows and items: counts, outputs, results, and which a name names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, bindparam, case, func, select

from batcher.item import COLLECTABLE, State
from batcher.ledger.records import Batch
from batcher.ledger.storage import cached_facts
from batcher.ledger.storage.filters import numbers_of, of_wanted
from batcher.ledger.storage.planner import with_index
from batcher.ledger.storage.schema import accounts, batches, events, items, rows
from batcher.ledger.storage.statements import Prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Rows and items of some batches: `states` has every state; `invalid` and `empty` count rows that were skipped."""

    rows: int
    items: int
    states: dict[str, int]
    invalid: int
    empty: int


def current_batches(conn: Connection) -> list[Batch]:
    """Every batch of the ledger, as it reads now."""
    found = conn.execute(select(batches).order_by(batches.c.id))
    return [Batch(batch_id=row.id, name=row.name, version=row.version, out_dir=row.out_dir) for row in found]


def count(conn: Connection, wanted: Sequence[Batch]) -> Counts:
    """Count the rows of `wanted`, and the items that they stand for, by state."""
    states = dict.fromkeys(map(str, State), 0)
    for line in cached_facts.items_by_state(conn, wanted):
        states[line["state"]] += line["number"]
    name = f"rows {numbers_of(wanted)}"
    numbers = cached_facts.get_or_compute(conn, name, "manifests", lambda: _count_rows(conn, wanted))
    return Counts(**numbers, items=sum(states.values()), states=states)


def _count_rows(conn: Connection, wanted: Sequence[Batch]) -> dict[str, int]:
    invalid, empty = (func.count(case((rows.c.skipped == word, 1))).label(word) for word in ("invalid", "empty"))
    total = select(func.count().label("rows"), invalid, empty).select_from(rows).where(of_wanted(wanted))
    return dict(conn.execute(total).one()._mapping)


def collectable(conn: Connection) -> int:
    """How many items of the ledger have a task that is still to be collected."""
    return conn.execute(select(func.count()).where(items.c.state.in_(COLLECTABLE))).scalar_one()


def are_few(conn: Connection, state: State, few: int = 500) -> bool:
    """Whether it is better to go from the items in `state` to their rows, and to sort those, than from row to row."""
    such: int = _SUCH.run(conn, {"_state": state, "_few": few}).fetchone()[0]
    return such < few


_such = select(items.c.key).where(items.c.state == bindparam("_state")).limit(bindparam("_few")).subquery()
_SUCH: Final = Prepared(select(func.count()).select_from(_such))


def foreign_tasks(conn: Connection, wanted: Sequence[Batch], account_id: int | None) -> dict[str, int]:
    """Open tasks of wanted rows that belong to another account: how many, by that account's name."""
    name = accounts.c.user_id + " at " + accounts.c.origin
    query = (
        select(name, func.count(items.c.key.distinct()))
        .join(items, items.c.account_id == accounts.c.id)
        .join(rows, rows.c.item_key == items.c.key)
        .where(of_wanted(wanted, by_item=True), accounts.c.id.is_distinct_from(account_id))
        .group_by(name)
    )
    found: dict[str, int] = {}
    # Two questions rather than one with an "or" between them: each has an index.
    rechecked = and_(items.c.recheck_task_id.is_not(None), with_index(items.c.account_id))
    for open_ in (items.c.state.in_(COLLECTABLE), rechecked):
        for who, number in conn.execute(query.where(open_)):
            found[who] = found.get(who, 0) + number
    return found


def needing_person(conn: Connection, wanted: Sequence[Batch], state: State, limit: int) -> list[list[str]]:
    """The first rows whose item is in `state`: the id, and what the error is called."""
    query = (
        select(rows.c.id, func.coalesce(items.c.error_code, items.c.error_message, items.c.state))
        .join(items, items.c.key == rows.c.item_key)
        .where(of_wanted(wanted, by_item=are_few(conn, state)), items.c.state == state)
        .order_by(rows.c.batch_id, rows.c.number)
        .limit(limit)
    )
    name = f"first {limit} {state} {numbers_of(wanted)}"
    found: list[list[str]] = cached_facts.get_or_compute(
        conn, name, "rows", lambda: [list(row) for row in conn.execute(query)]
    )
    return found


def new_in_run(conn: Connection, run_id: str, state: State) -> int:
    """How many items came into `state` during the run."""
    query = select(func.count(events.c.item_key.distinct())).where(events.c.run_id == run_id, events.c.state == state)
    return conn.execute(query).scalar_one()
