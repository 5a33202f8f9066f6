"""The optimal times to poll a task whose duration has a known distribution.

The objective for a task that takes D seconds: minimise E[lateness] + c E[polls], where the lateness is the age at the
poll that finds it ended, less D. For polls at ages t_1 < t_2 < ... of a grid, with F(i) the probability that D <= t_i
and M(i) the partial mean of D over those cases, the expected cost from t_i on, weighted by the probability of getting
there, is by Bellman's principle

    V(i) = c (1 - F(i)) + min over j > i of { t_j (F(j) - F(i)) - (M(j) - M(i)) + V(j) }

For a given j the braces are a straight line in F(i) with slope -t_j. So the best j lies on the lower envelope of lines
that are added in the order of their slopes and queried in the order of F, and the table takes linear time.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from batcher.pacing.normal_distribution import below

POLL_COST: Final = 0.3
"""Price of a poll, in median durations. It results in two polls per task when durations vary by a factor of e^0.8 each
way, in one to one and a half when they hardly vary, and in more when they vary more."""
GROWTH: Final = 0.5
"""Without data, the next poll comes after this share of the task's age: only a scale-free rule suits tasks of a fifth
of a second as well as tasks of an hour."""
_REACH: Final = 3.0
"""The schedule ends this many standard deviations above the median; later polls follow `GROWTH`."""
_STEPS: Final = 120
_SIGMA_STEP: Final = 0.05


@dataclass(frozen=True, slots=True)
class Schedule:
    """The best next poll for each age of a task; ages in median durations."""

    ages: tuple[float, ...]
    nexts: tuple[float, ...]

    def next_poll(self, age: float) -> float:
        """The age at which to poll next a task that was running at `age`."""
        index = bisect_right(self.ages, age) - 1
        return max(self.nexts[index], age) if index < len(self.nexts) else age * (1.0 + GROWTH)


def for_scatter(sigma: float) -> Schedule:
    """The best schedule for log-normal durations with the log-scale deviation `sigma`, rounded to within 3 %."""
    return _solve(round(math.log(sigma) / _SIGMA_STEP))


@lru_cache(maxsize=256)
def _solve(step: int) -> Schedule:
    sigma = math.exp(step * _SIGMA_STEP)
    return Schedule(*(tuple(values) for values in solve(sigma, POLL_COST, _REACH, _STEPS)))


def solve(sigma: float, cost: float, reach: float, steps: int) -> tuple[list[float], list[float]]:
    """Ages from 0 to `reach` deviations above the median, and the best next poll after each but the last."""
    zs = [-reach + 2 * reach * number / steps for number in range(steps + 1)]
    ages = [0.0, *(math.exp(sigma * z) for z in zs)]
    ended = [0.0, *(below(z) for z in zs)]
    mean = math.exp(sigma * sigma / 2)
    spent = [0.0, *(mean * below(z - sigma) for z in zs)]
    return ages, best_nexts(ages, ended, spent, cost)


def best_nexts(ages: list[float], ended: list[float], spent: list[float], cost: float) -> list[float]:
    """The best next poll after each age but the last; `ended` is F, `spent` is M and `cost` is c of the formula above.

    Tasks that outlive the last age are not counted.
    """
    lines: deque[tuple[float, float]] = deque()  # the envelope, as (t_j, intercept), the line for the greatest F first
    value, nexts = 0.0, [0.0] * (len(ages) - 1)
    for i in range(len(ages) - 2, -1, -1):
        _add(lines, (ages[i + 1], ages[i + 1] * ended[i + 1] - spent[i + 1] + value))
        while len(lines) > 1 and _height(lines[1], ended[i]) <= _height(lines[0], ended[i]):
            lines.popleft()
        nexts[i] = lines[0][0]
        value = cost * (1.0 - ended[i]) + spent[i] + _height(lines[0], ended[i])
    return nexts


def _height(line: tuple[float, float], at: float) -> float:
    return line[1] - line[0] * at


def _add(lines: deque[tuple[float, float]], new: tuple[float, float]) -> None:
    """Append a less steep line and remove those that are then nowhere lowest."""
    while len(lines) > 1 and _crossing(lines[-2], new) >= _crossing(lines[-2], lines[-1]):
        lines.pop()
    lines.append(new)


def _crossing(steep: tuple[float, float], flat: tuple[float, float]) -> float:
    return (steep[1] - flat[1]) / (steep[0] - flat[0])
