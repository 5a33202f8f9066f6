"""The ledger's promises, each against a real SQLite file: intents, answers, endings, shared commits, the spill."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError

from batcher.errors import LockedError, StorageError
from batcher.item import Event, State
from batcher.ledger.ledger import Ledger, open_ledger
from batcher.ledger.lifecycle import answers, claims, collection, decisions, halts, runs
from batcher.ledger.lifecycle.transitions import move
from batcher.ledger.money.spending import Budget
from batcher.ledger.records import AnswerRecord, Claimed, FileRecord, OpenTask
from batcher.ledger.storage import database
from batcher.ledger.storage.lock import owner_lock
from batcher.ledger.storage.spill import Spill
from tests.support.ledger_kit import AT, NEVER, RUN, Book, book_in, ending, keys_of, sheet


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with book_in(tmp_path) as made:
        yield made


# --- moves


def test_move_writes_item_and_event(book: Book) -> None:
    """A move changes the state, stamps it and leaves an event that says by whom, when and why."""
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
def test_guarded_moves(book: Book, event: Event, attempt: int, of_task: str | None) -> None:
    """Another attempt, another task or another state than the item's: nothing changes, nothing is written."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    before = book.dump()
    assert not book.do(move, event, task.key, attempt, at=AT + 9, run_id=RUN, of_task=of_task, error_code="x")
    assert book.dump() == before


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.GONE, State.REJECTED, State.ABANDONED])
def test_terminal_is_terminal(book: Book, state: State) -> None:
    """No event that a provider's answer or silence can cause moves an item that has ended."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    with closing(sqlite3.connect(book.path)) as connection, connection:
        connection.execute("UPDATE items SET state = ?", (state,))
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


# --- claims


def test_claim_makes_the_intent_durable(book: Book) -> None:
    """A claimed item is submitting with its attempt written, and its body is the request that will leave."""
    book.take_in(sheet("sea"))
    (claimed,) = book.claim()
    assert (claimed.attempt, claimed.format, claimed.chars) == (1, "mp3", 3)
    assert claimed.body == b'{"format":"mp3","text":"sea","voiceId":"anna"}'
    assert "sea" not in repr(claimed)
    assert (book.state(claimed.key), book.events(claimed.key)) == ("submitting", ["claim"])
    attempt = book.one("SELECT * FROM attempts")
    assert (attempt["item_key"], attempt["attempt"], attempt["run_id"]) == (claimed.key, 1, RUN)
    assert (attempt["intended_at"], attempt["outcome"], attempt["answered_at"]) == (AT, None, None)


def test_a_body_that_cannot_be_built_claims_nothing(book: Book) -> None:
    """An item whose request fails to build is not left as if a create had gone out."""
    book.take_in(sheet("one", "two"))

    def refuse(_inputs: object) -> bytes:
        raise ValueError("no body")

    who: dict[str, Any] = {"run_id": RUN, "account_id": book.account_id, "wanted": book.wanted}
    before = book.dump()
    with pytest.raises(ValueError, match="no body"):
        book.do(claims.claim, refuse, **who, cursor=(0, 0), limit=2, at=AT)
    assert book.dump() == before


@pytest.mark.parametrize("end", ["ended", "superseded", "unknown"])
def test_only_a_living_run_claims(book: Book, end: str) -> None:
    """A run that has ended, or whose ledger another run has begun on, gets nothing."""
    book.take_in(sheet("one"))
    run_id = RUN
    if end == "ended":
        book.do(lambda conn: runs.end_run(conn, RUN, ended_at=AT))
    elif end == "superseded":
        book.begin("run-2")
    else:
        run_id = "run-unknown"
    assert book.claim(run_id=run_id) == []
    assert book.all("SELECT * FROM attempts") == []


@pytest.mark.parametrize("most", [None, 100.0])
@pytest.mark.parametrize("kind", ["credits", "unstable"])
def test_no_claim_through_a_halt(book: Book, kind: halts.Kind, most: float | None) -> None:
    """An open halt of the account stops all claims, whatever the budget has left; another account's does not."""
    book.take_in(sheet("one"))
    halted = book.account_id
    book.do(halts.open_halt, halted, kind, AT, "why", RUN)
    budget = None if most is None else Budget(most)
    assert book.claim(5, budget=budget) == []
    book.begin("run-2", user_id="u2")
    assert len(book.claim(5, run_id="run-2", budget=budget)) == 1


