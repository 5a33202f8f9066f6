"""The limits that hold for all runs of an account together, on a server."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, text

from batcher.item import Event
from batcher.ledger.lifecycle import account, collection, halts, runs
from batcher.ledger.lifecycle.account import Limits, Room
from batcher.ledger.money.spending import Budget
from batcher.ledger.queries import attention
from batcher.ledger.records import AnswerRecord, Batch, Claimed, OpenTask
from tests.support.ledger_kit import AT, RUN, Book, ending, sheet

pytestmark = pytest.mark.parametrize("book", ["postgres"], indirect=True)
OTHER = "run-2"
TEXTS = tuple(f"text number {number}" for number in range(20))


@pytest.fixture
def two(book: Book) -> Book:
    """A ledger on which two runs of one account work."""
    book.take_in(sheet(*TEXTS))
    book.join(OTHER)
    for run_id in (RUN, OTHER):
        book.do(account.set_creating, run_id, True)
    return book


def room(book: Book, run_id: str, limits: Limits, limit: int = 10) -> Room:
    return book.do(account.room, run_id, book.account_id, limit, limits)


def test_each_run_has_a_share_of_the_slots(two: Book) -> None:
    """Rounded up, and never more than are free in all."""
    limits = Limits(concurrency=5)
    assert len(two.claim(10, limits=limits)) == 3
    assert two.claim(10, limits=limits) == []
    assert room(two, OTHER, limits) == Room(creates=2)
    two.do(account.set_creating, OTHER, False)
    assert room(two, RUN, limits) == Room(creates=2)


def test_slots_are_free_again_once_a_task_has_ended_or_is_overdue(two: Book) -> None:
    limits = Limits(concurrency=4)
    tasks = [submitted(two, f"t{number}", limits) for number in range(2)]
    assert room(two, RUN, limits).creates == 0
    two.do(collection.record_rendered, ending(tasks[0]))
    assert room(two, RUN, limits).creates == 1
    two.do(collection.record_overdue, tasks[1], at=AT)
    assert room(two, RUN, limits).creates == 2


def submitted(book: Book, task_id: str, limits: Limits) -> OpenTask:
    """Claim the next item within these limits and record its create as accepted."""
    (claimed,) = book.claim(limits=limits)
    book.record(book.accepted(claimed, task_id))
    (task,) = [one for one in book.open_tasks() if one.task_id == task_id]
    return task


def test_with_no_wait_only_creates_in_flight_take_slots(two: Book) -> None:
    """Nobody collects the tasks, which would take them for ever."""
    limits = Limits(concurrency=2, counts_open=False)
    (claimed,) = two.claim(10, limits=limits)
    assert room(two, RUN, limits).creates == 0
    two.record(two.accepted(claimed, "t1"))
    assert room(two, RUN, limits).creates == 1


def test_the_tasks_of_another_account_take_no_slots(two: Book) -> None:
    limits = Limits(concurrency=4)
    assert len(two.claim(10, limits=limits)) == 2
    two.join("run-3", user_id="u2")
    two.do(account.set_creating, "run-3", True)
    assert room(two, "run-3", limits).creates == 4


def test_all_runs_create_at_one_rate(two: Book) -> None:
    """By the server's clock, whatever the hosts' clocks say."""
    limits = Limits(concurrency=100, create_rate=2.0)
    assert len(two.claim(10, limits=limits)) == 1
    assert len(two.claim(10, limits=limits, run_id=OTHER)) == 0
    found = room(two, OTHER, limits)
    assert (found.creates, 0.2 < found.wait_seconds <= 0.5) == (0, True)
    two.execute("UPDATE accounts SET next_create_at = next_create_at - 0.5")
    assert len(two.claim(10, limits=limits, run_id=OTHER)) == 1


def test_missed_creates_are_made_up_for_only_briefly(two: Book) -> None:
    """Within a tenth of a second, as in a single run."""
    limits = Limits(concurrency=100, create_rate=100.0)
    two.execute("UPDATE accounts SET next_create_at = extract(epoch FROM clock_timestamp()) - 100")
    assert room(two, RUN, limits, 90).creates == 11


def test_a_wait_that_the_api_asks_of_one_run_holds_for_all(two: Book) -> None:
    limits = Limits(concurrency=100)
    two.do(account.note_closed, two.account_id, 30.0)
    two.do(account.note_closed, two.account_id, 5.0)
    found = room(two, OTHER, limits)
    assert (found.creates, 29 < found.wait_seconds <= 30) == (0, True)


def test_max_items_counts_the_creates_of_all_runs_that_overlap(two: Book) -> None:
    """Of one that has ended since, too; not of one before, and not those that were returned, each once."""
    limits = Limits(concurrency=100, max_items=3)
    first, second = two.claim(2, limits=limits)
    two.record(two.accepted(first, "t1"))
    for _ in range(2):
        two.record(two.answer(second, Event.DEFERRED, "throttled"))
    assert len(two.claim(10, limits=limits, run_id=OTHER)) == 2
    assert room(two, RUN, limits) == Room(creates=0, spent=True)
    with two.engine.begin() as conn:
        runs.end_run(conn, RUN, ended_at=AT, exit_code=0)
    two.join("run-3")
    assert room(two, "run-3", limits).spent
    with two.engine.begin() as conn:
        runs.end_run(conn, OTHER, ended_at=AT, exit_code=0)
        runs.end_run(conn, "run-3", ended_at=AT, exit_code=0)
    two.join("run-4")
    assert room(two, "run-4", limits) == Room(creates=3)


def test_a_budget_counts_what_other_runs_claim(two: Book) -> None:
    """At once, at the estimated price, which they have learned from the first tasks."""
    for number in range(2):
        task = submitted(two, f"t{number}", Limits(concurrency=100))
        two.do(collection.record_rendered, ending(task, credits=10.0))
    mine, theirs = Budget(60.0, RUN), Budget(60.0, OTHER)
    claimed = 0
    while (found := two.claim(budget=mine)) or mine.blocked == {}:
        claimed += len(found)
        claimed += len(two.claim(budget=theirs, run_id=OTHER))
    assert 3 <= claimed <= 4


def test_a_budget_counts_each_claim_of_another_run_once_and_in_its_batch(two: Book) -> None:
    """At the estimated price: one credit per byte, whatever the model. Its own claims it has counted already."""
    for number in range(2):
        task = submitted(two, f"t{number}", Limits(concurrency=100))
        two.do(collection.record_rendered, ending(task, credits=13.0))
    first = two.wanted[0]
    second, third = (two.take_in(f"id,text\nx,{name}\n", batch=name, filename=f"{name}/{{id}}") for name in ("n", "o"))
    fourth = two.take_in("id,text,model\nx,p,m9\n", batch="p", filename="p/{id}")
    mine = Budget(1000.0, RUN)
    for batch in (first, second, fourth):
        two.do(mine.affords, batch.batch_id, None, 1)
    before = dict(mine._left)

    def claim(batch: Batch, run_id: str) -> Claimed:
        two.wanted, two.cursor = [batch], (0, 0)
        (claimed,) = two.claim(run_id=run_id)
        return claimed

    def others_took() -> list[float]:
        return [before[batch.batch_id] - mine._left[batch.batch_id] for batch in (first, second, fourth)]

    claim(first, RUN)
    deferred = claim(first, OTHER)
    two.record(two.answer(deferred, Event.DEFERRED, "throttled", run_id=OTHER))
    two.do(mine._count_others)
    assert others_took() == [13.0, 0.0, 0.0]
    assert claim(first, OTHER).attempt == 2
    for batch in (second, third, fourth):
        claim(batch, OTHER)
    for _ in range(2):
        two.do(mine._count_others)
        assert others_took() == [26.0, 1.0, 1.0]
    claim(first, OTHER)
    two.do(mine.affords, second.batch_id, None, 1)
    assert others_took()[0] == 39.0


def test_a_halt_of_one_run_stops_the_next_claim_of_another(two: Book) -> None:
    (claimed,) = two.claim()
    two.record(two.answer(claimed, Event.DEFERRED, "no_credits"))
    assert two.claim_anew(5, run_id=OTHER) == []


def test_whoever_changes_a_halt_or_takes_tasks_over_has_the_accounts_lock(two: Book) -> None:
    """Otherwise two runs that record answers and claim at once could wait for each other."""
    two.do(halts.open_halt, two.account_id, "unstable", AT, "why", RUN)
    (halt,) = two.do(halts.open_halts)
    lost = AnswerRecord(
        key="k", attempt=1, account_id=two.account_id, run_id=RUN, event=Event.LOST, cause="unclear", at=AT
    )
    changes: list[Callable[[Connection], object]] = [
        lambda conn: halts.open_halt(conn, two.account_id, "credits", AT, "why", RUN),
        lambda conn: halts.find_prober(conn, halt, RUN, may_probe=True),
        lambda conn: halts.after_answer(conn, lost, Event.LOST, 10),
        lambda conn: collection.take_over(conn, two.account_id, two.wanted, run_id=RUN),
    ]
    for change in changes:
        with two.engine.begin() as connection:
            change(connection)
            assert two.all("SELECT id FROM accounts FOR NO KEY UPDATE SKIP LOCKED") == []


def test_one_run_probes_a_halt_and_another_takes_over_when_it_vanishes(two: Book) -> None:
    (claimed,) = two.claim()
    two.record(two.answer(claimed, Event.DEFERRED, "no_credits"))
    (halt,) = two.do(halts.open_halts)
    assert two.do(halts.find_prober, halt, RUN, may_probe=True) == "own"
    assert two.do(halts.find_prober, halt, OTHER, may_probe=True) == "other"
    assert two.claim_anew(5, run_id=OTHER) == []
    with two.engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_unlock(hashtextextended('run-1', 7001))"))
    assert two.do(runs.end_vanished, OTHER, at=AT) != []
    assert two.do(halts.find_prober, halt, OTHER, may_probe=True) == "own"
    assert len(two.claim_anew(5, run_id=OTHER)) == 1


def test_only_tasks_of_runs_that_have_ended_are_taken_over(two: Book) -> None:
    limits = Limits(concurrency=100)
    submitted(two, "t1", limits)
    assert two.do(collection.take_over, two.account_id, two.wanted, run_id=OTHER) == []
    with two.engine.begin() as conn:
        runs.end_run(conn, RUN, ended_at=AT, exit_code=6)
    (theirs,) = two.claim(run_id=OTHER)
    two.join("run-3")
    (task,) = two.do(collection.take_over, two.account_id, two.wanted, run_id="run-3")
    assert task.task_id == "t1"
    assert [two.item(key)["run_id"] for key in (task.key, theirs.key)] == ["run-3", OTHER]
    assert two.do(collection.take_over, two.account_id, two.wanted, run_id=OTHER) == []


def test_claims_of_two_accounts_never_take_the_same_item(two: Book) -> None:
    two.join("run-3", user_id="u2")
    taken = {one.key for one in two.claim(5)}
    assert not taken & {one.key for one in two.claim_anew(5, run_id="run-3")}


def test_a_run_asks_anew_unless_another_still_waits(two: Book) -> None:
    """A wait that was too long for earlier runs does not bind later ones."""
    two.do(account.note_closed, two.account_id, 5000.0)
    two.do(account.forget_closed, RUN, two.account_id)
    assert room(two, RUN, Limits(concurrency=5)).closed_seconds > 4000
    two.do(lambda conn: runs.end_run(conn, OTHER, ended_at=AT))
    two.do(account.forget_closed, RUN, two.account_id)
    assert room(two, RUN, Limits(concurrency=5)).creates == 5


def test_a_run_asks_anew_once_it_enters_the_account_of_runs_that_have_ended(two: Book) -> None:
    two.do(account.note_closed, two.account_id, 5000.0)
    with two.engine.begin() as conn:
        for run_id in (RUN, OTHER):
            runs.end_run(conn, run_id, ended_at=AT)
    two.join("run-3")
    assert room(two, "run-3", Limits(concurrency=5)).closed_seconds == 0


def test_a_wait_that_the_runs_share_ends_within_a_day(two: Book) -> None:
    two.do(account.note_closed, two.account_id, 1e9)
    assert room(two, RUN, Limits(concurrency=5)).closed_seconds <= 24 * 3600


def test_tasks_that_a_run_of_another_account_collects_do_not_stop_a_run(two: Book) -> None:
    """They do once that run has ended: only its account can read them."""
    ours = two.account_id
    two.join("theirs", user_id="u2")
    (claimed,) = two.claim(run_id="theirs")
    two.record(two.accepted(claimed, "t1"))
    assert two.do(attention.foreign_tasks, two.wanted, ours) == {}
    two.do(lambda conn: runs.end_run(conn, "theirs", ended_at=AT))
    assert two.do(attention.foreign_tasks, two.wanted, ours) == {"u2 at https://api.test": 1}
