"""Halts: what opens them, who may probe, what closes them. Against real ledgers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batcher.formatting import amount
from batcher.item import Event
from batcher.ledger.lifecycle import answers, collection, halts, runs
from batcher.ledger.records import Balance, Claimed, Halt
from batcher.pipeline.credit_guard import Guard
from batcher.provider.answers import Profile
from tests.support.ledger_kit import AT, RUN, Book, SetClock, book_in, ending, sheet

MOST = 2
"""Lost creates in a row that do not halt the account yet."""


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with book_in(tmp_path) as made:
        made.take_in(sheet(*(f"text {number}" for number in range(20))))
        yield made


def answer(book: Book, claimed: Claimed, event: Event, cause: str = "unclear", **changes: Any) -> None:
    book.record(book.answer(claimed, event, cause, **changes), max_in_doubt=MOST)


def lose(book: Book, number: int, **changes: Any) -> None:
    for claimed in book.claim(number):
        answer(book, claimed, Event.LOST, **changes)


def open_halts(book: Book) -> list[Halt]:
    return book.do(halts.open_halts, book.account_id)


def kinds(book: Book) -> list[str]:
    return [halt.kind for halt in open_halts(book)]


def refuse(book: Book, run_id: str = RUN, **changes: Any) -> Halt:
    """Have a create refused for lack of credits."""
    (claimed,) = book.claim(1, run_id=run_id)
    said: dict[str, Any] = {"http_status": 402, "run_id": run_id}
    answer(book, claimed, Event.DEFERRED, "no_credits", **(said | changes))
    return next(halt for halt in open_halts(book) if halt.kind == "credits")


def probe(book: Book, run_id: str = "run-2", *, credits_: float | None = None) -> Claimed:
    """Permit a new run to probe every open halt, and claim its probe."""
    book.begin(run_id, credits_=credits_)
    for halt in open_halts(book):
        book.do(halts.find_prober, halt, run_id, may_probe=True)
    (claimed,) = book.claim_anew(5, run_id=run_id)
    return claimed


def test_the_open_halts_of_one_or_of_all_accounts_are_listed_oldest_first(book: Book) -> None:
    """Without those that are closed."""
    first = book.account_id
    book.do(halts.open_halt, first, "unstable", AT + 2, "a", RUN)
    other = book.begin("run-2", user_id="u2")
    book.do(halts.open_halt, other, "credits", AT + 1, "b", "run-2")
    book.do(halts.open_halt, other, "unstable", AT + 3, "c", "run-2")
    assert [halt.detail for halt in book.do(halts.open_halts)] == ["b", "a", "c"]
    assert [halt.detail for halt in book.do(halts.open_halts, other)] == ["b", "c"]
    for halt in book.do(halts.open_halts, other):
        book.do(halts.find_prober, halt, "run-2", may_probe=True)
    (claimed,) = book.claim(run_id="run-2")
    book.record(book.accepted(claimed, "t1", run_id="run-2"))
    assert [halt.detail for halt in book.do(halts.open_halts)] == ["a"]


# --- credits


@pytest.mark.parametrize("said", [{"error_code": "insufficient_credits"}, {"http_status": 402}])
def test_a_create_refused_for_lack_of_credits_halts_the_account(book: Book, said: dict[str, Any]) -> None:
    """The halt records why and since when."""
    halt = refuse(book, at=AT + 3, **said)
    assert (halt.kind, halt.since_at, halt.probe_after_at) == ("credits", AT + 3, AT + 3)
    assert str(next(iter(said.values()))) in halt.detail
    assert book.claim_anew(5) == []


def test_a_task_failed_for_lack_of_credits_halts_the_account(book: Book) -> None:
    """In the transaction that records the failure."""
    task = book.submitted("t1")
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_quota"))
    (halt,) = open_halts(book)
    assert (halt.kind, "insufficient_quota" in halt.detail) == ("credits", True)
    assert book.claim(5) == []


def test_a_late_poll_of_an_unfunded_task_opens_no_halt(book: Book) -> None:
    """The task has ended already."""
    task = book.submitted("t1")
    book.do(collection.record_rendered, ending(task))
    assert not book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    assert open_halts(book) == []


def test_concurrent_refusals_open_one_halt(book: Book) -> None:
    """It dates from the first of them."""
    for number, claimed in enumerate(book.claim(5)):
        answer(book, claimed, Event.DEFERRED, "no_credits", at=AT + number)
    (halt,) = open_halts(book)
    assert halt.since_at == AT


def test_a_create_sent_before_the_halt_does_not_close_it(book: Book) -> None:
    """It is accepted after the halt opened, but is no probe."""
    first, second = book.claim(2)
    answer(book, first, Event.DEFERRED, "no_credits")
    book.record(book.accepted(second, "t2"))
    book.do(collection.record_rendered, ending(book_task(book, second, "t2")))
    assert kinds(book) == ["credits"]


def book_task(book: Book, claimed: Claimed, task_id: str) -> Any:
    (task,) = [one for one in book.open_tasks() if one.task_id == task_id]
    assert task.key == claimed.key
    return task


def test_only_the_permitted_run_probes_one_create_at_a_time(book: Book) -> None:
    halt = refuse(book)
    book.begin("run-2")
    assert book.claim_anew(5, run_id="run-2") == []
    assert book.do(halts.find_prober, halt, "run-2", may_probe=False) is None
    assert book.do(halts.find_prober, halt, "run-2", may_probe=True) == "own"
    assert len(book.claim_anew(5, run_id="run-2")) == 1
    assert book.claim(5, run_id="run-2") == []
    assert book.do(halts.allowance, book.account_id, "run-2", 5) == 0
    assert book.do(halts.find_prober, halt, "run-2", may_probe=True) == "own"
    assert book.do(halts.allowance, book.account_id, "run-2", 5) == 0


def test_a_probe_needs_permission_for_every_open_halt(book: Book) -> None:
    halt = refuse(book)
    book.do(halts.open_halt, book.account_id, "unstable", AT, "why", RUN)
    book.do(halts.find_prober, halt, RUN, may_probe=True)
    assert book.claim_anew(5) == []


def test_an_accepted_probe_closes_the_halt(book: Book) -> None:
    refuse(book)
    book.record(book.accepted(probe(book), "t1", at=AT + 50))
    assert open_halts(book) == []
    (task,) = book.open_tasks()
    assert book.do(collection.record_rendered, ending(task, at=AT + 90))
    assert book.one("SELECT closed_at FROM halts") == {"closed_at": AT + 50}
    book.begin("run-3")
    assert len(book.claim(5, run_id="run-3")) == 5


def test_a_create_probes_only_the_open_halts_that_its_run_may_probe(book: Book) -> None:
    """And none that has a probe in flight."""
    first = book.account_id
    book.do(halts.open_halt, first, "credits", AT, "why", "run-2")
    book.do(halts.open_halt, first, "unstable", AT, "why", RUN)
    other = book.begin("run-2", user_id="u2")
    book.do(halts.open_halt, other, "credits", AT, "why", "run-2")
    book.do(halts.open_halt, other, "unstable", AT, "why", "run-2")
    book.execute("UPDATE halts SET probe_run_id = run_id")
    book.execute("UPDATE halts SET closed_at = ? WHERE account_id = ? AND kind = 'unstable'", AT, other)
    book.do(halts.note_probe, first, "run-2", "k1")
    book.do(halts.note_probe, first, "run-2", "k2")
    assert [halt["probe_key"] for halt in book.all("SELECT probe_key FROM halts ORDER BY id")] == [
        "k1",
        None,
        None,
        None,
    ]
    book.do(halts.note_probe, other, "run-2", "k3")
    assert [halt["probe_key"] for halt in book.all("SELECT probe_key FROM halts ORDER BY id")] == [
        "k1",
        None,
        "k3",
        None,
    ]


def test_the_probe_of_a_killed_run_may_be_repeated_by_the_next(book: Book) -> None:
    """Its answer never came."""
    halt = refuse(book)
    killed = probe(book)
    book.begin("run-3")
    assert book.do(halts.find_prober, halt, "run-3", may_probe=True) == "own"
    (claimed,) = book.claim_anew(5, run_id="run-3")
    assert claimed.key != killed.key
    book.record(book.accepted(claimed, "t1", run_id="run-3"))
    assert book.do(halts.find_prober, halt, "run-3", may_probe=True) == "closed"


def test_the_end_of_a_task_concerns_only_the_halt_that_it_probes(book: Book) -> None:
    """A task created before the halt ends, and the probe stays in flight."""
    task = book.submitted("t1")
    refuse(book)
    probe(book)
    book.do(collection.record_failed, ending(task, error_code="bad_voice"))
    assert book.claim_anew(5, run_id="run-2") == []


def test_a_halt_opened_by_a_failed_task_closes_only_with_audio(book: Book) -> None:
    """An accepted probe does not prove that there are credits."""
    task = book.submitted("t1")
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    claimed = probe(book)
    book.record(book.accepted(claimed, "t2"))
    assert kinds(book) == ["credits"]
    assert book.claim(5, run_id="run-2") == []
    book.do(collection.record_rendered, ending(book_task(book, claimed, "t2")))
    assert open_halts(book) == []


def test_a_probe_whose_task_fails_keeps_the_halt(book: Book) -> None:
    """The task failed for another reason, which proves nothing about credits. The next create may probe."""
    task = book.submitted("t1")
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    claimed = probe(book)
    book.record(book.accepted(claimed, "t2"))
    book.do(collection.record_failed, ending(book_task(book, claimed, "t2"), error_code="bad_voice"))
    assert kinds(book) == ["credits"]
    assert len(book.claim(5, run_id="run-2")) == 1


def test_a_probe_whose_task_is_gone_keeps_the_halt(book: Book) -> None:
    """The next create may probe."""
    task = book.submitted("t1")
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    claimed = probe(book)
    book.record(book.accepted(claimed, "t2"))
    probed = book_task(book, claimed, "t2")
    says = [book.do(collection.record_missing, ending(probed, at=AT + after)) for after in (0, 60, 120, 180)]
    assert says == [False, False, False, True]
    assert kinds(book) == ["credits"]
    assert len(book.claim(5, run_id="run-2")) == 1


@pytest.mark.parametrize(
    ("event", "cause"),
    [(Event.REJECTED, "invalid"), (Event.DEFERRED, "throttled"), (Event.DEFERRED, "unsent"), (Event.DEFERRED, "held")],
)
def test_a_rejected_or_unsent_probe_keeps_halt_and_permission(book: Book, event: Event, cause: str) -> None:
    """The next create is the probe."""
    refuse(book)
    answer(book, probe(book), event, cause, run_id="run-2")
    assert kinds(book) == ["credits"]
    assert len(book.claim(5, run_id="run-2")) == 1


def test_a_refused_probe_ends_the_permission(book: Book) -> None:
    """The permitted run claims nothing more either."""
    halt = refuse(book)
    book.do(halts.set_balance, book.account_id, 3.0, None, AT)
    answer(book, probe(book), Event.DEFERRED, "no_credits", run_id="run-2", at=AT + 9)
    (still,) = open_halts(book)
    assert (still.id, still.since_at, still.balance_at) == (halt.id, AT, None)
    assert book.claim_anew(5, run_id="run-2") == []


def test_a_failed_task_makes_a_refused_creates_halt_need_audio(book: Book) -> None:
    task = book.submitted("t1")
    refuse(book)
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    book.record(book.accepted(probe(book), "t2"))
    assert kinds(book) == ["credits"]


def test_a_probe_sent_before_another_unfunded_task_does_not_close_the_halt(book: Book) -> None:
    task = book.submitted("t1")
    refuse(book)
    claimed = probe(book)
    assert book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    answer(book, claimed, Event.ACCEPTED, "ok", run_id="run-2", task_id="t2")
    (open_,) = book.open_tasks([])
    assert book.do(collection.record_rendered, ending(open_))
    assert kinds(book) == ["credits"]
    assert book.claim_anew(5, run_id="run-2") == []


def test_a_refused_create_does_not_relax_a_failed_tasks_halt(book: Book) -> None:
    """It still closes only with audio."""
    task, (in_flight,) = book.submitted("t1"), book.claim()
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    answer(book, in_flight, Event.DEFERRED, "no_credits")
    book.record(book.accepted(probe(book), "t2"))
    assert kinds(book) == ["credits"]


def test_a_halt_records_the_balance_after_the_last_create(book: Book) -> None:
    """Later balances are compared with it. An unknown balance stays unknown."""
    halt = refuse(book)
    assert (halt.balance_at, halt.credits, halt.quota) == (None, None, None)
    book.do(halts.set_balance, book.account_id, None, 7.0, AT + 4)
    (kept,) = open_halts(book)
    assert (kept.balance_at, kept.credits, kept.quota) == (AT + 4, None, 7.0)


def test_a_balance_is_recorded_in_the_credits_halt_of_its_account(book: Book) -> None:
    """In no other halt."""
    lose(book, MOST + 1)
    book.do(halts.open_halt, book.account_id, "credits", AT, "why", RUN)
    other = book.begin("run-2", user_id="u2")
    book.do(halts.open_halt, other, "credits", AT, "why", "run-2")
    book.do(halts.open_halt, other, "unstable", AT, "why", "run-2")
    book.do(halts.set_balance, other, 3.0, None, AT + 4)
    found = book.do(halts.open_halts)
    assert [(halt.kind, halt.account_id) for halt in found if halt.balance_at is not None] == [("credits", other)]


def test_the_refused_runs_first_balance_stands_in_until_one_is_read(book: Book) -> None:
    book.begin("run-2", credits_=5.0)
    halt = refuse(book, "run-2")
    assert book.do(halts.balance_before, halt.id) == (5.0, None)


def test_what_the_refused_run_has_spent_is_not_part_of_its_first_balance(book: Book) -> None:
    """What earlier runs spent was not part of it anyway."""
    book.record(book.accepted(book.claim()[0], "t1", credits=40.0))
    book.begin("run-2", credits_=50.0)
    book.do(
        runs.enter_account,
        "run-2",
        origin="https://api.test",
        user_id="u1",
        token="secret",
        balance=Balance(credits=50.0, quota=9.0),
        at=AT,
    )
    (claimed,) = book.claim(run_id="run-2")
    book.record(book.accepted(claimed, "t2", run_id="run-2", credits=2.0))
    halt = refuse(book, "run-2")
    assert book.do(halts.balance_before, halt.id) == (48.0, 7.0)


def test_a_refused_probe_replaces_the_halts_balance_with_its_runs_first(book: Book) -> None:
    """That run had more credits, and they were not enough."""
    book.begin("run-2", credits_=5.0)
    halt = refuse(book, "run-2")
    answer(book, probe(book, "run-3", credits_=10.0), Event.DEFERRED, "no_credits", run_id="run-3")
    assert book.do(halts.balance_before, halt.id) == (10.0, None)


@pytest.mark.parametrize(
    ("price", "balance", "short"),
    [(None, 0.0, True), (None, 0.5, False), (20.0, 20.0, False), (20.0, 19.5, True), (20.0, 0.0, True)],
)
def test_a_failure_without_a_reason_halts_if_the_balance_is_below_the_items_price(
    book: Book, price: float | None, balance: float, short: bool
) -> None:
    """If no price is known, only an empty balance halts."""
    if price is not None:
        for number in range(5):
            book.do(collection.record_rendered, ending(book.submitted(f"t{number}"), credits=price))
    book.take_in(
        "id,text\nz,a text that costs much more than the others since it is longer\n", batch="n", filename="n/{id}"
    )
    key = book.one("SELECT key FROM items WHERE text = 'text 9'")["key"]
    how: dict[str, Any] = {"balance": balance, "at": AT + 1, "run_id": RUN}
    assert book.do(halts.after_unexplained, book.account_id, key, "it failed", **how) is short
    assert [halt.since_at for halt in open_halts(book)] == ([AT + 1] if short else [])
    for halt in open_halts(book):
        needed = "" if price is None else ", less than its estimated price of 20"
        assert halt.detail == f"it failed, and the balance is {amount(balance)}{needed}"
        claimed = probe(book)
        book.record(book.accepted(claimed, "t9", run_id="run-2"))
        assert open_halts(book) == []


# --- unstable


def test_too_many_lost_creates_halt_the_account_for_a_time(book: Book) -> None:
    lose(book, MOST)
    assert open_halts(book) == []
    lose(book, 1, at=AT + 30, error_message="read timeout.")
    (halt,) = open_halts(book)
    assert (halt.kind, halt.since_at) == ("unstable", AT + 30)
    assert halt.probe_after_at == AT + 30 + 300
    assert halt.detail.endswith("the last: read timeout")
    assert book.claim(5) == []


def test_an_accepted_create_resets_the_count_of_lost_creates(book: Book) -> None:
    lose(book, MOST, at=AT + 1)
    (claimed,) = book.claim()
    book.record(book.accepted(claimed, "t1", at=AT + 2))
    lose(book, MOST, at=AT + 3)
    assert open_halts(book) == []
    (claimed,) = book.claim()
    book.record(book.accepted(claimed, "t2", at=AT + 4))
    lose(book, MOST, at=AT + 5)
    assert open_halts(book) == []
    lose(book, 1, at=AT + 5)
    assert kinds(book) == ["unstable"]


def test_a_deferred_or_rejected_create_does_not_reset_the_count(book: Book) -> None:
    """It proves nothing about the lost ones, and is none of them."""
    lose(book, MOST - 1, at=AT + 1)
    deferred, rejected = book.claim(2)
    answer(book, deferred, Event.DEFERRED, "throttled", at=AT + 2)
    answer(book, rejected, Event.REJECTED, "invalid", at=AT + 2)
    lose(book, 1, at=AT + 3)
    assert open_halts(book) == []
    lose(book, 1, at=AT + 3)
    assert kinds(book) == ["unstable"]


def test_creates_of_a_killed_run_do_not_count_as_lost(book: Book) -> None:
    """They prove nothing about the API."""
    book.claim(10)
    book.begin("run-2")
    assert book.do(answers.doubt_unanswered, at=AT + 1, run_id="run-2") == 10
    book.execute("UPDATE runs SET ended_at = NULL")
    lose(book, MOST, at=AT + 2)
    assert open_halts(book) == []


def test_creates_that_the_program_aborted_do_not_count_as_lost(book: Book) -> None:
    """They prove nothing about the API either."""
    for claimed in book.claim(MOST + 1):
        answer(book, claimed, Event.LOST, "interrupted")
    assert open_halts(book) == []


def test_creates_answered_with_another_items_task_count_as_lost(book: Book) -> None:
    """An API that repeats a task id puts creates in doubt, so it is stopped like one that does not answer."""
    owner, *others = book.claim(MOST + 2)
    book.record(book.accepted(owner, "t1", at=AT))
    for claimed in others:
        assert book.record(book.accepted(claimed, "t1", at=AT + 1), max_in_doubt=MOST) is Event.LOST
    assert kinds(book) == ["unstable"]


def test_each_account_counts_its_own_lost_creates(book: Book) -> None:
    lose(book, MOST)
    book.begin("run-2", user_id="u2")
    for claimed in book.claim(MOST, run_id="run-2"):
        answer(book, claimed, Event.LOST, run_id="run-2")
    assert book.all("SELECT * FROM halts") == []


def test_an_accepted_create_of_another_account_does_not_reset_the_count(book: Book) -> None:
    first = book.account_id
    lose(book, MOST)
    (in_flight,) = book.claim()
    book.begin("run-2", user_id="u2")
    (claimed,) = book.claim(run_id="run-2")
    book.record(book.accepted(claimed, "t1", run_id="run-2"))
    book.account_id = first
    answer(book, in_flight, Event.LOST)
    assert [halt.account_id for halt in book.do(halts.open_halts)] == [first]


def test_a_create_lost_beside_the_probe_changes_nothing(book: Book) -> None:
    """It was sent before the halt. The probe stays permitted, and its time as it was."""
    *others, last = book.claim(MOST + 2)
    for claimed in others:
        answer(book, claimed, Event.LOST)
    book.begin("run-2")
    (halt,) = open_halts(book)
    assert book.do(halts.find_prober, halt, "run-2", may_probe=True) == "own"
    answer(book, last, Event.LOST, at=AT + 5)
    assert open_halts(book) == [halt]
    assert book.do(halts.find_prober, halt, "run-2", may_probe=False) == "own"


def test_lost_creates_halt_an_account_that_has_no_credits_either(book: Book) -> None:
    """A halt of each kind, or of another account, leaves room for one more."""
    first, claimed = book.account_id, book.claim(MOST + 1)
    book.do(halts.open_halt, first, "credits", AT, "why", RUN)
    other = book.begin("run-2", user_id="u2")
    book.do(halts.open_halt, other, "unstable", AT, "why", "run-2")
    book.account_id = first
    for one in claimed:
        answer(book, one, Event.LOST)
    assert kinds(book) == ["credits", "unstable"]


def test_each_lost_probe_quadruples_the_wait_up_to_a_day(book: Book) -> None:
    """It also ends the permission."""
    lose(book, MOST + 1)
    waits = []
    for number in range(6):
        claimed = probe(book, f"run-{number + 2}")
        answer(book, claimed, Event.LOST, run_id=f"run-{number + 2}", at=AT + 1000 * number)
        (halt,) = open_halts(book)
        waits.append(halt.probe_after_at - AT - 1000 * number)
        assert book.claim_anew(5, run_id=f"run-{number + 2}") == []
    assert waits == [1200, 4800, 19200, 76800, 86400, 86400]
    assert halt.since_at == AT


def test_a_lost_probe_closes_nothing_if_its_answer_is_found_later(book: Book) -> None:
    """Nor does it lengthen the wait of another account's halt."""
    first = book.account_id
    lose(book, MOST + 1)
    claimed = probe(book)
    other = book.begin("run-3", user_id="u2")
    book.do(halts.open_halt, other, "unstable", AT, "why", "run-3")
    book.execute("UPDATE halts SET probe_key = ?", claimed.key)  # the other account's probe before this one's
    book.account_id = first
    answer(book, claimed, Event.LOST, run_id="run-2", at=AT + 1)
    assert [halt.probes for halt in book.do(halts.open_halts)] == [1, 0]
    book.record(book.accepted(claimed, "t1", run_id="run-2"))
    assert kinds(book) == ["unstable"]