def test_claims_follow_the_rows(book: Book) -> None:
    """Items are claimed in the order of the manifests and of their rows, never more than asked for."""
    book.take_in(sheet("one", "two", "three"), batch="first")
    book.take_in("id,text\nx,zero\ny,four\n", batch="second")
    bodies = [one.body for limit in (2, 2, 5) for one in book.claim(limit)]
    texts = [body.split(b'"text":"')[1].split(b'"')[0].decode() for body in bodies]
    assert texts == ["one", "two", "three", "zero", "four"]
    assert book.claim(5) == []


def test_the_cursor_wraps(book: Book) -> None:
    """What was deferred behind the cursor is found again from the start, and only when it is due."""
    book.take_in(sheet("one", "two"))
    first, second = book.claim(2)
    book.record(book.answer(first, Event.DEFERRED, "throttled", not_before_at=AT + 60))
    book.record(book.accepted(second, "t2"))
    assert book.claim(2) == []
    assert book.claim_anew(2, at=AT + 59) == []
    assert book.do(claims.next_due_at, RUN, book.wanted) == AT + 60
    (again,) = book.claim_anew(2, at=AT + 60)
    assert (again.key, again.attempt) == (first.key, 2)
    assert book.do(claims.next_due_at, RUN, book.wanted) is None


def test_shared_items_are_claimed_once(book: Book) -> None:
    """Rows with the same inputs, in one manifest or in two, are one create, even within one claim."""
    book.take_in(sheet("same", "same", "other"), batch="first")
    book.take_in("id,text\nx,same\ny,other\n", batch="second")
    claimed = book.claim(10)
    assert len(claimed) == len({*keys_of(claimed)}) == 2
    assert book.claim_anew(10) == []


def test_only_wanted_rows_are_claimed(book: Book) -> None:
    """Rows of other batches, rows that the manifest has lost, and skipped rows are not bought."""
    book.take_in("id,text\nx,other\n", batch="other")
    book.take_in(sheet("old", "kept"), batch="m")
    book.take_in("id,text\nb,kept\nc,\n", batch="m", skip_empty=True)
    book.wanted = [one for one in book.wanted if one.name == "m"]
    (claimed,) = book.claim(10)
    assert b'"kept"' in claimed.body
    left = book.all("SELECT text FROM items WHERE state = 'pending' ORDER BY text")
    assert [row["text"] for row in left] == ["old", "other"]
    book.wanted = []
    assert book.claim_anew(10) == []
    assert book.do(claims.next_due_at, RUN, []) is None


# --- answers


@pytest.mark.parametrize(
    ("event", "state", "outcome"),
    [
        (Event.DEFERRED, "pending", "deferred"),
        (Event.REJECTED, "rejected", "rejected"),
        (Event.LOST, "in_doubt", "lost"),
    ],
)
def test_answers_without_a_task(book: Book, event: Event, state: str, outcome: str) -> None:
    """Each answer that names no task leads its item where the design says and is kept with its attempt."""
    book.take_in(sheet("one"))
    (claimed,) = book.claim()
    said: dict[str, Any] = {"http_status": 418, "error_code": "c", "error_message": "m", "request_id": "r"}
    assert book.record(book.answer(claimed, event, "why", raw=b"body", at=AT + 2, **said)) is event
    assert (book.state(claimed.key), book.events(claimed.key)) == (state, ["claim", event])
    attempt = book.one("SELECT * FROM attempts")
    assert (attempt["outcome"], attempt["cause"], attempt["answered_at"]) == (outcome, "why", AT + 2)
    assert {name: attempt[name] for name in said} == said
    assert attempt["raw"] == b"body"
    if event is not Event.DEFERRED:
        item = book.item(claimed.key)
        assert (item["error_code"], item["error_http_status"], item["error_request_id"]) == ("c", 418, "r")


def test_accepted_answer(book: Book) -> None:
    """An accepted create has its task, its account and its raw answer on disk; earlier errors are forgotten."""
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
    outcomes = book.all("SELECT outcome, raw FROM attempts ORDER BY attempt")
    assert outcomes == [{"outcome": "deferred", "raw": None}, {"outcome": "accepted", "raw": b'{"id":"t1"}'}]


