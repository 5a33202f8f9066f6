"""Until when a class of requests is closed, and when a run gives up on it."""

from __future__ import annotations

import math
from typing import Final

from batcher.clock import Clock

FIRST_PAUSE_SECONDS: Final = 0.1
"""First pause in seconds after a refusal without `Retry-After`. Short, since the lowered limit is the actual cure."""
FIRST_WAIT_SECONDS: Final = 1.0
"""First pause after a request without a usable answer."""
LONGEST_WAIT_SECONDS: Final = 60.0
"""Longest pause in seconds, however many requests failed in a row; only `Retry-After` may be longer."""
SPREAD: Final = 0.05
"""A wait ends late by a random share of itself, at most this: retries do not keep step with the provider's window."""
_MOST_DOUBLINGS: Final = 10  # keeps the power finite


class Closure:
    """Closes the class after a refusal or a failure: twice as long each time until a request succeeds.

    `Retry-After` is a lower bound for every request of the class. `patience_seconds` is how long nothing but failures
    may come back before the run gives up; refusals do not count as failures.
    """

    def __init__(self, clock: Clock, patience_seconds: float) -> None:
        self.since_at = -math.inf
        """Last time the class was closed (steady seconds). Requests from before it prove nothing about the limits."""
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._opens_at = -math.inf
        self._closings = 0  # in a row, without a success
        self._failing_since_at: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds until the class opens, 0 if it is open."""
        return max(0.0, self._opens_at - self._clock.steady())

    @property
    def probing(self) -> bool:
        """Whether a single request has to show that the trouble is over before others follow."""
        return self._closings > 1

    async def opened(self) -> None:
        """Wait until the class is open, and a little longer if it was closed."""
        while (wait := self.seconds) > 0:
            await self._clock.sleep(wait * (1 + SPREAD * self._clock.chance()))

    def refused(self, sent_at: float, retry_after_seconds: float) -> None:
        """Close after a refusal. A burst of refusals counts once; the longest `Retry-After` of it holds."""
        if sent_at >= self.since_at:
            self._back_off(FIRST_PAUSE_SECONDS)
        self._close(retry_after_seconds)

    def failed(self) -> bool:
        """Close after a request without a usable answer. Returns whether patience is exhausted."""
        now = self._clock.steady()
        if self._failing_since_at is None:
            self._failing_since_at = now
        self._back_off(FIRST_WAIT_SECONDS)
        return now - self._failing_since_at >= self._patience_seconds

    def succeeded(self, sent_at: float) -> None:
        """Reset patience, and also the back-off if the request left after the class was last closed."""
        self._failing_since_at = None
        if sent_at >= self.since_at:
            self._closings = 0

    def _back_off(self, first_seconds: float) -> None:
        wait = min(first_seconds * 2 ** min(self._closings, _MOST_DOUBLINGS), LONGEST_WAIT_SECONDS)
        if not self.seconds:
            self._closings += 1
        self.since_at = self._clock.steady()
        self._close(wait)

    def _close(self, seconds: float) -> None:
        self._opens_at = max(self._opens_at, self._clock.steady() + seconds)
