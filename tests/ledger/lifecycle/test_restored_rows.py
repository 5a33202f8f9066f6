"""What results files report of a lost ledger: nothing that was bought is bought again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batcher.ledger.lifecycle import collection, restored_rows, runs
from batcher.ledger.records import Balance, FileRecord
from tests.support.ledger_kit import AT, RUN, Book, book_in, ending, keys_of, sheet

FILE = FileRecord(path=".items/aa/aa.mp3", sha256="f" * 64, bytes=7, audio_seconds=1.5)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with book_in(tmp_path) as made:
        made.take_in(sheet("one", "two", "three"))
        yield made


def key_of(book: Book, row_id: str = "a") -> str:
    """The key of the row's item."""
    return str(book.one("SELECT item_key FROM rows WHERE id = ?", row_id)["item_key"])


def add(book: Book, *changes: dict[str, Any]) -> int:
    """Store lines of results files, by default of row a, which is done."""
    usual: dict[str, Any] = {"batch": "m", "id": "a", "key": key_of(book), "state": "done", "out_dir": "audio"}
    return book.do(restored_rows.add, [usual | {"output": "a.mp3"} | line for line in changes], at=AT)


def apply(book: Book, file: FileRecord | None = None, *, run_id: str = RUN) -> list[str]:
    """Apply all rows; return the items' states."""
    found = []
    while rows := book.do(restored_rows.next_rows, 1):
        how: dict[str, Any] = {"account_id": book.account_id, "run_id": run_id, "at": AT + 9}
        found.append(str(book.do(restored_rows.apply, rows[0], file, **how)))
    return found


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        *((state, 1) for state in ("submitting", "in_doubt", "submitted", "rendered", "done", "failed", "abandoned")),
        *((state, 0) for state in ("pending", "rejected", "invalid", None)),
    ],
)
def test_only_rows_that_may_have_been_bought_are_kept(book: Book, state: str | None, kept: int) -> None:
    assert add(book, {"state": state}) == len(book.all("SELECT * FROM recalled")) == kept


def test_a_row_is_kept_as_the_last_file_lists_it(book: Book) -> None:
    """Rows without inputs are not. A take that is not given is the first."""
    assert add(book, {"key": None}) == 0
    file = {"sha256": "s", "bytes": 7, "audio_seconds": 1.5}
    assert add(book, {"task_id": "t1"}, {"id": "b", "take": 3}, {"task_id": "t2"} | file) == 3
    columns = "row_id, output, task_id, sha256, bytes, audio_seconds, take, recalled_at"
    found = book.all(f"SELECT {columns} FROM recalled ORDER BY row_id")
    assert found == [
        {"row_id": "a", "output": "a.mp3", "task_id": "t2", "take": 1, "recalled_at": AT} | file,
        {"row_id": "b", "output": "a.mp3", "task_id": None, "take": 3, "recalled_at": AT} | dict.fromkeys(file),
    ]


@pytest.mark.parametrize(
    ("places", "counted"),
    [
        ([("audio", 1), ("audio", 2), ("audio", 3)], True),
        ([("audio", 1), ("other", 1), ("audio", 2)], True),
        ([("audio", 2), ("audio", 3)], False),
        ([("audio", 2), ("audio", 1)], False),
        ([("audio", 1), ("audio", 3)], False),
        ([("audio", 1), ("audio", 3), ("audio", 1)], False),
        ([("audio", 2), ("other", 1)], True),
        ([("audio", None)], False),
    ],
)
def test_rows_numbered_from_one_without_gaps_are_known(
    book: Book, places: list[tuple[str, int | None]], counted: bool
) -> None:
    """Rows that were not bought count, too. A second file says the same."""
    for _ in range(2):
        add(book, *({"out_dir": out_dir, "row": row, "state": "pending"} for out_dir, row in places))
    assert book.do(restored_rows.has_counted_rows, "m") == counted
    assert not book.do(restored_rows.has_counted_rows, "n")


@pytest.mark.parametrize(
    ("gaps", "heard", "doubted"),
    [(["none"], [], []), (["none"], ["b"], ["b"]), (["some"], [], ["b", "c"]), (["some", "none"], [], ["b", "c"])],
)
def test_items_that_the_results_files_may_lack_are_put_in_doubt(
    book: Book, gaps: list[restored_rows.Gap], heard: list[str], doubted: list[str]
) -> None:
    """All that are not bought yet if the files may be incomplete, or else those whose audio exists."""
    book.execute("INSERT INTO meta (name, value) VALUES ('copied_at', '1'), ('other', '')")
    bought = book.submitted("t1")
    assert not book.do(restored_rows.due)
    for gap in gaps:
        book.do(restored_rows.begin, gap)
    assert book.do(restored_rows.due)
    keys = {key_of(book, row_id) for row_id in heard}
    how: dict[str, Any] = {"account_id": book.account_id, "run_id": RUN, "at": AT}
    assert book.do(restored_rows.finish, lambda key, ending: key in keys and ending == "mp3", **how) == len(doubted)
    found = book.all("SELECT rows.id FROM rows JOIN items ON key = item_key WHERE state = 'in_doubt' ORDER BY rows.id")
    assert [row["id"] for row in found] == doubted
    assert book.state(bought.key) == "submitted"
    assert not book.do(restored_rows.due)
    assert book.all("SELECT * FROM meta WHERE name IN ('copied_at', 'restoring')") == []
    assert len(book.all("SELECT * FROM meta WHERE name = 'other'")) == 1