@pytest.mark.parametrize("event", [Event.ACCEPTED, Event.DEFERRED, Event.REJECTED, Event.LOST])
def test_answers_may_be_recorded_twice(book: Book, event: Event) -> None:
    """Recording the same answer again changes nothing."""
    book.take_in(sheet("one"))
    (claimed,) = book.claim()
    record = book.answer(claimed, event, task_id="t1" if event is Event.ACCEPTED else None, raw=b"x")
    book.record(record)
    before = book.dump()
    assert book.record(record) is event
    assert book.dump() == before


def test_late_answer_is_evidence(book: Book) -> None:
    """The answer of an attempt that is in doubt settles the doubt when it turns up."""
    book.take_in(sheet("one"))
    (claimed,) = book.claim()
    book.record(book.answer(claimed, Event.LOST, "unclear", error_message="timeout"))
    book.record(book.accepted(claimed, "t1"))
    item = book.item(claimed.key)
    assert (item["state"], item["task_id"], item["error_message"]) == ("submitted", "t1", None)
    assert book.events(claimed.key) == ["claim", "lost", "evidence"]
    assert book.one("SELECT outcome FROM attempts") == {"outcome": "accepted"}


@pytest.mark.parametrize("event", [Event.DEFERRED, Event.REJECTED])
def test_only_a_task_settles_a_doubt(book: Book, event: Event) -> None:
    """A late answer that names no task leaves the doubt to a person."""
    book.take_in(sheet("one"))
    (claimed,) = book.claim()
    book.record(book.answer(claimed, Event.LOST))
    book.record(book.answer(claimed, event))
    assert book.state(claimed.key) == "in_doubt"


@pytest.mark.parametrize("now", ["pending", "submitting", "submitted"])
def test_answer_of_an_older_attempt(book: Book, now: str) -> None:
    """A late answer for an older attempt is kept with that attempt, its task with its id, and the item stays."""
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


def test_a_definite_answer_stays(book: Book) -> None:
    """Once an attempt has a definite answer, another one for the same attempt does not replace it."""
    book.take_in(sheet("one"))
    (claimed,) = book.claim()
    book.record(book.accepted(claimed, "t1", raw=b"first"))
    before = book.dump()
    for other in (Event.LOST, Event.REJECTED, Event.DEFERRED):
        book.record(book.answer(claimed, other, raw=b"second"))
    assert book.dump() == before


def test_an_id_that_another_item_owns(book: Book) -> None:
    """Two items never share a task: the second one to be told its id is in doubt, the first keeps it."""
    book.take_in(sheet("one", "two"))
    first, second = book.claim(2)
    book.record(book.accepted(first, "t1"))
    assert book.record(book.accepted(second, "t1", raw=b"theirs")) is Event.LOST
    assert (book.state(first.key), book.state(second.key)) == ("submitted", "in_doubt")
    assert book.one("SELECT item_key FROM tasks") == {"item_key": first.key}
    attempt = book.one("SELECT outcome, cause, raw FROM attempts WHERE item_key = ?", second.key)
    assert attempt == {"outcome": "lost", "cause": "owned_by_another", "raw": b"theirs"}


