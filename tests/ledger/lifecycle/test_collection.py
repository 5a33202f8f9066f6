"""Accepted tasks: how they end, go missing, and reach their files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from batcher.ledger.lifecycle import claims, collection, decisions, halts
from batcher.ledger.records import FileRecord, OpenTask
from tests.support.ledger_kit import AT, RUN, Book, ending, sheet


@pytest.mark.parametrize(
    ("verb", "event", "state"),
    [
        (collection.record_rendered, "rendered", "rendered"),
        (collection.record_failed, "remote_failed", "failed"),
    ],
)
def test_endings(book: Book, verb: Any, event: str, state: str) -> None:
    """How a task ended is kept once; a later look never rewrites it."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    look = ending(task, at=AT + 3, word="w1", error_code="e1", credits=2.0, raw=b"r1")
    assert book.do(verb, look)
    assert (book.state(task.key), book.events(task.key)[-1]) == (state, event)
    before = book.dump()
    for again in (collection.record_rendered, collection.record_failed):
        assert not book.do(again, ending(task, at=AT + 9, word="w2", error_code="e2", credits=9.0, raw=b"r2"))
    assert book.dump() == before
    kept = book.one("SELECT ended_at, word, credits, raw FROM tasks")
    assert kept == {"ended_at": AT + 3, "word": "w1", "credits": 2.0, "raw": b"r1"}


def test_an_earlier_task_of_the_same_attempt(book: Book) -> None:
    """Once a person has named another task for the attempt, what the one before comes to does not move the item."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    book.do(collection.record_failed, ending(task))
    book.do(decisions.adopt, task.key, 1, account_id=book.account_id, task_id="t2", at=AT, who="me")
    assert not book.do(collection.record_rendered, ending(task))
    assert not book.do(collection.record_failed, ending(task))
    assert book.state(task.key) == "submitted"
    assert book.do(collection.record_rendered, ending(replace(task, task_id="t2")))
    assert not book.do(collection.record_saved, task, at=AT, run_id=RUN)
    assert book.state(task.key) == "rendered"


def test_unfunded_waits_for_a_recheck(book: Book) -> None:
    """A task that failed for lack of credits halts its account, and its item is not claimed before a recheck."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    assert book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    assert (book.state(task.key), book.events(task.key)[-1]) == ("pending", "unfunded")
    (halt,) = book.do(halts.open_halts, book.account_id)
    assert halt.kind == "credits"
    book.do(halts.permit_probe, halt.id, RUN)
    assert book.claim_anew() == []
    (old,) = book.do(claims.rechecks, book.account_id, book.wanted)
    assert (old.key, old.task_id, old.attempt) == (task.key, "t1", 1)
    book.do(claims.recheck_confirmed, old, run_id="an earlier run")
    assert book.claim_anew() == []
    book.do(claims.recheck_confirmed, old, run_id=RUN)
    (again,) = book.claim_anew()
    assert (again.key, again.attempt) == (task.key, 2)


@pytest.mark.parametrize(
    ("at_first", "at_last", "state"),
    [
        (None, None, "pending"),
        (0.0, None, "pending"),
        (2.0, 0.0, "pending"),
        (2.0, None, "failed"),
        (0.0, 2.0, "failed"),
    ],
)
def test_only_what_cost_nothing_is_created_again(
    book: Book, at_first: float | None, at_last: float | None, state: str
) -> None:
    """A task without credits that was charged, by the last word on it, leaves its item to a person; both halt."""
    book.take_in(sheet("one"))
    (claimed,) = book.claim()
    book.record(book.accepted(claimed, "t1", credits=at_first))
    (task,) = book.do(collection.open_tasks, book.account_id, book.wanted)
    again = book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits", credits=at_last))
    assert (again, book.state(task.key)) == (state == "pending", state)
    assert len(book.do(halts.open_halts, book.account_id)) == 1


