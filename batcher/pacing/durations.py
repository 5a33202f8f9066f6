"""The durations of one model's tasks, learned from polls.

A poll never shows when a task ended, only that it was running at one age and had ended by another. A task still open is
known to take longer than its age at the last poll, and this counts too: of many tasks begun together, the first to end
are the quickest, and alone would bias the estimate. `distribution` estimates the distribution from such bounds.

Durations are proportional to the length of the text plus a fixed overhead in characters, or unrelated to it, whichever
makes them vary less.

Only the latest tasks are remembered, in the order in which they began. A sum of log-likelihood ratios in that order,
reset whenever it falls below zero (Page's CUSUM, 1954), detects when durations have changed, and since when; older
tasks are then forgotten.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

from batcher.pacing.distribution import Course, Distribution, estimate, variance, worth

WINDOW: Final = 64
"""Number of ended tasks to remember, along with open ones that began among them. Half as many tasks that have outlived
an age while none has ended stop polls before that age: by Laplace's rule of succession, the next task has ended by then
with a probability of about 1 in 30."""
_REFITS: Final = 4
"""Refits per window: one after each 1/N of the remembered tasks has changed, which costs next to nothing."""
_OFFSETS: Final = (math.inf, *(2.0 ** (half / 2) for half in range(6, 27)), 0.0)
"""Candidate overheads, in characters of text; with the first, the length of the text does not matter."""
_EVIDENCE: Final = 5.0
"""Least log-likelihood ratio for a new hypothesis: a change of durations, or an overhead. Chance reaches it at
most once in e^5 = 150 tasks on average (Lorden, 1971)."""
_SHIFT: Final = 2.0
"""The change to detect: logarithms of durations that grow or shrink by this many of their deviations."""
_RARE: Final = 0.006
"""Probabilities below this, that of two and a half deviations, count as this. So one strange task contributes at
most log(1 / 0.006) = 5 to the evidence of a change."""
_PRECISION: Final = 0.02
"""Share of a duration within which polls can hardly locate it: bounds are widened by it, and no smaller deviation
counts when overheads are compared."""
_LEAST_SECONDS: Final = 1e-3
"""Shortest duration, since its logarithm is needed."""


class Durations:
    """The durations of one model's tasks; `known` is None before the first has ended."""

    def __init__(self) -> None:
        self.known: Distribution | None = None
        self._scouts: list[Course] = []
        self._courses: deque[Course] = deque()
        self._ended = 0
        self._news = 0

    def begin(self, size: int) -> Course:
        """Register a task with a text of `size` characters that begins now."""
        self._courses.append(course := Course(size, remembered=True))
        return course

    def running(self, course: Course, age_seconds: float) -> None:
        """Record that the task was running at this age."""
        course.low = max(course.low, age_seconds)
        if self.known is None:
            self._scout(course)

    def ended(self, course: Course, low_seconds: float, high_seconds: float) -> None:
        """Record that the task took more than `low_seconds` and at most `high_seconds`; exactly that if equal."""
        course.high = max(high_seconds, _LEAST_SECONDS)
        course.low = min(max(low_seconds, 0.0), course.high)
        if course.remembered:
            self._ended += 1
            while self._ended > WINDOW:
                self._forget()
            self._news += 1
            if self._news >= max(1, self._ended // _REFITS):
                self._news = 0
                self._learn()

    def ended_tasks(self) -> list[tuple[int, float, float]]:
        """Size, low and high of the remembered ended tasks, in the order in which they began."""
        return [(course.size, course.low, course.high) for course in self._courses if course.ended]

    def remember(self, tasks: Sequence[tuple[int, float, float]]) -> None:
        """Restore the ended tasks of an earlier run. They are fitted as often as when they were new."""
        self._courses.extend(Course(size, low, high, remembered=True) for size, low, high in tasks)
        self._ended = len(tasks)
        for _ in range(_REFITS if tasks else 0):
            self._learn()

    @property
    def outlived_seconds(self) -> float:
        """The age that enough tasks have outlived before any has ended; 0 if there is none."""
        return min(course.low for course in self._scouts) if len(self._scouts) == WINDOW // 2 else 0.0

    def _scout(self, course: Course) -> None:
        """Remember the few tasks that were running at the greatest ages."""
        if course not in self._scouts:
            self._scouts.append(course)
            if len(self._scouts) > WINDOW // 2:
                self._scouts.remove(min(self._scouts, key=lambda scout: scout.low))

    def _learn(self) -> None:
        if self.known is not None:
            changed = _change(self.known, self._sample())
            while changed is not None and self._courses[0] is not changed:
                self._forget()
        sample = self._sample()
        self.known = estimate(sample, _best_offset(self.known, sample), self.known)

    def _forget(self) -> None:
        course = self._courses.popleft()
        course.remembered = False
        self._ended -= course.ended

    def _sample(self) -> list[tuple[Course, int]]:
        """The tasks with known bounds and their weights, in the order in which they began.

        Of very many open ones, some stand for the others.
        """
        every = -(-len(self._courses) // (4 * WINDOW))
        return [
            (course, 1 if course.ended else every)
            for index, course in enumerate(self._courses)
            if course.ended or (course.low > 0.0 and index % every == 0)
        ]


def _best_offset(known: Distribution | None, sample: Sequence[tuple[Course, int]]) -> float:
    """The overhead under which durations vary least, if the improvement is significant; else infinity."""
    ended = [course for course, _ in sample if course.ended]
    middles = [_log_middle(known, course) for course in ended]
    blur = sum((math.log(course.high) - middle) ** 2 for course, middle in zip(ended, middles, strict=True)) / 3.0
    blur += _PRECISION**2
    pairs = list(zip(ended, middles, strict=True))
    scatters = {
        offset: len(ended) * variance([log - worth(course.size, offset) for course, log in pairs])
        for offset in _OFFSETS
    }
    best = min(_OFFSETS, key=lambda offset: scatters[offset])
    gain = 0.5 * len(ended) * math.log((scatters[math.inf] + blur) / (scatters[best] + blur))
    return best if gain >= _EVIDENCE else math.inf


def _log_middle(known: Distribution | None, course: Course) -> float:
    """The logarithm of an ended task's median duration, given its bounds."""
    if known is None:
        return course.log_middle
    share = (known.ended_by(course.size, course.low) + known.ended_by(course.size, course.high)) / 2.0
    return math.log(min(max(known.quantile(course.size, share), course.low, _LEAST_SECONDS), course.high))


def _change(known: Distribution, sample: Sequence[tuple[Course, int]]) -> Course | None:
    """The first task of a change that at least two ended tasks support; None if durations have not changed."""
    for shift in (_SHIFT, -_SHIFT):
        factor = math.exp(shift * known.scatter)
        total, ended, first = 0.0, 0, 0
        for index, (course, _) in enumerate(sample):
            total += _evidence(known, course, factor)
            ended += course.ended
            if total <= 0.0:
                total, ended, first = 0.0, 0, index + 1
        if total > _EVIDENCE and ended > 1:
            return sample[first][0]
    return None


def _evidence(known: Distribution, course: Course, factor: float) -> float:
    """Log-likelihood ratio of what is known of a task if durations are multiplied by the factor."""
    low, high = course.low * (1.0 - _PRECISION), course.high * (1.0 + _PRECISION)
    before, after = (
        max(known.ended_by(course.size, high / by) - known.ended_by(course.size, low / by), _RARE)
        for by in (1.0, factor)
    )
    return math.log(after / before)
