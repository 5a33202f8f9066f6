"""Gates, limits and slots: with a clock that moves only during a sleep, and against providers in virtual time."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from batcher.clock import Clock, Wakeup
from batcher.pipeline.slots import Slots
from batcher.reports.tally import Tally
from batcher.throttle.closure import FIRST_PAUSE_SECONDS, FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, SPREAD
from batcher.throttle.gate import FIRST_PER_SECOND, PATIENCE_SECONDS, Gate, Sent, Throttle
from batcher.throttle.limit import MARGIN, REFUTED, Limit
from batcher.throttle.spacing import BURST_SECONDS
from tests.support.limiters import (
    AtOnce,
    FixedWindow,
    Hint,
    Limiter,
    SlidingWindow,
    TokenBucket,
    adaptive,
    attempt,
    attempt_again,
    backing_off,
    heeding,
    permitted_at_once,
)


class FakeClock(Clock):
    """A clock that a sleep advances at once."""

    def __init__(self, chance: float = 0.0) -> None:
        self.at = 1000.0
        self.dice = chance
        self.slept: list[float] = []

    def steady(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds
        await anyio.lowlevel.checkpoint()

    def chance(self) -> float:
        return self.dice


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def refuse(gate: Gate, asked: float | None = None) -> Sent:
    """Send one request and refuse it."""
    sent = gate.enter()
    gate.leave(sent)
    gate.close(sent, asked)
    return sent


def wait_after(gate: Gate, clock: FakeClock, retry_after_seconds: float | None = None) -> float:
    """Let the gate open, refuse a request, and return how long it is closed."""
    clock.at += gate.closed_seconds
    refuse(gate, retry_after_seconds)
    return gate.closed_seconds


async def test_an_open_gate_admits_a_request_without_waiting(clock: FakeClock) -> None:
    gate = Gate(clock, 2)
    assert not gate.closed
    await gate.turn()
    assert clock.slept == []


def test_each_refusal_in_a_row_doubles_the_pause_up_to_the_longest(clock: FakeClock) -> None:
    gate = Gate(clock, 2)
    waits = [wait_after(gate, clock) for _ in range(12)]
    doubled = [min(FIRST_PAUSE_SECONDS * 2**number, LONGEST_WAIT_SECONDS) for number in range(12)]
    assert waits == pytest.approx(doubled)
    assert waits[-1] == pytest.approx(waits[-2])


def test_after_1500_refusals_in_a_row_the_pause_is_still_the_longest(clock: FakeClock) -> None:
    gate = Gate(clock, 2)
    waits = [wait_after(gate, clock) for _ in range(1500)]
    assert waits[-1] == pytest.approx(LONGEST_WAIT_SECONDS)


def test_a_success_resets_the_pause(clock: FakeClock) -> None:
    gate = Gate(clock, 2)
    for _ in range(4):
        wait_after(gate, clock)
    clock.at += gate.closed_seconds
    gate.succeeded(gate.enter())
    assert wait_after(gate, clock) == pytest.approx(FIRST_PAUSE_SECONDS)


def test_a_success_from_before_a_refusal_does_not_open_the_gate(clock: FakeClock) -> None:
    gate = Gate(clock, 2)
    earlier = gate.enter()
    refuse(gate, 30.0)
    gate.succeeded(earlier)
    assert gate.closed
    assert gate.closed_seconds == 30


@pytest.mark.parametrize(("asked", "waits"), [(None, 0.1), (0.0, 0.1), (0.04, 0.1), (7.5, 7.5), (3600.0, 3600.0)])
def test_a_pause_is_at_least_retry_after_and_at_least_our_own(
    clock: FakeClock, asked: float | None, waits: float
) -> None:
    assert wait_after(Gate(clock, 2), clock, asked) == pytest.approx(waits)


def test_refusals_of_one_burst_close_the_gate_once_for_the_longest_retry_after(clock: FakeClock) -> None:
    gate = Gate(clock, 5)
    burst = [gate.enter() for _ in range(5)]
    clock.at += 0.02
    for sent, asked in zip(burst, (None, None, 20.0, 5.0, None), strict=True):
        gate.leave(sent)
        gate.close(sent, asked)
    assert gate.closed_seconds == 20
    assert wait_after(gate, clock) == pytest.approx(2 * FIRST_PAUSE_SECONDS)


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("asked", [0.1, 10.0, 600.0])
async def test_after_a_pause_the_wait_is_longer_by_a_random_share(chance: float, asked: float) -> None:
    clock = FakeClock(chance)
    gate = Gate(clock, 2)
    refuse(gate, asked)
    opens_at = clock.at + asked
    await gate.opened()
    assert clock.at - opens_at == pytest.approx(chance * SPREAD * asked)
    assert not gate.closed


async def test_after_a_pause_requests_leave_one_spacing_apart(clock: FakeClock) -> None:
    """Nothing that was missed during the pause is made up for."""
    gate = Gate(clock, 16)
    refuse(gate, 60.0)
    left = []
    for _ in range(8):
        async with gate.slot() as sent:
            left.append(sent.at)
    apart = [later - sooner for sooner, later in itertools.pairwise(left)]
    assert left[0] >= 1060.0
    assert min(apart) >= 1 / FIRST_PER_SECOND - 1e-5


async def test_a_gate_that_closes_again_during_a_wait_extends_the_wait() -> None:
    class ClosingClock(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            if len(self.slept) == 1:
                refuse(gate, 40.0)

    clock = ClosingClock()
    gate = Gate(clock, 2)
    refuse(gate, 5.0)
    await gate.opened()
    assert clock.slept == [5.0, 40.0]


async def test_requests_in_flight_never_exceed_the_size_and_use_all_of_it() -> None:
    gate = Gate(Clock(), 3, most_per_second=1e6, learned={"per_second": {"value": 1e6}})
    now = most = 0

    async def request() -> None:
        nonlocal now, most
        async with gate.slot():
            now += 1
            most = max(most, now)
            await anyio.wait_all_tasks_blocked()
            now -= 1

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(request)
    assert (most, now) == (3, 0)


def test_after_refusals_in_a_row_one_request_probes_and_its_success_admits_the_others(clock: FakeClock) -> None:
    gate = Gate(clock, 8)
    for _ in range(2):
        wait_after(gate, clock)
    clock.at += 100.0
    assert gate.room == 1
    ahead = gate.enter()
    clock.at += 1.0
    assert gate.room == 0
    gate.leave(ahead)
    gate.succeeded(ahead)
    assert gate.room > 1


def test_after_an_idle_hour_no_more_than_a_short_burst_leaves_together(clock: FakeClock) -> None:
    gate = Gate(clock, 100, most_per_second=50.0, learned={"per_second": {"value": 50.0}, "at_once": {"value": 100}})
    gate.leave(gate.enter())
    clock.at += 3600.0
    assert gate.room == 1 + math.floor(50 * BURST_SECONDS)


async def test_a_configured_rate_is_never_exceeded_however_many_requests_succeed(clock: FakeClock) -> None:
    gate = Gate(clock, 4, most_per_second=2.0)
    began_at = clock.at
    for _ in range(101):
        async with gate.slot() as sent:
            pass
        gate.succeeded(sent)
    assert clock.at - began_at >= 100 / 2 - BURST_SECONDS


def test_patience_ends_after_a_duration_of_failures_not_after_a_number(clock: FakeClock) -> None:
    gate = Gate(clock, 2)
    began_at = clock.at
    for _ in range(5):
        assert not gate.failed()
    assert gate.closed_seconds >= FIRST_WAIT_SECONDS
    clock.at = began_at + PATIENCE_SECONDS - 0.1
    assert not gate.failed()
    clock.at = began_at + PATIENCE_SECONDS
    assert gate.failed()


def test_a_success_resets_patience(clock: FakeClock) -> None:
    gate = Gate(clock, 2, patience_seconds=10.0)
    assert not gate.failed()
    clock.at += 9
    gate.succeeded(gate.enter())
    clock.at += 9
    assert not gate.failed()
    clock.at += 9.9
    assert not gate.failed()
    clock.at += 0.1
    assert gate.failed()


def test_refusals_do_not_use_up_patience(clock: FakeClock) -> None:
    gate = Gate(clock, 2, patience_seconds=10.0)
    for _ in range(12):
        wait_after(gate, clock)
    assert not gate.failed()


def tried(limit: Limit, at: float, beyond: float) -> float:
    """When the limit, in constant use from `at` on, first exceeds a value."""
    while limit.value <= beyond:
        at += 0.1
        limit.grow(at)
    return at


def test_a_limit_approaches_its_ceiling_stays_and_then_exceeds_it_within_20_s() -> None:
    limit = Limit(10.0, least=1.0, most=1000.0)
    limit.cut(100.0, 0.0, lost_seconds=0.2)
    assert limit.value == pytest.approx(100 * (1 - MARGIN))
    near = tried(limit, 0.0, 99.0)
    beyond = tried(limit, near, 100 * REFUTED)
    assert beyond - near > 3.0
    assert tried(limit, beyond, 999.0) < 20.0


def test_each_time_a_ceiling_is_met_again_trials_become_rarer() -> None:
    """More so where a refusal costs more time."""

    def gaps(lost_seconds: float) -> list[float]:
        limit, at, found = Limit(10.0, least=1.0, most=1000.0), 0.0, []
        for _ in range(8):
            limit.cut(100.0, at, lost_seconds=lost_seconds)
            began_at, at = at, tried(limit, at, 101.0)
            found.append(at - began_at)
        return found

    cheap, dear = gaps(0.2), gaps(1.0)
    assert cheap == pytest.approx(sorted(cheap))
    assert 0.2 / cheap[-1] < 0.01
    assert cheap[-1] < dear[-1] < 100
    assert 1.0 / dear[-1] < 0.02


def test_a_fallen_ceiling_is_tried_sooner_and_gives_way_to_the_proven_one_before_it() -> None:
    fallen, low = Limit(10.0, least=1.0, most=1000.0, exact=True), Limit(10.0, least=1.0, most=1000.0, exact=True)
    fallen.cut(100.0, 0.0, lost_seconds=1.0)
    gaps, at = [], 60.0
    for _ in range(3):
        for limit in (fallen, low):
            limit.cut(10.0, at, lost_seconds=1.0)
        began_at, at = at, tried(fallen, at, 10.5)
        gaps.append(at - began_at)
        assert tried(low, began_at, 10.5) - at > 20
    assert gaps == pytest.approx(sorted(gaps))
    assert gaps[-1] < 20
    at = tried(fallen, at, 90.0)
    for tenths in range(50):
        fallen.grow(at + tenths / 10)
    assert 100 * (1 - MARGIN) <= fallen.value <= 100
    again = Limit(1.0, least=1.0, most=1000.0, learned=fallen.to_json())
    assert again.to_json() == fallen.to_json() | {"value": again.value}
    assert again.value == pytest.approx(100 * (1 - MARGIN))


RATE = 50
LIMITERS: dict[str, Callable[[], Limiter]] = {
    "small bucket": lambda: TokenBucket(RATE, 10),
    "large bucket": lambda: TokenBucket(RATE, 50),
    "fixed window": lambda: FixedWindow(RATE),
    "sliding window": lambda: SlidingWindow(RATE),
}


@pytest.mark.parametrize("name", LIMITERS)
def test_starting_from_nothing_93_percent_of_the_permitted_rate_is_used_with_few_refusals(name: str) -> None:
    trial = attempt(adaptive, LIMITERS[name](), "none", seed=1, items=3000)
    assert 3000 / RATE / trial.seconds >= 0.93
    assert trial.refused_share <= 0.02


@pytest.mark.parametrize("name", LIMITERS)
@pytest.mark.parametrize("hint", ["none", "seconds", "date"])
def test_no_request_leaves_inside_a_retry_after(name: str, hint: Hint) -> None:
    """And most of the permitted rate is still used."""
    trial = attempt(adaptive, LIMITERS[name](), hint, seed=2, items=3000)
    assert trial.too_early == 0
    assert trial.refused_share <= 0.02
    assert 3000 / RATE / trial.seconds >= 0.85


@pytest.mark.parametrize("name", LIMITERS)
def test_with_learned_values_the_permitted_rate_is_used_from_the_start_with_few_refusals(name: str) -> None:
    trial = attempt_again(LIMITERS[name], "none", seed=3, items=600)
    assert 600 / RATE / trial.seconds >= 0.92
    assert trial.refused_share <= 0.01


def test_a_tenth_of_the_refusals_of_the_usual_loops_and_no_slower() -> None:
    ours, *loops = (
        attempt(client, TokenBucket(RATE, 10), "none", seed=4, items=600) for client in (adaptive, backing_off, heeding)
    )
    for loop in loops:
        assert ours.refused * 10 < loop.refused
        assert ours.seconds < loop.seconds


def test_20_s_after_a_concurrency_limit_drops_or_returns_nine_tenths_of_it_are_used() -> None:
    trial = attempt(adaptive, AtOnce(lambda at: 5 if 30 <= at < 60 else 50), "none", seed=5, seconds=100.0)
    assert trial.refused_share <= 0.02
    for begin, end, at_once in ((20.0, 30.0, 50), (50.0, 60.0, 5), (80.0, 100.0, 50)):
        assert trial.rate(begin, end) >= 0.9 * permitted_at_once(at_once)


@pytest.mark.parametrize("hint", ["seconds", pytest.param("date", marks=pytest.mark.slow)])
def test_with_retry_after_a_dropped_concurrency_limit_is_used_and_its_return_found_within_20_s(hint: Hint) -> None:
    trial = attempt(adaptive, AtOnce(lambda at: 5 if 30 <= at < 60 else 50), hint, seed=5, seconds=100.0)
    assert (trial.too_early, trial.refused_share <= 0.01) == (0, True)
    for begin, end, at_once in ((40.0, 60.0, 5), (80.0, 100.0, 50)):
        assert trial.rate(begin, end) >= 0.85 * permitted_at_once(at_once)


@pytest.mark.parametrize("hint", ["none", "seconds", "date"])
def test_a_burst_admitted_by_a_long_window_is_not_taken_for_a_rate(hint: Hint) -> None:
    trial = attempt(adaptive, SlidingWindow(10 * RATE, 10.0), hint, seed=1, items=3000)
    assert trial.refused_share <= 0.02
    assert 3000 / RATE / trial.seconds >= 0.85


def test_a_rate_that_drops_to_a_tenth_is_respected_within_seconds() -> None:
    class Dropping(TokenBucket):
        def enter(self, at: float) -> float | None:
            self.rate = 50 if at < 30 else 5
            return super().enter(at)

    trial = attempt(adaptive, Dropping(50, 10), "none", seed=6, seconds=90.0)
    assert trial.rate(0.0, 30.0) >= 0.9 * 50
    assert trial.rate(50.0, 90.0) >= 0.9 * 5
    assert trial.refused_share <= 0.02


@pytest.mark.parametrize("junk", [None, {}, {"value": "many"}, {"value": -1, "ceiling": 0}, {"value": math.nan}])
def test_unreadable_learned_values_are_ignored(clock: FakeClock, junk: dict[str, object] | None) -> None:
    fresh = Throttle(clock, creates_at_once=8, polls_at_once=8, downloads_at_once=4)
    learned = {"create": {"at_once": junk, "per_second": junk}, "other": 1}
    other = Throttle(clock, creates_at_once=8, polls_at_once=8, downloads_at_once=4, learned=learned)
    assert other.to_json() == fresh.to_json()


def test_learned_values_of_other_versions_are_accepted_and_unknown_keys_ignored(clock: FakeClock) -> None:
    values = {"value": 48.5, "ceiling": 50.0, "best": None, "trust_seconds": 28.0}
    learned = {"at_once": {"value": 8, "ceiling": None}, "per_second": values | {"unknown": [1]}, "unknown": {}}
    assert Gate(clock, 8, learned=learned).to_json()["per_second"] == values


async def test_each_class_of_requests_learns_separately(clock: FakeClock) -> None:
    """What was learned survives a run, class by class."""
    throttle = Throttle(clock, creates_at_once=8, polls_at_once=8, downloads_at_once=4)
    before = throttle.create.to_json()
    for _ in range(8):
        wait_after(throttle.poll, clock)
        await throttle.poll.turn()
    refuse(throttle.poll)
    assert throttle.poll.closed
    assert not throttle.create.closed
    assert throttle.create.to_json() == before != throttle.poll.to_json()
    saved = json.loads(json.dumps(throttle.to_json()))
    again = Throttle(clock, creates_at_once=8, polls_at_once=8, downloads_at_once=4, learned=saved)
    assert again.to_json() == throttle.to_json()


def test_open_tasks_occupy_slots_and_an_excess_leaves_none_free(clock: FakeClock) -> None:
    tally = Tally()
    slots = Slots(3, Wakeup(), tally, clock)
    assert slots.free == 3
    slots.take()
    slots.take(2)
    assert (slots.free, tally.open) == (0, 3)
    slots.take(4)
    assert slots.free == 0
    for _ in range(5):
        slots.release()
    assert (slots.free, tally.open) == (1, 2)


async def test_a_released_slot_wakes_its_waiter() -> None:
    wakeup = Wakeup()
    slots = Slots(1, wakeup, Tally(), Clock())
    slots.take()
    clock = Clock()
    woken = anyio.Event()

    async def wait() -> None:
        await wakeup.wait(clock)
        woken.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert not woken.is_set()
            slots.release()
            await woken.wait()
