"""Claims: which items a run may create, in which order, and how the intent is made durable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from batcher.item import Event
from batcher.ledger.lifecycle import account, claims, collection, decisions, halts, runs
from batcher.ledger.lifecycle.account import Limits
from batcher.ledger.money.spending import Budget
from batcher.ledger.queries import selection
from batcher.ledger.records import Claimed
from tests.support.ledger_kit import AT, RUN, Book, ending, keys_of, sheet


def texts_of(claimed: Sequence[Claimed]) -> list[str]:
    """The texts of the claimed items, in order."""
    return [json.loads(one.body)["text"] for one in claimed]


def test_a_claim_makes_the_intent_durable(book: Book) -> None:
    """Its attempt is in the ledger, and its body is the request to send."""
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
    """Otherwise the item would look as if its create had been sent."""
    book.take_in(sheet("one", "two"))

    def refuse(_inputs: object) -> bytes:
        raise ValueError("no body")

    who: dict[str, Any] = {"run_id": RUN, "account_id": book.account_id, "wanted": book.wanted}
    before = book.dump()
    with pytest.raises(ValueError, match="no body"):
        book.do(claims.claim, refuse, **who, cursor=(0, 0), limit=2, at=AT)
    assert book.dump() == before


@pytest.mark.parametrize("end", ["ended", "superseded", "unknown"])
def test_only_the_current_run_claims(book: Book, end: str) -> None:
    """A run that has ended, was superseded by another, or is unknown claims nothing."""
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
def test_a_halt_stops_the_claims_of_its_account_alone(book: Book, kind: halts.Kind, most: float | None) -> None:
    """Regardless of the credits left in the budget."""
    book.take_in(sheet("one"))
    halted = book.account_id
    book.do(halts.open_halt, halted, kind, AT, "why", RUN)
    budget = None if most is None else Budget(most, "run-1")
    assert book.claim(5, budget=budget) == []
    book.begin("run-2", user_id="u2")
    assert len(book.claim(5, run_id="run-2", budget=budget)) == 1


def test_items_are_claimed_in_the_order_of_manifests_and_rows(book: Book) -> None:
    """Never more than the limit."""
    book.take_in(sheet("one", "two", "three"), batch="first")
    book.take_in("id,text\nx,zero\ny,four\n", batch="second")
    assert [texts_of(book.claim(limit)) for limit in (2, 2, 5)] == [["one", "two"], ["three", "zero"], ["four"]]
    assert book.claim(5) == []


def test_the_first_row_of_each_manifest_is_claimed(book: Book) -> None:
    """In JSONL its number is 1, where a CSV has its header."""
    for name in ("first", "second"):
        book.take_in(f'{{"id": "{name}", "text": "{name}"}}\n', batch=name, suffix="jsonl")
    assert texts_of(book.claim(5)) == ["first", "second"]


@pytest.mark.parametrize("only_chosen", [False, True])
def test_items_of_a_reordered_manifest_are_claimed_in_its_new_order(book: Book, only_chosen: bool) -> None:
    book.take_in(sheet("three", "two", "one"))
    book.take_in("id,text\nc,one\nb,two\na,three\n")
    book.do(selection.choose_ids, book.wanted, ["a", "b", "c"])
    claimed = [book.claim(2, only_chosen=only_chosen) for _ in range(2)]
    assert [texts_of(one) for one in claimed] == [["one", "two"], ["three"]]


def test_a_deferred_item_behind_the_cursor_is_claimed_again(book: Book) -> None:
    book.take_in(sheet("one", "two"))
    first, second = book.claim(2)
    book.record(book.answer(first, Event.DEFERRED, "throttled"))
    book.record(book.accepted(second, "t2"))
    assert book.claim(2) == []
    assert book.do(claims.has_claimable, RUN, book.wanted)
    (again,) = book.claim_anew(2)
    assert (again.key, again.attempt) == (first.key, 2)
    assert not book.do(claims.has_claimable, RUN, book.wanted)


def test_rows_with_the_same_inputs_are_claimed_once(book: Book) -> None:
    """In one manifest or in two, even within one claim."""
    book.take_in(sheet("same", "same", "other"), batch="first")
    book.take_in("id,text\nx,same\ny,other\n", batch="second")
    claimed = book.claim(10)
    assert len(claimed) == len({*keys_of(claimed)}) == 2
    assert book.claim_anew(10) == []


def test_only_chosen_rows_are_claimed(book: Book) -> None:
    """In the order of manifests and rows, however many there are; and only they are waited for."""
    book.take_in(sheet("one", "two", "three"), batch="first")
    book.take_in("id,text\nx,zero\ny,four\n", batch="second")
    assert book.do(selection.choose_ids, book.wanted, ["y", "a", "c", "?"]) == ["?"]
    claimed = [book.claim(limit, only_chosen=True) for limit in (1, 5)]
    assert [texts_of(one) for one in claimed] == [["one"], ["three", "four"]]
    assert book.claim(5, only_chosen=True) == []
    book.cursor = (0, 0)
    assert book.claim(5, only_chosen=True) == []
    assert not book.do(claims.has_claimable, RUN, book.wanted, only_chosen=True)
    assert book.do(claims.has_claimable, RUN, book.wanted)
    assert len(book.claim_anew(5)) == 2


def test_only_chosen_rows_of_wanted_batches_are_waited_for(book: Book) -> None:
    """And those whose item is pending."""
    book.take_in(sheet("one", "two"), batch="first")
    book.take_in("id,text\nx,zero\n", batch="second")
    first, second = book.wanted
    book.do(selection.choose_ids, book.wanted, ["x"])
    waits = [book.do(claims.has_claimable, RUN, [batch], only_chosen=True) for batch in (first, second)]
    assert waits == [False, True]
    assert book.do(claims.has_claimable, RUN, [first])


def test_a_budget_limits_what_is_claimed_to_one_item_that_it_affords(book: Book) -> None:
    """While no price is known, no second item is claimed before the first has ended."""
    book.take_in(sheet("one", "two", "three"))
    budget = Budget(100.0, "run-1")
    (claimed,) = book.claim(5, budget=budget)
    assert book.claim(5, budget=budget) == []
    book.record(book.accepted(claimed, "t1"))
    (task,) = book.open_tasks()
    book.do(collection.record_rendered, ending(task, credits=2.0))
    book.cursor = (0, 0)
    assert [len(book.claim(5, budget=Budget(100.0, "run-1"))) for _ in range(3)] == [1, 1, 0]


def test_removed_skipped_and_other_batches_rows_are_not_claimed(book: Book) -> None:
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
    assert not book.do(claims.has_claimable, RUN, [])


def test_an_unfunded_item_is_rechecked_once_and_only_while_it_waits(book: Book) -> None:
    """By a run of its account that wants it, however many rows have it. A create in flight is not asked about."""
    book.take_in("id,text\na,one\nb,one\n")
    assert book.do(claims.has_claimable, RUN, book.wanted)
    task = book.submitted("t1")
    assert not book.do(claims.has_claimable, RUN, book.wanted)
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    (found,) = book.do(claims.rechecks, book.account_id, book.wanted)
    assert (found.key, found.attempt, found.task_id) == (task.key, task.attempt, "t1")
    assert book.do(claims.rechecks, book.account_id + 1, book.wanted) == []
    other = book.take_in("id,text\nx,other\n", batch="other")
    assert book.do(claims.rechecks, book.account_id, [other]) == []
    (halt,) = book.do(halts.open_halts, book.account_id)
    book.do(halts.find_prober, halt, RUN, may_probe=True)
    book.do(claims.recheck_confirmed, found, run_id=RUN)
    assert keys_of(book.claim_anew()) == [task.key]
    assert book.do(claims.rechecks, book.account_id, book.wanted) == []


def test_a_failed_item_that_a_person_tries_again_has_no_task_to_recheck(book: Book) -> None:
    book.take_in(sheet("one"))
    task = book.submitted("t1")
    book.do(collection.record_failed, ending(task, error_code="bad_voice"))
    assert book.do(decisions.retry, task.key, task.attempt, at=AT, who="me")
    assert book.do(claims.rechecks, book.account_id, book.wanted) == []
    assert keys_of(book.claim_anew()) == [task.key]


def test_only_items_that_were_rechecked_in_this_run_are_created_again(book: Book) -> None:
    book.take_in(sheet("one", "two"))
    tasks = [book.submitted(name) for name in ("t1", "t2")]
    for task in tasks:
        book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    book.execute("UPDATE halts SET closed_at = ?", AT)
    for run_id in ("run-0", RUN):
        assert not book.do(claims.has_claimable, RUN, book.wanted)
        assert book.claim_anew(5) == []
        book.do(claims.recheck_confirmed, tasks[1], run_id=run_id)
    assert book.do(claims.has_claimable, RUN, book.wanted)
    assert keys_of(book.claim_anew(5)) == [tasks[1].key]


@pytest.mark.parametrize("book", ["sqlite"], indirect=True)
def test_limits_of_all_runs_do_not_concern_the_one_run_of_a_file(book: Book) -> None:
    """It obeys them by itself, and waits for no other."""
    book.take_in(sheet("one", "two", "three"))
    limits = Limits(concurrency=1, create_rate=0.001, max_items=1)
    assert [len(book.claim(1, limits=limits)) for _ in range(3)] == [1, 1, 1]
    assert not book.do(claims.held_by_others, "run-2", book.wanted, at=AT)
    book.do(account.note_closed, book.account_id, 30.0)
    book.do(account.forget_closed, "run-2", book.account_id)
    old = book.wanted[0]
    book.take_in(sheet("edited"))
    assert book.do(claims.is_current, old)


def test_an_item_that_a_results_file_reports_as_bought_is_not_claimed(book: Book) -> None:
    """Until a run has applied what the file says of it."""
    book.take_in(sheet("one", "two"))
    (bought,) = (row["item_key"] for row in book.all("SELECT item_key FROM rows WHERE id = 'a'"))
    columns = "batch, row_id, item_key, state, take, out_dir, recalled_at"
    book.execute(f"INSERT INTO recalled ({columns}) VALUES ('m', 'a', ?, 'done', 1, 'audio', 1)", bought)
    (claimed,) = book.claim(5)
    assert texts_of([claimed]) == ["two"]
    assert not book.do(claims.has_claimable, RUN, book.wanted)
    book.execute("DELETE FROM recalled")
    assert book.do(claims.has_claimable, RUN, book.wanted)
