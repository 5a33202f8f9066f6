"""When the next request may start, by the rate."""

from __future__ import annotations

import math
from typing import Final

from batcher.clock import Clock
from batcher.throttle.limit import Limit

BURST_SECONDS: Final = 0.1
"""Starts missed within this time are made up for, earlier ones are not: timers and busy workers cost no throughput."""
_TOLERANCE_SECONDS: Final = 1e-6  # rounding may end a sleep this much early


class Spacing:
    """Spaces starts evenly, 1 / `rate` seconds apart."""

    def __init__(self, clock: Clock, rate: Limit) -> None:
        self._clock = clock
        self._rate = rate
        self._next_at = clock.steady()

    @property
    def wait_seconds(self) -> float:
        """Seconds until the next start, not positive if it is due."""
        return self._next_at - self._clock.steady()

    @property
    def room(self) -> int:
        """Number of starts that are due now."""
        overdue = min(_TOLERANCE_SECONDS - self.wait_seconds, BURST_SECONDS)
        return max(0, math.floor(1 + overdue * self._rate.value))

    def take(self) -> None:
        """Start one request."""
        self._next_at = max(self._next_at, self._clock.steady() - BURST_SECONDS) + 1 / self._rate.value

    def restart(self, seconds: float = 0.0) -> None:
        """Start over in `seconds`, without making up for missed requests."""
        self._next_at = self._clock.steady() + seconds
