"""The money as a person sees it: a batch's budget, the halt's one line, the evidence of a doubt, the statement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batcher.formatting import amount
from batcher.item import Event
from batcher.ledger.lifecycle import collection
from batcher.ledger.money.spending import Budget, spending
from batcher.ledger.records import Claimed
from tests.support.fake_tts import Create, FakeTTS, Job, Twist
from tests.support.ledger_kit import Book, book_in, ending

if TYPE_CHECKING:
    from tests.conftest import Project

CHARGED_AND_DROPPED = Twist(charge=True)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """A ledger with forty rows, each as long as the others."""
    with book_in(tmp_path) as made:
        made.take_in("id,text\n" + "".join(f"r{number},text {number}\n" for number in range(10, 50)))
        yield made


def _buy(book: Book, number: int) -> None:
    """Have so many rendered for a credit each."""
    for one in range(number):
        task = book.submitted(f"t{one}")
        book.do(collection.record_rendered, ending(task, credits=1.0))


def _affordable(book: Book, most: float) -> int:
    budget, number = Budget(most), 0
    while book.claim(5, budget=budget):
        number += 1
    return number


def test_a_doubt_is_spent_until_it_is_settled(book: Book) -> None:
    """What may have been bought counts against a budget like what was; what was definitely not made costs nothing."""
    _buy(book, 2)
    for event, cause in ((Event.LOST, "unclear"), (Event.DEFERRED, "throttled"), (Event.REJECTED, "invalid")):
        (claimed,) = book.claim()
        book.record(book.answer(claimed, event, cause))
    book.submitted("open")
    found = book.do(spending)
    assert (found.spent, found.in_flight, found.in_doubt, found.total) == (2.0, 1.0, 1.0, 4.0)
    assert _affordable(book, 6.0) == 2


@pytest.mark.parametrize("left", [0.5, 1.0, 2.0, 3.5, 7.0])
def test_a_budget_is_kept_between_two_counts(book: Book, left: float) -> None:
    """The last credits are given away once, however many creates are let through without counting anew."""
    _buy(book, 30)
    assert _affordable(book, 30.0 + left) == int(left)


def test_without_a_price_each_create_waits(book: Book) -> None:
    """While nothing says what one costs, the next waits for what is open to end, then for a look at the balance."""
    budget = Budget(100.0)

    def claimed() -> list[Claimed]:
        book.cursor = (0, 0)
        return book.claim(5, budget=budget)

    task = book.submitted("of an earlier run")
    assert claimed() == []
    book.do(collection.record_rendered, ending(task))
    (first,) = claimed()
    book.record(book.accepted(first, "t1"))
    book.do(collection.record_rendered, ending(replace(task, key=first.key, task_id="t1")))
    assert (book.state(first.key), claimed()) == ("rendered", [])
    budget.unpriced = False
    assert len(claimed()) == 1


def test_a_price_that_rises_is_noticed(book: Book) -> None:
    """What is left is counted anew in time: with three times the price a third of the creates are let through."""
    _buy(book, 16)
    budget, number = Budget(16.0 + 20.0), 0
    while claimed := book.claim(1, budget=budget):
        number += 1
        book.record(book.accepted(claimed[0], f"dear{number}"))
        (task,) = (one for one in book.do(collection.open_tasks, book.account_id, []) if not one.rendered)
        book.do(collection.record_rendered, ending(task, credits=3.0))
    assert 1 < number <= 20 / 3 + 2


def test_a_budget_holds_over_all_runs(project: Project, provider: FakeTTS) -> None:
    """A batch spends what it may over its runs, not over each, and goes on when it may spend more."""
    rows = project.rows(15, first=10)
    manifest = project.manifest(rows)
    for most, created in ((6, 6), (6, 0), (9.5, 3), (0, 0)):
        ended = project.run(manifest, "--max-credits", str(most), "--concurrency", "4")
        assert (ended.exit_code, ended.report["outcome"], ended.report["created"]) == (6, "stopped", created)
        assert "--max-credits" in ended.report["message"]
    assert project.run(manifest, "--max-credits", "15").exit_code == 0
    assert len(provider.creates) == 15
    project.assert_whole(rows)


@pytest.mark.slow
def test_doubts_and_open_tasks_count_as_spent(project: Project, provider: FakeTTS) -> None:
    """What may have been bought, and what is bought and not collected, is taken off a budget by estimate."""
    manifest = project.manifest(project.rows(12, first=10))
    assert project.run(manifest, "--max-items", "2").exit_code == 6
    provider.on_create = lambda create: CHARGED_AND_DROPPED if create.number in (3, 4) else None
    provider.task_seconds = 60.0
    ended = project.run(manifest, "--max-credits", "7", "--no-wait")
    assert (ended.exit_code, len(provider.creates)) == (6, 7)
    assert ended.report["states"]["in_doubt"] == 2
    told = project.batcher("status", "--ledger", project.ledger).out
    assert "credits: 2 spent, 3 in flight, 2 in doubt, 5 still needed (estimate)" in told


def test_one_at_a_time_while_no_price_is_known(project: Project, provider: FakeTTS) -> None:
    """Until something says what a create costs, the next waits for its task; a fall of the balance is such a word."""
    provider.shape = "flat"  # tasks say nothing of credits
    provider.task_seconds = 0.3
    ended: set[str] = set()
    still_open: list[int] = []

    def end(job: Job) -> dict[str, object]:
        ended.add(job.id)
        return {}

    provider.ending = end
    provider.on_create = lambda _: still_open.append(len(provider.jobs) - len(ended))
    done = project.run(project.manifest(project.rows(9, first=10)), "--max-credits", "8", "--concurrency", "4")
    assert (done.exit_code, len(provider.creates)) == (6, 8)
    assert still_open[:2] == [0, 0]
    assert max(still_open) > 0


def test_a_budget_that_cannot_be_kept_stops(project: Project, provider: FakeTTS) -> None:
    """Where neither tasks nor the balance say what one costs, a few are created one by one, and no more."""
    provider.shape, provider.hidden = "flat", ("credits", "api_quota_remaining")
    manifest = project.manifest(8)
    ended = project.run(manifest, "--max-credits", "100")
    assert (ended.exit_code, len(provider.creates)) == (6, 5)
    assert "cannot be enforced" in ended.report["message"]


def test_a_halt_is_told_in_one_line(project: Project, provider: FakeTTS) -> None:
    """A halted run says since when, what was left and is, what comes next needs, what is made and waits, and so on."""
    manifest = project.manifest(project.rows(9, first=10))
    provider.credits = 4.5
    project.run(manifest)
    provider.credits = 0.25
    ended = project.run(manifest)
    assert ended.exit_code == 4
    said = ended.report["message"]
    assert "\n" not in said
    parts = ("halted since 20", "insufficient_credits", "0.5 credits left then, 0.25 now", "needs about 1;")
    for part in (*parts, "4 done, 5 to go", "top up, and the next run continues"):
        assert part in said


@pytest.mark.parametrize(("left", "code"), [(1_000.0, 3), (0.5, 4)])
def test_a_failure_without_a_code_is_judged_by_the_balance(
    project: Project, provider: FakeTTS, left: float, code: int
) -> None:
    """Prose about credits halts nothing; a balance that does not pay for the item does."""
    manifest = project.manifest(project.rows(4, first=10))
    assert project.run(manifest, "--max-items", "1").exit_code == 6  # one task says what one costs
    provider.credits = left + 1

    def ending(_: Job) -> dict[str, object]:
        return {"status": "failed", "audioUrl": None, "error": {"message": "Insufficient credits, please top up"}}

    provider.ending = ending
    ended = project.run(manifest, "--concurrency", "1")
    assert ended.exit_code == code
    assert len(provider.creates) == (4 if code == 3 else 2)
    assert bool(ended.report["halt"]) == (code == 4)


def test_a_doubt_comes_with_its_money(project: Project, provider: FakeTTS) -> None:
    """`resolve` sets the balances around the lost create against what others cost, and says what each choice costs."""
    manifest = project.manifest(project.rows(3, first=10))
    provider.on_create = lambda create: CHARGED_AND_DROPPED if create.number == 2 else None
    assert project.run(manifest, "--concurrency", "1").exit_code == 3
    (case,) = project.batcher("resolve", "--json", "--ledger", project.ledger).report
    money = case["money"]
    assert money["before"] - money["after"] - money["told"] == money["unexplained"] == 1
    assert (money["untold"], money["estimate"]) == (0, 1)
    told = project.batcher("resolve", "--ledger", project.ledger).out
    for part in (
        "balance before: 1,000,000",
        "unexplained: 1\n",
        "price: about 1 credits",
        "--buy-again      pays the price, a second time if it was already bought",
    ):
        assert part in told


def test_the_statement_shows_what_is_unexplained(project: Project, provider: FakeTTS) -> None:
    """A run sets the balances at its start and end against its tasks' prices; what others spent is left over."""

    def spend(number: int) -> None:
        provider.credits -= 7 * (number == 2)

    provider.on_profile = spend
    ended = project.run(project.manifest(3))
    assert "1,000,000 at the start, 999,990 at the end; reported cost 3; +7 credits unexplained" in ended.err
    assert ended.report["credits"] == {"start": 1e6, "end": 1e6 - 10, "spent": 3, "estimated_needed": 0}


