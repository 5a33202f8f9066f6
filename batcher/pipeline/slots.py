"""Slots for open tasks, as many as `--concurrency`."""

from __future__ import annotations

from batcher.clock import Wakeup
from batcher.reports.tally import Tally


class Slots:
    """Counts the tasks open at the provider, those of earlier runs included, against `--concurrency`."""

    def __init__(self, limit: int, changed: Wakeup, tally: Tally) -> None:
        self._limit = limit
        self._changed = changed
        self._tally = tally

    @property
    def free(self) -> int:
        """Number of free slots."""
        return max(0, self._limit - self._tally.open)

    @property
    def all_free(self) -> bool:
        """Whether no task is open."""
        return self._tally.open <= 0

    def take(self, number: int = 1) -> None:
        """Take `number` slots. Tasks of earlier runs may take more than there are."""
        self._tally.open += number

    def release(self) -> None:
        """Free the slot of a task that has ended, is overdue or was never created."""
        self._tally.open -= 1
        self._changed.ring()
