"""Slots for open tasks: at most as many as the concurrency that was asked for."""

from __future__ import annotations

from batcher.clock import Wakeup
from batcher.reports.tally import Tally


class Slots:
    """How many tasks may be open at the provider at once, those of earlier runs included."""

    def __init__(self, limit: int, changed: Wakeup, tally: Tally) -> None:
        self._limit = limit
        self._changed = changed
        self._tally = tally

    @property
    def free(self) -> int:
        """Slots that are left."""
        return max(0, self._limit - self._tally.open)

    @property
    def all_free(self) -> bool:
        """Whether no task is open."""
        return self._tally.open <= 0

    def take(self, number: int = 1) -> None:
        """Fill places; tasks of earlier runs may fill more than there are."""
        self._tally.open += number

    def release(self) -> None:
        """A task has ended, is overdue, or was never made."""
        self._tally.open -= 1
        self._changed.ring()
