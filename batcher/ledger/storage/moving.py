"""Moves a ledger from a file to a server, or back: every row, and the right to work on it.

Only one of the two may be used, or the other would buy everything again that is bought from then on. So the source is
marked before anything is copied, and the copy appears completely or not at all.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Engine, delete, func, insert, select, text
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.address import Address
from batcher.errors import LedgerError
from batcher.ledger.storage import database, triggers
from batcher.ledger.storage.lock import owner_lock
from batcher.ledger.storage.schema import items, meta, metadata

_CHUNK: Final = 500
_COMPUTED: Final = (triggers.standing, triggers.totals, triggers.costs)
"""Tables that the target computes by itself."""


def move(source: Address, target: Address) -> int:
    """Copy the ledger at `source` to `target`, where there is none, and mark the source as moved.

    After a kill, the same call finishes it. Returns the number of items.

    Raises:
        LedgerError: there is no ledger at `source`, or another one at `target`.
        LockedError: a run works on one of them.
        StorageError: the target cannot be written.
    """
    with owner_lock(source), owner_lock(target):
        engine = database.open_existing(source, moved_to=str(target))
        try:
            return _move(engine, target)
        finally:
            database.close(source, engine)


def _move(source: Engine, target: Address) -> int:
    with source.connect() as conn:
        number = conn.execute(select(func.count()).select_from(items)).scalar_one()
        ledger_id = _fact(conn, "ledger_id")
    with source.begin() as conn:
        _set_mark(conn, str(target))
    if database.exists(target):
        if _id_at(target) != ledger_id:
            _remove_mark(source)
            raise LedgerError(f"there is another ledger at {target}", "Choose another target.")
        return number
    try:
        with source.connect() as conn:
            database.create_as(target, lambda copy: _copy(conn, copy))
    except BaseException:
        if not database.exists(target):  # else its commit succeeded, though its answer was lost
            _remove_mark(source)
        raise
    return number


def _copy(source: Connection, target: Connection) -> None:
    for table in metadata.sorted_tables:
        if table in _COMPUTED:
            continue
        found = source.execution_options(stream_results=True).execute(select(table))
        for part in found.mappings().partitions(_CHUNK):
            target.execute(insert(table), [dict(row) for row in part])
    target.execute(delete(meta).where(meta.c.name == database.MOVED_TO))
    if target.dialect.name == "postgresql":
        _continue_numbers(target)


def _continue_numbers(conn: Connection) -> None:
    """Number new rows after those that were copied."""
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is not None:
            name = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
            conn.execute(text(f"SELECT setval({name}, max({column.name})) FROM {table.name}"))  # noqa: S608


def _fact(conn: Connection, name: str) -> str | None:
    value: str | None = conn.execute(select(meta.c.value).where(meta.c.name == name)).scalar()
    return value


def _id_at(address: Address) -> str | None:
    engine = database.open_existing(address, readonly=True)
    try:
        with engine.connect() as conn:
            return _fact(conn, "ledger_id")
    finally:
        engine.dispose()


def _set_mark(conn: Connection, target: str) -> None:
    mark = upsert(meta).values(name=database.MOVED_TO, value=target)
    conn.execute(mark.on_conflict_do_update(index_elements=["name"], set_={"value": target}))


def _remove_mark(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(delete(meta).where(meta.c.name == database.MOVED_TO))
