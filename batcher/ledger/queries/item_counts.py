"""Counts of rows and items by state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, func, select

from batcher.item import COLLECTABLE, State
from batcher.ledger.records import Batch
from batcher.ledger.storage import cached_facts
from batcher.ledger.storage.chosen import chosen, of_chosen, row_chosen, with_items
from batcher.ledger.storage.filters import is_few, numbers_of, of_wanted
from batcher.ledger.storage.schema import events, items, rows
from batcher.ledger.storage.statements import Prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Rows and items of some batches. `states` has an entry for every state; `invalid` and `empty` rows are skipped."""

    rows: int
    items: int
    states: dict[str, int]
    invalid: int
    empty: int


def count(conn: Connection, wanted: Sequence[Batch]) -> Counts:
    """Count the rows of `wanted`, and their items by state."""
    states = dict.fromkeys(map(str, State), 0)
    for line in cached_facts.items_by_state(conn, wanted):
        states[line["state"]] += line["number"]
    name = f"rows {numbers_of(wanted)}"
    numbers = cached_facts.get_or_compute(conn, name, "manifests", lambda: _count_rows(conn, wanted))
    return Counts(
        rows=numbers["rows"],
        items=sum(states.values()),
        states=states,
        invalid=numbers["invalid"],
        empty=numbers["empty"],
    )


def count_chosen(conn: Connection, wanted: Sequence[Batch]) -> Counts:
    """Count the rows of `wanted` in the table `chosen`, and their items by state."""
    of_rows = of_chosen(wanted)
    by_state = with_items(select(items.c.state, func.count(items.c.key.distinct())))
    by_state = by_state.where(of_rows).group_by(items.c.state)
    states = dict.fromkeys(map(str, State), 0) | {row[0]: row[1] for row in conn.execute(by_state)}
    numbers = conn.execute(select(*_NUMBERS).select_from(chosen).join(rows, row_chosen).where(of_rows)).one()
    return Counts(items=sum(states.values()), states=states, **numbers._mapping)


def _count_rows(conn: Connection, wanted: Sequence[Batch]) -> dict[str, int]:
    total = select(*_NUMBERS).select_from(rows).where(of_wanted(wanted))
    return dict(conn.execute(total).one()._mapping)


def collectable(conn: Connection) -> int:
    """Number of items in the ledger whose task or audio is still to be collected."""
    return conn.execute(select(func.count()).where(items.c.state.in_(COLLECTABLE))).scalar_one()


def new_in_run(conn: Connection, run_id: str, state: State) -> int:
    """Number of items that entered `state` during the run."""
    query = select(func.count(events.c.item_key.distinct())).where(events.c.run_id == run_id, events.c.state == state)
    return conn.execute(query).scalar_one()


def rows_in(conn: Connection, wanted: Sequence[Batch], state: State) -> ColumnElement[bool]:
    """The current rows of these batches whose items are in `state`, for queries that join the two."""
    in_state = items.c.state == state
    if few_items_in(conn, state, _FEW):
        return and_(of_wanted(wanted, by_item=True), in_state, is_few(state, _FEW))
    return and_(of_wanted(wanted), in_state)


def few_items_in(conn: Connection, state: State, limit: int) -> bool:
    """Whether fewer than `limit` items are in `state`.

    If so, going from these items to their rows and sorting them (`by_item`) is faster than scanning all rows.
    """
    number: int = _COUNT_UP_TO.run(conn, {"_state": state, "_limit": limit}).fetchone()[0]
    return number < limit


_FEW: Final = 500
"""Rows of fewer items than this are searched from the items."""
_NUMBERS: Final = (
    func.count().label("rows"),
    *(func.count(case((rows.c.skipped == word, 1))).label(word) for word in ("invalid", "empty")),
)
_in_state = select(items.c.key).where(items.c.state == bindparam("_state")).limit(bindparam("_limit")).subquery()
_COUNT_UP_TO: Final = Prepared(select(func.count()).select_from(_in_state))