def test_an_accepted_probe_ends_instability(book: Book) -> None:
    """The next instability opens a new halt, with the short wait again."""
    lose(book, MOST + 1)
    book.record(book.accepted(probe(book), "t1", at=AT + 400))
    assert open_halts(book) == []
    lose_as(book, "run-2", MOST + 1, AT + 500)
    (halt,) = open_halts(book)
    assert (halt.since_at, halt.probe_after_at) == (AT + 500, AT + 800)


def lose_as(book: Book, run_id: str, number: int, at: float) -> None:
    for claimed in book.claim(number, run_id=run_id):
        answer(book, claimed, Event.LOST, run_id=run_id, at=at)


def test_a_lost_probe_of_a_credits_halt_opens_no_other_halt(book: Book) -> None:
    refuse(book)
    answer(book, probe(book), Event.LOST, run_id="run-2")
    assert kinds(book) == ["credits"]
    assert book.claim_anew(5, run_id="run-2") == []


def test_open_halts_are_listed_oldest_first(book: Book) -> None:
    book.do(halts.open_halt, book.account_id, "unstable", AT + 1, "b", RUN)
    book.do(halts.open_halt, book.account_id, "credits", AT, "a", RUN)
    assert kinds(book) == ["credits", "unstable"]


# --- who may probe


