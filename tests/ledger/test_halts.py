"""Halts: what opens them, who may probe, what closes them. Against real ledgers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batcher.clock import Clock
from batcher.item import Event
from batcher.ledger.ledger import open_ledger
from batcher.ledger.lifecycle import answers, collection, halts
from batcher.ledger.records import Claimed, Halt
from batcher.pipeline.credit_guard import Guard
from batcher.provider.answers import Profile
from tests.support.ledger_kit import AT, RUN, Book, book_in, ending, sheet

MOST = 2
"""Lost creates that are let pass."""


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
    """A create is refused for lack of credits."""
    (claimed,) = book.claim(1, run_id=run_id)
    said: dict[str, Any] = {"http_status": 402, "run_id": run_id}
    answer(book, claimed, Event.DEFERRED, "no_credits", **(said | changes))
    return next(halt for halt in open_halts(book) if halt.kind == "credits")


def probe(book: Book, run_id: str = "run-2", *, credits_: float | None = None) -> Claimed:
    """A new run is allowed to probe every open halt, and claims its probe."""
    book.begin(run_id, credits_=credits_)
    for halt in open_halts(book):
        book.do(halts.permit_probe, halt.id, run_id)
    (claimed,) = book.claim_anew(5, run_id=run_id)
    return claimed


# --- credits


@pytest.mark.parametrize("said", [{"error_code": "insufficient_credits"}, {"http_status": 402}])
def test_a_refused_create_halts(book: Book, said: dict[str, Any]) -> None:
    """One create refused for lack of credits stops the account's creating, and the halt says why and since when."""
    halt = refuse(book, at=AT + 3, **said)
    assert (halt.kind, halt.since_at, halt.probe_after_at) == ("credits", AT + 3, AT + 3)
    assert str(next(iter(said.values()))) in halt.detail
    assert book.claim_anew(5) == []


def test_a_failed_task_halts(book: Book) -> None:
    """A task that failed for lack of credits stops the account in the same transaction."""
    task = book.submitted("t1")
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_quota"))
    (halt,) = open_halts(book)
    assert (halt.kind, "insufficient_quota" in halt.detail) == ("credits", True)
    assert book.claim(5) == []


def test_a_late_unfunded_look_halts_nothing(book: Book) -> None:
    """The same news of a task that has ended already opens no halt."""
    task = book.submitted("t1")
    book.do(collection.record_rendered, ending(task))
    assert not book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    assert open_halts(book) == []


def test_many_refusals_are_one_halt(book: Book) -> None:
    """Creates that were in the air together and are all refused make one halt, since the first of them."""
    for number, claimed in enumerate(book.claim(5)):
        answer(book, claimed, Event.DEFERRED, "no_credits", at=AT + number)
    (halt,) = open_halts(book)
    assert halt.since_at == AT


def test_an_accepted_neighbour_ends_no_halt(book: Book) -> None:
    """A create that left before the halt and is accepted after it does not close it: it is no probe."""
    first, second = book.claim(2)
    answer(book, first, Event.DEFERRED, "no_credits")
    book.record(book.accepted(second, "t2"))
    book.do(collection.record_rendered, ending(book_task(book, second, "t2")))
    assert kinds(book) == ["credits"]


def book_task(book: Book, claimed: Claimed, task_id: str) -> Any:
    (task,) = [one for one in book.do(collection.open_tasks, book.account_id, book.wanted) if one.task_id == task_id]
    assert task.key == claimed.key
    return task


def test_only_the_permitted_run_probes(book: Book) -> None:
    """Permission is one run's: another one gets nothing, and a permitted one gets a single create at a time."""
    halt = refuse(book)
    book.begin("run-2")
    book.do(halts.permit_probe, halt.id, "run-1")
    assert book.claim_anew(5, run_id="run-2") == []
    book.do(halts.permit_probe, halt.id, "run-2")
    assert len(book.claim_anew(5, run_id="run-2")) == 1
    assert book.claim(5, run_id="run-2") == []
    assert book.do(halts.allowance, book.account_id, "run-2", 5) == 0
    assert book.do(halts.allowance, book.account_id, "run-2", 5, busy=True) == 1


