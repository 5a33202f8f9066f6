"""Accepted tasks: polls, endings, missing tasks and saved files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from batcher.ledger.lifecycle import claims, collection, decisions, halts
from batcher.ledger.queries import selection
from batcher.ledger.records import FileRecord, OpenTask
from tests.support.ledger_kit import AT, RUN, Book, ending, sheet


@pytest.mark.parametrize(
    ("verb", "event", "state"),
    [
        (collection.record_rendered, "rendered", "rendered"),
        (collection.record_failed, "remote_failed", "failed"),
    ],
)
def test_the_first_ending_of_a_task_is_recorded_for_good(book: Book, verb: Any, event: str, state: str) -> None:
    """A later poll never overwrites it."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    look = ending(task, at=AT + 3, word="w1", error_code="e1", credits=2.0, raw=b"r1", ignored="x")
    assert book.do(verb, look)
    assert (book.state(task.key), book.events(task.key)[-1]) == (state, event)
    before = book.dump()
    for again in (collection.record_rendered, collection.record_failed):
        assert not book.do(again, ending(task, at=AT + 9, word="w2", error_code="e2", credits=9.0, raw=b"r2"))
    assert book.dump() == before
    kept = book.one("SELECT ended_at, looked_at, looks, word, credits, raw, ignored FROM tasks")
    ended = {"ended_at": AT + 3, "looked_at": AT + 3, "looks": 1}
    assert kept == ended | {"word": "w1", "credits": 2.0, "raw": b"r1", "ignored": "x"}


def test_a_task_replaced_by_an_adopted_one_does_not_move_the_item(book: Book) -> None:
    """A person has adopted another task for the same attempt."""
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


def test_an_unfunded_item_is_claimed_only_after_a_recheck(book: Book) -> None:
    """Its task failed for lack of credits, which also halts the account."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    assert book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    assert (book.state(task.key), book.events(task.key)[-1]) == ("pending", "unfunded")
    item = book.item(task.key)
    assert (item["task_id"], item["recheck_task_id"], item["error_code"]) == (None, "t1", "insufficient_credits")
    (halt,) = book.do(halts.open_halts, book.account_id)
    assert halt.kind == "credits"
    book.do(halts.find_prober, halt, RUN, may_probe=True)
    assert book.claim_anew() == []
    (old,) = book.do(claims.rechecks, book.account_id, book.wanted)
    assert (old.key, old.task_id, old.attempt) == (task.key, "t1", 1)
    book.do(claims.recheck_confirmed, old, run_id="an earlier run")
    assert book.claim_anew() == []
    book.do(claims.recheck_confirmed, old, run_id=RUN)
    (again,) = book.claim_anew()
    assert (again.key, again.attempt) == (task.key, 2)
    book.record(book.accepted(again, "t2"))
    book.do(collection.record_failed, ending(replace(task, attempt=2, task_id="t2")))
    book.do(decisions.retry, task.key, 2, at=AT, who="me")
    assert book.do(claims.rechecks, book.account_id, book.wanted) == []  # the first task was replaced
    assert [one.attempt for one in book.claim_anew()] == [3]


@pytest.mark.parametrize(
    ("at_first", "at_last", "state"),
    [
        (None, None, "pending"),
        (0.0, None, "pending"),
        (2.0, 0.0, "pending"),
        (2.0, None, "failed"),
        (0.5, None, "failed"),
        (0.0, 0.5, "failed"),
    ],
)
def test_an_unfunded_task_that_was_charged_is_not_created_again(
    book: Book, at_first: float | None, at_last: float | None, state: str
) -> None:
    """The latest charge reported decides, not that of another task. Either way the account is halted."""
    book.take_in(sheet("one", "two"))
    for task_id, cost in (("t0", 1.0 if at_first is None else 0.0), ("t1", at_first)):
        (claimed,) = book.claim()
        book.record(book.accepted(claimed, task_id, credits=cost))
    _, task = book.open_tasks()
    again = book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits", credits=at_last))
    assert (again, book.state(task.key)) == (state == "pending", state)
    assert len(book.do(halts.open_halts, book.account_id)) == 1


def test_a_recheck_that_finds_another_status_collects_the_task(book: Book) -> None:
    """Nothing is created again."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    (old,) = book.do(claims.rechecks, book.account_id, book.wanted)
    assert book.do(claims.readopt, old, at=AT, run_id="run-2", detail="completed")
    item = book.item(task.key)
    found = [item[name] for name in ("state", "task_id", "recheck_task_id", "run_id")]
    assert found == ["submitted", "t1", None, "run-2"]
    assert [open_.task_id for open_ in book.open_tasks()] == ["t1"]


