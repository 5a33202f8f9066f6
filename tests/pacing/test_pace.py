"""When tasks are polled: how many polls, how late, and how soon the pace is learned. In simulated time, seeded."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise
from statistics import NormalDist, fmean, median
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batcher.pacing.distribution import Course, Distribution, estimate
from batcher.pacing.due_queue import Due
from batcher.pacing.durations import WINDOW, Durations
from batcher.pacing.load import CLOSE, SPARSE, Load
from batcher.pacing.pace import LONGEST_SECONDS, OVERDUE_LEAST_SECONDS, OVERDUE_SECONDS, SHORTEST_SECONDS, Pace, Pacing
from batcher.pacing.schedule import best_nexts, growth
from tests.bench.pacing import (
    RULES,
    Best,
    Draw,
    Seen,
    by_length,
    change,
    constant,
    exponential,
    lateness_of,
    learned_run,
    lognormal,
    looks_of,
    share_of,
    simulate,
    steady,
    two_kinds,
)

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.fake_tts import FakeTTS


def steady_runs(draw: Draw, together: int, seeds: int = 6) -> list[Seen]:
    """The tasks of several runs that began once fifty had ended."""
    return [one for seed in range(seeds) for one in steady(learned_run(draw, together, 300 + 3 * together, seed))]


def taught(seconds: float, tasks: int = WINDOW) -> Pacing:
    """Pacing that has seen tasks of about this many seconds, give or take a fifth."""
    pacing, dice = Pacing(), random.Random("taught")
    for _ in range(tasks):
        exactly = seconds * math.exp(0.2 * dice.gauss(0.0, 1.0))
        pacing.begin("m", 100).ended(2 * exactly, (exactly, exactly))
    return pacing


# --- the best schedule


def test_the_schedule_matches_a_search_over_every_next_poll() -> None:
    """For a distribution of no particular shape."""
    dice = random.Random("grid")
    ages = [0.0, *sorted(dice.expovariate(1.0) for _ in range(60))]
    shares = [0.0, *(dice.random() for _ in range(60))]
    ended = [sum(shares[: place + 1]) / sum(shares) for place in range(61)]
    spent = [
        sum(age * share for age, share in zip(ages[: i + 1], shares, strict=False)) / sum(shares) for i in range(61)
    ]
    for cost in (0.01, 0.1, 1.0):
        values, nexts = [0.0] * 61, [0.0] * 60
        for i in range(59, -1, -1):
            values[i], nexts[i] = min(
                (cost * (1 - ended[i]) + ages[j] * (ended[j] - ended[i]) - (spent[j] - spent[i]) + values[j], ages[j])
                for j in range(i + 1, 61)
            )
        assert best_nexts(ages, ended, spent, cost) == nexts


def test_a_task_older_than_all_known_ones_is_polled_at_a_share_of_its_age() -> None:
    """A share that shrinks with the price of a poll."""
    known = spread(0.5)
    after = [known.next_poll(100, 1e6, cost) / 1e6 - 1 for cost in (CLOSE, SPARSE)]
    assert after == pytest.approx([growth(cost / 1e6 * known.median(100)) for cost in (CLOSE, SPARSE)], rel=0.1)
    assert 0 < after[0] < after[1]


def test_one_poll_finds_narrow_durations_and_half_of_wide_ones() -> None:
    found = [known.ended_by(100, known.next_poll(100, 0.0, SPARSE)) for known in map(spread, (0.02, 0.1, 0.3, 0.8))]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.95
    assert 0.4 < found[-1] < 0.6


# --- the price of a poll


def test_few_tasks_that_block_slots_are_polled_closely_and_many_as_sparsely_as_without_items() -> None:
    costs = [Load(number, 30.0, items_wait=True).poll_cost(3.0) for number in (1, 5, 20, 50, 10_000)]
    assert costs == sorted(costs)
    assert (costs[0], costs[-1]) == (CLOSE, SPARSE)
    assert costs[3] == pytest.approx(0.5 / (30.0 * 3.0 / 50) ** 2)


def test_a_lower_permitted_rate_makes_polls_dearer() -> None:
    """Down to a rate at which nothing is left to share."""
    costs = [Load(20, rate, items_wait=True).poll_cost(3.0) for rate in (1000.0, 20.0, 12.0, 1.0, 0.0)]
    assert costs == sorted(costs)
    assert (costs[0], costs[-1]) == (CLOSE, SPARSE)


def test_without_waiting_items_only_the_last_tasks_are_polled_closely() -> None:
    costs = [Load(number, 30.0, items_wait=False).poll_cost(3.0) for number in (1, 5, 50, 10_000)]
    assert costs == [CLOSE, pytest.approx(5 * CLOSE), SPARSE, SPARSE]


@pytest.mark.parametrize("number", [5, 50])
def test_the_permitted_polls_are_about_used_up_while_items_wait(number: int) -> None:
    """The learned pace at a price that would allow four polls per task."""
    rate, draw = 4 * number / 2.75, lognormal(2.0, 0.8)
    pacing, source = Pacing(), random.Random("rate")
    load = Load(number, rate, items_wait=True)
    seen = steady(simulate(lambda _: draw(source), lambda _: Loaded(pacing.begin("m", 100), load), number, 600))
    assert 3.0 < looks_of(seen) < 6.0


class Loaded:
    """A pace under a load that stays the same."""

    def __init__(self, pace: Pace, load: Load) -> None:
        self._pace, self._load = pace, load
        self.running, self.ended = pace.running, pace.ended

    def next_poll_seconds(self, age_seconds: float, chance: float) -> float:
        """The pace's next poll under the load."""
        return self._pace.next_poll_seconds(age_seconds, chance, self._load)

    def early_seconds(self, age_seconds: float) -> float:
        """The pace's delay under the load."""
        return self._pace.early_seconds(age_seconds, self._load)