async def permitted(
    book: Book, profile: Profile, *, run_id: str = "run-2", at: float = AT, override: bool = False
) -> bool:
    """Whether the guard permits a new run with this profile to create."""
    book.begin(run_id, credits_=profile.credits)
    with book.ledger() as ledger:
        guard = Guard(ledger, SetClock(at), account_id=book.account_id, run_id=run_id)
        await guard.begin(profile, override=override)
    assert guard.tripped or guard.probing
    assert len(book.claim_anew(5, run_id=run_id)) == (0 if guard.tripped else 1)
    return not guard.tripped


@pytest.mark.parametrize(
    ("before", "now", "may"),
    [
        ((3.0, 50.0), (3.0, 50.0), False),
        ((3.0, 50.0), (2.0, 40.0), False),
        ((3.0, 50.0), (3.5, 50.0), True),
        ((3.0, 50.0), (3.0, 51.0), True),
        ((3.0, 50.0), (2.0, 51.0), True),
        ((3.0, 50.0), (None, None), False),
        ((3.0, None), (None, 50.0), False),
        ((None, None), (9.0, 9.0), False),
        ((0.0, None), (9.0, None), True),
    ],
)
async def test_a_risen_balance_permits_a_probe(book: Book, before: Any, now: Any, may: bool) -> None:
    """Credits or quota, whichever has risen; an unknown number never counts as zero."""
    refuse(book)
    book.do(halts.set_balance, book.account_id, before[0], before[1], AT)
    assert await permitted(book, Profile(credits=now[0], quota=now[1])) is may


