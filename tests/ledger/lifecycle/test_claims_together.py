"""What a run claims and waits for beside others, on a server."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from batcher.address import Server
from batcher.item import Event
from batcher.ledger.lifecycle import claims, collection, runs
from batcher.ledger.lifecycle.account import Limits
from batcher.ledger.queries import selection
from tests.ledger.lifecycle.conftest import OTHER, TEXTS, submitted
from tests.support.ledger_kit import AT, RUN, Book, ending, keys_of, prepare, sheet

pytestmark = pytest.mark.parametrize("book", ["postgres"], indirect=True)


@pytest.mark.parametrize("only_chosen", [False, True])
def test_a_claim_passes_over_items_that_another_account_is_claiming(two: Book, only_chosen: bool) -> None:
    """It does not wait until they are durable."""
    ours, theirs = two.account_id, two.begin("run-3", user_id="u2")
    assert isinstance(two.address, Server)
    url = two.address.url
    other = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    how: dict[str, Any] = {"wanted": two.wanted, "cursor": (0, 0), "limit": 2, "at": AT, "only_chosen": only_chosen}
    with two.engine.begin() as conn, other.begin() as beside:
        for one in (conn, beside):
            selection.choose_ids(one, two.wanted, ["a", "b", "c", "d"])
        beside.exec_driver_sql("SET LOCAL lock_timeout = 1000")
        first, _ = claims.claim(conn, prepare, run_id=RUN, account_id=ours, **how)
        second, _ = claims.claim(beside, prepare, run_id="run-3", account_id=theirs, **how)
    assert len({*keys_of(first), *keys_of(second)}) == 4


def test_claims_of_two_accounts_never_take_the_same_item(two: Book) -> None:
    two.join("run-3", user_id="u2")
    taken = {one.key for one in two.claim(5)}
    assert not taken & {one.key for one in two.claim_anew(5, run_id="run-3")}


def waits(book: Book, run_id: str = OTHER, *, later: float = 0.0, **how: bool) -> bool:
    """Whether the run waits for items of the others."""
    return book.do(claims.held_by_others, run_id, book.wanted, at=AT + later, **how)


def test_a_run_waits_for_items_until_the_run_that_has_them_has_finished_or_ended(two: Book) -> None:
    """Not for its own, and not for those of a task that is overdue."""
    assert not waits(two)
    first, second = two.claim(2)
    found = [waits(two)]
    two.record(two.answer(second, Event.REJECTED, "invalid"))
    two.record(two.accepted(first, "t1"))
    found.append(waits(two))
    assert (found, waits(two, RUN)) == ([True, True], False)
    (task,) = two.open_tasks()
    two.do(collection.record_overdue, task, at=AT)
    assert not waits(two)
    two.do(collection.record_rendered, ending(task))
    assert waits(two)
    two.do(lambda conn: runs.end_run(conn, RUN, ended_at=AT))
    assert not waits(two)


def test_a_run_waits_only_for_items_that_it_wants(two: Book) -> None:
    two.claim()
    (key,) = (row["item_key"] for row in two.all("SELECT item_key FROM attempts"))
    (held,) = (row["id"] for row in two.all("SELECT id FROM rows WHERE item_key = ?", key))
    for row_id, is_held in (("b", False), (held, True)):
        two.do(selection.choose_ids, two.wanted, [row_id])
        assert waits(two, only_chosen=True) == is_held
    wanted, two.wanted = two.wanted, []
    assert not waits(two)
    two.wanted = wanted
    assert waits(two)


def test_no_run_waits_for_a_download_that_another_has_given_up(two: Book) -> None:
    """A minute after it was due again; two that have given up would wait for each other."""
    task = submitted(two, "t1", Limits(concurrency=100))
    two.execute("UPDATE items SET not_before_at = ? WHERE key = ?", AT, task.key)  # of an attempt that is gone
    assert waits(two, later=1e6)
    rendered = ending(task)
    two.do(collection.record_rendered, rendered)
    assert waits(two, later=1e6)
    two.do(collection.record_undelivered, rendered, next_try_at=AT + 10.0, unusable=False)
    assert [waits(two, later=later) for later in (0.0, 69.0, 70.0, 71.0)] == [True, True, True, False]


def test_nothing_is_claimed_of_a_version_that_another_run_has_replaced(two: Book) -> None:
    """That of other batches is. Whether the rows of the new version may be bought is for the other run to check."""
    two.take_in('{"id": "z", "text": "another"}\n', batch="n", suffix="jsonl")
    old = two.wanted[0]
    two.take_in(sheet("edited", *TEXTS[1:]))
    new = next(one for one in two.wanted if one.name == old.name)
    assert [two.do(claims.is_current, one) for one in (old, new)] == [False, True]
    two.wanted = [old, next(one for one in two.wanted if one.name == "n")]
    (claimed,) = two.claim(5)
    assert b"another" in claimed.body
    assert not two.do(claims.has_claimable, RUN, two.wanted)
    assert two.do(claims.has_claimable, RUN, [new])
    two.wanted = [old]
    assert two.claim_anew(5) == []
