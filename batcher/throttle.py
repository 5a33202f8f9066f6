"""How many requests of a class at once, and not before when.

A gate stands before each class of requests (create, poll, download). Being told "later" by one answer closes it for
all: `Retry-After` is the least time, and everyone wakes a little later than it, by chance, so that nobody knocks
together.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

from batcher.clock import Bell, Clock
from batcher.tally import Tally

FIRST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 60.0
_MOST_DOUBLINGS: Final = 10
SPREAD: Final = 0.25
"""Waking up is spread over this share of the wait, or this many seconds if that is longer."""
PATIENCE_SECONDS: Final = 120.0
"""For so long may nothing but failures come back before a run gives up until the next one."""


class Gate:
    """The gate of one class of requests: `requests` at once, none while it is closed."""

    def __init__(self, clock: Clock, requests: int, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._clock = clock
        self.size = requests
        self._limiter = anyio.CapacityLimiter(requests)
        self._patience_seconds = patience_seconds
        self._opens_at = -math.inf
        self._refusals = 0
        self._failing_since_at: float | None = None

    @property
    def closed(self) -> bool:
        """Whether no request may leave now."""
        return self._clock.steady() < self._opens_at

    @property
    def closed_seconds(self) -> float:
        """How long until the first request may leave again."""
        return max(0.0, self._opens_at - self._clock.steady())

    async def opened(self) -> None:
        """Wait until the gate is open, and a little longer if it was closed."""
        while (wait := self._opens_at - self._clock.steady()) > 0:
            spread = max(SPREAD * wait, SPREAD) * self._clock.chance()
            await self._clock.sleep(wait + spread)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """One request's place, had as soon as there is one and the gate is open."""
        async with self._limiter:
            await self.opened()
            yield

    def close(self, retry_after_seconds: float | None = None) -> None:
        """An answer said "later", or none came: wait twice as long each time, at least what the answer asked for."""
        rule = min(FIRST_WAIT_SECONDS * 2 ** min(self._refusals, _MOST_DOUBLINGS), LONGEST_WAIT_SECONDS)
        wait = max(rule, retry_after_seconds or 0.0)
        if not self.closed:
            self._refusals += 1
        self._opens_at = max(self._opens_at, self._clock.steady() + wait)

    def succeeded(self) -> None:
        """An answer came that means business: the next refusal waits briefly again."""
        self._refusals = 0
        self._failing_since_at = None

    def failed(self) -> bool:
        """No answer came, or none that makes sense. Returns whether that has now lasted beyond patience."""
        now = self._clock.steady()
        if self._failing_since_at is None:
            self._failing_since_at = now
        self.close()
        return now - self._failing_since_at >= self._patience_seconds


class Places:
    """How many tasks may be open at the provider at once, those of earlier runs included."""

    def __init__(self, limit: int, changed: Bell, tally: Tally) -> None:
        self._limit = limit
        self._changed = changed
        self._tally = tally

    @property
    def free(self) -> int:
        """Places that are left."""
        return max(0, self._limit - self._tally.open)

    @property
    def none_taken(self) -> bool:
        """Whether no task is open."""
        return self._tally.open <= 0

    def take(self, number: int = 1) -> None:
        """Fill places; tasks of earlier runs may fill more than there are."""
        self._tally.open += number

    def release(self) -> None:
        """A task has ended, or was never made."""
        self._tally.open -= 1
        self._changed.ring()