def test_the_statement_of_a_lost_create(project: Project, provider: FakeTTS) -> None:
    """A create that was charged and whose answer was lost is what a balance that fell without any task may be for."""

    def lose(_: Create) -> Twist:
        provider.credits -= 12_344.5  # and the one that every create costs here
        return CHARGED_AND_DROPPED

    provider.on_create = lose
    ended = project.run(project.manifest(1))
    said = "1,000,000 at the start, 987,654.5 at the end; no task created; +12,345.5 credits unexplained"
    assert f"{said} (1 create in doubt may be part of it)" in ended.err
    assert "987,654.5 credits left" in ended.err


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1e6, "1,000,000"),
        (1234567.891, "1,234,567.89"),
        (100.0, "100"),
        (-7.25, "-7.25"),
        (0.0, "0"),
        (4e-5, "0.00004"),
    ],
)
def test_an_amount_in_words(number: float, words: str) -> None:
    """Credits are written out, with commas and up to two decimals, and never as nothing where they are few."""
    assert amount(number) == words


@pytest.mark.parametrize(("first", "then", "most"), [(0.004, 0.004, 0.02), (1.0, 20.0, 200.0)])
@pytest.mark.slow
def test_a_budget_holds_whatever_one_costs(
    project: Project, provider: FakeTTS, first: float, then: float, most: float
) -> None:
    """Prices far below one credit count, and prices that rise are noticed in time."""
    provider.shape = "flat"

    def cost(job: Job) -> float:
        return first if int(job.id.removeprefix("task_")) < 3 else then

    provider.ending = lambda job: {"creditsUsed": cost(job)}
    ended = project.run(project.manifest(project.rows(100, first=100)), "--max-credits", str(most))
    assert ended.exit_code == 6
    assert sum(map(cost, provider.jobs.values())) <= most + 5 * then


@pytest.mark.slow
def test_doubts_without_a_price_stop_a_budget(project: Project, provider: FakeTTS) -> None:
    """Where no price is known, creates whose answers are lost count among the few."""
    provider.shape, provider.hidden = "flat", ("credits", "api_quota_remaining")
    provider.on_create = lambda create: None if create.number == 3 else CHARGED_AND_DROPPED
    ended = project.run(project.manifest(9), "--max-credits", "1")
    assert (ended.exit_code, len(provider.creates)) == (6, 5)


def test_a_plan_knows_of_a_retake(project: Project, provider: FakeTTS) -> None:
    """A plan reads rows by their latest takes, as a run does."""
    manifest = project.manifest(2)
    project.run(manifest)
    project.batcher("retake", "r1", "--ledger", project.ledger)
    plan = project.batcher("plan", manifest, "--api-url", provider.url, "--json").report
    assert (plan["new"], plan["changed"]) == (1, {})
