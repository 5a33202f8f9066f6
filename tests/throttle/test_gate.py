"""Gates, limits and places, with a clock that only moves when someone sleeps, and against providers in virtual time."""

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
from batcher.throttle.gate import (
    BURST_SECONDS,
    FIRST_PAUSE_SECONDS,
    FIRST_PER_SECOND,
    FIRST_WAIT_SECONDS,
    JITTER,
    LONGEST_WAIT_SECONDS,
    PATIENCE_SECONDS,
    SPREAD,
    Gate,
    Sent,
    Throttle,
)
from batcher.throttle.limit import DROP, REFUTED, Limit
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
    """Time as a variable: sleeping moves it on at once."""

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
    """One request is let through and told to come later."""
    sent = gate.enter()
    gate.leave(sent)
    gate.close(sent, asked)
    return sent


def wait_after(gate: Gate, clock: FakeClock, retry_after_seconds: float | None = None) -> float:
    """How long the gate stays closed after a refusal, once it had opened."""
    clock.at += gate.closed_seconds
    refuse(gate, retry_after_seconds)
    return gate.closed_seconds


async def test_an_open_gate_lets_through_at_once(clock: FakeClock) -> None:
    """A gate that nothing has closed costs no time."""
    gate = Gate(clock, 2)
    assert not gate.closed
    await gate.turn()
    assert clock.slept == []


def test_waits_double(clock: FakeClock) -> None:
    """Each refusal after the gate had opened again closes it for twice as long, up to the longest wait."""
    gate = Gate(clock, 2)
    waits = [wait_after(gate, clock) for _ in range(12)]
    doubled = [min(FIRST_PAUSE_SECONDS * 2**number, LONGEST_WAIT_SECONDS) for number in range(12)]
    assert waits == pytest.approx(doubled)
    assert waits[-1] == pytest.approx(waits[-2])


def test_refusals_without_end(clock: FakeClock) -> None:
    """A day of nothing but refusals still waits the longest wait each time."""
    gate = Gate(clock, 2)
    waits = [wait_after(gate, clock) for _ in range(1500)]
    assert waits[-1] == pytest.approx(LONGEST_WAIT_SECONDS)


def test_success_resets(clock: FakeClock) -> None:
    """After an answer that means business the next refusal waits briefly again."""
    gate = Gate(clock, 2)
    for _ in range(4):
        wait_after(gate, clock)
    clock.at += gate.closed_seconds
    gate.succeeded(gate.enter())
    assert wait_after(gate, clock) == pytest.approx(FIRST_PAUSE_SECONDS)


def test_success_does_not_open_a_closed_gate(clock: FakeClock) -> None:
    """An answer to a request that left before the refusal does not cut the wait short."""
    gate = Gate(clock, 2)
    earlier = gate.enter()
    refuse(gate, 30.0)
    gate.succeeded(earlier)
    assert gate.closed
    assert gate.closed_seconds == 30


@pytest.mark.parametrize(("asked", "waits"), [(None, 0.1), (0.0, 0.1), (0.04, 0.1), (7.5, 7.5), (3600.0, 3600.0)])
def test_retry_after_is_a_floor(clock: FakeClock, asked: float | None, waits: float) -> None:
    """Never sooner than the answer asked for, never sooner than our own rule says."""
    assert wait_after(Gate(clock, 2), clock, asked) == pytest.approx(waits)


def test_refusals_of_one_burst_count_once(clock: FakeClock) -> None:
    """Requests that were in the air together and are all refused close the gate once; the longest floor holds."""
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
async def test_waking_is_spread(chance: float, asked: float) -> None:
    """Whoever waited wakes after the gate opens: later by chance, within the spread."""
    clock = FakeClock(chance)
    gate = Gate(clock, 2)
    refuse(gate, asked)
    opens_at = clock.at + asked
    await gate.opened()
    assert clock.at - opens_at == pytest.approx(chance * SPREAD * asked)
    assert not gate.closed


async def test_nobody_wakes_together(clock: FakeClock) -> None:
    """After a wait requests leave one by one, a spacing apart, and nothing that was missed is made up for."""
    gate = Gate(clock, 16)
    refuse(gate, 60.0)
    left = []
    for _ in range(8):
        async with gate.slot() as sent:
            left.append(sent.at)
    apart = [later - sooner for sooner, later in itertools.pairwise(left)]
    assert left[0] >= 1060.0
    assert min(apart) >= (1 - JITTER) / FIRST_PER_SECOND - 1e-5


async def test_a_gate_that_closes_again_meanwhile() -> None:
    """Who wakes to find the gate closed anew waits on."""

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


async def test_slots_are_few() -> None:
    """No more requests are on their way than the gate has places, and none of them is left unused."""
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


def test_one_goes_ahead(clock: FakeClock) -> None:
    """After refusals in a row a single request finds out whether they go on; its success lets the others follow."""
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


