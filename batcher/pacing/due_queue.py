"""Looks that wait for their time, and which of them goes first when more are due than can be made."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

_COMPARED: Final = 16

T = TypeVar("T")


class Due(Generic[T]):
    """Looks in the order of their time; of those that are due, the one with the greatest `gain` goes first.

    Only the few that have been due the longest are compared, and of equals the one due longest goes first. So with a
    gain that comes ever closer to its most for whoever waits, as a chance does, each has its turn.
    """

    def __init__(self, gain: Callable[[T], float]) -> None:
        self._gain = gain
        self._heap: list[tuple[float, int, T]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[T]:
        return (look for _, _, look in self._heap)

    def add(self, due: float, look: T) -> None:
        """`look` becomes due at the time `due`, in seconds of any clock that only grows."""
        heapq.heappush(self._heap, (due, next(self._order), look))

    def wait_seconds(self, now: float) -> float:
        """How long until the first look is due; not positive if one is. There must be one."""
        return self._heap[0][0] - now

    def take(self, now: float) -> T:
        """Take out the due look that is to be made next. There must be one."""
        due = [heapq.heappop(self._heap)]
        while self._heap and self._heap[0][0] <= now and len(due) < _COMPARED:
            due.append(heapq.heappop(self._heap))
        best = max(due, key=lambda entry: self._gain(entry[2])) if len(due) > 1 else due[0]
        for entry in due:
            if entry is not best:
                heapq.heappush(self._heap, entry)
        return best[2]