def test_a_recheck_concerns_one_wanted_task_of_its_account(book: Book) -> None:
    """Once, however many rows share its item; confirming it permits no create of another item."""
    book.take_in(sheet("same", "same", "other"))
    tasks = [book.submitted(name) for name in ("t1", "t2")]
    for task in tasks:
        book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    found = book.do(claims.rechecks, book.account_id, book.wanted)
    assert sorted(task.task_id for task in found) == ["t1", "t2"]
    assert book.do(claims.rechecks, book.account_id + 1, book.wanted) == []
    assert book.do(claims.rechecks, book.account_id, []) == []
    book.do(claims.recheck_confirmed, tasks[0], run_id=RUN)
    confirmed = book.all("SELECT key FROM items WHERE recheck_run_id IS NOT NULL")
    assert [row["key"] for row in confirmed] == [tasks[0].key]


def test_a_recheck_permits_one_create(book: Book) -> None:
    """If the task is collected after all and lacks credits once more, it is read again before its item is created."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    unfunded = ending(task, error_code="insufficient_credits")
    book.do(collection.record_unfunded, unfunded)
    book.do(claims.recheck_confirmed, task, run_id=RUN)
    book.do(claims.readopt, task, at=AT, run_id=RUN, detail="completed")
    assert book.do(collection.record_unfunded, unfunded)
    (halt,) = book.do(halts.open_halts, book.account_id)
    book.do(halts.find_prober, halt, RUN, may_probe=True)
    assert book.claim_anew() == []


@pytest.mark.parametrize(
    ("looks", "gone"),
    [
        ((0, 10, 20, 30, 40), False),
        ((0, 179.9, 179.9, 179.9), False),
        ((0, 90, 180), False),
        ((0, 60, 120, 180), True),
    ],
)
def test_a_task_is_gone_after_four_missing_polls_over_three_minutes(
    book: Book, looks: tuple[float, ...], gone: bool
) -> None:
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    says = [book.do(collection.record_missing, ending(task, at=AT + after, error_code="nf")) for after in looks]
    assert says == [False] * (len(looks) - 1) + [gone]
    assert book.state(task.key) == ("gone" if gone else "submitted")
    assert book.one("SELECT ended_at FROM tasks") == {"ended_at": AT + looks[-1] if gone else None}


def test_finding_a_task_resets_its_missing_polls(book: Book) -> None:
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    for after in (0, 60, 120):
        book.do(collection.record_missing, ending(task, at=AT + after))
    book.do(collection.record_found, task)
    assert [book.do(collection.record_missing, ending(task, at=AT + after)) for after in (180, 240, 300, 359)] == [
        False
    ] * 4
    assert book.do(collection.record_missing, ending(task, at=AT + 360))


def test_missing_polls_before_a_task_was_found_never_count_again(book: Book) -> None:
    """And finding it resets no other task's."""
    book.take_in(sheet("one", "two"))
    first, second = book.submitted("t1"), book.submitted("t2")
    for after in (0, 60, 120):
        for task in (first, second):
            book.do(collection.record_missing, ending(task, at=AT + after))
    book.do(collection.record_found, first)
    for after in (180, 400, 500):
        assert not book.do(collection.record_missing, ending(first, at=AT + after))
    assert book.do(collection.record_missing, ending(second, at=AT + 180))


def test_audio_that_could_not_be_downloaded_is_tried_again_later(book: Book) -> None:
    """The reason and the time are its item's alone, and end once the audio is saved."""
    book.take_in(sheet("one", "two"))
    first, second = book.submitted("t1"), book.submitted("t2")
    for task in (first, second):
        book.do(collection.record_rendered, ending(task))
    untouched = book.item(second.key)
    failed = ending(first, error_code="unusable", error_message="no audio", request_id="r", http_status=200)
    assert not book.do(collection.record_undelivered, failed, next_try_at=AT + 60, unusable=False)
    item = book.item(first.key)
    assert (item["state"], item["not_before_at"], item["error_message"]) == ("rendered", AT + 60, "no audio")
    assert (item["error_code"], item["error_request_id"], item["error_http_status"]) == ("unusable", "r", 200)
    assert book.one("SELECT unusable_looks FROM tasks WHERE task_id = 't1'") == {"unusable_looks": 0}
    book.do(collection.record_tried, first, at=AT + 70)
    found = book.open_tasks()
    assert [(task.task_id, task.next_try_at) for task in found] == [("t1", AT + 70), ("t2", 0.0)]
    for stale in (replace(first, attempt=2), replace(first, task_id="t9"), replace(first, key=second.key)):
        book.do(collection.record_tried, stale, at=AT + 80)
    assert book.item(first.key) == item | {"not_before_at": AT + 70}
    assert book.item(second.key) == untouched
    book.do(collection.record_saved, first, at=AT + 90, run_id=RUN)
    book.do(collection.record_tried, first, at=AT + 99)
    saved = book.item(first.key)
    assert (saved["state"], saved["error_message"], saved["not_before_at"]) == ("done", None, AT + 70)


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
def test_audio_is_given_up_after_ten_unusable_polls_over_a_day(book: Book, looks: list[float], gone: bool) -> None:
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    book.do(collection.record_rendered, ending(task, word="completed"))
    late: dict[str, Any] = {"next_try_at": AT, "unusable": True}
    says = [book.do(collection.record_undelivered, ending(task, at=AT + after), **late) for after in looks]
    assert says == [False] * (len(looks) - 1) + [gone]
    assert book.state(task.key) == ("gone" if gone else "rendered")