@pytest.mark.parametrize(
    ("draw", "looks"),
    [(lognormal(2.0, 0.8), 13.5), (constant(3.0), 3.0), (by_length(0.03, 0.5), 3.5), (two_kinds(1.0, 6.0), 9.0)],
    ids=["log-normal", "constant", "by length", "two humps"],
)
def test_with_free_polls_the_end_is_found_within_a_twentieth_of_the_duration(draw: Draw, looks: float) -> None:
    pacing, source = Pacing(), random.Random("close")
    load = Load(5, 1000.0, items_wait=True)
    seen = steady(simulate(lambda _: draw(source), lambda size: Loaded(pacing.begin("m", size), load), 5, 400))
    assert looks_of(seen) < looks
    assert lateness_of(seen) < 0.06 * fmean(one.seconds for one in seen)


# --- the distribution


def spread(sigma: float, number: int = 60) -> Distribution:
    """What exactly known log-normal durations around two seconds teach."""
    seconds = [2.0 * math.exp(sigma * NormalDist().inv_cdf((place + 0.5) / number)) for place in range(number)]
    return estimate([(Course(100, each, each), 1) for each in seconds], math.inf)


def test_the_estimate_has_the_quantiles_of_exactly_known_durations() -> None:
    for sigma in (0.1, 0.3, 0.8):
        known = spread(sigma, 500)
        expected = [2.0 * math.exp(sigma * NormalDist().inv_cdf(share)) for share in (0.1, 0.5, 0.9)]
        assert [known.quantile(100, share) for share in (0.1, 0.5, 0.9)] == pytest.approx(expected, rel=0.1)
        assert [known.ended_by(100, age) for age in expected] == pytest.approx([0.1, 0.5, 0.9], abs=0.05)