def test_all_halts_must_be_permitted(book: Book) -> None:
    """With two halts open a permission for one of them lets nothing through."""
    halt = refuse(book)
    book.do(halts.open_halt, book.account_id, "unstable", AT, "why", RUN)
    book.do(halts.permit_probe, halt.id, RUN)
    assert book.claim_anew(5) == []


def test_an_accepted_probe_closes(book: Book) -> None:
    """An accepted probe closes the halt, and claims are free again."""
    refuse(book)
    book.record(book.accepted(probe(book), "t1", at=AT + 50))
    assert open_halts(book) == []
    assert book.one("SELECT closed_at FROM halts") == {"closed_at": AT + 50}
    assert len(book.claim(5, run_id="run-2")) == 5


def test_a_failed_tasks_halt_closes_when_rendered(book: Book) -> None:
    """Where a task failed for lack of credits, an accepted probe is not enough: only audio proves the credits."""
    task = book.submitted("t1")
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    claimed = probe(book)
    book.record(book.accepted(claimed, "t2"))
    assert kinds(book) == ["credits"]
    assert book.claim(5, run_id="run-2") == []
    book.do(collection.record_rendered, ending(book_task(book, claimed, "t2")))
    assert open_halts(book) == []


def test_a_probe_that_fails_keeps_the_halt(book: Book) -> None:
    """A probe whose task fails for another reason says nothing about credits: halted still, the next may probe."""
    task = book.submitted("t1")
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    claimed = probe(book)
    book.record(book.accepted(claimed, "t2"))
    book.do(collection.record_failed, ending(book_task(book, claimed, "t2"), error_code="bad_voice"))
    assert kinds(book) == ["credits"]
    assert len(book.claim(5, run_id="run-2")) == 1


@pytest.mark.parametrize(
    ("event", "cause"),
    [(Event.REJECTED, "invalid"), (Event.DEFERRED, "throttled"), (Event.DEFERRED, "unsent"), (Event.DEFERRED, "held")],
)
def test_a_probe_without_an_answer_about_credits(book: Book, event: Event, cause: str) -> None:
    """A probe that is rejected or never made keeps the halt and the permission: the next create is the probe."""
    refuse(book)
    answer(book, probe(book), event, cause, run_id="run-2")
    assert kinds(book) == ["credits"]
    assert len(book.claim(5, run_id="run-2")) == 1


def test_a_refused_probe_ends_the_permission(book: Book) -> None:
    """A probe that is refused for lack of credits leaves the halt as shut as before, for this run too."""
    halt = refuse(book)
    book.do(halts.set_balance, book.account_id, 3.0, None, AT)
    answer(book, probe(book), Event.DEFERRED, "no_credits", run_id="run-2", at=AT + 9)
    (still,) = open_halts(book)
    assert (still.id, still.since_at, still.balance_at) == (halt.id, AT, None)
    assert book.claim_anew(5, run_id="run-2") == []


def test_a_failed_task_makes_an_open_halt_stricter(book: Book) -> None:
    """A halt that a refused create opened needs audio to close, once a task has failed for lack of credits."""
    task = book.submitted("t1")
    refuse(book)
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    book.record(book.accepted(probe(book), "t2"))
    assert kinds(book) == ["credits"]


def test_a_probe_from_before_another_lack_proves_nothing(book: Book) -> None:
    """While a probe is under way a task fails for lack of credits: the probe's success comes too late to close that."""
    task = book.submitted("t1")
    refuse(book)
    claimed = probe(book)
    assert book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    answer(book, claimed, Event.ACCEPTED, "ok", run_id="run-2", task_id="t2")
    (open_,) = book.do(collection.open_tasks, book.account_id, [])
    assert book.do(collection.record_rendered, ending(open_))
    assert kinds(book) == ["credits"]
    assert book.claim_anew(5, run_id="run-2") == []


def test_a_refused_create_makes_an_open_halt_no_milder(book: Book) -> None:
    """A halt that a failed task opened still needs audio, after a create was refused as well."""
    task, (in_flight,) = book.submitted("t1"), book.claim()
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    answer(book, in_flight, Event.DEFERRED, "no_credits")
    book.record(book.accepted(probe(book), "t2"))
    assert kinds(book) == ["credits"]


