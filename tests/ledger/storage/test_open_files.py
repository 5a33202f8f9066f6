"""Looking at a ledger leaves the locks of a run in the same process alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from batcher.errors import LedgerError
from batcher.ledger.ledger import open_ledger, open_readonly
from batcher.ledger.storage import database, sqlite
from tests.support.ledger_kit import Book, book_in

SHARED: Final = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)
"""
"""Takes the lock that SQLite holds, shared, for as long as a connection to the database is open."""


def is_locked(path: Path) -> bool:
    """Whether another process sees that the database is in use."""
    return subprocess.run([sys.executable, "-c", SHARED, str(path)], capture_output=True, check=False).returncode != 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with book_in(tmp_path) as book:
        assert isinstance(book, Book)
    return tmp_path / "batcher.db"


def test_reading_a_ledger_in_use_by_this_process_keeps_its_locks(path: Path) -> None:
    """Another process would otherwise delete the journal that the run writes to."""
    with open_ledger(path, "real"):
        for _ in range(2):
            with open_readonly(path):
                pass
            assert not database.needs_upgrade(path)
            sqlite.set_stray_journal_aside(path)
        assert is_locked(path)
    assert not is_locked(path)


def test_a_file_that_is_no_ledger_is_refused_before_and_after_one_was_open(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(b"not a database")
    with open_ledger(path, "real"), pytest.raises(LedgerError, match="is not a batcher ledger"), open_readonly(other):
        pass