def test_missed_starts_are_made_up_for_within_bounds(clock: FakeClock) -> None:
    """However long nothing was sent, no more leave together than fall into the time for which that is made up for."""
    gate = Gate(clock, 100, most_per_second=50.0, learned={"per_second": {"value": 50.0}, "at_once": {"value": 100}})
    gate.leave(gate.enter())
    clock.at += 3600.0
    assert gate.room == 1 + math.floor(50 * BURST_SECONDS)


async def test_a_rate_set_by_hand(clock: FakeClock) -> None:
    """A rate that was set is never gone beyond, however well all goes."""
    gate = Gate(clock, 4, most_per_second=2.0)
    began_at = clock.at
    for _ in range(101):
        async with gate.slot() as sent:
            pass
        gate.succeeded(sent)
    assert clock.at - began_at >= 100 / 2 * (1 - JITTER)


def test_patience(clock: FakeClock) -> None:
    """Failures end a run's patience when they have lasted, not by their number, and close the gate meanwhile."""
    gate = Gate(clock, 2)
    began_at = clock.at
    for _ in range(5):
        assert not gate.failed()
    assert gate.closed_seconds >= FIRST_WAIT_SECONDS
    clock.at = began_at + PATIENCE_SECONDS - 0.1
    assert not gate.failed()
    clock.at = began_at + PATIENCE_SECONDS
    assert gate.failed()


def test_patience_starts_anew(clock: FakeClock) -> None:
    """One answer in between, and the patience begins again with the next failure."""
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


def test_being_throttled_is_not_failing(clock: FakeClock) -> None:
    """Refusals that say "later" close the gate but use up no patience."""
    gate = Gate(clock, 2, patience_seconds=10.0)
    for _ in range(12):
        wait_after(gate, clock)
    assert not gate.failed()


def tried(limit: Limit, at: float, beyond: float) -> float:
    """When the limit, which is asked for all the time from `at` on, first goes beyond a value."""
    while limit.value <= beyond:
        at += 0.1
        limit.grow(at)
    return at


def test_a_limit_comes_near_its_ceiling_stays_and_leaves_it() -> None:
    """After a refusal a limit is just below the ceiling, stays about it, and leaves it behind within 20 s if it may."""
    limit = Limit(10.0, least=1.0, most=1000.0)
    limit.cut(100.0, 0.0, lost_seconds=0.2)
    assert limit.value == pytest.approx(100 * (1 - DROP))
    near = tried(limit, 0.0, 99.0)
    beyond = tried(limit, near, 100 * REFUTED)
    assert beyond - near > 3.0
    assert tried(limit, beyond, 999.0) < 20.0


def test_a_ceiling_met_again_is_trusted_for_longer() -> None:
    """Each time the same ceiling is met, trying it becomes rarer; more so where a refusal costs time."""

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


def test_a_ceiling_that_fell_is_tried_sooner_and_left_for_the_old_one() -> None:
    """Where more was permitted before, trials come sooner, rarer with each in vain, and lead to just below the old."""
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
    assert 100 * (1 - DROP) <= fallen.value <= 100
    again = Limit(1.0, least=1.0, most=1000.0, learned=fallen.to_json())
    assert again.to_json() == fallen.to_json() | {"value": again.value}
    assert again.value == pytest.approx(100 * (1 - DROP))


RATE = 50
LIMITERS: dict[str, Callable[[], Limiter]] = {
    "small bucket": lambda: TokenBucket(RATE, 10),
    "large bucket": lambda: TokenBucket(RATE, 50),
    "fixed window": lambda: FixedWindow(RATE),
    "sliding window": lambda: SlidingWindow(RATE),
}


@pytest.mark.parametrize("name", LIMITERS)
def test_what_is_permitted_is_found_out(name: str) -> None:
    """From nothing known, nine tenths of the permitted rate and more, at few refusals, whatever counts over there."""
    trial = attempt(adaptive, LIMITERS[name](), "none", seed=1, items=3000)
    assert 3000 / RATE / trial.seconds >= 0.93
    assert trial.refused_share <= 0.02


@pytest.mark.parametrize("name", LIMITERS)
@pytest.mark.parametrize("hint", ["none", "seconds", "date"])
def test_nothing_is_sent_inside_a_retry_after(name: str, hint: Hint) -> None:
    """Once an answer has named a time, no request leaves before it; and still most of the permitted rate is used."""
    trial = attempt(adaptive, LIMITERS[name](), hint, seed=2, items=3000)
    assert trial.too_early == 0
    assert trial.refused_share <= 0.02
    assert 3000 / RATE / trial.seconds >= 0.85


@pytest.mark.parametrize("name", LIMITERS)
def test_the_next_run_starts_where_the_last_one_was(name: str) -> None:
    """With what an earlier run learned, the permitted rate is nearly used from the start, with hardly a refusal."""

    trial = attempt_again(LIMITERS[name], "none", seed=3, items=600)
    assert 600 / RATE / trial.seconds >= 0.92
    assert trial.refused_share <= 0.01


