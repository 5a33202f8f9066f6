"""Requests that succeeded lately."""

from __future__ import annotations

from bisect import bisect
from collections import deque
from collections.abc import Iterable


class History:
    """When each recent success left and was answered (steady seconds), in the order of the answers."""

    def __init__(self) -> None:
        self._passed: deque[tuple[float, float]] = deque()

    def add(self, sent_at: float, answered_at: float) -> None:
        """Record a success."""
        self._passed.append((sent_at, answered_at))

    def forget(self, before_at: float) -> None:
        """Drop the oldest, those that left before `before_at`."""
        while self._passed and self._passed[0][0] < before_at:
            self._passed.popleft()

    @property
    def latency(self) -> float:
        """Seconds that the last success took, 0 before the first."""
        return self._passed[-1][1] - self._passed[-1][0] if self._passed else 0.0

    def sent_since(self, at: float) -> list[float]:
        """When each success that left at `at` or later left."""
        return [sent_at for sent_at, _ in self._passed if sent_at >= at]

    def recent_rate(self, number: int) -> float:
        """Starts per second over the last `number` successes, or over all if there are fewer."""
        number = min(number, len(self._passed))
        seconds = self._passed[-1][0] - self._passed[-number][0]
        return (number - 1) / seconds if seconds > 0 else float(number > 1) * float("inf")

    def in_flight(self, ats: Iterable[float], started: Iterable[float]) -> list[int]:
        """Number of successes in flight at each time; those that `started` and are unanswered count as successes."""
        left = sorted([*(sent_at for sent_at, _ in self._passed), *started])
        answered = sorted(answered_at for _, answered_at in self._passed)
        return [bisect(left, at) - bisect(answered, at) for at in ats]
