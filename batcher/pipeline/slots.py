"""Slots for open tasks: as many as `--concurrency`, or this run's share of them."""

from __future__ import annotations

from typing import Final

from batcher.clock import Clock, Wakeup
from batcher.reports.tally import Tally

SCARCE_SECONDS: Final = 10.0
"""Slots count as scarce until some have been free for this long, and at the start of a run."""


class Slots:
    """Counts the tasks open at the provider, those of earlier runs included, against `--concurrency`."""

    def __init__(self, limit: int, changed: Wakeup, tally: Tally, clock: Clock) -> None:
        self._limit = limit
        self._changed = changed
        self._tally = tally
        self._clock = clock
        self._full_at = clock.steady()

    @property
    def free(self) -> int:
        """Number of free slots."""
        return max(0, self._limit - self._tally.open)

    @property
    def all_free(self) -> bool:
        """Whether no task is open."""
        return self._tally.open <= 0

    @property
    def scarce(self) -> bool:
        """Whether slots are what limits creating: lately all were taken."""
        return not self.free or self._clock.steady() - self._full_at < SCARCE_SECONDS

    def resize(self, limit: int) -> None:
        """From now on, there are this many slots."""
        if limit != self._limit:
            self._limit = limit
            self._changed.ring()

    def take(self, number: int = 1) -> None:
        """Take `number` slots. Tasks of earlier runs may take more than there are."""
        self._tally.open += number

    def release(self) -> None:
        """Free the slot of a task that has ended, is overdue or was never created."""
        if not self.free:
            self._full_at = self._clock.steady()
        self._tally.open -= 1
        self._changed.ring()
