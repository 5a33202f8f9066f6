"""Gates and places, with a clock that only moves when someone sleeps."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from batcher.clock import Bell, Clock
from batcher.tally import Tally
from batcher.throttle import (
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    PATIENCE_SECONDS,
    SPREAD,
    Gate,
    Places,
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
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def wait_after(gate: Gate, clock: FakeClock, retry_after_seconds: float | None = None) -> float:
    """How long the gate stays closed after a refusal, once it had opened."""
    clock.at += gate.closed_seconds
    gate.close(retry_after_seconds)
    return gate.closed_seconds


async def test_an_open_gate_lets_through_at_once(clock: FakeClock) -> None:
    """A gate that nothing has closed costs no time."""
    gate = Gate(clock, 2)
    assert not gate.closed
    await gate.opened()
    assert clock.slept == []


def test_waits_double(clock: FakeClock) -> None:
    """Each refusal after the gate had opened again closes it for twice as long, up to the longest wait."""
    gate = Gate(clock, 2)
    waits = [wait_after(gate, clock) for _ in range(9)]
    assert waits == [min(FIRST_WAIT_SECONDS * 2**number, LONGEST_WAIT_SECONDS) for number in range(9)]
    assert waits[-1] == waits[-2] == LONGEST_WAIT_SECONDS


def test_refusals_without_end(clock: FakeClock) -> None:
    """A day of nothing but refusals still waits the longest wait each time."""
    gate = Gate(clock, 2)
    waits = [wait_after(gate, clock) for _ in range(1500)]
    assert waits[-1] == LONGEST_WAIT_SECONDS


def test_success_resets(clock: FakeClock) -> None:
    """After an answer that means business the next refusal waits briefly again."""
    gate = Gate(clock, 2)
    for _ in range(4):
        wait_after(gate, clock)
    gate.succeeded()
    assert wait_after(gate, clock) == FIRST_WAIT_SECONDS


def test_success_does_not_open_a_closed_gate(clock: FakeClock) -> None:
    """An answer to a request that left before the refusal does not cut the wait short."""
    gate = Gate(clock, 2)
    gate.close(30.0)
    gate.succeeded()
    assert gate.closed
    assert gate.closed_seconds == 30


@pytest.mark.parametrize(("asked", "waits"), [(None, 1.0), (0.0, 1.0), (0.4, 1.0), (7.5, 7.5), (3600.0, 3600.0)])
def test_retry_after_is_a_floor(clock: FakeClock, asked: float | None, waits: float) -> None:
    """Never sooner than the answer asked for, never sooner than our own rule says."""
    assert wait_after(Gate(clock, 2), clock, asked) == waits


def test_retry_after_below_our_rule(clock: FakeClock) -> None:
    """A small Retry-After does not stop the doubling."""
    gate = Gate(clock, 2)
    assert [wait_after(gate, clock, 1.0) for _ in range(4)] == [1, 2, 4, 8]


def test_refusals_of_one_burst_count_once(clock: FakeClock) -> None:
    """Requests that were in the air together and are all refused do not multiply the wait; the longest floor holds."""
    gate = Gate(clock, 5)
    for asked in (None, None, 20.0, 5.0, None):
        gate.close(asked)
    assert gate.closed_seconds == 20
    gate = Gate(clock, 5)
    for _ in range(5):
        gate.close()
    assert gate.closed_seconds <= 2 * FIRST_WAIT_SECONDS
    assert wait_after(gate, clock) == 2 * FIRST_WAIT_SECONDS


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("asked", [0.1, 10.0, 600.0])
async def test_waking_is_spread(chance: float, asked: float) -> None:
    """Whoever waited wakes after the gate opens and not all at once: later by chance, within the spread."""
    clock = FakeClock(chance)
    gate = Gate(clock, 2)
    gate.close(asked)
    closed_seconds = gate.closed_seconds
    opens_at = clock.at + closed_seconds
    await gate.opened()
    spread = max(SPREAD * closed_seconds, SPREAD)
    assert clock.at - opens_at == pytest.approx(chance * spread)
    assert not gate.closed


async def test_a_gate_that_closes_again_meanwhile() -> None:
    """Who wakes to find the gate closed anew waits on."""

    class ClosingClock(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            if len(self.slept) == 1:
                gate.close(40.0)

    clock = ClosingClock()
    gate = Gate(clock, 2)
    gate.close(5.0)
    await gate.opened()
    assert clock.slept == [5.0, 40.0]


async def test_slots_are_few(clock: FakeClock) -> None:
    """No more requests are on their way than the gate has places."""
    gate = Gate(clock, 3)
    now = most = 0

    async def request() -> None:
        nonlocal now, most
        async with gate.slot():
            now += 1
            most = max(most, now)
            await anyio.lowlevel.checkpoint()
            now -= 1

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(request)
    assert (most, now) == (3, 0)


async def test_a_slot_waits_for_the_gate(clock: FakeClock) -> None:
    """A slot is had only once the gate is open."""
    gate = Gate(clock, 1)
    gate.close(12.0)
    async with gate.slot():
        assert clock.at >= 1012.0


def test_patience(clock: FakeClock) -> None:
    """Failures end a run's patience when they have lasted, not by their number, and close the gate meanwhile."""
    gate = Gate(clock, 2)
    began_at = clock.at
    for _ in range(5):
        assert not gate.failed()
    assert gate.closed
    clock.at = began_at + PATIENCE_SECONDS - 0.1
    assert not gate.failed()
    clock.at = began_at + PATIENCE_SECONDS
    assert gate.failed()


def test_patience_starts_anew(clock: FakeClock) -> None:
    """One answer in between, and the patience begins again with the next failure."""
    gate = Gate(clock, 2, patience_seconds=10.0)
    assert not gate.failed()
    clock.at += 9
    gate.succeeded()
    clock.at += 9
    assert not gate.failed()
    clock.at += 9.9
    assert not gate.failed()
    clock.at += 0.1
    assert gate.failed()


def test_being_throttled_is_not_failing(clock: FakeClock) -> None:
    """Refusals that say "later" close the gate but use up no patience."""
    gate = Gate(clock, 2, patience_seconds=10.0)
    for _ in range(8):
        wait_after(gate, clock)
    assert not gate.failed()


def test_places(clock: FakeClock) -> None:
    """Open tasks fill places, those of earlier runs too, and more than there are leave none rather than fewer."""
    tally = Tally()
    places = Places(3, Bell(), tally)
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
    bell = Bell()
    places = Places(1, bell, Tally())
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
