"""The database file: permissions, durability, write transactions, backups."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Connection

from batcher.ledger.ledger import opened
from batcher.ledger.storage import database
from batcher.ledger.storage.lock import owner_lock
from tests.support.ledger_kit import Book, sheet


def test_everything_is_private(book: Book) -> None:
    """Ledger, journal, spill and lock can be read by their owner alone, whatever the umask."""
    book.take_in(sheet("one"))
    old = os.umask(0)
    try:
        with owner_lock(book.path), opened(book.path, "real") as ledger:
            ledger.spill.reserve()
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in book.path.parent.glob("batcher.db*")}
    finally:
        os.umask(old)
    assert modes.keys() >= {"batcher.db", "batcher.db-wal", "batcher.db.spill", "batcher.db.lock"}
    assert set(modes.values()) == {0o600}


def test_pragmas(book: Book) -> None:
    """A commit waits for the disk, and what refers to nothing is refused."""

    def pragmas(conn: Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    assert book.do(pragmas) == ["wal", 2, 1]


def test_a_transaction_begins_as_a_writer(book: Book) -> None:
    """Whoever looks before it writes holds the write lock from its first look: nobody can come between."""

    def look(_conn: Connection) -> None:
        with closing(sqlite3.connect(book.path, timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")

    with pytest.raises(sqlite3.OperationalError, match="locked"):
        book.do(look)


def test_a_backup_outlives_a_power_cut(book: Book, disk_calls: list[tuple[str, int]]) -> None:
    """A copy is on the disk before it has its name, and its name before anyone relies on it."""
    target = book.path.with_name("kept.db")
    database.back_up(book.path, target)
    file, folder = target.stat().st_ino, target.parent.stat().st_ino
    assert disk_calls == [("sync", file), ("rename", file), ("sync", folder)]
