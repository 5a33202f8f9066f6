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
from collections import deque
from typing import Final

_UNKNOWN_RANGE: Final = 2.0
"""Without knowledge, a task may end anywhere within this factor of its age, as a logarithm: e^2 is 7."""
_MOST_GROWTH: Final = 0.5


def growth(cost: float) -> float:
    """The share of its age after which to poll a task of unknown duration; `cost` is c as a share of that age.

    If the logarithm of D is uniform over a range of `_UNKNOWN_RANGE`, tasks of age t end at the rate 1 / (2 t). Polls
    every d seconds then cost c / d for polls and d / 4t for lateness per second, least for d = sqrt(4 c t).
    """
    return min(math.sqrt(2.0 * _UNKNOWN_RANGE * cost), _MOST_GROWTH)


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
