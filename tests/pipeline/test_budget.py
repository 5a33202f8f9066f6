"""Money as a person sees it: a batch's budget, a halt's line, the evidence about a doubt, the credit statement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batcher.formatting import amount
from batcher.item import Event
from batcher.ledger.lifecycle import collection, decisions, runs
from batcher.ledger.money.spending import Budget, spending
from batcher.ledger.money.top_ups import topped_up
from batcher.ledger.records import Balance, Claimed
from tests.support.fake_tts import Create, FakeTTS, Job, Twist
from tests.support.ledger_kit import AT, RUN, Book, book_in, ending

if TYPE_CHECKING:
    from tests.conftest import Project

CHARGED_AND_DROPPED = Twist(charge=True)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """A ledger with forty rows of the same length."""
    with book_in(tmp_path) as made:
        made.take_in("id,text\n" + "".join(f"r{number},text {number}\n" for number in range(10, 50)))
        yield made


def _buy(book: Book, number: int) -> None:
    """Have this many items rendered for a credit each."""
    for one in range(number):
        task = book.submitted(f"t{one}")
        book.do(collection.record_rendered, ending(task, credits=1.0))


def _affordable(book: Book, most: float) -> int:
    budget, number = Budget(most, "run-1"), 0
    while book.claim(5, budget=budget):
        number += 1
    return number


def test_an_item_in_doubt_counts_as_spent(book: Book) -> None:
    """What was definitely not bought costs nothing."""
    _buy(book, 2)
    for event, cause in ((Event.LOST, "unclear"), (Event.DEFERRED, "throttled"), (Event.REJECTED, "invalid")):
        (claimed,) = book.claim()
        book.record(book.answer(claimed, event, cause))
    book.submitted("open")
    found = book.do(spending)
    assert (found.spent, found.in_flight, found.in_doubt, found.total) == (2.0, 1.0, 1.0, 4.0)
    assert _affordable(book, 6.0) == 2


@pytest.mark.parametrize("left", [0.5, 1.0, 2.0, 3.5, 7.0])
def test_the_last_credits_of_a_budget_are_given_out_once(book: Book, left: float) -> None:
    """However many creates pass between two counts."""
    _buy(book, 30)
    assert _affordable(book, 30.0 + left) == int(left)


def test_without_a_price_each_create_waits_for_open_tasks_and_the_balance(book: Book) -> None:
    budget = Budget(100.0, "run-1")

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


def test_a_rising_price_is_noticed_in_time(book: Book) -> None:
    """At three times the price, a third of the creates pass."""
    _buy(book, 16)
    budget, number = Budget(16.0 + 20.0, "run-1"), 0
    while claimed := book.claim(1, budget=budget):
        number += 1
        book.record(book.accepted(claimed[0], f"dear{number}"))
        (task,) = (one for one in book.open_tasks([]) if not one.rendered)
        book.do(collection.record_rendered, ending(task, credits=3.0))
    assert 1 < number <= 20 / 3 + 2


def test_a_budget_holds_over_all_runs(project: Project, provider: FakeTTS) -> None:
    """It can be raised, and the batch goes on."""
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
    """By estimate."""
    manifest = project.manifest(project.rows(12, first=10))
    assert project.run(manifest, "--max-items", "2").exit_code == 6
    provider.on_create = lambda create: CHARGED_AND_DROPPED if create.number in (3, 4) else None
    provider.task_seconds = 60.0
    ended = project.run(manifest, "--max-credits", "7", "--no-wait")
    assert (ended.exit_code, len(provider.creates)) == (6, 7)
    assert ended.report["states"]["in_doubt"] == 2
    told = project.batcher("status", "--ledger", project.ledger).out
    assert "credits: 2 spent, 3 in flight, 2 in doubt, 5 still needed (estimate)" in told


def test_creates_go_one_at_a_time_until_a_price_is_known(project: Project, provider: FakeTTS) -> None:
    """A fall of the balance gives one too."""
    provider.shape = "flat"  # tasks report no credits
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


def test_a_budget_without_any_price_stops_after_a_few_creates(project: Project, provider: FakeTTS) -> None:
    """Neither tasks nor the balance show what one costs."""
    provider.shape, provider.hidden = "flat", ("credits", "api_quota_remaining")
    manifest = project.manifest(8)
    ended = project.run(manifest, "--max-credits", "100")
    assert (ended.exit_code, len(provider.creates)) == (6, 5)
    assert "cannot be enforced" in ended.report["message"]


def test_the_balance_is_that_of_the_api_and_not_of_a_membership(project: Project, provider: FakeTTS) -> None:
    """Where a profile has both, only the API's pays for items, also for the plan, the halt and the price."""
    provider.shape, provider.membership, provider.credits = "flat", 5000.0, 2.5
    manifest = project.manifest(project.rows(9, first=10))
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["credits"]["start"], ended.report["credits"]["end"]) == (4, 2.5, 0.5)
    planned = project.batcher("plan", manifest, "--api-url", provider.url, "--json").report
    assert (planned["balance"], planned["suffices"]) == (0.5, False)
    assert planned["estimate"]["credits"] == pytest.approx(7)
    shown = project.batcher("status", "--json").report
    assert (shown["credits"]["start"], shown["credits"]["end"]) == (2.5, 0.5)


