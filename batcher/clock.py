"""Time, randomness and wakeups. Injected, so that tests can simulate hours in an instant."""

from __future__ import annotations

import math
import random
import time
from datetime import UTC, datetime

import anyio


def utc(at: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC, to the second; for programs."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def local(at: float) -> str:
    """Unix seconds as local time with its UTC offset; for people."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def local_time(at: str) -> str:
    """A string that `utc` returned, as local time."""
    return local(datetime.fromisoformat(at).timestamp())


class Clock:
    """The real time and real randomness.

    `ahead_seconds` is how far the clock that times are recorded by is ahead of this host's: that of the ledger's
    server, so that hosts whose clocks disagree understand each other.
    """

    ahead_seconds = 0.0

    def __init__(self) -> None:
        self._latest = -math.inf
        self._shift = 0.0  # by how much the time of day was set back

    def now(self) -> float:
        """The current time in unix seconds.

        It never goes backwards, so that an item's events and a run's files have times in their order: if the time of
        day is set back, this one goes on from where it was.
        """
        self._shift = max(self._shift, self._latest - time.time())
        self._latest = time.time() + self._shift
        return self._latest + self.ahead_seconds

    def host_now(self) -> float:
        """The same by this host's clock, as its files have it."""
        return self.now() - self.ahead_seconds

    def steady(self) -> float:
        """Monotonic seconds, for measuring waits."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`; return at once if not positive."""
        await anyio.sleep(max(0.0, seconds))

    def limit(self, seconds: float) -> anyio.CancelScope:
        """A cancel scope that ends after `seconds`."""
        return anyio.move_on_after(max(0.0, seconds))

    def chance(self) -> float:
        """A uniform random number from 0 to 1."""
        return random.random()


class Wakeup:
    """Wakes all coroutines that wait for a change."""

    def __init__(self) -> None:
        self._next: anyio.Event | None = None  # None while nobody waits

    def ring(self) -> None:
        """Wake everything that is waiting now."""
        if self._next is not None:
            self._next.set()
            self._next = None

    def next(self) -> anyio.Event:
        """The next ring. Take it before checking a condition, so that a change during the check is not missed."""
        self._next = self._next or anyio.Event()
        return self._next

    async def wait(self, clock: Clock, *, seconds: float | None = None, ring: anyio.Event | None = None) -> None:
        """Wait for the next ring (or for `ring`), at most `seconds`."""
        ring = ring or self.next()
        if seconds is None:
            await ring.wait()
            return
        with clock.limit(seconds):
            await ring.wait()
