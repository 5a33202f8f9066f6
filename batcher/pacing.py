"""When to look at a task next."""

from __future__ import annotations

from typing import Final

from batcher.clock import Clock

SHORTEST_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 30.0
GROWTH: Final = 0.5
"""The next look comes after this share of the task's age: lateness stays a fixed share of how long the task took."""


def next_look_seconds(age_seconds: float, clock: Clock) -> float:
    """Seconds until the next look at a task that is `age_seconds` old and was still running, with ±15 % of chance."""
    interval = min(max(GROWTH * age_seconds, SHORTEST_SECONDS), LONGEST_SECONDS)
    return interval * (0.85 + 0.3 * clock.chance())