def test_bounds_that_overlap_narrow_each_other_down() -> None:
    """Every task was running at one age or had ended by another, and only about two seconds agree with all."""
    bounds = [(0.0, 2.1), (1.9, 9.0), (0.0, 2.2), (1.8, 5.0)] * 15
    sample = [(Course(100, low, high), 1) for low, high in bounds]
    known = estimate(sample, math.inf)
    for _ in range(4):
        known = estimate(sample, math.inf, known)
    assert 1.5 < known.quantile(100, 0.2) < known.quantile(100, 0.8) < 2.5


def test_two_humps_stay_apart() -> None:
    dice = random.Random("humps")
    drawn = [two_kinds(1.0, 6.0)(dice)[1] for _ in range(WINDOW)]
    known = estimate([(Course(100, each, each), 1) for each in drawn], math.inf)
    assert known.ended_by(100, 3.5) - known.ended_by(100, 1.8) < 0.08
    assert known.ended_by(100, 1.8) == pytest.approx(sum(each < 1.8 for each in drawn) / WINDOW, abs=0.06)


# --- quality


@pytest.mark.parametrize("median", [0.2, 2.0, 200.0])
@pytest.mark.parametrize("together", [5, 300])
def test_after_fifty_tasks_pacing_is_close_to_the_best(median: float, together: int) -> None:
    """At any scale: about two polls, and hardly later than with the true distribution known."""
    draw = lognormal(median, 0.8)
    seen = steady_runs(draw, together, seeds=6 if together == 5 else 2)
    looks = looks_of(seen)
    assert 1.9 < looks < 2.4
    assert lateness_of(seen) <= 1.15 * Best(draw).lateness([one.seconds for one in seen], looks)


@pytest.mark.parametrize("together", [5, 300])
def test_pacing_halves_the_lateness_of_exponential_back_off(together: int) -> None:
    """On log-normal durations of 2 s, with no more polls."""
    seen = steady_runs(lognormal(2.0, 0.8), together, seeds=3)
    source = random.Random("rule")
    fixed = simulate(lambda _: lognormal(2.0, 0.8)(source), RULES["1 s, doubling to 30 s"], together, 3000)
    assert looks_of(seen) < 1.05 * looks_of(fixed)
    assert lateness_of(seen) < 0.55 * lateness_of(fixed)


def test_durations_without_memory_cost_little_more_than_the_best() -> None:
    """They differ from the assumed shape the most."""
    seen = steady_runs(exponential(2.0), 5)
    best = Best(exponential(2.0)).lateness([one.seconds for one in seen], looks_of(seen))
    assert looks_of(seen) < 2.6
    assert lateness_of(seen) < 1.25 * best


@pytest.mark.parametrize(
    "draw",
    [by_length(0.02), by_length(0.02, sigma=0.05), by_length(0.002), by_length(0.2), constant(0.5), constant(60.0)],
    ids=["20 ms", "20 ms noisy", "2 ms", "200 ms", "constant", "a constant minute"],
)
def test_durations_that_follow_from_the_text_need_hardly_a_second_poll(draw: Draw) -> None:
    """1.3 polls find the end within a tenth of the duration."""
    seen = steady_runs(draw, 5, seeds=4)
    assert looks_of(seen) <= 1.3
    assert share_of(seen) <= 0.1


# --- learning


@pytest.mark.parametrize("seconds", [0.2, 2.0, 20.0, 200.0])
def test_the_first_task_is_found_soon_in_few_polls(seconds: float) -> None:
    """At most about half of its duration late, at any scale."""
    (seen,) = learned_run(constant(seconds), 1, 1, seed=3)
    assert seen.late <= max(0.65 * seconds, 0.15)
    assert seen.looks <= 20


def test_open_tasks_count_as_longer_than_the_first_to_end() -> None:
    """The quickest sixth of many tasks has ended."""
    dice = random.Random("many")
    durations, tasks = Durations(), [2.0 * math.exp(0.8 * dice.gauss(0.0, 1.0)) for _ in range(300)]
    for seconds, course in [(seconds, durations.begin(100)) for seconds in tasks]:
        if seconds <= 0.9:
            durations.ended(course, 0.8 * seconds, 1.1 * seconds)
        else:
            durations.running(course, 0.9)
    assert sum(seconds <= 0.9 for seconds in tasks) < 60
    assert durations.known is not None
    assert 1.2 < durations.known.median(100) < 3.2


