"""Recording the answers to creates: in time, late, repeated, or missing."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.item import Event
from batcher.ledger.lifecycle import answers, collection, decisions
from tests.support.ledger_kit import AT, RUN, Book, ending, sheet


@pytest.mark.parametrize(
    ("event", "state", "outcome"),
    [
        (Event.DEFERRED, "pending", "deferred"),
        (Event.REJECTED, "rejected", "rejected"),
        (Event.LOST, "in_doubt", "lost"),
    ],
)
def test_an_answer_without_a_task_moves_its_item_and_is_recorded(
    book: Book, event: Event, state: str, outcome: str
) -> None:
    """Deferred, rejected or lost."""
    book.take_in(sheet("one"))
    (claimed,) = book.claim()
    said: dict[str, Any] = {
        "http_status": 418,
        "error_code": "c",
        "error_message": "m",
        "request_id": "r",
        "credits": 2.5,
    }
    assert book.record(book.answer(claimed, event, "why", raw=b"body", at=AT + 2, **said)) is event
    assert (book.state(claimed.key), book.events(claimed.key)) == (state, ["claim", event])
    attempt = book.one("SELECT * FROM attempts")
    assert (attempt["outcome"], attempt["cause"], attempt["answered_at"]) == (outcome, "why", AT + 2)
    assert {name: attempt[name] for name in said} == said
    assert attempt["raw"] == b"body"
    if event is not Event.DEFERRED:
        item = book.item(claimed.key)
        assert (item["error_code"], item["error_http_status"], item["error_request_id"]) == ("c", 418, "r")


def test_an_accepted_answer_is_recorded_with_task_account_and_raw_bytes(book: Book) -> None:
    """The item's earlier errors are cleared."""
    book.take_in(sheet("one"))
    (first,) = book.claim()
    book.record(book.answer(first, Event.DEFERRED, "unsent"))
    (second,) = book.claim_anew()
    assert book.record(book.accepted(second, "t1", raw=b'{"id":"t1"}', credits=3.0)) is Event.ACCEPTED
    item = book.item(second.key)
    assert (item["state"], item["task_id"], item["account_id"]) == ("submitted", "t1", book.account_id)
    assert (item["deferrals"], item["error_code"]) == (0, None)
    task = book.one("SELECT * FROM tasks")
    assert (task["task_id"], task["item_key"], task["attempt"], task["credits"]) == ("t1", second.key, 2, 3.0)
    assert (task["looks"], task["missing_looks"], task["unusable_looks"]) == (0, 0, 0)
    outcomes = book.all("SELECT outcome, raw FROM attempts ORDER BY attempt")
    assert outcomes == [{"outcome": "deferred", "raw": None}, {"outcome": "accepted", "raw": b'{"id":"t1"}'}]


@pytest.mark.parametrize("event", [Event.ACCEPTED, Event.DEFERRED, Event.REJECTED, Event.LOST])
def test_recording_an_answer_twice_changes_nothing(book: Book, event: Event) -> None:
    book.take_in(sheet("one"))
    (claimed,) = book.claim()
    record = book.answer(claimed, event, task_id="t1" if event is Event.ACCEPTED else None, raw=b"x")
    book.record(record)
    before = book.dump()
    assert book.record(record) is event
    assert book.dump() == before


def test_a_late_answer_with_a_task_settles_the_doubt(book: Book) -> None:
    book.take_in(sheet("one"))
    (claimed,) = book.claim()
    book.record(book.answer(claimed, Event.LOST, "unclear", error_message="timeout"))
    book.record(book.accepted(claimed, "t1"))
    item = book.item(claimed.key)
    assert (item["state"], item["task_id"], item["error_message"]) == ("submitted", "t1", None)
    assert book.events(claimed.key) == ["claim", "lost", "evidence"]
    assert book.one("SELECT outcome FROM attempts") == {"outcome": "accepted"}


@pytest.mark.parametrize("event", [Event.DEFERRED, Event.REJECTED])
def test_a_late_answer_without_a_task_leaves_the_item_in_doubt(book: Book, event: Event) -> None:
    """A person has to decide."""
    book.take_in(sheet("one"))
    (claimed,) = book.claim()
    book.record(book.answer(claimed, Event.LOST))
    book.record(book.answer(claimed, event))
    assert book.state(claimed.key) == "in_doubt"