def test_an_id_of_an_older_attempt(book: Book) -> None:
    """A new create that is answered with the id of the item's own earlier attempt is in doubt as well."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    book.do(collection.record_failed, ending(task, word="failed"))
    book.do(decisions.retry, task.key, 1, at=AT, who="me")
    (again,) = book.claim_anew()
    assert book.record(book.accepted(again, "t1")) is Event.LOST
    assert book.state(task.key) == "in_doubt"


def test_the_same_id_at_another_account(book: Book) -> None:
    """Ids belong to accounts: two accounts may have a task of the same name."""
    book.take_in(sheet("one", "two"))
    book.submitted("t1")
    book.begin("run-2", user_id="u2")
    (claimed,) = book.claim(run_id="run-2")
    assert book.record(book.accepted(claimed, "t1", run_id="run-2")) is Event.ACCEPTED


def test_abandoned_creates_are_in_doubt(book: Book) -> None:
    """Creates that no living run owns are put in doubt, never back to where they would be sent again."""
    book.take_in(sheet("one", "two", "three"))
    first, second, third = book.claim(3)
    book.record(book.accepted(second, "t2"))
    assert book.do(answers.doubt_unanswered, at=AT + 7, run_id=RUN) == 2
    assert [book.state(one.key) for one in (first, second, third)] == ["in_doubt", "submitted", "in_doubt"]
    assert book.one("SELECT outcome, cause, answered_at FROM attempts WHERE item_key = ?", first.key) == {
        "outcome": "lost",
        "cause": "vanished",
        "answered_at": AT + 7,
    }
    assert book.do(answers.doubt_unanswered, at=AT + 8, run_id=RUN) == 0
    assert book.claim_anew(5) == []


# --- the task's reads


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


# --- a person's decisions


def _doubtful(book: Book) -> Claimed:
    (claimed,) = book.claim()
    book.record(book.answer(claimed, Event.LOST, error_message="timeout"))
    return claimed


def test_buy_again_and_abandon(book: Book) -> None:
    """Only a doubt can be bought again or given up, and only the attempt that the person saw."""
    book.take_in(sheet("one", "two"))
    first, second = _doubtful(book), _doubtful(book)
    assert not book.do(decisions.buy_again, first.key, 2, at=AT, who="me")
    assert book.do(decisions.buy_again, first.key, 1, at=AT, who="me")
    assert not book.do(decisions.abandon, first.key, 1, at=AT, who="me")
    assert book.do(decisions.abandon, second.key, 1, at=AT, who="me")
    assert (book.state(first.key), book.state(second.key)) == ("pending", "abandoned")
    assert book.item(first.key)["error_message"] is None
    assert book.one("SELECT detail FROM events WHERE event = 'buy_again'") == {"detail": "by me"}


def test_adopt(book: Book) -> None:
    """A task that a person names becomes the doubtful item's and is collected."""
    book.take_in(sheet("one"))
    claimed = _doubtful(book)
    who: dict[str, Any] = {"account_id": book.account_id, "at": AT, "who": "me"}
    assert book.do(decisions.adopt, claimed.key, 1, task_id="t9", **who)
    assert (book.state(claimed.key), book.events(claimed.key)[-1]) == ("submitted", "adopted")
    assert book.do(decisions.task_owner, book.account_id, "t9") == claimed.key
    assert [task.task_id for task in book.do(collection.open_tasks, book.account_id, book.wanted)] == ["t9"]


@pytest.mark.parametrize("case", ["owned", "stale attempt", "wrong state"])
def test_adopting_what_cannot_be_changes_nothing(book: Book, case: str) -> None:
    """Another item's task, another attempt or a state without a doubt: refused, and the ledger is as it was."""
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


def test_a_retry_forgets_the_task(book: Book) -> None:
    """A retried item starts over at once: without its old task, its error and its waiting time."""
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    book.do(collection.record_failed, ending(task, error_code="boom"))
    assert book.do(decisions.retry, task.key, 1, at=AT, who="me")
    item = book.item(task.key)
    assert (item["state"], item["task_id"], item["error_code"], item["not_before_at"]) == ("pending", None, None, 0)
    (again,) = book.claim_anew()
    assert again.attempt == 2
    assert not book.do(collection.record_rendered, ending(task))
    assert book.state(task.key) == "submitting"


# --- shared commits


@pytest.fixture(params=[False, True], ids=["alone", "gathering"])
def ledger(book: Book, request: pytest.FixtureRequest) -> Iterator[Ledger]:
    book.take_in(sheet(*(f"text {number}" for number in range(12))))
    with open_ledger(book.path, "real") as made:
        made.group_commits = request.param
        yield made


def _write(conn: Connection, name: str) -> str:
    conn.execute(text("INSERT INTO meta VALUES (:name, 'x')"), {"name": name})
    return name


def _names(book: Book) -> set[str]:
    return {row["name"] for row in book.all("SELECT name FROM meta")}