def test_a_halt_is_explained_in_one_line(project: Project, provider: FakeTTS) -> None:
    """Since when, balance then and now, credits needed, items done and to go, what to do."""
    manifest = project.manifest(project.rows(9, first=10))
    provider.credits = 4.5
    project.run(manifest)
    provider.credits = 0.25
    ended = project.run(manifest)
    assert ended.exit_code == 4
    said = ended.report["message"]
    assert "\n" not in said
    parts = ("halted since 20", "insufficient_credits", "0.5 credits left then, 0.25 now", "needs about 1;")
    for part in (*parts, "4 done, 5 to go", "top up the API credits (membership credits are separate)"):
        assert part in said


@pytest.mark.parametrize(("left", "code"), [pytest.param(1_000.0, 3, marks=pytest.mark.slow), (0.5, 4)])
def test_a_failure_without_a_code_halts_only_if_the_balance_is_too_low(
    project: Project, provider: FakeTTS, left: float, code: int
) -> None:
    """Prose about credits does not."""
    manifest = project.manifest(project.rows(4, first=10))
    assert project.run(manifest, "--max-items", "1").exit_code == 6  # one task shows the price
    provider.credits = left + 1

    def ending(_: Job) -> dict[str, object]:
        return {"status": "failed", "audioUrl": None, "error": {"message": "Insufficient credits, please top up"}}

    provider.ending = ending
    ended = project.run(manifest, "--concurrency", "1")
    assert ended.exit_code == code
    assert len(provider.creates) == (4 if code == 3 else 2)
    assert bool(ended.report["halt"]) == (code == 4)


def test_resolve_shows_the_balances_around_a_doubt(project: Project, provider: FakeTTS) -> None:
    """Beside what other items cost, and with the cost of each choice."""
    manifest = project.manifest(project.rows(3, first=10))
    provider.on_create = lambda create: CHARGED_AND_DROPPED if create.number == 2 else None
    assert project.run(manifest, "--concurrency", "1").exit_code == 3
    (case,) = project.batcher("resolve", "--json", "--ledger", project.ledger).report["doubts"]
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


def test_the_statement_shows_the_unexplained_rest(project: Project, provider: FakeTTS) -> None:
    """Balances at start and end, less the prices of the run's tasks; others may have spent the rest."""

    def spend(number: int) -> None:
        provider.credits -= 7 * (number == 2)

    provider.on_profile = spend
    ended = project.run(project.manifest(3))
    assert "1,000,000 at the start, 999,990 at the end; reported cost 3; +7 credits unexplained" in ended.err
    assert ended.report["credits"] == {"start": 1e6, "end": 1e6 - 10, "spent": 3, "estimated_needed": 0, "topped_up": 0}


def test_a_run_whose_costs_explain_its_balances_prints_no_statement(project: Project) -> None:
    ended = project.run(project.manifest(3))
    assert (ended.exit_code, "balance: " in ended.err, "3 credits spent, 999,997 credits left" in ended.err) == (
        0,
        False,
        True,
    )


def test_a_top_up_between_runs_is_no_negative_cost(project: Project, provider: FakeTTS) -> None:
    """`status` shows what was spent, what was added, and what is left."""
    provider.credits = 3
    manifest = project.manifest(8)
    assert project.run(manifest).exit_code == 4
    assert "topped up" not in project.batcher("status").out
    provider.credits += 500
    assert project.run(manifest).exit_code == 0
    told = project.batcher("status").out
    assert "credits: spent about 8, 0 in flight, 0 in doubt, 0 still needed (estimate), topped up about 500" in told
    assert "topped up about 500, 495 left\n" in told
    assert project.run(manifest).report["credits"]["start"] is None  # nothing to do: it reads no profile
    assert "topped up about 500, 495 left\n" in project.batcher("status").out
    assert project.batcher("status", "--json").report["credits"]["left"] == 495
    assert project.batcher("report").exit_code == 0
    page = (project.audio / "lines.report.html").read_text(encoding="utf-8")
    assert "Spent about 8, topped up about 500, 495 left." in page


