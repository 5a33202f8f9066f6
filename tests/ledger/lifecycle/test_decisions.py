"""A person's decisions about items: buy again, abandon, adopt, retry."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.item import Event
from batcher.ledger.lifecycle import collection, decisions
from batcher.ledger.lifecycle.transitions import NO_ERROR
from batcher.ledger.records import Claimed
from tests.support.ledger_kit import AT, Book, ending, sheet


def _doubtful(book: Book) -> Claimed:
    (claimed,) = book.claim()
    book.record(book.answer(claimed, Event.LOST, error_message="timeout"))
    return claimed


def test_only_the_attempt_in_doubt_is_bought_again_or_abandoned(book: Book) -> None:
    """A decision about another attempt than the person saw changes nothing."""
    book.take_in(sheet("one", "two"))
    first, second = _doubtful(book), _doubtful(book)
    assert not book.do(decisions.buy_again, first.key, 2, at=AT, who="me")
    assert book.do(decisions.buy_again, first.key, 1, at=AT, who="me")
    assert not book.do(decisions.abandon, first.key, 1, at=AT, who="me")
    assert book.do(decisions.abandon, second.key, 1, at=AT, who="me")
    assert (book.state(first.key), book.state(second.key)) == ("pending", "abandoned")
    assert book.item(first.key)["error_message"] is None
    assert book.one("SELECT detail FROM events WHERE event = 'buy_again'") == {"detail": "by me"}


def test_an_adopted_task_becomes_the_items_and_is_collected(book: Book) -> None:
    book.take_in(sheet("one"))
    claimed = _doubtful(book)
    who: dict[str, Any] = {"account_id": book.account_id, "at": AT, "who": "me"}
    assert book.do(decisions.adopt, claimed.key, 1, task_id="t9", **who)
    assert (book.state(claimed.key), book.events(claimed.key)[-1]) == ("submitted", "adopted")
    assert book.do(decisions.task_owner, book.account_id, "t9") == claimed.key
    assert [task.task_id for task in book.do(collection.open_tasks, book.account_id, book.wanted)] == ["t9"]


@pytest.mark.parametrize("case", ["owned", "stale attempt", "wrong state"])
def test_an_adoption_that_does_not_fit_changes_nothing(book: Book, case: str) -> None:
    """Another item's task, another attempt, or an item that is not in doubt."""
    book.take_in(sheet("one", "two"))
    owner = book.submitted("t1")
    claimed = _doubtful(book)
    key, attempt, task_id = {
        "owned": (claimed.key, 1, "t1"),
        "stale attempt": (claimed.key, 0, "t9"),
        "wrong state": (owner.key, 1, "t9"),
    }[case]
    if case == "stale attempt":
        book.do(decisions.buy_again, claimed.key, 1, at=AT, who="me")
        (again,) = book.claim_anew()
        book.record(book.answer(again, Event.LOST))
        attempt = 1
    before = book.dump()
    account = book.account_id
    assert not book.do(decisions.adopt, key, attempt, account_id=account, task_id=task_id, at=AT, who="me")
    assert book.dump() == before


def test_a_retry_clears_task_error_and_waiting_time(book: Book) -> None:
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    error: dict[str, Any] = {"error_code": "boom", "error_message": "m", "request_id": "r", "http_status": 500}
    book.do(collection.record_failed, ending(task, **error))
    assert book.do(decisions.retry, task.key, 1, at=AT, who="me")
    item = book.item(task.key)
    assert (item["state"], item["task_id"], item["not_before_at"], item["deferrals"]) == ("pending", None, 0, 0)
    assert {name: value for name, value in item.items() if name.startswith("error_")} == NO_ERROR
    (again,) = book.claim_anew()
    assert again.attempt == 2
    assert not book.do(collection.record_rendered, ending(task))
    assert book.state(task.key) == "submitting"
