"""A person's decisions about items: buy again, abandon, adopt, retry."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batcher.item import Event, Inputs, State
from batcher.ledger.lifecycle import collection, decisions
from batcher.ledger.lifecycle.transitions import NO_ERROR
from batcher.ledger.records import Claimed, FileRecord
from tests.support.ledger_kit import AT, RUN, Book, ending, sheet


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
    book.take_in(sheet("zero", "one"))
    book.do(collection.record_failed, ending(book.submitted("t1")))
    claimed = _doubtful(book)
    book.execute("UPDATE items SET recheck_task_id = 't0' WHERE key = ?", claimed.key)
    who: dict[str, Any] = {"account_id": book.account_id, "at": AT, "who": "me"}
    assert book.do(decisions.adopt, claimed.key, 1, task_id="t9", **who)
    item = book.item(claimed.key)
    assert (item["error_message"], item["recheck_task_id"], item["account_id"]) == (None, None, book.account_id)
    counts = book.one("SELECT looks, missing_looks, unusable_looks FROM tasks WHERE task_id = 't9'")
    assert set(counts.values()) == {0}
    assert (book.state(claimed.key), book.events(claimed.key)[-1]) == ("submitted", "adopted")
    assert book.do(decisions.task_owner, book.account_id, "t9") == claimed.key
    assert [task.task_id for task in book.open_tasks()] == ["t9"]


def test_a_task_that_is_adopted_after_its_end_is_polled_as_if_new(book: Book) -> None:
    """What it turns out to be then is recorded, and it is gone only after as many missing polls as any other."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    for after in (0, 60, 120, 180):
        book.do(collection.record_missing, ending(task, at=AT + after))
    assert book.state(task.key) == "gone"
    who: dict[str, Any] = {"account_id": book.account_id, "at": AT, "who": "me"}
    assert book.do(decisions.adopt, task.key, 1, task_id="t1", **who)
    before = book.one("SELECT ended_at, missing_since_at, missing_looks FROM tasks")
    assert before == {"ended_at": None, "missing_since_at": None, "missing_looks": 0}
    assert not book.do(collection.record_missing, ending(task, at=AT + 400))
    assert not book.do(collection.record_missing, ending(task, at=AT + 590))
    assert book.do(collection.record_rendered, ending(task, at=AT + 600, word="completed"))
    assert book.one("SELECT ended_at, word FROM tasks") == {"ended_at": AT + 600, "word": "completed"}


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
    book.execute("UPDATE items SET not_before_at = ?, deferrals = 3", AT + 999)
    assert book.do(decisions.retry, task.key, 1, at=AT, who="me")
    item = book.item(task.key)
    assert (item["state"], item["task_id"], item["not_before_at"], item["deferrals"]) == ("pending", None, 0, 0)
    assert {name: value for name, value in item.items() if name.startswith("error_")} == NO_ERROR
    (again,) = book.claim_anew()
    assert again.attempt == 2
    assert not book.do(collection.record_rendered, ending(task))
    assert book.state(task.key) == "submitting"


def _done(book: Book, task_id: str) -> str:
    """The key of the next item, after it was created, rendered and saved."""
    task = book.submitted(task_id)
    book.do(collection.record_rendered, ending(task))
    file = FileRecord(path=f".items/{task_id}.mp3", sha256="0" * 64, bytes=10, audio_seconds=1.5)
    book.do(collection.record_file, task, file, out_dir="audio", at=AT)
    assert book.do(collection.record_saved, task, at=AT, run_id=RUN)
    return task.key


def _retake(book: Book, row_id: str) -> decisions.Retake | None:
    return book.do(decisions.retake, book.wanted[0].batch_id, row_id, at=AT + 1, who="me")


def _switch(book: Book, row_id: str, take: int) -> decisions.Retake | None:
    return book.do(decisions.switch_take, book.wanted[0].batch_id, row_id, take, at=AT + 2, who="me")


def _rows(book: Book) -> list[tuple[Any, ...]]:
    """Batch, id, item, take and highest take of each row."""
    query = "SELECT batch_id, id, item_key, take, highest_take FROM rows ORDER BY batch_id, number"
    return [tuple(row.values()) for row in book.all(query)]


