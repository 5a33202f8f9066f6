"""The rows to which a run or a plan is limited: a temporary table, which ends with the connection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Integer, MetaData, Select, Table, and_, exists, false, func

from batcher.item import State
from batcher.ledger.records import Batch
from batcher.ledger.storage.planner import without_index
from batcher.ledger.storage.schema import items, rows
from batcher.ledger.storage.statements import execute

chosen: Final = Table(
    "chosen",
    MetaData(),
    Column("batch_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    prefixes=["TEMPORARY"],
    sqlite_with_rowid=False,
)
"""Numbers of rows. A row keeps its number for as long as its batch is not imported again."""

row_chosen: Final = and_(
    rows.c.batch_id == without_index(chosen.c.batch_id),
    rows.c.is_current == 1,
    rows.c.number == without_index(chosen.c.number),
)
"""Joins the table with the rows. SQLite goes from the few that are chosen to their rows, never through all rows."""
is_chosen: Final = exists().where(chosen.c.batch_id == rows.c.batch_id, chosen.c.number == rows.c.number)
"""Whether one of few rows is chosen."""


def with_items(query: Select[Any]) -> Select[Any]:
    """The query over chosen rows and their items."""
    return query.select_from(chosen).join(rows, row_chosen).join(items, items.c.key == rows.c.item_key)


def of_chosen(wanted: Sequence[Batch]) -> ColumnElement[bool]:
    """The chosen rows of these batches, for queries that join `row_chosen`."""
    return without_index(chosen.c.batch_id).in_([batch.batch_id for batch in wanted])


def in_state(state: State) -> ColumnElement[bool]:
    """Items in this state, for queries that go from rows to their items, not from all items in the state.

    No index has the expression, and PostgreSQL takes it to hold for half of the items.
    """
    return func.coalesce(items.c.state == state, false())


def choose(conn: Connection, found: Iterable[tuple[int, int]]) -> None:
    """Choose these rows, by batch and number, and no others."""
    chosen.drop(conn, checkfirst=True)
    chosen.create(conn)
    for row in found:
        execute(conn, "INSERT OR IGNORE INTO chosen VALUES (?, ?)", row)
