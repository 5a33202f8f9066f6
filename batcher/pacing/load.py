"""The price of a poll: how much lateness must be saved for one more poll to be worth sending.

While items wait for a slot, one second of lateness of one of N open tasks costs 1 / N second of the whole batch: the
slot stands idle. That is worth polls up to what the API permits. If it permits R polls per second, a task that takes D
seconds has B = R D / N of them. Polls at intervals d find its end d / 2 late and number D / d; a further one saves
D / 2 B^2 at d = D / B. So with the price

    c = D / (2 B^2) = N^2 / (2 R^2 D),   at least CLOSE x D, at most SPARSE x D

the tasks together make about R polls per second: five tasks are polled closely, ten thousand are not.

Once no item waits, a late end delays the batch only if it is the last. Each of N open tasks is the last with
probability 1 / N, so the same second of lateness is worth N times less, and a poll N times more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

CLOSE: Final = 0.006
"""Lowest price, in durations of the task: a poll that shortens its turn by less than 0.6 % is not worth sending."""
SPARSE: Final = 0.25
"""Highest price, in durations of the task. It results in two polls per task when durations vary by a factor of e^0.8
each way, in one to one and a half when they hardly vary, and in more when they vary more."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the open tasks of an account share: their number, the permitted polls, and whether items wait for slots."""

    open_tasks: float = math.inf
    polls_per_second: float = math.inf
    items_wait: bool = False

    def poll_cost(self, duration_seconds: float) -> float:
        """The price of a poll of a task that takes about `duration_seconds`, in such durations."""
        polls = self.polls_per_second * duration_seconds / self.open_tasks if self.items_wait else math.inf
        shared = 0.5 / (polls * polls) if polls > 0.0 else math.inf
        least = CLOSE * (1.0 if self.items_wait else self.open_tasks)
        return min(max(shared, least), SPARSE)


SPARSELY: Final = Load()
"""Many tasks, and no item waits: each is polled about twice."""
