"""Claims: which items a run may create, in which order, and the durable intent."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.item import Event
from batcher.ledger.lifecycle import claims, halts, runs
from batcher.ledger.money.spending import Budget
from tests.support.ledger_kit import AT, RUN, Book, keys_of, sheet


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
