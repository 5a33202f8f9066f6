"""Finds items and rows by the names that people give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, or_, select

from batcher.errors import UsageError
from batcher.item import State
from batcher.ledger.records import Batch
from batcher.ledger.storage.filters import of_wanted
from batcher.ledger.storage.schema import batches, items, rows


def ids_of(conn: Connection, wanted: Sequence[Batch], keys: Sequence[str]) -> list[str]:
    """The ids of the rows whose items have these keys, in manifest order."""
    query = select(rows.c.id).join(batches, batches.c.id == rows.c.batch_id)
    query = query.where(of_wanted(wanted), rows.c.item_key.in_(keys)).order_by(rows.c.batch_id, rows.c.number)
    return list(conn.execute(query).scalars())


def find_keys(
    conn: Connection, names: Sequence[str], *, states: Sequence[State] = (), batch: str | None = None
) -> list[str]:
    """The keys of the items that `names` name, in manifest order; no names mean all.

    A name is a row's id, or the beginning of a key (8 digits or more). `states` and `batch` leave only theirs.

    Raises:
        UsageError: a name names nothing in the ledger.
    """
    query = _by_names(conn, [items.c.key], names)
    if states:
        query = query.where(items.c.state.in_(states))
    if batch is not None:
        query = query.where(batches.c.name == batch)
    return list(dict.fromkeys(conn.execute(query).scalars()))


def find_rows(conn: Connection, names: Sequence[str], *, batch: str | None = None) -> list[tuple[int, str, str]]:
    """The rows, as their manifests read now, that `names` name as in `find_keys`: batch number, batch name, id.

    Raises:
        UsageError: a name names nothing in the ledger, or no row of the batch.
    """
    need_rows(conn, names, batch=batch)
    query = _by_names(conn, [batches.c.id, batches.c.name, rows.c.id], names).where(batches.c.id.is_not(None))
    if batch is not None:
        query = query.where(batches.c.name == batch)
    return [(row[0], row[1], row[2]) for row in conn.execute(query)]


def need_rows(conn: Connection, names: Sequence[str], *, batch: str | None) -> None:
    """Make sure that each name, as in `find_keys`, names a row of the batch, or of any batch, as they read now.

    Raises:
        UsageError: one does not.
    """
    of_batch = batches.c.id.is_not(None) if batch is None else batches.c.name == batch
    for name in names:
        if conn.execute(_by_names(conn, [batches.c.id], [name]).where(of_batch).limit(1)).first() is None:
            of = "the manifests as they read now" if batch is None else f"batch {batch} as it reads now"
            raise UsageError(f"no row of {of} is called {name!r}; nothing was done", "`batcher show` tells of items.")


def row_with(conn: Connection, batch: str, row_id: str, key: str) -> int | None:
    """The number of the batch whose row of this id stands for the item whose key begins so; None if it does not."""
    current = and_(batches.c.id == rows.c.batch_id, rows.c.is_current == 1)
    this = (batches.c.name == batch, rows.c.id == row_id, rows.c.item_key.startswith(key, autoescape=True))
    return conn.execute(select(batches.c.id).join(rows, current).where(*this)).scalar()


def _by_names(conn: Connection, columns: Sequence[ColumnElement[Any]], names: Sequence[str]) -> Select[Any]:
    current = and_(batches.c.id == rows.c.batch_id, rows.c.is_current == 1)
    query = select(*columns).select_from(items).outerjoin(rows, rows.c.item_key == items.c.key)
    query = query.outerjoin(batches, current).order_by(rows.c.batch_id, rows.c.number)
    for name in names:
        if conn.execute(query.where(_named(name)).limit(1)).first() is None:
            raise UsageError(f"no item is called {name!r}", "Give a row's id, or 8 digits or more of an item's key.")
    return query.where(or_(*map(_named, names))) if names else query


def _named(name: str) -> ColumnElement[bool]:
    by_row = and_(rows.c.id == name, batches.c.id.is_not(None))
    return or_(by_row, items.c.key.startswith(name, autoescape=True)) if len(name) >= 8 else by_row
