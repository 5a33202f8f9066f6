"""Moves a ledger from a file to a server, or back: every row, and the right to work on it.

Only one of the two may be used, or the other would buy everything again that is bought from then on. So the source is
marked before anything is copied, and the copy appears completely or not at all. A second mark, once it has appeared,
distinguishes a move that was interrupted from one whose target has been lost since.
"""

from __future__ import annotations

import shlex
import time
from functools import partial
from typing import Final

from sqlalchemy import Connection, Engine, delete, func, insert, select, text
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.address import Address, spill_files
from batcher.errors import LedgerError
from batcher.ledger.storage import database, triggers
from batcher.ledger.storage.lock import owner_lock
from batcher.ledger.storage.schema import items, meta, metadata
from batcher.ledger.storage.spill import Spill

_CHUNK: Final = 500
_COMPLETE: Final = "moved"
"""The name, in `meta`, of the mark of a move whose copy has appeared."""
_COMPUTED: Final = (triggers.standing, triggers.totals, triggers.costs)
"""Tables that the target computes by itself."""


def move(source: Address, target: Address) -> int:
    """Copy the ledger at `source` to `target`, where there is none, and mark the source as moved.

    After a kill, the same call finishes it. If the target has been lost since, it is copied once more, as an older
    state that needs `--restored`. Returns the number of items.

    Raises:
        LedgerError: there is no ledger at `source`, answers to create requests are missing in it, or there is another
            ledger at `target`, or one that was itself moved.
        LockedError: a run works on one of them.
        StorageError: the target cannot be written.
    """
    with owner_lock(source), owner_lock(target):
        engine = database.open_existing(source, moved_to=str(target))
        try:
            _check_spill(source, engine)
            return _move(engine, target)
        finally:
            database.close(source, engine)


def _check_spill(address: Address, engine: Engine) -> None:
    for spill in spill_files(address, database.id_of(engine)).values():
        if Spill(spill).records():
            hint = f"Record them first: `batcher run --collect-only --ledger {shlex.quote(str(address))}`"
            raise LedgerError(f"answers to create requests in {spill} are not in the ledger yet", hint)


def _move(source: Engine, target: Address) -> int:
    with source.connect() as conn:
        number: int = conn.execute(select(func.count()).select_from(items)).scalar_one()
        was_complete = _COMPLETE in _facts(conn)
        ledger_id = _facts(conn)["ledger_id"]
    is_new = not database.exists(target)
    with source.begin() as conn:
        _set(conn, database.MOVED_TO, str(target))
    try:
        if is_new:
            with source.connect() as conn:
                database.create_as(target, partial(_copy, conn, again=was_complete))
        _check_copy(target, ledger_id)
    except BaseException:
        if not (was_complete or _is_copy(target, ledger_id)):  # its commit may have succeeded, though unanswered
            _remove_mark(source)
        raise
    with source.begin() as conn:
        _set(conn, _COMPLETE, "1")
    return number


def _check_copy(target: Address, ledger_id: str) -> None:
    found = _facts_at(target)
    if found["ledger_id"] != ledger_id:
        raise LedgerError(f"there is another ledger at {target}", "Choose another target.")
    if database.MOVED_TO in found:
        hint = "Choose another target, or move the old ledger away."
        raise LedgerError(f"there is an old state of this ledger at {target}", hint)


def _is_copy(target: Address, ledger_id: str) -> bool:
    found = _facts_at(target) if database.exists(target) else {}
    return found.get("ledger_id") == ledger_id and database.MOVED_TO not in found


def _copy(source: Connection, target: Connection, *, again: bool = False) -> None:
    for table in metadata.sorted_tables:
        if table in _COMPUTED:
            continue
        found = source.execution_options(stream_results=True).execute(select(table))
        for part in found.mappings().partitions(_CHUNK):
            target.execute(insert(table), [dict(row) for row in part])
    target.execute(delete(meta).where(meta.c.name.in_((database.MOVED_TO, database.TIMELINE, _COMPLETE))))
    if again:
        _set(target, "copied_at", str(time.time()))
    if target.dialect.name == "postgresql":
        _continue_numbers(target)


def _continue_numbers(conn: Connection) -> None:
    """Number new rows after those that were copied."""
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is not None:
            name = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
            conn.execute(text(f"SELECT setval({name}, max({column.name})) FROM {table.name}"))  # noqa: S608


def _facts(conn: Connection) -> dict[str, str]:
    return dict(conn.execute(select(meta.c.name, meta.c.value)).all())


def _facts_at(address: Address) -> dict[str, str]:
    engine = database.open_existing(address, readonly=True)
    try:
        with engine.connect() as conn:
            return _facts(conn)
    finally:
        engine.dispose()


def _set(conn: Connection, name: str, value: str) -> None:
    new = upsert(meta).values(name=name, value=value)
    conn.execute(new.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


def _remove_mark(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(delete(meta).where(meta.c.name == database.MOVED_TO))