async def test_one_refused_record_takes_none_along(book: Book, ledger: Ledger) -> None:
    """Of many answers recorded at once, one that the schema refuses is kept aside alone; the others are durable."""
    claimed = book.claim(10)
    records = [book.accepted(one, f"t{number}") for number, one in enumerate(claimed)]
    records[4] = replace(records[4], account_id=999)
    results: dict[int, object] = {}

    async def record(number: int) -> None:
        try:
            results[number] = await ledger.record(records[number], max_in_doubt=NEVER)
        except StorageError as error:
            results[number] = error

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(record, number)
    assert isinstance(results[4], StorageError)
    assert [kept.task_id for kept in ledger.spill.records()] == ["t4"]
    assert [results[number] for number in range(10) if number != 4] == [Event.ACCEPTED] * 9
    assert {row["task_id"] for row in book.all("SELECT task_id FROM tasks")} == {f"t{n}" for n in range(10)} - {"t4"}
    assert book.state(claimed[4].key) == "submitting"


async def test_calls_share_commits(book: Book, ledger: Ledger) -> None:
    """Calls that come together are run one after the other and made durable by a commit or two, not by one each."""
    commits: list[Connection] = []
    event.listen(ledger._engine, "commit", commits.append)
    seen: list[int] = []

    def noting(conn: Connection, name: str) -> None:
        seen.append(conn.execute(text("SELECT count(*) FROM meta WHERE value = 'x'")).scalar_one())
        _write(conn, name)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(ledger.do, noting, f"n{number}")
    assert seen == list(range(20))
    assert {f"n{number}" for number in range(20)} <= _names(book)
    assert len(commits) <= 2


async def test_a_failing_verb_leaves_no_trace(book: Book, ledger: Ledger) -> None:
    """A verb that raises is undone as a whole, tells its caller why, and the ledger goes on."""

    def half(conn: Connection) -> None:
        _write(conn, "half")
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        await ledger.do(half)
    assert await ledger.do(_write, "after") == "after"
    assert "half" not in _names(book)


async def test_cancelled_calls_are_finished(book: Book, ledger: Ledger) -> None:
    """Cancelling whoever waits, before or during the commit, does not lose what was to be written."""
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(ledger.do, _write, f"n{number}")
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert {f"n{number}" for number in range(5)} <= _names(book)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await ledger.do(_write, "already cancelled")
    assert "already cancelled" in _names(book)


async def test_nothing_is_told_before_it_is_durable(book: Book, ledger: Ledger) -> None:
    """When a call returns, another connection sees what it wrote, however long the commit took that it shared."""
    seen: list[bool] = []

    @event.listens_for(ledger._engine, "commit")
    def _dawdle(connection: Connection) -> None:
        for _ in range(5):  # the loop goes round meanwhile: whoever waits no longer would say so
            anyio.from_thread.run(anyio.lowlevel.checkpoint)

    async def write(name: str) -> None:
        await ledger.do(_write, name)
        seen.append(name in _names(book))

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(write, f"n{number}")
    assert seen == [True] * 5


# --- a database that refuses


def _fill(conn: Connection) -> None:
    pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
    conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}")


def _room(conn: Connection) -> None:
    conn.exec_driver_sql("PRAGMA max_page_count = 1000000")


async def _full(ledger: Ledger) -> None:
    """Let the ledger grow no further, and use up the room within its pages."""
    await ledger.do(_fill)
    for number in range(1000):
        try:
            await ledger.do(_write, f"filler {number:04}" + "x" * 500)
        except StorageError:
            return
    pytest.fail("the ledger took it all")


async def test_a_full_database(book: Book, ledger: Ledger) -> None:
    """A database that takes nothing more is a StorageError for everyone who waited, and works again later."""
    await _full(ledger)
    before = book.dump()
    errors: list[StorageError] = []

    async def write(name: str) -> None:
        try:
            await ledger.do(_write, name + "y" * 5000)
        except StorageError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(write, f"n{number}")
    assert len(errors) == 4
    assert "full" in errors[0].message
    assert "Run it again" in errors[0].hint
    assert book.dump() == before
    await ledger.do(_room)
    assert await ledger.do(_write, "later") == "later"


