"""The distribution of task durations, estimated from tasks whose durations are known only within bounds.

No shape is assumed. The logarithms of the durations, less the `worth` of the text, are a histogram. Starting from the
previous estimate, each round distributes every task over its interval in proportion to the histogram (the
self-consistency of Turnbull, 1976) and smooths the result (the EMS algorithm of Silverman, Jones, Wilson and Nychka,
1990) by the width of Silverman's rule of thumb (1986). A wide distribution with the weight of one task is mixed in, so
that polls also come where no task has ended yet.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import NormalDist, fmean
from typing import Final

from batcher.pacing.schedule import best_nexts, growth

_BINS: Final = 160
"""Bins of the histogram: durations that vary by a factor of 100 are resolved to 4 %."""
_ROUNDS: Final = 4
"""Rounds per estimate. Estimates begin with the previous one, so rounds add up."""
_DOUBT: Final = 0.5
"""Weight of an even histogram added in each round: against the previous estimate, which has the weight 1, and then
against the tasks. So what was estimated can be unlearned, and no interval is empty."""
_WIDE_SIGMA: Final = 1.0
"""Deviation of the wide distribution, in logarithms: the next task may differ from all known ones by factors of e. The
histogram extends this much beyond the known durations."""
_PRIOR_SIGMA: Final = 0.2
"""A prior deviation with the weight of one task, so that the first few tasks do not appear to vary too little."""
_SMOOTHING: Final = 0.6
"""Smoothing of n tasks, in their standard deviations times n^(-1/5). The rule of thumb is 0.9 for durations with one
hump; less keeps two apart."""


@dataclass(slots=True, eq=False)
class Course:
    """The known bounds of one task's duration: more than `low` seconds and, once it has ended, at most `high`."""

    size: int
    low: float = 0.0
    high: float = math.inf
    remembered: bool = False

    @property
    def ended(self) -> bool:
        """Whether the task is known to have ended."""
        return self.high < math.inf

    @property
    def log_middle(self) -> float:
        """The logarithm of the middle of the bounds of an ended task."""
        return 0.5 * (math.log(max(self.low, self.high / 2.0)) + math.log(self.high))


def worth(size: int, offset: float) -> float:
    """The logarithm of the text's length plus the overhead, in characters; 0 if the length does not matter."""
    return 0.0 if offset == math.inf else math.log(max(size, 1) + offset)


def variance(values: Sequence[float]) -> float:
    """The mean squared deviation from the mean; `statistics.pvariance` is exact, and fifty times slower."""
    mean = fmean(values)
    return fmean([(value - mean) ** 2 for value in values])


class Distribution:
    """Durations in units of `worth`: the probability that the logarithm of one is at most `logs[i]` is `shares[i]`."""

    def __init__(self, logs: Sequence[float], shares: Sequence[float], offset: float, sample_size: int) -> None:
        self.offset = offset
        self.sample_size = sample_size  # tasks that have ended
        self._logs = logs
        self._shares = shares
        self._ages = [0.0, *(math.exp(log) for log in logs)]
        self._median = math.exp(self._log_quantile(0.5))
        self.scatter = (self._log_quantile(0.84) - self._log_quantile(0.16)) / 2.0
        self._schedules: dict[int, list[float]] = {}

    def median(self, size: int) -> float:
        """Median seconds of tasks with texts of `size` characters."""
        return self._median * self._unit(size)

    def quantile(self, size: int, share: float) -> float:
        """Seconds within which this share of the tasks with texts of `size` characters ends."""
        return math.exp(self._log_quantile(share)) * self._unit(size)

    def ended_by(self, size: int, age_seconds: float) -> float:
        """The share of the tasks with texts of `size` characters that ends by this age."""
        if age_seconds <= 0.0:
            return 0.0
        return self.share_below(math.log(age_seconds) - worth(size, self.offset))

    def share_below(self, log: float) -> float:
        """The share of the tasks whose logarithm less their worth is below this."""
        place = min(max((log - self._logs[0]) / (self._logs[1] - self._logs[0]), 0.0), len(self._shares) - 1.0)
        left = min(int(place), len(self._shares) - 2)
        return _between(self._shares[left], self._shares[left + 1], place - left)

    def next_poll(self, size: int, age_seconds: float, cost: float) -> float:
        """The best age for the next poll of a task that was running at this age; `cost` is in median durations."""
        age = age_seconds / self._unit(size)
        nexts = self._schedule(round(2.0 * math.log2(cost)))
        index = bisect_right(self._ages, age) - 1
        if index < len(nexts):
            return max(nexts[index], age) * self._unit(size)
        return age_seconds * (1.0 + growth(cost * self._median / age))

    def _unit(self, size: int) -> float:
        return math.exp(worth(size, self.offset))

    def _log_quantile(self, share: float) -> float:
        right = min(max(bisect_right(self._shares, share), 1), len(self._shares) - 1)
        below, above = self._shares[right - 1], self._shares[right]
        part = (share - below) / (above - below) if above > below else 0.5
        return _between(self._logs[right - 1], self._logs[right], part)

    def _schedule(self, power: int) -> list[float]:
        """The best next poll after each of the ages. Prices are rounded to a power of 2 ** 0.5: few differ."""
        if power not in self._schedules:
            ended = [0.0, *self._shares]
            middles = [0.0, *(0.5 * (low + high) for low, high in pairwise(self._ages))]
            spent = accumulate(
                middle * (high - low) for middle, low, high in zip(middles, [0.0, *ended], ended, strict=False)
            )
            cost = self._median * 2.0 ** (power / 2.0)
            self._schedules[power] = best_nexts(self._ages, ended, list(spent), cost)
        return self._schedules[power]