def test_balances_are_kept_with_the_halt(book: Book) -> None:
    """The balance after the last create settled is what the next is measured against; unknown stays unknown."""
    halt = refuse(book)
    assert (halt.balance_at, halt.credits, halt.quota) == (None, None, None)
    book.do(halts.set_balance, book.account_id, None, 7.0, AT + 4)
    (kept,) = open_halts(book)
    assert (kept.balance_at, kept.credits, kept.quota) == (AT + 4, None, 7.0)


def test_the_balance_of_the_run_that_was_refused(book: Book) -> None:
    """Until a balance was read after the refusal, the one that the refused run began with stands for it."""
    book.begin("run-2", credits_=5.0)
    halt = refuse(book, "run-2")
    assert book.do(halts.balance_before, halt.id) == (5.0, None)


def test_the_balance_of_the_run_that_was_refused_again(book: Book) -> None:
    """When a later run's probe is refused, that run's beginning counts: it had more and it was not enough."""
    book.begin("run-2", credits_=5.0)
    halt = refuse(book, "run-2")
    answer(book, probe(book, "run-3", credits_=10.0), Event.DEFERRED, "no_credits", run_id="run-3")
    assert book.do(halts.balance_before, halt.id) == (10.0, None)


# --- unstable


def test_too_many_lost_creates(book: Book) -> None:
    """More lost creates than are let pass halt the account, with a time before which nobody probes."""
    lose(book, MOST)
    assert open_halts(book) == []
    lose(book, 1, at=AT + 30, error_message="read timeout")
    (halt,) = open_halts(book)
    assert (halt.kind, halt.since_at) == ("unstable", AT + 30)
    assert halt.probe_after_at == AT + 30 + 300
    assert "read timeout" in halt.detail
    assert book.claim(5) == []


def test_an_accepted_create_starts_the_count_anew(book: Book) -> None:
    """Only creates that were lost since the last accepted one count."""
    lose(book, MOST, at=AT + 1)
    (claimed,) = book.claim()
    book.record(book.accepted(claimed, "t1", at=AT + 2))
    lose(book, MOST, at=AT + 3)
    assert open_halts(book) == []
    lose(book, 1, at=AT + 3)
    assert kinds(book) == ["unstable"]


def test_other_answers_do_not_start_the_count_anew(book: Book) -> None:
    """A deferred or rejected create proves nothing about the lost ones."""
    lose(book, MOST, at=AT + 1)
    deferred, rejected = book.claim(2)
    answer(book, deferred, Event.DEFERRED, "throttled", at=AT + 2)
    answer(book, rejected, Event.REJECTED, "invalid", at=AT + 2)
    lose(book, 1, at=AT + 3)
    assert kinds(book) == ["unstable"]


def test_vanished_creates_do_not_count(book: Book) -> None:
    """Creates that a killed run left behind say nothing about the API."""
    book.claim(10)
    book.do(answers.doubt_unanswered, at=AT + 1, run_id=RUN)
    lose(book, MOST, at=AT + 2)
    assert open_halts(book) == []


def test_interrupted_creates_do_not_count(book: Book) -> None:
    """Creates that we broke off ourselves say nothing about the API either."""
    for claimed in book.claim(MOST + 1):
        answer(book, claimed, Event.LOST, "interrupted")
    assert open_halts(book) == []


def test_creates_answered_with_anothers_task_count(book: Book) -> None:
    """An API that names the same task again and again puts creates in doubt, and is stopped like a silent one."""
    owner, *others = book.claim(MOST + 2)
    book.record(book.accepted(owner, "t1", at=AT))
    for claimed in others:
        assert book.record(book.accepted(claimed, "t1", at=AT + 1), max_in_doubt=MOST) is Event.LOST
    assert kinds(book) == ["unstable"]


def test_another_accounts_losses_do_not_count(book: Book) -> None:
    """Each account has its own count and its own halts."""
    lose(book, MOST)
    book.begin("run-2", user_id="u2")
    for claimed in book.claim(MOST, run_id="run-2"):
        answer(book, claimed, Event.LOST, run_id="run-2")
    assert book.all("SELECT * FROM halts") == []


