"""The limits that hold for all runs of an account together, on a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text

from batcher.item import Event
from batcher.ledger.lifecycle import account, claims, collection, halts, runs
from batcher.ledger.lifecycle.account import Limits, Room
from batcher.ledger.money.spending import Budget
from batcher.ledger.queries import attention
from batcher.ledger.records import AnswerRecord, Batch, Claimed
from batcher.ledger.storage import sharing
from tests.ledger.lifecycle.conftest import OTHER, submitted
from tests.support.ledger_kit import AT, RUN, Book, ending, prepare

pytestmark = pytest.mark.parametrize("book", ["postgres"], indirect=True)


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
    found = two.all("SELECT id, is_creating FROM runs ORDER BY id")
    assert [tuple(row.values()) for row in found] == [(RUN, 1), (OTHER, 0)]


def test_slots_are_free_again_once_a_task_has_ended_or_is_overdue(two: Book) -> None:
    limits = Limits(concurrency=4)
    tasks = [submitted(two, f"t{number}", limits) for number in range(2)]
    assert room(two, RUN, limits).creates == 0
    two.do(collection.record_rendered, ending(tasks[0]))
    assert room(two, RUN, limits).creates == 1
    two.do(collection.record_overdue, tasks[1], at=AT)
    assert room(two, RUN, limits).creates == 2


def test_only_an_items_own_task_frees_its_slot_when_it_is_overdue(two: Book) -> None:
    """Not one of another account with the same id, and not one of an earlier attempt."""
    limits, overdue = Limits(concurrency=4), submitted(two, "t1", Limits(concurrency=4))
    two.do(collection.record_overdue, overdue, at=AT)
    assert room(two, RUN, limits).creates == 2
    two.execute(
        "INSERT INTO attempts (item_key, attempt, run_id, account_id, intended_at)"
        " SELECT item_key, 2, run_id, account_id, intended_at FROM attempts"
    )
    two.execute(
        "INSERT INTO tasks (account_id, task_id, item_key, attempt, accepted_at, looks, missing_looks, unusable_looks)"
        " SELECT account_id, 't2', item_key, 2, accepted_at, 0, 0, 0 FROM tasks"
    )
    two.execute("UPDATE items SET task_id = 't2', attempt = 2 WHERE key = ?", overdue.key)
    assert room(two, RUN, limits).creates == 1
    two.join("run-3", user_id="u2")
    two.do(account.set_creating, "run-3", True)
    (claimed,) = two.claim(run_id="run-3")
    two.record(two.accepted(claimed, "t1", run_id="run-3"))
    assert room(two, "run-3", limits).creates == 3


def test_claims_of_an_account_take_turns_until_they_are_durable(two: Book) -> None:
    """Otherwise two runs would each count without the other. Rows that refer to the account may be added meanwhile."""
    ours, other = two.account_id, two.begin("run-3", user_id="u2")

    def is_free(account_id: int, how: str = "NO KEY UPDATE") -> bool:
        try:
            two.all(f"SELECT id FROM accounts WHERE id = ? FOR {how} NOWAIT", account_id)
        except psycopg.errors.LockNotAvailable:
            return False
        return True

    assert is_free(ours)
    with two.engine.begin() as conn:
        claims.claim(conn, prepare, run_id=RUN, account_id=ours, wanted=two.wanted, cursor=(0, 0), limit=1, at=AT)
        assert [is_free(ours), is_free(ours, "KEY SHARE"), is_free(other)] == [False, True, True]
    assert is_free(ours)


@pytest.mark.parametrize(
    ("limits", "most", "takes_turn"),
    [
        (None, 60.0, True),
        (Limits(concurrency=9, max_items=5), None, True),
        (Limits(concurrency=9), None, False),
        (None, None, False),
    ],
    ids=["budget", "max items", "other limits", "none"],
)
def test_claims_within_a_budget_or_max_items_take_turns_for_all_accounts(
    two: Book, limits: Limits | None, most: float | None, takes_turn: bool
) -> None:
    """Others do not wait for runs of another account."""
    how: dict[str, Any] = {"run_id": RUN, "account_id": two.account_id, "wanted": two.wanted, "cursor": (0, 0)}
    how |= {"limit": 1, "at": AT, "limits": limits, "budget": None if most is None else Budget(most, RUN)}
    query = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = ? AND granted"
    with two.engine.begin() as conn:
        claims.claim(conn, prepare, **how)
        assert len(two.all(query, sharing._TURNS["claim"])) == int(takes_turn)


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


def test_the_rate_and_the_waits_of_an_account_do_not_concern_another(two: Book) -> None:
    limits, ours = Limits(concurrency=100, create_rate=2.0), two.account_id
    two.join("run-3", user_id="u2")
    assert room(two, "run-3", limits) == Room(creates=1)
    theirs, two.account_id = two.account_id, ours
    assert len(two.claim(10, limits=limits)) == 1
    two.do(account.note_closed, ours, 30.0)
    two.account_id = theirs
    assert room(two, "run-3", limits) == Room(creates=1)


def test_max_items_counts_the_creates_of_all_runs_that_overlap(two: Book) -> None:
    """Of one that has ended since, too; not of one before, and not those that were returned, each once."""
    limits = Limits(concurrency=100, max_items=3)
    first, second = two.claim(2, limits=limits)
    assert room(two, OTHER, limits) == Room(creates=1)
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


def test_max_items_counts_each_create_for_the_run_that_claimed_it(two: Book) -> None:
    """Also when it is returned, and another run has claimed its item before."""

    def claimed() -> list[int]:
        return [row["claimed"] or 0 for row in two.all("SELECT claimed FROM runs ORDER BY id")]

    two.join("run-3")
    first, _ = two.claim(2)
    two.record(two.answer(first, Event.DEFERRED, "throttled"))
    (again,) = two.claim_anew(run_id=OTHER)
    assert (again.key, claimed()) == (first.key, [1, 1, 0])
    two.record(two.answer(again, Event.DEFERRED, "throttled", run_id=OTHER))
    assert claimed() == [1, 0, 0]


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
    """At the estimated price: one credit per byte for every model. It has already counted its own claims."""
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


def test_a_run_asks_anew_unless_another_still_waits(two: Book) -> None:
    """A wait that was too long for earlier runs does not bind later ones."""
    two.do(account.note_closed, two.account_id, 5000.0)
    two.do(account.forget_closed, RUN, two.account_id)
    assert room(two, RUN, Limits(concurrency=5)).closed_seconds > 4000
    two.do(lambda conn: runs.end_run(conn, OTHER, ended_at=AT))
    two.do(account.forget_closed, RUN, two.account_id)
    assert room(two, RUN, Limits(concurrency=5)).creates == 5


def test_only_waits_of_the_account_are_forgotten_and_only_its_runs_keep_them(two: Book) -> None:
    limits, ours = Limits(concurrency=5), two.account_id
    two.do(lambda conn: runs.end_run(conn, OTHER, ended_at=AT))
    two.join("run-3", user_id="u2")
    for account_id in (ours, two.account_id):
        two.do(account.note_closed, account_id, 5000.0)
    two.do(account.forget_closed, RUN, ours)
    assert room(two, "run-3", limits).closed_seconds > 4000
    two.account_id = ours
    assert room(two, RUN, limits) == Room(creates=5)


def test_a_run_that_has_ended_has_no_share_of_the_slots(two: Book) -> None:
    """Even if it could not give it back."""
    assert two.do(account.share, two.account_id, 5) == 3
    two.do(lambda conn: runs.end_run(conn, OTHER, ended_at=AT))
    assert two.do(account.share, two.account_id, 5) == 5


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
