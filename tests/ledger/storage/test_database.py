"""The database file: permissions, durability, write transactions, backups."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Connection

from batcher.ledger.ledger import open_ledger
from batcher.ledger.storage import sqlite
from batcher.ledger.storage.lock import owner_lock
from tests.support.ledger_kit import Book, sheet


def test_ledger_and_the_files_beside_it_are_private(book: Book) -> None:
    """Regardless of the umask."""
    book.take_in(sheet("one"))
    old = os.umask(0)
    try:
        with owner_lock(book.path), open_ledger(book.path, "real") as ledger:
            ledger.spill.reserve()
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in book.path.parent.glob("batcher.db*")}
    finally:
        os.umask(old)
    assert modes.keys() >= {"batcher.db", "batcher.db-wal", "batcher.db.spill", "batcher.db.lock"}
    assert set(modes.values()) == {0o600}


def test_commits_are_synced_and_foreign_keys_checked(book: Book) -> None:
    def pragmas(conn: Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    assert book.do(pragmas) == ["wal", 2, 1]


def test_a_transaction_holds_the_write_lock_from_its_start(book: Book) -> None:
    """Nobody can write between its first read and its first write."""

    def look(_conn: Connection) -> None:
        with closing(sqlite3.connect(book.path, timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")

    with pytest.raises(sqlite3.OperationalError, match="locked"):
        book.do(look)


def test_a_backup_survives_a_power_cut(book: Book, disk_calls: list[tuple[str, int]]) -> None:
    """The copy is synced before it gets its name, and the name before the call returns."""
    target = book.path.with_name("kept.db")
    sqlite.back_up(book.path, target)
    file, folder = target.stat().st_ino, target.parent.stat().st_ino
    assert disk_calls == [("sync", file), ("rename", file), ("sync", folder)]