@pytest.mark.parametrize(("now", "may"), [(99.0, False), (100.0, False), (101.0, True), (None, False)])
async def test_without_a_later_balance_more_than_the_runs_first_is_needed(
    book: Book, now: float | None, may: bool
) -> None:
    """The refused run, killed before it read the balance again, began with 100."""
    refuse(book)
    assert await permitted(book, Profile(credits=now)) is may


async def test_a_run_records_its_balance_in_a_halt_that_has_none(book: Book) -> None:
    """A later rise is measured from there."""
    refuse(book)
    assert not await permitted(book, Profile(credits=2.0))
    assert await permitted(book, Profile(credits=2.5), run_id="run-3")


@pytest.mark.parametrize(("after", "may"), [(299.0, False), (300.0, True)])
async def test_an_instability_halt_is_probed_once_its_time_has_come(book: Book, after: float, may: bool) -> None:
    """Regardless of the balance."""
    lose(book, MOST + 1)
    assert await permitted(book, Profile(credits=1.0), at=AT + after) is may


async def test_an_override_permits_a_probe_of_every_halt(book: Book) -> None:
    """Still one create at a time."""
    lose(book, MOST + 1)
    book.do(halts.open_halt, book.account_id, "credits", AT, "why", RUN)
    assert not await permitted(book, Profile(credits=1.0))
    assert await permitted(book, Profile(), run_id="run-3", override=True)


async def test_a_halt_whose_time_has_come_waits_for_the_other_halt(book: Book) -> None:
    """The other needs a risen balance."""
    lose(book, MOST + 1)
    book.do(halts.open_halt, book.account_id, "credits", AT, "why", RUN)
    assert not await permitted(book, Profile(credits=1.0), at=AT + 300)
