"""The lock that gives a ledger one owner."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from batcher.errors import LedgerError, LockedError, StorageError
from batcher.ledger.storage.lock import owner_lock
from tests.support.ledger_kit import Book


def test_a_second_owner_is_refused_and_shown_the_first(book: Book) -> None:
    """Also if it comes through a symbolic link."""
    link = book.path.with_name("link.db")
    link.symlink_to(book.path)
    with owner_lock(book.path):
        with pytest.raises(LockedError, match=rf"pid {os.getpid()}") as caught, owner_lock(link):
            pytest.fail("two owners at once")
        assert caught.value.hint == "Wait until it has ended."
    with owner_lock(link):
        pass


def test_a_copy_made_with_hard_links_is_refused_with_the_way_out(book: Book) -> None:
    """Both names would be one ledger with two locks."""
    with owner_lock(book.path):
        pass
    lock = book.path.with_name(f"{book.path.name}.lock")
    lock.with_name("copy.lock").hardlink_to(lock)
    with pytest.raises(LedgerError, match="also linked under another name") as caught, owner_lock(book.path):
        pytest.fail("an owner of two ledgers")
    assert "cp -a" in caught.value.hint
    lock.with_name("copy.lock").unlink()
    with owner_lock(book.path):
        pass


def test_a_file_system_without_kernel_locks_is_refused(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody would have to remove any other kind of lock after a kill."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match="cannot lock"), owner_lock(book.path):
        pytest.fail("an owner without a lock")