@pytest.mark.parametrize("now", ["pending", "submitting", "submitted"])
def test_a_late_answer_to_an_older_attempt_does_not_move_the_item(book: Book, now: str) -> None:
    """The answer is recorded with that attempt, and so is its task."""
    book.take_in(sheet("one"))
    (first,) = book.claim()
    book.record(book.answer(first, Event.LOST))
    assert book.do(decisions.buy_again, first.key, 1, at=AT, who="me")
    if now != "pending":
        (second,) = book.claim_anew()
        if now == "submitted":
            book.record(book.accepted(second, "t2"))
    before, events = book.item(first.key), book.events(first.key)
    book.record(book.accepted(first, "t1"))
    assert (book.item(first.key), book.events(first.key)) == (before, events)
    assert book.one("SELECT outcome FROM attempts WHERE attempt = 1") == {"outcome": "accepted"}
    assert book.one("SELECT attempt FROM tasks WHERE task_id = 't1'") == {"attempt": 1}


def test_an_answer_to_a_second_create_leaves_the_record_of_the_first_in_doubt(book: Book) -> None:
    """The first may have been bought as well, and a budget counts it."""
    book.take_in(sheet("one"))
    (first,) = book.claim()
    book.record(book.answer(first, Event.LOST, raw=b"first"))
    book.do(decisions.buy_again, first.key, 1, at=AT, who="me")
    (second,) = book.claim_anew()
    book.record(book.accepted(second, "t2", raw=b"second"))
    kept = book.all("SELECT outcome, raw FROM attempts ORDER BY attempt")
    assert kept == [{"outcome": "lost", "raw": b"first"}, {"outcome": "accepted", "raw": b"second"}]


def test_a_definite_answer_is_never_replaced(book: Book) -> None:
    book.take_in(sheet("one"))
    (claimed,) = book.claim()
    book.record(book.accepted(claimed, "t1", raw=b"first"))
    before = book.dump()
    for other in (Event.LOST, Event.REJECTED, Event.DEFERRED):
        book.record(book.answer(claimed, other, raw=b"second"))
    assert book.dump() == before


def test_a_task_that_another_item_owns_puts_the_create_in_doubt(book: Book) -> None:
    """The first item keeps its task."""
    book.take_in(sheet("one", "two"))
    first, second = book.claim(2)
    book.record(book.accepted(first, "t1"))
    assert book.record(book.accepted(second, "t1", raw=b"theirs")) is Event.LOST
    assert (book.state(first.key), book.state(second.key)) == ("submitted", "in_doubt")
    assert book.one("SELECT item_key FROM tasks") == {"item_key": first.key}
    attempt = book.one("SELECT outcome, cause, raw FROM attempts WHERE item_key = ?", second.key)
    assert attempt == {"outcome": "lost", "cause": "owned_by_another", "raw": b"theirs"}


def test_a_task_of_an_older_attempt_puts_the_create_in_doubt(book: Book) -> None:
    """The API answers the new create with the id of the item's earlier task."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    book.do(collection.record_failed, ending(task, word="failed"))
    book.do(decisions.retry, task.key, 1, at=AT, who="me")
    (again,) = book.claim_anew()
    assert book.record(book.accepted(again, "t1")) is Event.LOST
    assert book.state(task.key) == "in_doubt"


def test_two_accounts_may_have_the_same_task_id(book: Book) -> None:
    book.take_in(sheet("one", "two"))
    book.submitted("t1")
    book.begin("run-2", user_id="u2")
    (claimed,) = book.claim(run_id="run-2")
    assert book.record(book.accepted(claimed, "t1", run_id="run-2")) is Event.ACCEPTED


def test_creates_of_a_dead_run_are_in_doubt(book: Book) -> None:
    """They never return to pending, where they would be sent again."""
    book.take_in(sheet("one", "two", "three"))
    first, second, third = book.claim(3)
    book.record(book.accepted(second, "t2"))
    assert book.do(answers.doubt_unanswered, at=AT + 6, run_id=RUN) == 0
    book.begin("run-2")
    assert book.do(answers.doubt_unanswered, at=AT + 7, run_id="run-2") == 2
    assert [book.state(one.key) for one in (first, second, third)] == ["in_doubt", "submitted", "in_doubt"]
    assert book.one("SELECT outcome, cause, answered_at FROM attempts WHERE item_key = ?", first.key) == {
        "outcome": "lost",
        "cause": "vanished",
        "answered_at": AT + 7,
    }
    assert book.do(answers.doubt_unanswered, at=AT + 8, run_id="run-2") == 0
    assert book.claim_anew(5) == []
