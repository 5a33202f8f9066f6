"""Finds items and rows by the names that people use: row ids and beginnings of keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, or_, select

from batcher.errors import UsageError
from batcher.item import State
from batcher.ledger.records import Batch
from batcher.ledger.storage.filters import of_wanted
from batcher.ledger.storage.schema import batches, items, rows
from batcher.ledger.storage.statements import Prepared

_MIN_KEY_DIGITS: Final = 8
"""A shorter name is only looked up as a row id."""


def ids_of(conn: Connection, wanted: Sequence[Batch], keys: Sequence[str]) -> list[str]:
    """The ids of the rows whose items have these keys, in manifest order."""
    query = select(rows.c.id).join(batches, batches.c.id == rows.c.batch_id)
    query = query.where(of_wanted(wanted), rows.c.item_key.in_(keys)).order_by(rows.c.batch_id, rows.c.number)
    return list(conn.execute(query).scalars())


def rows_of_items(conn: Connection, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By key: the ids of the item's current rows, and the batch of the first of them. Items without rows are left out.

    Reads a few rows for each key, and no others.
    """
    found: dict[str, dict[str, Any]] = {}
    for key in keys:
        for batch, row_id in _ROWS_OF_ITEM.run(conn, {"_key": key}).fetchall():
            found.setdefault(key, {"batch": batch, "ids": []})["ids"].append(row_id)
    return found


_ROWS_OF_ITEM: Final = Prepared(
    select(batches.c.name, rows.c.id)
    .join(batches, batches.c.id == rows.c.batch_id)
    .where(rows.c.item_key == bindparam("_key"), rows.c.is_current == 1)
    .order_by(rows.c.batch_id, rows.c.number)
)


def find_keys(
    conn: Connection, names: Sequence[str], *, states: Sequence[State] = (), batch: str | None = None
) -> list[str]:
    """The keys of the named items, in manifest order; of all items if there are no names.

    A name is a row's id, or the first 8 digits or more of a key. `states` and `batch` restrict the result.

    Raises:
        UsageError: a name matches nothing in the ledger.
    """
    query = _by_names(conn, [items.c.key], names)
    if states:
        query = query.where(items.c.state.in_(states))
    if batch is not None:
        query = query.where(batches.c.name == batch)
    return list(dict.fromkeys(conn.execute(query).scalars()))


def find_rows(conn: Connection, names: Sequence[str], *, batch: str | None = None) -> list[tuple[int, str, str]]:
    """The named rows of current manifests, with names as in `find_keys`: batch number, batch name, row id.

    Raises:
        UsageError: a name matches nothing in the ledger, or no row of the batch.
    """
    need_rows(conn, names, batch=batch)
    query = _by_names(conn, [batches.c.id, batches.c.name, rows.c.id], names).where(batches.c.id.is_not(None))
    if batch is not None:
        query = query.where(batches.c.name == batch)
    return [(row[0], row[1], row[2]) for row in conn.execute(query)]


def need_rows(conn: Connection, names: Sequence[str], *, batch: str | None) -> None:
    """Check that each name, as in `find_keys`, matches a row of the batch (of any batch) in its current version.

    Raises:
        UsageError: a name matches no row.
    """
    of_batch = batches.c.id.is_not(None) if batch is None else batches.c.name == batch
    for name in names:
        if conn.execute(_by_names(conn, [batches.c.id], [name]).where(of_batch).limit(1)).first() is None:
            where = "the current manifests" if batch is None else f"the current version of batch {batch}"
            raise UsageError(f"no row {name!r} in {where}; nothing was changed", "`batcher show` lists items and rows.")


def row_with(conn: Connection, batch: str, row_id: str, key: str) -> int | None:
    """The number of the batch if its row `row_id` still has the item whose key begins with `key`; otherwise None."""
    current = and_(batches.c.id == rows.c.batch_id, rows.c.is_current == 1)
    matches = (batches.c.name == batch, rows.c.id == row_id, rows.c.item_key.startswith(key, autoescape=True))
    return conn.execute(select(batches.c.id).join(rows, current).where(*matches)).scalar()


def _by_names(conn: Connection, columns: Sequence[ColumnElement[Any]], names: Sequence[str]) -> Select[Any]:
    current = and_(batches.c.id == rows.c.batch_id, rows.c.is_current == 1)
    query = select(*columns).select_from(items).outerjoin(rows, rows.c.item_key == items.c.key)
    query = query.outerjoin(batches, current)
    query = query.order_by(rows.c.batch_id.nulls_first(), rows.c.number.nulls_first())  # as SQLite does by itself
    for name in names:
        if conn.execute(query.where(_has_name(name)).limit(1)).first() is None:
            raise UsageError(f"no item matches {name!r}", "Pass a row's ID, or at least 8 digits of an item's key.")
    return query.where(or_(*map(_has_name, names))) if names else query


def _has_name(name: str) -> ColumnElement[bool]:
    by_row = and_(rows.c.id == name, batches.c.id.is_not(None))
    by_key = items.c.key.startswith(name.lower(), autoescape=True)
    return or_(by_row, by_key) if len(name) >= _MIN_KEY_DIGITS else by_row