async def test_answers_go_to_the_spill_file(book: Book, ledger: Ledger) -> None:
    """An answer that the database refuses is it is kept in, and a recovery records it, once."""
    (claimed, other) = book.claim(2)
    record = book.accepted(claimed, "t1", raw=b"r" * 9000)
    ledger.spill.reserve()
    await _full(ledger)
    with pytest.raises(StorageError, match="the answer is stored in"):
        await ledger.record(record, max_in_doubt=NEVER)
    assert book.state(claimed.key) == "submitting"
    ledger.close()
    with open_ledger(book.path, "real") as again:
        assert again.spill.records() == [replace(record, raw=b"r" * 4096)]
        assert await again.recover(run_id=RUN, at=AT + 9, max_in_doubt=NEVER) == 1
        assert again.spill.records() == []
    assert (book.state(claimed.key), book.state(other.key)) == ("submitted", "in_doubt")
    assert book.events(claimed.key) == ["claim", "accepted"]
    assert not ledger.spill.records()


async def test_recovery_that_was_cut_short(book: Book, ledger: Ledger) -> None:
    """A recovery that was killed before it emptied the spill file is simply done again."""
    (claimed,) = book.claim()
    ledger.spill.append(book.accepted(claimed, "t1"))
    await ledger.do(answers.record_answer, book.accepted(claimed, "t1"), max_in_doubt=NEVER)
    assert await ledger.recover(run_id=RUN, at=AT, max_in_doubt=NEVER) == 0
    assert (book.state(claimed.key), book.events(claimed.key)) == ("submitted", ["claim", "accepted"])


async def test_recovery_that_the_disk_refuses(book: Book, ledger: Ledger) -> None:
    """A spill file is not emptied before its answers are committed: one that is refused again is there still."""
    (claimed,) = book.claim()
    record = book.accepted(claimed, "t1", raw=b"r" * 4096)
    ledger.spill.append(record)
    await _full(ledger)
    with pytest.raises(StorageError):
        await ledger.recover(run_id=RUN, at=AT, max_in_doubt=NEVER)
    assert Spill(ledger.spill.path).records() == [record]
    await ledger.do(_room)
    assert await ledger.recover(run_id=RUN, at=AT, max_in_doubt=NEVER) == 0
    assert (book.state(claimed.key), ledger.spill.records()) == ("submitted", [])


async def test_an_answer_that_does_not_fit_stays_in_the_spill_file(book: Book, ledger: Ledger) -> None:
    """A spilled answer that the schema refuses is kept for a person to see, and holds up none of the others."""
    (claimed, other) = book.claim(2)
    records = [book.accepted(claimed, "t1", account_id=999), book.accepted(other, "t2")]
    for record in records:
        ledger.spill.append(record)
    assert await ledger.recover(run_id=RUN, at=AT, max_in_doubt=NEVER) == 1
    assert (book.state(claimed.key), book.state(other.key)) == ("in_doubt", "submitted")
    ledger.close()
    assert Spill(ledger.spill.path).records() == records


async def test_a_clean_close_folds_the_journal(book: Book) -> None:
    """After a clean close the ledger is one file: no journal with content and no spill file beside it."""
    book.engine.dispose()
    with open_ledger(book.path, "real") as made:
        made.spill.reserve()
        await made.recover(run_id=RUN, at=AT, max_in_doubt=NEVER)
        await made.do(_write, "kept")
        assert made.spill.path.exists()
    beside = {path.name: path.stat().st_size for path in book.path.parent.iterdir()}
    assert not [name for name, size in beside.items() if name != "batcher.db" and size]
    assert "kept" in _names(book)


# --- the spill file


def _spilled(number: int) -> AnswerRecord:
    return AnswerRecord(
        key=f"{number:064x}",
        attempt=1,
        run_id=RUN,
        account_id=1,
        at=AT + number / 3,
        event=Event.ACCEPTED,
        cause="ok",
        task_id=f"täsk {number}\n",
        credits=0.1,
        raw=bytes(range(256)),
    )


def test_spill_keeps_records(tmp_path: Path) -> None:
    """What is appended is read back by another process, in order and bit by bit, and cleared only on demand."""
    path = tmp_path / "l.spill"
    spill = Spill(path)
    spill.reserve()
    records = [_spilled(number) for number in range(3)]
    for record in records:
        spill.append(record)
    other = Spill(path)
    assert other.records() == records
    other.append(_spilled(3))
    assert Spill(path).records() == [*records, _spilled(3)]
    other.remove()
    assert path.exists()
    other.records()
    other.clear()
    assert Spill(path).records() == []
    other.append(_spilled(4))
    assert Spill(path).records() == [_spilled(4)]


