"""The recorded files of done items, and what a repair changes of them."""

from __future__ import annotations

import pytest

from batcher.ledger.lifecycle import collection, repairs
from batcher.ledger.records import FileRecord, OpenTask
from tests.support.ledger_kit import AT, RUN, Book, ending, sheet


def done(book: Book, task_id: str, at: float) -> OpenTask:
    """The next item, saved at this time and linked to its row."""
    task = book.submitted(task_id)
    book.do(collection.record_rendered, ending(task))
    file = FileRecord(path=f".items/{task_id}.mp3", sha256=task_id * 32, bytes=10, audio_seconds=1.5)
    book.do(collection.record_file, task, file, out_dir="audio", at=at)
    row = book.one("SELECT batch_id, id, output FROM rows WHERE item_key = ?", task.key)
    link = (row["batch_id"], row["id"], task.key, row["output"])
    assert book.do(collection.record_delivered, task, [link], at=at, run_id=RUN)
    return task


@pytest.fixture
def tasks(book: Book) -> list[OpenTask]:
    """Two done items, the second saved first; a third one is not bought."""
    book.take_in(sheet("one", "two", "three"))
    return [done(book, "t1", AT + 9), done(book, "t2", AT + 5)]


def test_the_files_of_done_items_are_listed_oldest_first(book: Book, tasks: list[OpenTask]) -> None:
    """Each with the account whose token can read its task again."""
    found = book.do(repairs.saved)
    assert [file.task_id for file in found] == ["t2", "t1"]
    second = tasks[1]
    assert found[0] == repairs.SavedFile(
        key=second.key, account_id=book.account_id, user_id="u1", origin="https://api.test", task_id="t2",
        format="mp3", chars=3, out_dir="audio", path=".items/t2.mp3", sha256="t2" * 32, bytes=10,
    )  # fmt: skip


def test_copies_of_an_items_audio_are_where_it_was_linked(book: Book, tasks: list[OpenTask]) -> None:
    """Only there may a repair read it."""
    assert [book.do(repairs.copies, task.key) for task in tasks] == [["audio/a.mp3"], ["audio/b.mp3"]]


def test_a_link_that_is_gone_is_no_copy_any_more(book: Book, tasks: list[OpenTask]) -> None:
    """Of the named row alone; with no row named nothing is forgotten."""
    batch_id = book.wanted[0].batch_id
    for row_ids in ([], ["c"]):
        book.do(collection.forget_links, batch_id, row_ids)
        assert [book.do(repairs.copies, task.key) for task in tasks] == [["audio/a.mp3"], ["audio/b.mp3"]]
    book.do(collection.forget_links, batch_id + 1, ["a"])
    book.do(collection.forget_links, batch_id, ["b"])
    assert [book.do(repairs.copies, task.key) for task in tasks] == [["audio/a.mp3"], []]


def test_a_repair_is_an_event_of_its_item_alone(book: Book, tasks: list[OpenTask]) -> None:
    before = [book.events(task.key) for task in tasks]
    book.do(repairs.record_healed, tasks[0].key, at=AT + 20, detail="healed")
    assert [book.events(task.key) for task in tasks] == [[*before[0], "saved"], before[1]]
    last = book.one("SELECT * FROM events ORDER BY id DESC LIMIT 1")
    assert (last["state"], last["attempt"], last["at"], last["detail"]) == ("done", 1, AT + 20, "healed")


def test_audio_that_was_fetched_again_replaces_the_record_of_its_item_alone(book: Book, tasks: list[OpenTask]) -> None:
    """Its bytes may differ from the first download's."""
    other = book.one("SELECT * FROM files WHERE item_key = ?", tasks[1].key)
    file = FileRecord(path="elsewhere", sha256="f" * 64, bytes=11, audio_seconds=2.5)
    book.do(repairs.record_fetched, tasks[0].key, file, at=AT + 20)
    assert book.one("SELECT * FROM files WHERE item_key = ?", tasks[0].key) == other | {
        "item_key": tasks[0].key, "path": ".items/t1.mp3", "sha256": "f" * 64, "bytes": 11, "audio_seconds": 2.5,
        "recorded_at": AT + 20, "saved_at": AT + 20,
    }  # fmt: skip
    assert book.one("SELECT * FROM files WHERE item_key = ?", tasks[1].key) == other