def test_a_recheck_that_finds_the_task_collects_it(book: Book) -> None:
    """A task that says something else on the second look is collected instead of being created again."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    (old,) = book.do(claims.rechecks, book.account_id, book.wanted)
    assert book.do(claims.readopt, old, at=AT, run_id=RUN, detail="completed")
    item = book.item(task.key)
    assert (item["state"], item["task_id"], item["recheck_task_id"]) == ("submitted", "t1", None)
    assert [open_.task_id for open_ in book.do(collection.open_tasks, book.account_id, book.wanted)] == ["t1"]


@pytest.mark.parametrize(
    ("looks", "gone"),
    [
        ((0, 10, 20, 30, 40), False),
        ((0, 179.9, 179.9, 179.9), False),
        ((0, 90, 180), False),
        ((0, 60, 120, 180), True),
    ],
)
def test_missing_takes_minutes_and_looks(book: Book, looks: tuple[float, ...], gone: bool) -> None:
    """Not known to the API means gone only after several looks over three minutes."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    says = [book.do(collection.record_missing, ending(task, at=AT + after, error_code="nf")) for after in looks]
    assert says == [False] * (len(looks) - 1) + [gone]
    assert book.state(task.key) == ("gone" if gone else "submitted")


def test_a_found_task_was_never_missing(book: Book) -> None:
    """One answer that knows the task starts the counting of misses anew."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    for after in (0, 60, 120):
        book.do(collection.record_missing, ending(task, at=AT + after))
    book.do(collection.record_found, task)
    assert [book.do(collection.record_missing, ending(task, at=AT + after)) for after in (180, 240, 300, 359)] == [
        False
    ] * 4
    assert book.do(collection.record_missing, ending(task, at=AT + 360))


@pytest.mark.parametrize(
    ("looks", "gone"),
    [
        ([hours * 3600.0 for hours in range(25)], True),
        ([seconds * 60.0 for seconds in range(60)], False),
        ([0.0] * 8 + [86400.0], False),
        ([0.0] * 9 + [86399.0], False),
        ([0.0] * 9 + [86400.0], True),
    ],
)
def test_unusable_takes_a_day_and_many_reads(book: Book, looks: list[float], gone: bool) -> None:
    """Audio is given up only after ten reads over a day, and rendered items wait that long."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    book.do(collection.record_rendered, ending(task, word="completed"))
    says = [book.do(collection.record_unusable, ending(task, at=AT + after)) for after in looks]
    assert says == [False] * (len(looks) - 1) + [gone]
    assert book.state(task.key) == ("gone" if gone else "rendered")


def _file(path: str = ".items/ab/abc.mp3", sha256: str = "0" * 64) -> FileRecord:
    return FileRecord(path=path, sha256=sha256, bytes=10, audio_seconds=1.5)


def test_saved_files(book: Book) -> None:
    """A file is recorded before it is in place, found by a recovery until then, and fixed once it is saved."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    book.do(collection.record_rendered, ending(task))
    book.do(collection.record_file, task, _file(sha256="1" * 64), out_dir="audio", at=AT)
    book.do(collection.record_file, task, _file(), out_dir="audio", at=AT + 1)
    ((found, out_dir, path, sha256),) = book.do(collection.recorded_files)
    assert (found.key, found.task_id, out_dir, path, sha256) == (task.key, "t1", "audio", _file().path, "0" * 64)
    assert book.do(collection.record_saved, task, at=AT + 2, run_id=RUN)
    assert (book.state(task.key), book.do(collection.recorded_files)) == ("done", [])
    book.do(collection.record_file, task, _file(sha256="2" * 64), out_dir="elsewhere", at=AT + 3)
    kept = book.one("SELECT sha256, out_dir, saved_at FROM files")
    assert kept == {"sha256": "0" * 64, "out_dir": "audio", "saved_at": AT + 2}


def test_open_tasks_outlive_their_rows(book: Book) -> None:
    """What is paid for is collected although its row is gone from the manifest or nothing is wanted at all."""
    book.take_in(sheet("one", "two", "three"))
    first, second, third = (book.submitted(name) for name in ("t1", "t2", "t3"))
    book.do(collection.record_rendered, ending(second))
    book.do(collection.record_failed, ending(third))
    book.take_in(sheet("one"))
    found = book.do(collection.open_tasks, book.account_id, book.wanted)
    assert [(task.task_id, task.rendered, task.wanted) for task in found] == [
        ("t1", False, True),
        ("t2", True, False),
    ]
    assert [task.key for task in book.do(collection.open_tasks, book.account_id, [])] == [first.key, second.key]
    assert book.do(collection.open_tasks, book.account_id + 1, book.wanted) == []


def test_open_task_has_no_text() -> None:
    """What travels through the collecting side carries no text of the user's."""
    assert "text" not in OpenTask.__dataclass_fields__