def test_lost_probes_wait_longer_each_time(book: Book) -> None:
    """Each lost probe puts the next one off four times as long, a day at most, and ends the permission."""
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


def test_an_accepted_probe_ends_instability(book: Book) -> None:
    """An accepted probe closes the halt; the next instability is a new one that starts with the short wait."""
    lose(book, MOST + 1)
    book.record(book.accepted(probe(book), "t1", at=AT + 400))
    assert open_halts(book) == []
    lose_as(book, "run-2", MOST + 1, AT + 500)
    (halt,) = open_halts(book)
    assert (halt.since_at, halt.probe_after_at) == (AT + 500, AT + 800)


def lose_as(book: Book, run_id: str, number: int, at: float) -> None:
    for claimed in book.claim(number, run_id=run_id):
        answer(book, claimed, Event.LOST, run_id=run_id, at=at)


def test_a_lost_probe_of_a_credits_halt(book: Book) -> None:
    """A probe of missing credits that is lost keeps that halt and does not open another by itself."""
    refuse(book)
    answer(book, probe(book), Event.LOST, run_id="run-2")
    assert kinds(book) == ["credits"]
    assert book.claim_anew(5, run_id="run-2") == []


def test_halts_are_listed_oldest_first(book: Book) -> None:
    """Of several open halts the oldest comes first; closed ones are not listed."""
    book.do(halts.open_halt, book.account_id, "unstable", AT + 1, "b", RUN)
    book.do(halts.open_halt, book.account_id, "credits", AT, "a", RUN)
    assert kinds(book) == ["credits", "unstable"]


# --- who may probe


class SetClock(Clock):
    """A clock that stands still."""

    def __init__(self, at: float) -> None:
        self._at = at

    def now(self) -> float:
        return self._at


async def permitted(
    book: Book, profile: Profile, *, run_id: str = "run-2", at: float = AT, override: bool = False
) -> bool:
    """Whether a new run with this profile may create at all."""
    book.begin(run_id, credits_=profile.credits)
    with open_ledger(book.path, "real") as ledger:
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
async def test_a_risen_balance_may_probe(book: Book, before: Any, now: Any, may: bool) -> None:
    """Missing credits are probed once either number has risen; an unknown one never counts as zero."""
    refuse(book)
    book.do(halts.set_balance, book.account_id, before[0], before[1], AT)
    assert await permitted(book, Profile(credits=now[0], quota=now[1])) is may


@pytest.mark.parametrize(("now", "may"), [(99.0, False), (100.0, False), (101.0, True), (None, False)])
async def test_a_balance_that_was_never_read(book: Book, now: float | None, may: bool) -> None:
    """Where the refused run was killed before it read what was left, it takes more than it began with (100)."""
    refuse(book)
    assert await permitted(book, Profile(credits=now)) is may


async def test_the_first_balance_is_kept(book: Book) -> None:
    """The run that finds no balance with the halt keeps its own, so that a later rise from there counts."""
    refuse(book)
    assert not await permitted(book, Profile(credits=2.0))
    assert await permitted(book, Profile(credits=2.5), run_id="run-3")


@pytest.mark.parametrize(("after", "may"), [(299.0, False), (300.0, True)])
async def test_instability_is_probed_in_time(book: Book, after: float, may: bool) -> None:
    """An unstable API is probed once the halt's time has come, whatever the balance."""
    lose(book, MOST + 1)
    assert await permitted(book, Profile(credits=1.0), at=AT + after) is may


async def test_a_person_may_override(book: Book) -> None:
    """A person's word lets every halt be probed, one create at a time all the same."""
    lose(book, MOST + 1)
    book.do(halts.open_halt, book.account_id, "credits", AT, "why", RUN)
    assert not await permitted(book, Profile(credits=1.0))
    assert await permitted(book, Profile(), run_id="run-3", override=True)


async def test_one_probeable_halt_is_not_enough(book: Book) -> None:
    """A halt whose time has come is not probed while another stands for an unchanged balance."""
    lose(book, MOST + 1)
    book.do(halts.open_halt, book.account_id, "credits", AT, "why", RUN)
    assert not await permitted(book, Profile(credits=1.0), at=AT + 300)