def test_durations_unrelated_to_length_are_not_tied_to_it() -> None:
    durations, dice = Durations(), random.Random("sizes")
    for _ in range(200):
        seconds = 2.0 * math.exp(0.8 * dice.gauss(0.0, 1.0))
        durations.ended(durations.begin(dice.randint(20, 2000)), seconds, seconds)
    assert durations.known is not None
    assert durations.known.offset == math.inf
    latest = [low for _, low, _ in durations.ended_tasks()]
    assert durations.known.median(100) == pytest.approx(median(latest), rel=0.1)
    assert durations.known.scatter == pytest.approx(0.8, rel=0.3)


def test_a_fixed_overhead_and_a_time_per_character_are_told_apart() -> None:
    """One second and ten milliseconds."""
    durations, dice = Durations(), random.Random("overhead")
    for _ in range(100):
        size = dice.randint(20, 2000)
        seconds = (1.0 + 0.01 * size) * math.exp(0.03 * dice.gauss(0.0, 1.0))
        durations.ended(durations.begin(size), 0.97 * seconds, 1.03 * seconds)
    assert durations.known is not None
    assert [durations.known.median(size) for size in (20, 200, 2000)] == pytest.approx([1.2, 3.0, 21.0], rel=0.2)


def test_tasks_that_become_ten_times_slower_are_learned_in_ten_more() -> None:
    """Once the tasks open at the change have ended."""
    looks, late = change(10.0, together=5, seeds=12)
    usual = fmean(looks[:50])
    assert fmean(looks[:50]) < 2.4
    assert fmean(looks[65:80]) < 1.35 * usual
    assert fmean(late[65:80]) < 0.7
    assert max(fmean(late[50 + place : 60 + place]) for place in range(0, 140, 10)) < 0.75


def test_tasks_that_become_ten_times_quicker_are_learned_in_fifty() -> None:
    """Early polls find it out."""
    _, late = change(0.1, together=5, seeds=12)
    assert fmean(late[50:55]) > 3
    assert fmean(late[100:150]) < 0.65


@pytest.mark.parametrize("draw", [lognormal(60.0, 0.8), by_length(0.05, 1.0, 0.1)], ids=["log-normal", "by length"])
def test_most_of_many_unknown_tasks_wait_for_what_a_few_teach(draw: Draw) -> None:
    """Two thousand tasks begin together and take few polls each."""
    seen = learned_run(draw, 2000, 2000, seed=1)
    assert looks_of(seen) < 3
    assert lateness_of(seen) < 0.6 * fmean(one.seconds for one in seen)


def test_a_planned_poll_is_postponed_by_what_other_tasks_teach() -> None:
    """To exactly the time that is right now."""
    pacing = Pacing()
    pace = pacing.begin("m", 100)
    assert pace.early_seconds(0.0) == 0
    soon = pace.next_poll_seconds(0.0, 0.5)
    assert pace.early_seconds(soon) == 0
    for _ in range(20):
        pacing.begin("m", 100).ended(20.0, (10.0, 10.0))
    early = pace.early_seconds(soon)
    assert 9 < early + soon < 12
    assert early + soon == pytest.approx(pace.next_poll_seconds(0.0, 0.5))
    assert pace.early_seconds(early + soon) == 0


