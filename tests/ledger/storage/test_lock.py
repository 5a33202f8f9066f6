"""The lock that gives a ledger one owner."""

from __future__ import annotations

import errno
import fcntl
import os

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


def test_a_file_system_without_kernel_locks_is_refused(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody would have to remove any other kind of lock after a kill."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match="cannot lock"), owner_lock(book.path):
        pytest.fail("an owner without a lock")
