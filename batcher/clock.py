"""Time and chance, handed to whoever needs them, so that a test can make hours pass in an instant."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

import anyio


def utc(at: float | None) -> str | None:
    """A time for programs: ISO 8601 in UTC, to the second."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def local(at: float) -> str:
    """A time for people: local, with its offset."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def local_time(at: str) -> str:
    """The same for a time that `utc` wrote."""
    return local(datetime.fromisoformat(at).timestamp())


class Clock:
    """The real time, and fair dice."""

    def now(self) -> float:
        """UTC, in unix seconds."""
        return time.time()

    def steady(self) -> float:
        """Seconds that only ever grow, whoever sets the clock: for waiting."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, at once when they are not positive."""
        await anyio.sleep(max(0.0, seconds))

    def limit(self, seconds: float) -> anyio.CancelScope:
        """A scope that ends after `seconds`."""
        return anyio.move_on_after(max(0.0, seconds))

    def chance(self) -> float:
        """A number drawn evenly from 0 to 1."""
        return random.random()


class Wakeup:
    """Wakes whoever waits for something to have changed."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self) -> None:
        """Wake all that wait now."""
        self._rung.set()
        self._rung = anyio.Event()

    def next(self) -> anyio.Event:
        """The next ring: taken before something is looked up, so that what changes meanwhile is not missed."""
        return self._rung

    async def wait(self, clock: Clock, *, seconds: float | None = None, ring: anyio.Event | None = None) -> None:
        """Return at the next ring (or at `ring`), or after `seconds` if that is earlier."""
        ring = ring or self._rung
        if seconds is None:
            await ring.wait()
            return
        with clock.limit(seconds):
            await ring.wait()