def test_a_task_is_overdue_far_beyond_its_models_durations() -> None:
    """After a fixed time while little is known, and never soon."""
    pacing = Pacing()
    chance = random.Random(3)
    assert pacing.begin("quick", 100).overdue_seconds() == OVERDUE_SECONDS
    for model, typical in (("quick", 2.0), ("slow", 1800.0)):
        for number in range(30):
            took = typical * math.exp(0.3 * chance.gauss(0.0, 1.0))
            pacing.begin(model, 100).ended(took, (took, took))
            if number == 1:
                assert pacing.begin(model, 100).overdue_seconds() == OVERDUE_SECONDS
    assert pacing.begin("quick", 100).overdue_seconds() == OVERDUE_LEAST_SECONDS
    assert 5 * 1800 * 1.5 < pacing.begin("slow", 100).overdue_seconds() < 5 * 1800 * 4
    assert pacing.begin("other", 100).overdue_seconds() == OVERDUE_SECONDS


def test_each_model_is_learned_separately() -> None:
    pacing = taught(200.0)
    assert pacing.begin("m", 100).next_poll_seconds(0.0, 0.5) > 150
    assert pacing.begin("another", 100).next_poll_seconds(0.0, 0.5) < 1


def test_a_tasks_own_times_count_only_if_its_polls_agree() -> None:
    exact, wrong = Pacing(), Pacing()
    for _ in range(20):
        for pacing, took in ((exact, (2.0, 2.0)), (wrong, (500.0, 500.0))):
            pace = pacing.begin("m", 100)
            pace.running(1.0)
            pace.ended(4.0, took)
    assert {tuple(task) for task in exact.to_json()[0]["tasks"]} == {(100, 2.0, 2.0)}
    assert {tuple(task) for task in wrong.to_json()[0]["tasks"]} == {(100, 1.0, 4.0)}


def test_a_task_of_an_earlier_run_teaches_nothing() -> None:
    """It was not watched from its beginning; only its own polls are paced."""
    pacing = Pacing()
    pace = pacing.join("m", 100)
    pace.running(3600.0)
    assert pace.next_poll_seconds(3600.0, 0.5) == LONGEST_SECONDS
    pace.ended(5000.0)
    assert pacing.to_json() == []


def test_the_learned_state_survives_json() -> None:
    """The first tasks of the next run are paced well."""
    first = Pacing()
    learned_run(lognormal(2.0, 0.8), 5, 200, seed=1, pacing=first)
    text = json.dumps(first.to_json(), allow_nan=False)
    assert len(text) < 2500
    again = Pacing.from_json(json.loads(text))
    assert again.to_json() == first.to_json()
    ours, theirs = first.begin("model", 100), again.begin("model", 100)
    assert [ours.next_poll_seconds(age, 0.7) for age in (0.0, 1.0, 9.0)] == pytest.approx(
        [theirs.next_poll_seconds(age, 0.7) for age in (0.0, 1.0, 9.0)], rel=0.2
    )
    seen = learned_run(lognormal(2.0, 0.8), 50, 50, seed=2, pacing=again)
    assert looks_of(seen) < 2.8
    assert lateness_of(seen) < 1.3


def test_an_earlier_run_without_ended_tasks_teaches_nothing() -> None:
    durations = Durations()
    durations.remember([])
    assert durations.known is None


def test_only_the_last_tasks_are_remembered() -> None:
    """However many have ended, or were never seen to end."""
    durations = Durations()
    for number in range(1000):
        course = durations.begin(100)
        if number % 3:
            durations.ended(course, 1.0, 2.0 + number % 7)
    assert len(durations.ended_tasks()) <= WINDOW
    assert len(durations._courses) <= 2 * WINDOW


@pytest.mark.parametrize("age", [0.0, 0.01, 3.0, 1e5])
@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_the_next_poll_stays_within_fixed_bounds(age: float, chance: float) -> None:
    """Regardless of what is known."""
    for pacing in (Pacing(), taught(0.001), taught(1e5)):
        wait = pacing.begin("m", 100).next_poll_seconds(age, chance)
        assert SHORTEST_SECONDS <= wait <= LONGEST_SECONDS


