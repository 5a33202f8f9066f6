"""The lock that gives a ledger one owner."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from batcher.errors import LockedError, StorageError
from batcher.ledger.storage.lock import owner_lock
from tests.support.ledger_kit import Book


def test_a_second_owner_is_refused_and_shown_the_first(book: Book) -> None:
    """Also if it comes through a symbolic link."""
    link = book.path.with_name("link.db")
    link.symlink_to(book.path)
    with owner_lock(book.path):
        with pytest.raises(LockedError, match=rf"pid {os.getpid()}") as caught, owner_lock(link):
            pytest.fail("two owners at once")
        assert "--wait-lock" in caught.value.hint
    with owner_lock(link):
        pass


def test_an_owner_waits_for_the_lock(book: Book) -> None:
    """Until it is free or its time is over."""
    with owner_lock(book.path):
        waiter = subprocess.Popen([sys.executable, "-c", _WAITS, str(book.path)], stdout=subprocess.PIPE, text=True)
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "waiting\n"
        with pytest.raises(LockedError), owner_lock(book.path, wait_seconds=0.1):
            pytest.fail("two owners at once")
    assert waiter.communicate()[0] == "owner\n"


_WAITS = """
import sys
from pathlib import Path
from batcher.ledger.storage.lock import owner_lock
print("waiting", flush=True)
with owner_lock(Path(sys.argv[1]), wait_seconds=60.0):
    print("owner")
"""


def test_a_file_system_without_kernel_locks_is_refused(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody would have to remove any other kind of lock after a kill."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match="cannot lock"), owner_lock(book.path):
        pytest.fail("an owner without a lock")