def test_restored_rows_are_due_once_their_manifest_is_imported(book: Book) -> None:
    add(book, {"key": "k" * 64})
    assert (book.do(restored_rows.due), book.do(restored_rows.next_rows, 5)) == (False, [])
    add(book, {})
    assert book.do(restored_rows.due)


def test_of_an_items_rows_those_with_a_file_come_first(book: Book) -> None:
    """With what a download needs."""
    add(book, {"id": "x"}, {"id": "y", "sha256": "s", "batch": "n"}, {"id": "z", "key": key_of(book, "c")})
    found = [row for row in book.do(restored_rows.next_rows, 5) if row.item_key == key_of(book)]
    assert [(row.row_id, row.attempt, row.format, row.chars) for row in found] == [
        ("y", 0, "mp3", 3),
        ("x", 0, "mp3", 3),
    ]
    assert len(book.do(restored_rows.next_rows, 1)) == 1


@pytest.mark.parametrize("before", [None, AT - 50])
def test_a_restored_row_without_task_and_file_is_in_doubt(book: Book, before: float | None) -> None:
    """Its create is recorded as one of its first batch, sent after the last balance that an earlier run read."""
    book.begin("run-2", credits_=None)
    book.execute("DELETE FROM balances")
    if before is not None:
        for at in (before - 9, before):
            book.do(runs.note_balance, RUN, book.account_id, Balance(credits=1.0), at=at)
    book.do(runs.note_balance, "run-2", book.account_id, Balance(credits=1.0), at=AT + 1)
    batch = book.take_in("id,text\nx,other\n", batch="n")
    book.take_in("id,text\nz,other\n", batch="o")
    key = key_of(book, "x")
    add(book, {"batch": "n", "id": "x", "key": key})
    assert apply(book, run_id="run-2") == ["in_doubt"]
    columns = "attempt, run_id, batch_id, account_id, intended_at, outcome, cause, error_message"
    attempt = book.one(f"SELECT {columns} FROM attempts")
    assert attempt == {
        "attempt": 1,
        "run_id": "run-2",
        "batch_id": batch.batch_id,
        "account_id": book.account_id,
        "intended_at": before or AT + 9,
        "outcome": "lost",
        "cause": "restored",
        "error_message": "may have been bought: the restored ledger has no record of it",
    }
    item = book.item(key)
    assert (item["attempt"], item["error_message"]) == (1, attempt["error_message"])
    assert {row["detail"] for row in book.all("SELECT detail FROM events WHERE item_key = ?", key)} == {"restored"}
    assert key not in keys_of(book.claim(5, run_id="run-2"))
    assert book.all("SELECT * FROM recalled") == []


@pytest.mark.parametrize("rendered", [False, True])
def test_a_restored_task_is_collected_and_a_restored_file_is_the_items_audio(book: Book, rendered: bool) -> None:
    """Neither is bought again. Another item's task is not taken from it."""
    add(book, {"task_id": "t1"})
    assert apply(book) == ["submitted"]
    (task,) = book.open_tasks()
    assert (task.key, task.task_id) == (key_of(book), "t1")
    add(book, {"id": "b", "key": key_of(book, "b"), "task_id": "t1"})
    assert apply(book) == ["in_doubt"]
    if rendered:
        book.do(collection.record_rendered, ending(task, word="completed", at=AT + 9))
    add(book, {"task_id": "t1", "out_dir": "old"}, {"id": "c", "key": key_of(book, "c")})
    assert sorted(apply(book, FILE)) == ["done", "in_doubt"]
    (stored,) = book.all("SELECT item_key, path, sha256, bytes, audio_seconds, out_dir, saved_at FROM files")
    assert stored == {
        "item_key": key_of(book),
        "path": FILE.path,
        "sha256": FILE.sha256,
        "bytes": 7,
        "audio_seconds": 1.5,
        "out_dir": "old",
        "saved_at": AT + 9,
    }
    word = "completed" if rendered else "restored"
    looks = 1 if rendered else 0
    assert book.one("SELECT word, ended_at, looks FROM tasks") == {"word": word, "ended_at": AT + 9, "looks": looks}


def test_a_restored_row_changes_no_item_that_the_ledger_knows_to_be_bought(book: Book) -> None:
    """An item in doubt gets its task."""
    book.do(collection.record_failed, ending(book.submitted("t1"), error_code="bad_voice"))
    (lost,) = book.claim()
    book.execute("UPDATE items SET state = 'in_doubt' WHERE key = ?", lost.key)
    add(book, {}, {"id": "b", "key": lost.key, "task_id": "t2"})
    assert sorted(apply(book)) == ["failed", "submitted"]
    assert book.item(lost.key)["task_id"] == "t2"
    assert len(book.all("SELECT * FROM attempts")) == 2