def _file(path: str = ".items/ab/abc.mp3", sha256: str = "0" * 64) -> FileRecord:
    return FileRecord(path=path, sha256=sha256, bytes=10, audio_seconds=1.5)


def test_a_file_is_recorded_before_it_is_saved_and_then_fixed(book: Book) -> None:
    """Until it is saved a recovery finds the record; afterwards nothing changes it, nor does it save another's file."""
    book.take_in(sheet("one", "two"))
    task, other = book.submitted("t1"), book.submitted("t2")
    for one in (task, other):
        book.do(collection.record_rendered, ending(one))
    book.do(collection.record_file, other, _file(), out_dir="audio", at=AT)
    earlier = FileRecord(path="elsewhere.mp3", sha256="1" * 64, bytes=99, audio_seconds=9.0)
    book.do(collection.record_file, task, earlier, out_dir="elsewhere", at=AT)
    book.do(collection.record_file, task, _file(), out_dir="audio", at=AT + 1)
    assert book.do(collection.recorded_files) == []  # a working run is about to save it
    book.begin("run-2")
    ((found, out_dir, path, sha256),) = [one for one in book.do(collection.recorded_files) if one[0].key != other.key]
    assert (found.key, found.task_id, out_dir, path, sha256) == (task.key, "t1", "audio", _file().path, "0" * 64)
    assert book.do(collection.record_saved, task, at=AT + 2, run_id=RUN)
    assert book.state(task.key) == "done"
    assert [one.key for one, *_ in book.do(collection.recorded_files)] == [other.key]
    book.do(collection.record_file, task, _file(sha256="2" * 64), out_dir="elsewhere", at=AT + 3)
    columns = "sha256, out_dir, bytes, audio_seconds, recorded_at, saved_at"
    kept = book.all(f"SELECT {columns} FROM files ORDER BY saved_at IS NULL")
    assert [tuple(row.values()) for row in kept] == [
        ("0" * 64, "audio", 10, 1.5, AT + 1, AT + 2),
        ("0" * 64, "audio", 10, 1.5, AT, None),
    ]


def test_a_task_is_overdue_from_the_first_time_on(book: Book) -> None:
    """Others are not."""
    book.take_in(sheet("one", "two"))
    first, _ = book.submitted("t1"), book.submitted("t2")
    for after in (1, 2):
        book.do(collection.record_overdue, first, at=AT + after)
    found = book.all("SELECT task_id, overdue_at FROM tasks ORDER BY task_id")
    assert [tuple(row.values()) for row in found] == [("t1", AT + 1), ("t2", None)]


@pytest.mark.parametrize(
    ("code", "word", "detail"), [("e1", "w1", "e1"), (None, "w1", "w1"), ("e1", None, "e1"), (None, None, None)]
)
def test_the_event_of_an_ending_has_its_error_or_else_its_status(
    book: Book, code: str | None, word: str | None, detail: str | None
) -> None:
    book.take_in(sheet("one"))
    book.do(collection.record_failed, ending(book.submitted("t1"), error_code=code, word=word))
    assert book.one("SELECT detail FROM events WHERE event = 'remote_failed'") == {"detail": detail}


def test_the_end_of_a_task_ends_no_other(book: Book) -> None:
    """An answer without a body leaves none."""
    book.take_in(sheet("one", "two"))
    first, _ = book.submitted("t1"), book.submitted("t2")
    book.do(collection.record_rendered, ending(first, at=AT + 1))
    found = book.all("SELECT task_id, ended_at, raw FROM tasks ORDER BY task_id")
    assert [tuple(row.values()) for row in found] == [("t1", AT + 1, None), ("t2", None, None)]


