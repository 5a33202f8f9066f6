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
from statistics import NormalDist
from typing import Final

from batcher.pacing.distribution import Course, Distribution, estimate, variance, worth

WINDOW: Final = 64
"""Number of ended tasks to remember, along with open ones that began among them."""
_MOST_WEIGHED: Final = 256
"""With more tasks than this, the open ones are sampled and weighted."""
_REFITS: Final = 4
"""Refit after 1/N of the remembered tasks has changed: rarely enough to cost next to nothing."""
_LATE_COUNTS: Final = 4
"""A task that takes far longer than expected counts like this many others, since many may come together. One that
took far less, which only an early poll can show, triggers a refit at once."""
_OFFSETS: Final = (math.inf, *(2.0 ** (half / 2) for half in range(6, 27)), 0.0)
"""Candidate overheads, in characters of text; with the first, the length of the text does not matter."""
_OFFSET_EVIDENCE: Final = 3.0
"""Minimum gain in log-likelihood for an overhead over ignoring the length of the text."""
_LEAST_SIGMA: Final = 0.02
"""Smallest deviation of logarithms that counts when overheads are compared: 2 %, as polls can hardly show less."""
_LEAST_SECONDS: Final = 1e-3
_SCOUTS: Final = 32
"""Once this many tasks have outlived an age and none has ended, no other is polled before that age: the probability
that the next one has ended by then is about 1 in 30 (Laplace's rule of succession). This many, to cover short texts
and long ones."""
_STRANGE: Final = 0.006
"""A task is far quicker or slower than expected beyond these quantiles, two and a half standard deviations."""
_SHIFT: Final = 2.0
"""The change to detect, in deviations."""
_ALARM: Final = 9.0
_MOST_EVIDENCE: Final = 5.0
"""Maximum log-likelihood ratio that one task contributes to a change; less than `_ALARM`."""
_SUSPICION: Final = 3.0
_RARE: Final = 1e-6
"""Probabilities below this are not told apart."""
_BLUR: Final = 0.02
"""Every interval is widened by this number of deviations each way, so that exactly known durations count too."""
_NORMAL: Final = NormalDist()


class Durations:
    """The durations of one model's tasks; `known` is None before the first has ended."""

    def __init__(self) -> None:
        self.known: Distribution | None = None
        self.suspect = False  # a change may be under way
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
        before, course.low = course.low, max(course.low, age_seconds)
        if self.known is None:
            self._scout(course)
        if (
            course.remembered
            and self.known is not None
            and before <= self.known.quantile(course.size, 1.0 - _STRANGE) < course.low
        ):
            self._notice(_LATE_COUNTS)

    def ended(self, course: Course, low_seconds: float, high_seconds: float) -> None:
        """Record that the task took more than `low_seconds` and at most `high_seconds`; exactly that if equal."""
        course.high = max(high_seconds, _LEAST_SECONDS)
        course.low = min(max(low_seconds, 0.0), course.high)
        if course.remembered:
            self._ended += 1
            while self._ended > WINDOW:
                self._forget()
            quick = self.known is not None and course.high < self.known.quantile(course.size, _STRANGE)
            self._notice(WINDOW if quick else 1)

    def ended_tasks(self) -> list[tuple[int, float, float]]:
        """Size, low and high of the remembered ended tasks, in the order in which they began."""
        return [(course.size, course.low, course.high) for course in self._courses if course.ended]

    def remember(self, tasks: Sequence[tuple[int, float, float]]) -> None:
        """Restore the ended tasks of an earlier run."""
        self._courses.extend(Course(size, low, high, remembered=True) for size, low, high in tasks)
        self._ended = len(tasks)
        self._learn()

    @property
    def outlived_seconds(self) -> float:
        """The age that enough tasks have outlived before any has ended; 0 if there is none."""
        return min(course.low for course in self._scouts) if len(self._scouts) == _SCOUTS else 0.0

    def _scout(self, course: Course) -> None:
        """Remember the few tasks that were running at the greatest ages."""
        if course not in self._scouts:
            self._scouts.append(course)
            if len(self._scouts) > _SCOUTS:
                self._scouts.remove(min(self._scouts, key=lambda scout: scout.low))

    def _notice(self, news: int) -> None:
        self._news += news
        if self._ended and self._news >= max(1, self._ended // _REFITS):
            self._news = 0
            self._learn()

    def _learn(self) -> None:
        if self.known is not None:
            changed, self.suspect = _change(self.known, self._sample())
            while changed is not None and self._courses[0] is not changed:
                self._forget()
        sample = self._sample()
        self.known = estimate(sample, _best_offset(self.known, sample), self.known)

    def _forget(self) -> None:
        course = self._courses.popleft()
        course.remembered = False
        self._ended -= course.ended

    def _sample(self) -> list[tuple[Course, int]]:
        """The tasks with known bounds and their weights, in the order in which they began."""
        every = -(-len(self._courses) // _MOST_WEIGHED)
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
    blur += _LEAST_SIGMA**2
    pairs = list(zip(ended, middles, strict=True))
    scatters = {
        offset: len(ended) * variance([log - worth(course.size, offset) for course, log in pairs])
        for offset in _OFFSETS
    }
    best = min(_OFFSETS, key=lambda offset: scatters[offset])
    gain = 0.5 * len(ended) * math.log((scatters[math.inf] + blur) / (scatters[best] + blur))
    return best if gain >= _OFFSET_EVIDENCE else math.inf


def _log_middle(known: Distribution | None, course: Course) -> float:
    """The logarithm of an ended task's median duration, given its bounds."""
    if known is None:
        return course.log_middle
    share = (known.ended_by(course.size, course.low) + known.ended_by(course.size, course.high)) / 2.0
    return math.log(min(max(known.quantile(course.size, share), course.low, _LEAST_SECONDS), course.high))


def _change(known: Distribution, sample: Sequence[tuple[Course, int]]) -> tuple[Course | None, bool]:
    """The first task of a change that at least two ended tasks support, and whether a change may be under way."""
    suspect = False
    bounds = [(course, *_deviations(known, course)) for course, _ in sample]
    for shift in (_SHIFT, -_SHIFT):
        total, ended, first = 0.0, 0, 0
        for index, (course, low, high) in enumerate(bounds):
            total += min(_shift_evidence(low, high, shift), _MOST_EVIDENCE)
            ended += course.ended
            if total <= 0.0:
                total, ended, first = 0.0, 0, index + 1
        if total > _ALARM and ended > 1:
            return sample[first][0], False
        suspect = suspect or total > _SUSPICION
    return None, suspect


def _deviations(known: Distribution, course: Course) -> tuple[float, float]:
    """The bounds of a task as standard normal deviations of the same probability."""
    low, high = (min(max(known.ended_by(course.size, age), _RARE), 1.0 - _RARE) for age in (course.low, course.high))
    return (
        _NORMAL.inv_cdf(low) if course.low > 0.0 else -math.inf,
        _NORMAL.inv_cdf(high) if course.ended else math.inf,
    )


def _shift_evidence(low: float, high: float, shift: float) -> float:
    """Log-likelihood ratio of a value between `low` and `high` if its normal distribution is shifted by `shift`."""
    low, high = low - _BLUR, high + _BLUR
    likely = _NORMAL.cdf(high) - _NORMAL.cdf(low)
    shifted = _NORMAL.cdf(high - shift) - _NORMAL.cdf(low - shift)
    return math.log(max(shifted, _RARE) / max(likely, _RARE))