def test_better_than_the_usual_loops() -> None:
    """Fewer refusals by an order of magnitude than loops that back off for themselves, and not slower."""
    ours, *loops = (
        attempt(client, TokenBucket(RATE, 10), "none", seed=4, items=600) for client in (adaptive, backing_off, heeding)
    )
    for loop in loops:
        assert ours.refused * 10 < loop.refused
        assert ours.seconds < loop.seconds


def test_a_limit_on_requests_at_once_that_drops_and_returns() -> None:
    """Whether it falls to a tenth or returns, 20 s later the new limit on requests at once is used to nine tenths."""
    trial = attempt(adaptive, AtOnce(lambda at: 5 if 30 <= at < 60 else 50), "none", seed=5, seconds=100.0)
    assert trial.refused_share <= 0.02
    for begin, end, at_once in ((20.0, 30.0, 50), (50.0, 60.0, 5), (80.0, 100.0, 50)):
        assert trial.rate(begin, end) >= 0.9 * permitted_at_once(at_once)


@pytest.mark.parametrize("hint", ["seconds", "date"])
def test_a_drop_and_a_return_where_each_refusal_costs_seconds(hint: Hint) -> None:
    """With `Retry-After` too a fallen limit on requests at once is used, and a raised one is found within 20 s."""
    trial = attempt(adaptive, AtOnce(lambda at: 5 if 30 <= at < 60 else 50), hint, seed=5, seconds=100.0)
    assert (trial.too_early, trial.refused_share <= 0.01) == (0, True)
    for begin, end, at_once in ((40.0, 60.0, 5), (80.0, 100.0, 50)):
        assert trial.rate(begin, end) >= 0.85 * permitted_at_once(at_once)


@pytest.mark.parametrize("hint", ["none", "seconds", "date"])
def test_a_window_of_many_seconds(hint: Hint) -> None:
    """A burst that a long window lets through is not taken for a rate: few refusals, and the window is used."""
    trial = attempt(adaptive, SlidingWindow(10 * RATE, 10.0), hint, seed=1, items=3000)
    assert trial.refused_share <= 0.02
    assert 3000 / RATE / trial.seconds >= 0.85


def test_a_rate_that_drops() -> None:
    """A tenth of the permitted rate, from one moment to the next, is kept to within seconds."""

    class Dropping(TokenBucket):
        def enter(self, at: float) -> float | None:
            self.rate = 50 if at < 30 else 5
            return super().enter(at)

    trial = attempt(adaptive, Dropping(50, 10), "none", seed=6, seconds=90.0)
    assert trial.rate(0.0, 30.0) >= 0.9 * 50
    assert trial.rate(50.0, 90.0) >= 0.9 * 5
    assert trial.refused_share <= 0.02


@pytest.mark.parametrize("junk", [None, {}, {"value": "many"}, {"value": -1, "ceiling": 0}, {"value": math.nan}])
def test_what_was_learned_may_be_unreadable(clock: FakeClock, junk: dict[str, object] | None) -> None:
    """What an older or newer program has kept and cannot be understood is passed over."""
    fresh = Throttle(clock, creates_at_once=8, polls_at_once=8, downloads_at_once=4)
    learned = {"create": {"at_once": junk, "per_second": junk}, "other": 1}
    other = Throttle(clock, creates_at_once=8, polls_at_once=8, downloads_at_once=4, learned=learned)
    assert other.to_json() == fresh.to_json()


async def test_each_class_learns_for_itself(clock: FakeClock) -> None:
    """A refused poll lowers nothing for creates, and what was learned comes back class by class."""
    throttle = Throttle(clock, creates_at_once=8, polls_at_once=8, downloads_at_once=4)
    before = throttle.create.to_json()
    for _ in range(8):
        wait_after(throttle.poll, clock)
        await throttle.poll.turn()
    refuse(throttle.poll)
    assert throttle.poll.closed
    assert not throttle.create.closed
    assert throttle.create.to_json() == before != throttle.poll.to_json()
    kept = json.loads(json.dumps(throttle.to_json()))
    again = Throttle(clock, creates_at_once=8, polls_at_once=8, downloads_at_once=4, learned=kept)
    assert again.to_json() == throttle.to_json()


def test_places(clock: FakeClock) -> None:
    """Open tasks fill places, those of earlier runs too, and more than there are leave none rather than fewer."""
    tally = Tally()
    places = Slots(3, Wakeup(), tally)
    assert places.free == 3
    places.take()
    places.take(2)
    assert (places.free, tally.open) == (0, 3)
    places.take(4)
    assert places.free == 0
    for _ in range(5):
        places.release()
    assert (places.free, tally.open) == (1, 2)


async def test_a_free_place_rings() -> None:
    """Whoever waits for a place is woken when one is free."""
    bell = Wakeup()
    places = Slots(1, bell, Tally())
    places.take()
    clock = Clock()
    woken = anyio.Event()

    async def wait() -> None:
        await bell.wait(clock)
        woken.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert not woken.is_set()
            places.release()
            await woken.wait()