def test_spill_needs_no_room_beyond_its_own(tmp_path: Path) -> None:
    """The room is taken beforehand: a record does not make the file longer, and reserving again keeps records."""
    spill = Spill(tmp_path / "l.spill")
    spill.reserve()
    size = (tmp_path / "l.spill").stat().st_size
    assert size >= 1 << 20
    assert (tmp_path / "l.spill").stat().st_blocks * 512 >= size
    spill.append(_spilled(1))
    spill.reserve()
    assert (tmp_path / "l.spill").stat().st_size == size
    assert Spill(tmp_path / "l.spill").records() == [_spilled(1)]


def test_the_spill_file_outlives_a_power_cut(tmp_path: Path, disk_calls: list[tuple[str, int]]) -> None:
    """Its room, its name, each record and its being emptied are on the disk, not in a cache, before anyone goes on."""
    spill = Spill(tmp_path / "l.spill")
    spill.reserve()
    written = [(call, spill.path.stat().st_ino) for call in ("write", "sync")]
    assert disk_calls == [*written, ("sync", tmp_path.stat().st_ino)]
    for step in (partial(spill.append, _spilled(1)), spill.clear):
        disk_calls.clear()
        step()
        assert disk_calls == written


def test_a_backup_outlives_a_power_cut(book: Book, disk_calls: list[tuple[str, int]]) -> None:
    """A copy is on the disk before it has its name, and its name before anyone relies on it."""
    target = book.path.with_name("kept.db")
    database.back_up(book.path, target)
    file, folder = target.stat().st_ino, target.parent.stat().st_ino
    assert disk_calls == [("sync", file), ("rename", file), ("sync", folder)]


@pytest.mark.parametrize("rest", ["cut off", "zeros", "noise"])
def test_a_torn_record_is_never_half_believed(tmp_path: Path, rest: str) -> None:
    """Whatever part of the last record reached the disk, what came before it is read and it is not."""
    path = tmp_path / "l.spill"
    spill = Spill(path)
    spill.reserve()
    spill.append(_spilled(1))
    first_end = spill._end or 0
    spill.append(_spilled(2))
    whole, end = path.read_bytes(), spill._end or 0
    wrong = []
    for cut in range(first_end, end):
        behind = {"cut off": b"", "zeros": bytes(end + 100 - cut), "noise": b"\xa5" * (end + 100 - cut)}[rest]
        path.write_bytes(whole[:cut] + behind)
        try:
            found: object = Spill(path).records()
        except ValueError as error:
            found = error
        if found != [_spilled(1)]:
            wrong.append((cut - first_end, found))
    assert wrong == []


def test_a_torn_record_is_written_over(tmp_path: Path) -> None:
    """The next record goes where the torn one began."""
    path = tmp_path / "l.spill"
    spill = Spill(path)
    spill.append(_spilled(1))
    end = spill._end or 0
    spill.append(_spilled(2))
    os.truncate(path, end + 20)
    again = Spill(path)
    again.append(_spilled(3))
    assert Spill(path).records() == [_spilled(1), _spilled(3)]


def test_no_room_for_the_spill_file(tmp_path: Path) -> None:
    """Where the room cannot be had the run is told before anything is bought."""
    (tmp_path / "l.spill").mkdir()
    with pytest.raises(StorageError, match="no room"):
        Spill(tmp_path / "l.spill").reserve()


