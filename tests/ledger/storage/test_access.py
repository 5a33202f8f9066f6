"""A ledger in the hands of other accounts, and files that are not its own beside it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batcher.errors import LedgerError, TroubleError
from batcher.ledger.ledger import open_ledger, open_readonly, world_of
from batcher.ledger.storage import access, database, sqlite
from batcher.ledger.storage.lock import owner_lock
from tests.support.hostile import STRANGER, as_account, needs_root, public_folder

OWNER = STRANGER + 1


@pytest.fixture
def ledger() -> Iterator[Path]:
    """A ledger of another account, which everybody may read, in a folder that everybody may write."""
    with public_folder() as folder:
        folder.chmod(0o777)
        path = folder / "batcher.db"
        with as_account(OWNER):
            database.create(path, "real")
            path.chmod(0o644)
            with open_ledger(path):  # now it is in WAL mode
                pass
        yield path


def _names(ledger: Path) -> list[str]:
    return sorted(one.name for one in ledger.parent.iterdir())


@needs_root
def test_a_reader_of_another_account_leaves_no_file_behind(ledger: Path) -> None:
    """Journals of the reader would lock the owner out."""
    with as_account(STRANGER):
        with open_readonly(ledger) as conn:
            assert world_of(conn) == "real"
            assert _names(ledger) == ["batcher.db"]
        assert not database.needs_upgrade(ledger)
        sqlite.copy(ledger, ledger.with_name("copy.db"))
    assert _names(ledger) == ["batcher.db", "copy.db"]
    with as_account(OWNER), open_ledger(ledger):
        pass


@needs_root
def test_a_folder_that_cannot_be_written_can_be_read_from(ledger: Path) -> None:
    ledger.parent.chmod(0o755)
    with as_account(STRANGER), open_readonly(ledger) as conn:
        assert world_of(conn) == "real"


@needs_root
def test_a_reader_of_another_account_sees_what_a_run_has_just_written(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as run:
        with run:
            run.execute("INSERT INTO meta VALUES ('note', 'new')")
        with as_account(STRANGER), open_readonly(ledger) as conn:
            assert conn.exec_driver_sql("SELECT value FROM meta WHERE name = 'note'").scalar() == "new"
        assert Path(f"{ledger}-wal").stat().st_uid == OWNER


@needs_root
def test_changes_that_only_the_owner_can_read_are_not_overlooked(ledger: Path) -> None:
    journal = Path(f"{ledger}-wal")
    journal.write_bytes(b"x" * 100)
    journal.chmod(0o600)
    with (
        as_account(STRANGER),
        pytest.raises(TroubleError, match="has changes that only the account"),
        open_readonly(ledger),
    ):
        pass


@needs_root
def test_journals_of_another_account_are_reported_with_the_way_out(ledger: Path) -> None:
    """As other programs leave them when they read a ledger."""
    for ending in ("-wal", "-shm"):
        Path(f"{ledger}{ending}").touch()
        os.chown(f"{ledger}{ending}", STRANGER, STRANGER)
    with as_account(OWNER), pytest.raises(LedgerError) as refused, open_ledger(ledger):
        pass
    assert f"cannot write {ledger}-wal: it belongs to the account number {STRANGER}" in str(refused.value)
    assert f"`rm {ledger}-wal`" in str(refused.value)


@needs_root
def test_an_account_that_may_only_read_is_told_so_before_it_writes(ledger: Path) -> None:
    with (
        as_account(STRANGER),
        pytest.raises(LedgerError, match="this account may only read it") as refused,
        open_ledger(ledger),
    ):
        pass
    assert "Run this as the account number" in str(refused.value)
    assert _names(ledger) == ["batcher.db"]


@needs_root
def test_a_private_ledger_of_another_account_is_named_with_its_owner(ledger: Path) -> None:
    ledger.chmod(0o600)
    with (
        as_account(STRANGER),
        pytest.raises(LedgerError, match=r"cannot read the ledger .*: Permission denied"),
        open_readonly(ledger),
    ):
        pass


@needs_root
def test_a_lock_of_another_account_is_named(ledger: Path) -> None:
    with as_account(OWNER), owner_lock(ledger):
        pass
    with (
        as_account(STRANGER),
        pytest.raises(LedgerError, match=r"batcher.db.lock: Permission denied"),
        owner_lock(ledger),
    ):
        pass


@pytest.mark.parametrize("name", ["batcher.db", "batcher.db-wal", "batcher.db-shm", "batcher.db-journal"])
def test_a_pipe_in_place_of_a_ledgers_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / "batcher.db"
    database.create(path, "real")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(LedgerError, match="not a regular file"), open_readonly(path):
        pass


def test_a_link_in_place_of_the_lock_is_refused_and_its_target_kept(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "batcher.db"
    for plant in (Path.symlink_to, Path.hardlink_to):
        victim.write_text("precious")
        lock = tmp_path / "batcher.db.lock"
        plant(lock, victim)
        with pytest.raises(LedgerError, match=r"batcher\.db\.lock"), owner_lock(path):
            pass
        assert victim.read_text() == "precious"
        lock.unlink()


def test_a_journal_that_is_removed_meanwhile_is_no_error(tmp_path: Path) -> None:
    """A run that ends removes it while another program reads the ledger."""
    access._check_side(tmp_path / "batcher.db-wal", readonly=True)
