"""Moves of an item from state to state, and the guards that refuse one."""

from __future__ import annotations

import pytest

from batcher.item import Event, State
from batcher.ledger.lifecycle import collection
from batcher.ledger.lifecycle.transitions import move
from batcher.ledger.records import AnswerRecord
from tests.support.ledger_kit import AT, RUN, Book, ending, sheet


def test_a_move_updates_the_item_and_logs_an_event(book: Book) -> None:
    """The event records who moved it, when and why."""
    book.take_in(sheet("one"))
    (claimed,) = book.claim()
    assert book.do(move, Event.LOST, claimed.key, 1, at=AT + 5, run_id=RUN, detail="why")
    item = book.item(claimed.key)
    assert (item["state"], item["attempt"], item["changed_at"]) == ("in_doubt", 1, AT + 5)
    last = book.one("SELECT * FROM events ORDER BY id DESC LIMIT 1")
    assert (last["event"], last["state"], last["attempt"]) == ("lost", "in_doubt", 1)
    assert (last["at"], last["run_id"], last["detail"]) == (AT + 5, RUN, "why")


@pytest.mark.parametrize(
    ("event", "attempt", "of_task"),
    [
        (Event.RENDERED, 0, "t1"),
        (Event.RENDERED, 2, "t1"),
        (Event.RENDERED, 1, "t2"),
        (Event.RENDERED, 1, ""),
        (Event.CLAIM, 1, None),
        (Event.SAVED, 1, "t1"),
        (Event.ACCEPTED, 1, "t1"),
    ],
)
def test_a_move_for_another_attempt_task_or_state_writes_nothing(
    book: Book, event: Event, attempt: int, of_task: str | None
) -> None:
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    before = book.dump()
    values = {"error_code": "x"}
    assert not book.do(move, event, task.key, attempt, at=AT + 9, run_id=RUN, of_task=of_task, values=values)
    assert book.dump() == before


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.GONE, State.REJECTED, State.ABANDONED])
def test_no_answer_moves_an_item_that_has_ended(book: Book, state: State) -> None:
    """Only a person's decision does."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    book.execute("UPDATE items SET state = ?", state)
    theirs = set(Event) - {Event.RETRY, Event.RETAKE, Event.ADOPTED, Event.BUY_AGAIN, Event.ABANDON}
    assert not any(book.do(move, event, task.key, task.attempt, at=AT, run_id=RUN) for event in theirs)
    late = AnswerRecord(
        key=task.key, attempt=1, run_id=RUN, account_id=book.account_id, at=AT, event=Event.ACCEPTED, cause="ok",
        task_id="t1",
    )  # fmt: skip
    book.record(late)
    book.do(collection.record_rendered, ending(task, word="completed"))
    book.do(collection.record_failed, ending(task, word="failed"))
    assert book.state(task.key) == state