# --- what the schema refuses


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE items SET state = 'paid'",
        "UPDATE items SET state = 'submitted'",
        "UPDATE items SET state = 'rendered'",
        "UPDATE items SET state = 'done'",
        "UPDATE items SET state = 'submitting'",
        "UPDATE items SET take = 0",
        "UPDATE items SET text = NULL",
        "UPDATE items SET account_id = 1, task_id = 'nobody''s'",
        "UPDATE rows SET skipped = 'invalid'",
        "UPDATE rows SET item_key = NULL",
        "UPDATE rows SET item_key = NULL, skipped = 'bored'",
        "UPDATE rows SET item_key = 'unknown'",
        "INSERT INTO attempts (item_key, attempt, run_id, account_id, intended_at, outcome) "
        "SELECT key, 1, 'run-1', 1, 0, 'lost' FROM items",
        "INSERT INTO attempts (item_key, attempt, run_id, account_id, intended_at, answered_at, outcome) "
        "SELECT key, 1, 'run-1', 1, 0, 1, 'perhaps' FROM items",
        "INSERT INTO attempts (item_key, attempt, run_id, account_id, intended_at) "
        "SELECT key, 1, 'no run', 1, 0 FROM items",
        "INSERT INTO tasks (account_id, task_id, item_key, attempt, accepted_at, looks, missing_looks, unusable_looks) "
        "SELECT 1, 't', key, 7, 0, 0, 0, 0 FROM items",
        "INSERT INTO events (item_key, attempt, event, state, at) SELECT key, 1, 'paid', 'done', 0 FROM items",
        "INSERT INTO files (item_key, out_dir, path, sha256, bytes, recorded_at) "
        "SELECT key, '', '', '', 0, 0 FROM items",
        "INSERT INTO halts (account_id, kind, since_at, detail, run_id, from_task, probes, probe_after_at) "
        "VALUES (1, 'mood', 0, '', 'run-1', 0, 0, 0)",
        "INSERT INTO halts (account_id, kind, since_at, detail, run_id, from_task, probes, probe_after_at) "
        "VALUES (1, 'credits', 0, '', 'run-1', 0, 0, 0), (1, 'credits', 0, '', 'run-1', 0, 0, 0)",
    ],
)
def test_the_schema_refuses(book: Book, statement: str) -> None:
    """What the program must never write the schema does not take, from whoever it comes."""
    book.take_in(sheet("one"))

    def by_hand(conn: Connection) -> None:
        conn.exec_driver_sql(statement)

    with pytest.raises(IntegrityError):
        book.do(by_hand)


def test_the_schema_gives_a_task_to_one_item(book: Book) -> None:
    """Two items cannot have the same task of the same account."""
    book.take_in(sheet("one", "two"))
    task = book.submitted("t1")

    def by_hand(conn: Connection) -> None:
        conn.exec_driver_sql("UPDATE items SET account_id = 1, task_id = 't1' WHERE key <> ?", (task.key,))

    with pytest.raises(IntegrityError, match="UNIQUE"):
        book.do(by_hand)


# --- files beside the ledger


def test_everything_is_private(book: Book) -> None:
    """Ledger, journal, spill and lock can be read by their owner alone, whatever the umask."""
    book.take_in(sheet("one"))
    old = os.umask(0)
    try:
        with owner_lock(book.path), open_ledger(book.path, "real") as ledger:
            ledger.spill.reserve()
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in book.path.parent.glob("batcher.db*")}
    finally:
        os.umask(old)
    assert modes.keys() >= {"batcher.db", "batcher.db-wal", "batcher.db.spill", "batcher.db.lock"}
    assert set(modes.values()) == {0o600}


def test_one_owner_by_any_name(book: Book) -> None:
    """A second owner is refused while the first holds the lock, also through a link, and is told who it is."""
    link = book.path.with_name("link.db")
    link.symlink_to(book.path)
    with owner_lock(book.path):
        with pytest.raises(LockedError, match=rf"pid {os.getpid()}") as caught, owner_lock(link):
            pytest.fail("two owners at once")
        assert "--wait-lock" in caught.value.hint
    with owner_lock(link):
        pass


def test_no_owner_without_a_lock_of_the_kernel(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot lock is refused: a lock that a kill leaves behind would be somebody's to remove."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match="cannot lock"), owner_lock(book.path):
        pytest.fail("an owner without a lock")


def test_pragmas(book: Book) -> None:
    """A commit waits for the disk, and what refers to nothing is refused."""

    def pragmas(conn: Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    assert book.do(pragmas) == ["wal", 2, 1]


def test_a_transaction_begins_as_a_writer(book: Book) -> None:
    """Whoever looks before it writes holds the write lock from its first look: nobody can come between."""

    def look(_conn: Connection) -> None:
        with closing(sqlite3.connect(book.path, timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")

    with pytest.raises(sqlite3.OperationalError, match="locked"):
        book.do(look)


def test_open_task_has_no_text() -> None:
    """What travels through the collecting side carries no text of the user's."""
    assert "text" not in OpenTask.__dataclass_fields__