def test_tasks_of_two_accounts_may_have_one_id(book: Book) -> None:
    """What is recorded of one concerns it alone."""
    book.take_in(sheet("one", "two"))
    first = book.submitted("t1")
    other = book.begin("run-2", user_id="u2")
    (claimed,) = book.claim(run_id="run-2")
    book.record(book.accepted(claimed, "t1", run_id="run-2", credits=2.0, at=AT + 1))
    for account_id, key, at in ((first.account_id, first.key, AT), (other, claimed.key, AT + 1)):
        book.account_id = account_id
        assert [(one.key, one.account_id, one.accepted_at) for one in book.open_tasks()] == [(key, account_id, at)]
    for _ in range(2):
        book.do(collection.record_missing, ending(first))
    book.do(collection.record_overdue, first, at=AT)
    assert book.do(collection.record_unfunded, ending(first, error_code="insufficient_credits"))
    found = book.all("SELECT account_id, missing_looks, overdue_at FROM tasks WHERE account_id = ?", book.account_id)
    assert [tuple(row.values()) for row in found] == [(book.account_id, 0, None)]


def test_a_link_is_of_one_row(book: Book) -> None:
    """Until it is forgotten."""
    batch = book.take_in(sheet("one", "one", "two"))
    other = book.take_in(sheet("one"), batch="n", filename="n/{id}")
    task = book.submitted("t1")
    book.do(collection.record_rendered, ending(task))
    book.do(collection.record_file, task, _file(), out_dir="audio", at=AT)
    links = [(batch.batch_id, name, task.key, f"{name}.mp3") for name in ("a", "b")]
    links.append((other.batch_id, "a", task.key, "n/a.mp3"))
    assert book.do(collection.record_delivered, task, links, at=AT + 1, run_id=RUN)
    assert not book.do(collection.record_delivered, task, [], at=AT + 2, run_id=RUN)
    query = "SELECT linked_key, linked_output, linked_at FROM rows ORDER BY batch_id, id"
    linked = [tuple(row.values()) for row in book.all(query)]
    first, second, third = ((task.key, output, AT + 1) for output in ("a.mp3", "b.mp3", "n/a.mp3"))
    assert linked == [first, second, (None, None, None), third]
    book.do(collection.forget_links, other.batch_id, [])
    book.do(collection.forget_links, batch.batch_id, ["a", "c"])
    assert [row["linked_key"] for row in book.all(query)] == [None, task.key, None, task.key]


def test_open_tasks_are_collected_without_their_rows(book: Book) -> None:
    """The row has left the manifest, or the run wants no batch at all."""
    book.take_in(sheet("one", "two", "three"))
    first, second, third = (book.submitted(name) for name in ("t1", "t2", "t3"))
    book.do(collection.record_rendered, ending(second))
    book.do(collection.record_failed, ending(third))
    book.take_in(sheet("one"))
    found = book.open_tasks()
    assert [(task.task_id, task.rendered, task.wanted) for task in found] == [
        ("t1", False, True),
        ("t2", True, False),
    ]
    assert [task.key for task in book.open_tasks([])] == [first.key, second.key]
    assert book.do(collection.take_over, book.account_id + 1, book.wanted, run_id="next") == []


def test_a_task_is_taken_over_only_from_a_run_that_has_ended(book: Book) -> None:
    """Or from none: a person may have adopted it."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    book.do(collection.record_rendered, ending(task))
    book.do(collection.record_file, task, _file(), out_dir="audio", at=AT)

    def take_over() -> list[str]:
        with book.engine.connect() as connection:
            found = collection.take_over(connection, book.account_id, book.wanted, run_id="next")
            recorded = collection.recorded_files(connection)
            connection.rollback()
        assert [one.key for one in found] == [one.key for one, *_ in recorded]
        return [one.task_id for one in found]

    assert take_over() == []
    book.execute("UPDATE items SET run_id = NULL")
    assert take_over() == ["t1"]
    book.execute("UPDATE items SET run_id = ?", RUN)
    book.begin("run-2")
    assert take_over() == ["t1"]


def test_with_chosen_rows_only_their_tasks_are_wanted(book: Book) -> None:
    """All are collected nevertheless."""
    book.take_in(sheet("one", "two", "three"))
    for task_id in ("t1", "t2", "t3"):
        book.submitted(task_id)
    book.do(selection.choose_ids, book.wanted, ["b"])
    assert [task.wanted for task in book.open_tasks(only_chosen=True)] == [False, True, False]
    assert [task.wanted for task in book.open_tasks()] == [True, True, True]


def test_an_open_task_carries_no_text() -> None:
    assert "text" not in OpenTask.__dataclass_fields__