@given(
    st.lists(
        st.tuples(st.sampled_from(["run", "run", "end", "exact", "new"]), st.floats(0.0, 1e6), st.integers(0, 100_000)),
        max_size=150,
    )
)
@example([("new", 0.0, 0), ("end", 4.0, 1), ("run", 5e-324, 0)])
@settings(max_examples=60, deadline=None)
def test_any_sequence_of_polls_keeps_the_bounds_and_valid_json(steps: list[tuple[str, float, int]]) -> None:
    pacing, open_ = Pacing(), [Pacing().join("m", 1)]
    for what, seconds, size in steps:
        pace = open_[size % len(open_)]
        if what == "new":
            open_.append(pacing.begin("m", size))
        elif what == "run":
            pace.running(seconds)
        elif pace is not open_[0]:
            pace.ended(seconds, (seconds, seconds) if what == "exact" else None)
            open_.remove(pace)
        fresh = pacing.join("m", size)
        assert SHORTEST_SECONDS <= fresh.next_poll_seconds(seconds, 0.3) <= LONGEST_SECONDS
        assert 0.0 <= fresh.gain(seconds) <= 1.0
    assert Pacing.from_json(json.loads(json.dumps(pacing.to_json(), allow_nan=False))).to_json() == pacing.to_json()


def test_one_quick_task_among_endless_ones_causes_no_overflow() -> None:
    pacing = Pacing()
    pacing.begin("m", 100).ended(0.01)
    endless = [pacing.begin("m", 100) for _ in range(5)]
    for number in range(1, 10):
        for pace in endless:
            pace.running(1e3 * number)
        pacing.begin("m", 100).ended(0.01)
        assert pacing.join("m", 100).next_poll_seconds(0.0, 0.5) <= LONGEST_SECONDS
    assert json.dumps(pacing.to_json(), allow_nan=False)


# --- order of polls


def test_the_gain_of_a_poll_grows_from_0_to_1_with_time() -> None:
    """Since the last poll of the task."""
    for pacing in (Pacing(), taught(2.0)):
        pace = pacing.begin("m", 100)
        pace.running(1.0)
        gains = [pace.gain(age) for age in (1.0, 1.5, 2.0, 4.0, 400.0)]
        assert gains == sorted(gains)
        assert gains[0] == 0
        assert gains[-1] > 0.99


def test_the_due_poll_most_likely_to_find_an_end_goes_first() -> None:
    """Even before one that has been due for longer."""
    gains = {"stuck": 0.2, "likely": 0.9, "later": 1.0}
    due = Due[str](gains.__getitem__)
    for at, name in enumerate(gains):
        due.add(float(at), name)
    assert due.wait_seconds(-1.0) == 1
    assert [due.take(1.5), due.take(1.5)] == ["likely", "stuck"]
    assert (due.wait_seconds(1.5), len(due)) == (0.5, 1)


def test_no_task_starves_when_polls_are_scarce() -> None:
    """Ten times more polls are due than can be made; no task gets far fewer than the others."""
    pacing, now = taught(2.0), 0.0
    accepted: dict[Pace, float] = {}
    due = Due[Pace](lambda pace: pace.gain(now - accepted[pace]))
    looked: dict[Pace, list[float]] = {}
    for number in range(200):
        pace = pacing.join("m", 100)
        accepted[pace], looked[pace] = -0.01 * number, []
        due.add(0.0, pace)
    for _ in range(2000):
        now += 0.1
        pace = due.take(now)
        looked[pace].append(now)
        pace.running(now - accepted[pace])
        due.add(now + 2.0, pace)
    assert min(len(times) for times in looked.values()) >= 8
    waits = [after - before for times in looked.values() for before, after in pairwise(times)]
    assert max(waits) < 3 * 20


# --- in a run


def test_a_run_polls_most_tasks_of_equal_duration_once_or_twice(project: Project, provider: FakeTTS) -> None:
    """The first ones take about four polls."""
    provider.task_seconds = 0.6
    ended = project.run(project.manifest(32), "--concurrency", "8")
    assert ended.exit_code == 0
    assert ended.report["requests"]["poll"] <= 2.75 * 32