def estimate(sample: Sequence[tuple[Course, int]], offset: float, before: Distribution | None = None) -> Distribution:
    """The distribution of the durations of weighted tasks, at least one of which has ended.

    `before` is the estimate until now: what the sample leaves open stays as it was.
    """
    bounds = [(_log_bounds(course, offset), weight) for course, weight in sample]
    middles = [course.log_middle - worth(course.size, offset) for course, _ in sample if course.ended]
    first = min(middles) - _WIDE_SIGMA
    last = max(*middles, *(low for (low, _), _ in bounds)) + _WIDE_SIGMA
    step = (last - first) / _BINS
    logs = [first + step * number for number in range(_BINS + 1)]
    start = [1.0 / _BINS] * _BINS
    if before is not None and before.offset == offset:
        start = [high - low for low, high in pairwise(map(before.share_below, logs))]
    places = [(*_bins((low - first) / step, (high - first) / step), weight) for (low, high), weight in bounds]
    below = list(accumulate(_histogram(start, places, step), initial=0.0))
    wide = NormalDist(fmean(middles), _WIDE_SIGMA)
    total = sum(weight for _, weight in sample)
    shares = [min((total * share + wide.cdf(log)) / (total + 1), 1.0) for share, log in zip(below, logs, strict=True)]
    return Distribution(logs, shares, offset, len(middles))


def _log_bounds(course: Course, offset: float) -> tuple[float, float]:
    shift = worth(course.size, offset)
    return (math.log(course.low) if course.low > 0.0 else -math.inf) - shift, math.log(course.high) - shift


def _bins(low: float, high: float) -> tuple[int, int]:
    """The first bin of an interval, and the one after its last."""
    first = min(max(math.floor(low), 0), _BINS - 1) if low > 0.0 else 0
    return first, min(max(math.ceil(high), first + 1), _BINS) if high < _BINS else _BINS


def _histogram(shares: list[float], intervals: Sequence[tuple[int, int, int]], step: float) -> list[float]:
    """The share of each bin, `step` wide, beginning with a guess; intervals are first bin, end, and weight."""
    for _ in range(_ROUNDS):
        shares, means = _distributed(shares, intervals)
        shares = _smoothed(shares, _smoothing(means, step))
    total = sum(shares)
    return [share / total for share in shares]


def _distributed(shares: list[float], intervals: Sequence[tuple[int, int, int]]) -> tuple[list[float], list[float]]:
    """Every task distributed over its interval in proportion to `shares`, and the mean places of the ended tasks."""
    shares = [share + _DOUBT / _BINS for share in shares]
    below = list(accumulate(shares, initial=0.0))
    moments = list(accumulate((share * place for place, share in enumerate(shares)), initial=0.0))
    means, changes = [], [0.0] * (_BINS + 1)
    for first, end, weight in intervals:
        inside = below[end] - below[first]
        changes[first] += weight / inside
        changes[end] -= weight / inside
        if end < _BINS:
            means.append((moments[end] - moments[first]) / inside)
    return [share * density for share, density in zip(shares, accumulate(changes), strict=False)], means


def _smoothing(places: Sequence[float], step: float) -> float:
    """The standard deviation, in bins of width `step`, by which tasks at these places are smoothed."""
    number = len(places)
    sigma = math.sqrt((number * variance(places) + (_PRIOR_SIGMA / step) ** 2) / (number + 1))
    return _SMOOTHING * sigma / math.pow(number, 0.2)


def _smoothed(shares: list[float], width: float) -> list[float]:
    """Smoothed by a standard deviation of `width` bins: three moving averages come close to the normal curve."""
    half = round((math.sqrt(4.0 * width * width + 1.0) - 1.0) / 2.0)
    for _ in range(3):
        below = list(accumulate(shares, initial=0.0))
        shares = [
            (below[min(place + half + 1, _BINS)] - below[max(place - half, 0)]) / (2 * half + 1)
            for place in range(_BINS)
        ]
    return shares


def _between(low: float, high: float, part: float) -> float:
    return low + min(max(part, 0.0), 1.0) * (high - low)