def test_a_top_up_during_a_run_is_recognised(project: Project, provider: FakeTTS) -> None:
    def add(number: int) -> None:
        provider.credits += 500 * (number == 2)

    provider.on_profile = add
    ended = project.run(project.manifest(3))
    assert "credits: spent about 3, topped up about 500, 1,000,497 left\n" in ended.err
    assert ended.report["credits"]["spent"] == 3


def test_a_refund_is_no_top_up(book: Book) -> None:
    """A balance that rises by no more than the open tasks may have cost is not counted."""
    _buy(book, 4)
    task = book.submitted("open")
    for credits_, at in ((50.0, AT + 1), (51.0, AT + 2)):
        book.do(runs.note_balance, RUN, book.account_id, Balance(credits=credits_), at=at)
    assert book.do(topped_up) == 0
    book.do(collection.record_rendered, ending(task, at=AT + 3, credits=1.0))
    book.do(runs.note_balance, RUN, book.account_id, Balance(credits=60.0), at=AT + 4)
    assert book.do(topped_up) == 9


def test_a_settled_doubt_is_not_in_doubt_but_counts_towards_the_budget(book: Book) -> None:
    _buy(book, 2)
    for _ in range(2):
        (claimed,) = book.claim()
        book.record(book.answer(claimed, Event.LOST))
    assert book.do(spending).in_doubt == 2.0
    book.do(decisions.abandon, claimed.key, claimed.attempt, at=AT, who="person")
    found = book.do(spending)
    assert (found.in_doubt, found.settled, found.total) == (1.0, 1.0, 4.0)


def test_a_halt_names_the_need_of_the_next_selected_item(project: Project, provider: FakeTTS) -> None:
    """Not that of a row which the run does not work on."""
    rows = project.rows(3)
    rows[1]["text"] = "A much longer text than that of the others. " * 50
    manifest = project.manifest(rows)
    assert project.run(manifest, "--only", "r1").exit_code == 0
    provider.credits = 0.0
    ended = project.run(manifest, "--only", "r3")
    assert ended.exit_code == 4
    assert "the next item needs about 1;" in ended.err


def test_the_statement_relates_an_unexplained_fall_to_a_lost_create(project: Project, provider: FakeTTS) -> None:
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
def test_an_amount_has_commas_and_up_to_two_decimals(number: float, words: str) -> None:
    """A small amount never shows as zero."""
    assert amount(number) == words


@pytest.mark.parametrize(("first", "then", "most"), [(0.004, 0.004, 0.02), (1.0, 20.0, 200.0)])
@pytest.mark.slow
def test_a_budget_holds_for_tiny_and_for_rising_prices(
    project: Project, provider: FakeTTS, first: float, then: float, most: float
) -> None:
    provider.shape = "flat"

    def cost(job: Job) -> float:
        return first if int(job.id.removeprefix("task_")) < 3 else then

    provider.ending = lambda job: {"creditsUsed": cost(job)}
    ended = project.run(project.manifest(project.rows(100, first=100)), "--max-credits", str(most))
    assert ended.exit_code == 6
    assert sum(map(cost, provider.jobs.values())) <= most + 5 * then


@pytest.mark.slow
def test_lost_creates_without_a_price_count_among_the_few_of_a_budget(project: Project, provider: FakeTTS) -> None:
    provider.shape, provider.hidden = "flat", ("credits", "api_quota_remaining")
    provider.on_create = lambda create: None if create.number == 3 else CHARGED_AND_DROPPED
    ended = project.run(project.manifest(9), "--max-credits", "1")
    assert (ended.exit_code, len(provider.creates)) == (6, 5)


def test_a_plan_counts_a_retake(project: Project, provider: FakeTTS) -> None:
    """It reads the latest take of each row, as a run does."""
    manifest = project.manifest(2)
    project.run(manifest)
    project.batcher("retake", "r1", "--ledger", project.ledger)
    plan = project.batcher("plan", manifest, "--api-url", provider.url, "--json").report
    assert (plan["new"], plan["changed"]) == (1, {})
