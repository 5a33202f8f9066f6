"""The lock that gives a ledger one owner."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from batcher.errors import LockedError, StorageError
from batcher.ledger.storage.lock import owner_lock
from tests.support.ledger_kit import Book


def test_one_owner_by_any_name(book: Book) -> None:
    """A second owner is refused while the first holds the lock, also through a link, and is told who it is."""
    link = book.path.with_name("link.db")
    link.symlink_to(book.path)
    with owner_lock(book.path):
        with pytest.raises(LockedError, match=rf"pid {os.getpid()}") as caught, owner_lock(link):
            pytest.fail("two owners at once")
        assert "--wait-lock" in caught.value.hint
    with owner_lock(link):
        pass


def test_no_owner_without_a_lock_of_the_kernel(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot lock is refused: a lock that a kill leaves behind would be somebody's to remove."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match="cannot lock"), owner_lock(book.path):
        pytest.fail("an owner without a lock")
