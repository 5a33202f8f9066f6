"""A ledger is moved between a file and a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from batcher.address import Address, Server, spill_file
from batcher.errors import LedgerError, StorageError
from batcher.ledger.queries.identity import note_timeline
from batcher.ledger.storage import database, moving
from batcher.ledger.storage.spill import Spill
from tests.support import postgres
from tests.support.history import History
from tests.support.ledger_kit import Book, book_in, content


@pytest.fixture
def target(postgres_url: str, tmp_path: Path) -> Iterator[Server]:
    """A server without a ledger."""
    with postgres.database_of(postgres_url) as url:
        yield Server(url, tmp_path)


def moved_book(book: Book) -> Address:
    """The address of a ledger with a history, closed."""
    history = History(book, 7)
    for _ in range(60):
        history.step()
    book.engine.dispose()
    return book.address


def test_a_ledger_moves_to_a_server_and_back_as_it_was(book: Book, target: Server, tmp_path: Path) -> None:
    """Moving it again changes nothing, as after a kill between the copy and the end."""
    source, back = moved_book(book), tmp_path / "back.db"
    before = content(source)
    assert moving.move(source, target) == moving.move(source, target) == len(before["items"]) > 0
    assert content(target) == before
    moving.move(target, back)
    assert content(back) == before


def test_a_copy_in_a_file_survives_a_power_cut(
    target: Server, tmp_path: Path, disk_calls: list[tuple[str, int]]
) -> None:
    """Its name is on disk before the source is marked for good, or the next copy would count as an older state."""
    database.create(target, "real")
    moving.move(target, tmp_path / "back.db")
    renamed = [word for word, _ in disk_calls].index("rename")
    assert ("sync", tmp_path.stat().st_ino) in disk_calls[renamed:]


def test_no_run_accepts_a_ledger_that_was_moved(book: Book, target: Server) -> None:
    source = moved_book(book)
    moving.move(source, target)
    with pytest.raises(LedgerError, match="was moved to postgresql://"):
        database.open_existing(source)
    database.open_existing(source, readonly=True).dispose()


def test_new_rows_on_the_server_are_numbered_after_those_that_were_copied(book: Book, target: Server) -> None:
    source = moved_book(book)
    moving.move(source, target)
    engine = database.open_existing(target)
    with engine.begin() as conn:
        highest = conn.exec_driver_sql("SELECT max(id) FROM events").scalar_one()
        some = "SELECT key, 1, 'retry', 'pending', 1 FROM items LIMIT 1"
        conn.exec_driver_sql(f"INSERT INTO events (item_key, attempt, event, state, at) {some}")
        assert conn.exec_driver_sql("SELECT max(id) FROM events").scalar_one() == highest + 1
    engine.dispose()


def test_a_target_with_another_ledger_is_left_alone(book: Book, tmp_path: Path) -> None:
    """And the source can be used as before."""
    source = moved_book(book)
    (tmp_path / "other").mkdir()
    with book_in(tmp_path / "other") as other:
        other.engine.dispose()
        before = content(other.address)
        with pytest.raises(LedgerError, match="there is another ledger at"):
            moving.move(source, other.address)
        assert content(other.address) == before
    database.open_existing(source).dispose()


def test_a_move_that_fails_leaves_the_source_as_it_was(
    book: Book, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = moved_book(book)

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(moving, "_copy", fail)
    with pytest.raises(OSError, match="the disk is full"):
        moving.move(source, target)
    assert not database.exists(target)
    database.open_existing(source).dispose()


def test_a_moved_ledger_cannot_be_moved_back_over_its_old_state(book: Book, target: Server) -> None:
    """Both would then be marked as moved. The new one can still be used, or moved elsewhere."""
    source = moved_book(book)
    moving.move(source, target)
    with pytest.raises(LedgerError, match="there is an old state of this ledger at"):
        moving.move(target, source)
    database.open_existing(target).dispose()


def test_a_ledger_moved_to_itself_under_another_name_can_still_be_used(target: Server) -> None:
    database.create(target, "real")
    user = psycopg.conninfo.conninfo_to_dict(target.url)["user"]
    same = Server(f"{target.url.replace(f'{user}@', '')}&user={user}", target.home)
    assert str(same) != str(target)
    with pytest.raises(LedgerError, match="there is an old state of this ledger at"):
        moving.move(target, same)
    database.open_existing(target).dispose()


def test_a_target_that_cannot_be_reached_leaves_the_source_as_it_was(book: Book, tmp_path: Path) -> None:
    source = moved_book(book)
    with pytest.raises(StorageError, match="cannot connect to the ledger"):
        moving.move(source, Server(f"postgresql:///none?host={tmp_path}", tmp_path))
    database.open_existing(source).dispose()


def test_a_lost_target_is_copied_again_as_an_older_state(book: Book, target: Server) -> None:
    """It may lack what was bought at the target, so a run needs --restored; after an interrupted move it does not."""
    source = moved_book(book)
    moving.move(source, target)
    assert "copied_at" not in facts(target)
    with psycopg.connect(target.url, autocommit=True) as admin:
        admin.execute("DROP SCHEMA public CASCADE")
        admin.execute("CREATE SCHEMA public")
    moving.move(source, target)
    assert "copied_at" in facts(target)
    assert not {"moved", "moved_to"} & facts(target)


def test_a_ledger_whose_spill_file_has_answers_is_not_moved(book: Book, target: Server) -> None:
    """They would never be recorded: the tasks that they name were paid for."""
    book.take_in("text\nHello\n")
    [claimed] = book.claim()
    spill = Spill(spill_file(book.address, database.id_of(book.engine), "run-1"))
    spill.append(book.accepted(claimed, "task-1"))
    book.engine.dispose()
    with pytest.raises(LedgerError, match="are not in the ledger yet"):
        moving.move(book.address, target)
    assert not database.exists(target)
    spill.clear()
    moving.move(book.address, target)


def test_the_history_of_a_server_does_not_move_with_the_ledger(target: Server, tmp_path: Path) -> None:
    """Otherwise another server would look like a standby that has taken over."""
    database.create(target, "real")
    engine = database.open_existing(target)
    with engine.begin() as conn:
        note_timeline(conn)
    engine.dispose()
    assert "timeline" in facts(target)
    moving.move(target, tmp_path / "back.db")
    assert "timeline" not in facts(tmp_path / "back.db")


def facts(address: Address) -> set[object]:
    """The names of the facts in the ledger."""
    engine = database.open_existing(address, readonly=True)
    try:
        with engine.connect() as conn:
            return set(conn.exec_driver_sql("SELECT name FROM meta").scalars())
    finally:
        engine.dispose()
