"""The lock that gives a ledger one owner."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

import pytest

from batcher.errors import LedgerError, LockedError, StorageError
from batcher.ledger.storage.lock import owner_lock
from tests.support.ledger_kit import Book


def test_a_second_owner_is_refused_and_shown_the_first(book: Book) -> None:
    """Also if it comes through a symbolic link."""
    link = book.path.with_name("link.db")
    link.symlink_to(book.path)
    with owner_lock(book.path):
        who = rf"\(pid {os.getpid()} on {socket.gethostname()}, since 20\d\d-[^)]+\)\n"
        with pytest.raises(LockedError, match=who) as caught, owner_lock(link):
            pytest.fail("two owners at once")
        assert caught.value.hint == "Wait until it has ended."
    with owner_lock(link):
        pass


def test_an_owner_that_could_not_write_its_name_is_still_the_only_one(book: Book) -> None:
    """The disk was full when it took the lock."""
    lock = book.path.with_name(f"{book.path.name}.lock")
    with owner_lock(book.path):
        for content in ("", "[]", '{"pid": 1}', '{"pid": 1, "host": "h", "started_at": "noon"}'):
            lock.write_text(content)
            with pytest.raises(LockedError, match=rf"the ledger {book.path}\n"), owner_lock(book.path):
                pytest.fail("two owners at once")


def test_the_lock_is_released_after_an_error_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    """In a folder that is made for the new ledger."""
    path = tmp_path / "new" / "folder" / "batcher.db"
    with pytest.raises(ZeroDivisionError) as caught, owner_lock(path):
        1 / 0  # noqa: B018
    with owner_lock(path):
        assert caught.tb  # whoever keeps the error does not keep the lock
        assert path.with_name("batcher.db.lock").stat().st_mode & 0o777 == 0o600


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
    with (
        pytest.raises(StorageError, match=r"cannot lock .*batcher\.db: .*batcher\.db\.lock: Function not impl"),
        owner_lock(book.path),
    ):
        pytest.fail("an owner without a lock")
