"""The intents file of a run: what was about to be created when the server lost its last commits."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from batcher.errors import StorageError
from batcher.ledger.lifecycle import restored_rows
from batcher.ledger.records import Claimed
from batcher.ledger.storage.intents import IntentsFile
from tests.support.ledger_kit import AT, NEVER, Book, sheet


def claimed(key: str, attempt: int = 1) -> Claimed:
    return Claimed(key=key, attempt=attempt, format="mp3", chars=3, body=b"{}")


def descriptors() -> int:
    """How many files are open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_intents_are_read_in_the_order_written(tmp_path: Path) -> None:
    path = tmp_path / "x.intents"
    file = IntentsFile(path)
    file.append([])
    assert file.read() == []
    file.append([claimed("a"), claimed("b", 3)])
    file.append([claimed("c")])
    assert IntentsFile(path).read() == [("a", 1), ("b", 3), ("c", 1)]
    file.remove()
    assert not path.exists()


def test_a_closed_or_removed_file_is_not_kept_open(tmp_path: Path) -> None:
    """It can be closed again, removed before it is written, and written again."""
    path = tmp_path / "x.intents"
    file = IntentsFile(path)
    file.remove()
    before = descriptors()
    for end in (file.close, file.remove):
        file.append([claimed("a")])
        assert descriptors() == before + 1
        end()
        assert descriptors() == before
        file.close()
    assert not path.exists()


def test_intents_are_durable_before_anything_is_sent(tmp_path: Path, disk_calls: list[tuple[str, int]]) -> None:
    """The name in the folder, too."""
    IntentsFile(tmp_path / "x.intents").append([claimed("a")])
    assert [word for word, _ in disk_calls] == ["sync", "write", "sync"]


def test_a_line_that_a_kill_has_cut_off_does_not_count(tmp_path: Path) -> None:
    """Nothing was sent for it."""
    path = tmp_path / "x.intents"
    IntentsFile(path).append([claimed("a")])
    with path.open("ab") as file:
        file.write(b'["b", ')
    assert IntentsFile(path).read() == [("a", 1)]


def test_a_file_that_another_run_has_removed_has_no_intents(tmp_path: Path) -> None:
    """Two runs on one host find the file of a third that has ended; the first that reads it removes it."""
    assert IntentsFile(tmp_path / "x.intents").read() == []


def test_a_full_disk_is_storage_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="No space left"):
        IntentsFile(tmp_path / "x.intents").append([claimed("a")])


def test_another_file_is_not_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "x.intents"
    path.write_bytes(b"something else\n")
    with pytest.raises(StorageError, match="cannot read"):
        IntentsFile(path).read()


def test_only_intents_that_the_ledger_lacks_are_put_in_doubt(book: Book) -> None:
    """Nobody creates their items meanwhile."""
    book.take_in(sheet("one", "two"))
    first, second = book.claim(2)
    book.record(book.accepted(first, "t1"))
    for table in ("events", "attempts"):
        book.execute(f"DELETE FROM {table} WHERE item_key = ?", second.key)
    book.execute("UPDATE items SET state = 'pending', attempt = 0 WHERE key = ?", second.key)
    intents = [(first.key, 1), (second.key, 1)]
    assert book.do(restored_rows.add_lost_intents, intents, at=AT) == 1
    assert book.do(restored_rows.add_lost_intents, intents, at=AT) == 0
    assert book.claim_anew(5) == []
    for row in book.do(restored_rows.next_rows, 10):
        book.do(restored_rows.apply, row, None, account_id=book.account_id, run_id="run-1", at=AT)
    assert (book.state(first.key), book.state(second.key)) == ("submitted", "in_doubt")
    assert book.claim_anew(5) == []
    late = book.accepted(second, "t2")
    book.record(late, max_in_doubt=NEVER)
    assert book.state(second.key) == "submitted"
