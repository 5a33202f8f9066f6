"""A queue of scheduled polls; when more are due than can be sent, the most useful goes first."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

_COMPARED: Final = 16

T = TypeVar("T")


class Due(Generic[T]):
    """Polls by due time; of the due ones, the one with the greatest `gain` goes first.

    Only the few that have been due longest are compared, and of equal ones the oldest goes first. So every poll gets
    its turn if the gain approaches its maximum while a poll waits, as a probability does.
    """

    def __init__(self, gain: Callable[[T], float]) -> None:
        self._gain = gain
        self._heap: list[tuple[float, int, T]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[T]:
        return (poll for _, _, poll in self._heap)

    def add(self, due: float, poll: T) -> None:
        """Schedule `poll` for the time `due`, in seconds of any monotonic clock."""
        heapq.heappush(self._heap, (due, next(self._order), poll))

    def wait_seconds(self, now: float) -> float:
        """Seconds until the first poll is due; 0 or less if one is due. The queue must not be empty."""
        return self._heap[0][0] - now

    def take(self, now: float) -> T:
        """Remove and return the poll to send next. The queue must not be empty."""
        due = [heapq.heappop(self._heap)]
        while self._heap and self._heap[0][0] <= now and len(due) < _COMPARED:
            due.append(heapq.heappop(self._heap))
        best = max(due, key=lambda entry: self._gain(entry[2])) if len(due) > 1 else due[0]
        for entry in due:
            if entry is not best:
                heapq.heappush(self._heap, entry)
        return best[2]