def test_a_retake_gives_its_row_alone_a_new_item_with_the_same_inputs(book: Book) -> None:
    """The audio that is paid for stays, and other rows keep it."""
    book.take_in("id,text,speed,model\na,one,1.5,m1\nb,two,1.5,m1\n")
    book.take_in("id,text,output\na,other,second/a.mp3\n", batch="second")
    old = _done(book, "t1")
    book.execute("UPDATE batches SET trusted = 'as it was'")
    before, rows = book.item(old), _rows(book)
    assert _retake(book, "a") == decisions.Retake(take=2, state=State.PENDING, is_new=True)
    key = book.one("SELECT key FROM items WHERE take = 2")["key"]
    assert _rows(book) == [(*rows[0][:2], key, 2, 2), *rows[1:]]
    new = book.item(key)
    inputs = ("text_hash", "text", "voice", "model", "format", "params", "bytes")
    assert [new[name] for name in inputs] == [before[name] for name in inputs]
    assert (new["state"], new["attempt"], new["take"], new["created_at"]) == ("pending", 0, 2, AT + 1)
    params = json.loads(new["params"])
    assert key == Inputs(text="one", voice="anna", model="m1", format="mp3", params=params, take=2).key()
    assert book.item(old) == before | {"changed_at": AT + 1}
    assert book.events(old)[-1] == "retake"
    trusted = {row["name"]: row["trusted"] for row in book.all("SELECT name, trusted FROM batches")}
    assert trusted == {"m": None, "second": "as it was"}
    assert key in book.one("SELECT detail FROM events WHERE event = 'retake'")["detail"]
    assert key in [one.key for one in book.claim_anew(5)]


def test_a_retake_of_an_item_that_is_not_done_changes_nothing(book: Book) -> None:
    """So a retake asked for twice is bought once."""
    book.take_in(sheet("one"))
    _done(book, "t1")
    _retake(book, "a")
    before = book.dump()
    assert _retake(book, "a") is None
    assert book.dump() == before


def test_rows_with_the_same_inputs_share_their_retake(book: Book) -> None:
    """It is bought once."""
    book.take_in(sheet("same", "same"))
    _done(book, "t1")
    assert _retake(book, "a") == decisions.Retake(take=2, state=State.PENDING, is_new=True)
    assert _retake(book, "b") == decisions.Retake(take=2, state=State.PENDING)
    book.cursor = (0, 0)
    _done(book, "t2")
    assert book.claim_anew(5) == []


def test_a_retake_that_another_row_has_paid_for_costs_nothing(book: Book) -> None:
    book.take_in(sheet("same", "same"))
    _done(book, "t1")
    _retake(book, "a")
    book.cursor = (0, 0)
    _done(book, "t2")
    assert _retake(book, "b") == decisions.Retake(take=2, state=State.DONE)
    assert book.claim_anew(5) == []


def test_a_row_switches_between_its_paid_takes_at_no_cost(book: Book) -> None:
    """The next retake is one above the highest that it has used."""
    book.take_in(sheet("one"))
    first = _done(book, "t1")
    _retake(book, "a")
    book.cursor = (0, 0)
    second = _done(book, "t2")
    assert _switch(book, "a", 1) == decisions.Retake(take=1, state=State.DONE)
    assert [row[2:] for row in _rows(book)] == [(first, 1, 2)]
    assert book.events(first)[-1] == "retake"
    assert "row a uses take 1 again" in book.all("SELECT detail FROM events ORDER BY id")[-1]["detail"]
    before = book.dump()
    assert _switch(book, "a", 1) == decisions.Retake(take=1, state=State.DONE)
    assert _switch(book, "a", 3) is None
    assert book.dump() == before
    assert _retake(book, "a") == decisions.Retake(take=3, state=State.PENDING, is_new=True)
    assert _switch(book, "a", 2) == decisions.Retake(take=2, state=State.DONE)
    assert [row[2:] for row in _rows(book)] == [(second, 2, 3)]
    assert book.claim_anew(5) == []


@pytest.mark.parametrize("ended", ["rendered", "failed"])
def test_a_row_switches_to_a_take_that_is_paid_for_before_its_audio_is_there(book: Book, ended: str) -> None:
    """It will be collected. One that has failed has none to come."""
    book.take_in(sheet("one"))
    _done(book, "t1")
    _retake(book, "a")
    book.cursor = (0, 0)
    task = book.submitted("t2")
    _switch(book, "a", 1)
    assert _switch(book, "a", 2) == decisions.Retake(take=2, state=State.SUBMITTED)
    _switch(book, "a", 1)
    if ended == "rendered":
        book.do(collection.record_rendered, ending(task))
        assert _switch(book, "a", 2) == decisions.Retake(take=2, state=State.RENDERED)
    else:
        book.do(collection.record_failed, ending(task))
        assert _switch(book, "a", 2) is None


def test_a_retake_that_was_never_bought_is_used_before_another(book: Book) -> None:
    """And it is no take to switch to: it would have to be bought."""
    book.take_in(sheet("one"))
    _done(book, "t1")
    _retake(book, "a")
    _switch(book, "a", 1)
    before = book.dump()
    assert _switch(book, "a", 2) is None
    assert book.dump() == before
    assert _retake(book, "a") == decisions.Retake(take=2, state=State.PENDING)
    assert len(book.all("SELECT key FROM items")) == 2
