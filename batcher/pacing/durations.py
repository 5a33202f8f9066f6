"""The durations of one model's tasks, learned from polls.

A poll never shows when a task ended, only that it was running at one age and had ended by another. A task still open is
known to take longer than its age at the last poll, and this counts too: of many tasks begun together, the first to end
are the quickest, and alone would bias the estimate.

Durations are log-normal, with a median proportional to the length of the text plus a fixed overhead in characters. Mean
and deviation are maximum-likelihood estimates from interval-censored data, found by expectation maximisation (Dempster,
Laird and Rubin, 1977): the distribution truncated to each task's interval yields its expected log duration, and these
yield the next distribution.

Only the latest tasks are remembered, in the order in which they began. A sum of log-likelihood ratios in that order,
reset whenever it falls below zero (Page's CUSUM, 1954), detects when durations have changed, and since when; older
tasks are then forgotten.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from batcher.pacing.normal_distribution import shift_evidence, truncated

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
_PRIOR_SIGMA: Final = 0.2
"""A prior deviation with the weight of one task, so that the first few tasks do not appear to vary too little."""
_LEAST_SIGMA: Final = 0.02
_MOST_SIGMA: Final = 4.0
_LEAST_SECONDS: Final = 1e-3
_MOST_SECONDS: Final = 1e7
_ROUNDS: Final = 15
_SETTLED: Final = 0.03
_SCOUTS: Final = 32
"""Once this many tasks have outlived an age and none has ended, no other is polled before that age: the probability
that the next one has ended by then is about 1 in 30 (Laplace's rule of succession). This many, to cover short texts
and long ones."""
_STRANGE: Final = 2.5
_SHIFT: Final = 2.0
"""The change to detect, in deviations."""
_ALARM: Final = 9.0
_MOST_EVIDENCE: Final = 5.0
"""Maximum log-likelihood ratio that one task contributes to a change; less than `_ALARM`."""
_SUSPICION: Final = 3.0


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


@dataclass(frozen=True, slots=True)
class Fit:
    """The learned distribution: the logarithm of a duration in seconds, less the `worth` of the text, is normal."""

    mu: float
    sigma: float
    offset: float = math.inf
    sample_size: float = 1.0  # effective sample size, in exactly known durations

    def median(self, size: int) -> float:
        """Median seconds of tasks with texts of `size` characters."""
        return math.exp(self.mu + worth(size, self.offset))

    def quantile(self, size: int, z: float) -> float:
        """Seconds `z` deviations above the median for texts of `size` characters."""
        return self.median(size) * math.exp(z * self.sigma)

    @property
    def predictive_sigma(self) -> float:
        """The deviation of the next task, including the uncertainty of the estimates."""
        return self.sigma * math.sqrt(1.0 + 2.0 / self.sample_size)


@dataclass(slots=True)
class _Guess:
    """One task under a fit, in deviations from the mean; it represents `weight` tasks."""

    course: Course
    weight: int
    low: float
    high: float
    mean: float
    variance: float


def worth(size: int, offset: float) -> float:
    """The logarithm of the text's length plus the overhead, in characters; 0 if the length does not matter."""
    return 0.0 if offset == math.inf else math.log(max(size, 1) + offset)


class Durations:
    """The durations of one model's tasks; `fit` is None before the first has ended."""

    def __init__(self) -> None:
        self.fit: Fit | None = None
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
        if self.fit is None:
            self._scout(course)
        if (
            course.remembered
            and self.fit is not None
            and before <= self.fit.quantile(course.size, _STRANGE) < course.low
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
            quick = self.fit is not None and course.high < self.fit.quantile(course.size, -_STRANGE)
            self._notice(WINDOW if quick else 1)

    def known(self) -> list[tuple[int, float, float]]:
        """Size, low and high of the remembered ended tasks, in the order in which they began."""
        return [(course.size, course.low, course.high) for course in self._courses if course.ended]

    def remember(self, known: Sequence[tuple[int, float, float]], fit: Fit) -> None:
        """Restore `known` and `fit` of an earlier run."""
        self._courses.extend(Course(size, low, high, remembered=True) for size, low, high in known)
        self._ended, self.fit = len(known), fit

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
        sample = self._sample()
        fit, guesses = _fitted(self.fit or _first_fit(sample), sample)
        changed, self.suspect = _change(guesses)
        if changed is not None:
            while self._courses[0] is not changed:
                self._forget()
            sample = self._sample()
            fit, guesses = _fitted(_first_fit(sample), sample)
        self.fit = _with_offset(fit, guesses)

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


def _first_fit(sample: Sequence[tuple[Course, int]]) -> Fit:
    """A starting point for the iteration: the middles of the ended tasks' intervals."""
    ended = [course for course, _ in sample if course.ended]
    logs = [0.5 * math.log(max(course.low, course.high / 2) * course.high) for course in ended]
    mean = sum(logs) / len(logs)
    scatter = sum((log - mean) ** 2 for log in logs) + _PRIOR_SIGMA**2
    return Fit(mean, math.sqrt(scatter / (len(logs) + 1)))


def _fitted(fit: Fit, sample: Sequence[tuple[Course, int]]) -> tuple[Fit, list[_Guess]]:
    """The maximum-likelihood fit for the sample, starting from `fit`, and the guesses of the last round."""
    guesses: list[_Guess] = []
    for _ in range(_ROUNDS):
        guesses = [_guess(fit, course, weight) for course, weight in sample]
        last, fit = fit, _likelier(fit, guesses)
        if abs(fit.mu - last.mu) + abs(fit.sigma - last.sigma) < _SETTLED * fit.sigma:
            break
    return fit, guesses


def _guess(fit: Fit, course: Course, weight: int) -> _Guess:
    middle = fit.mu + worth(course.size, fit.offset)
    low = (math.log(course.low) - middle) / fit.sigma if course.low > 0.0 else -math.inf
    high = (math.log(course.high) - middle) / fit.sigma
    return _Guess(course, weight, low, high, *truncated(low, high))


def _likelier(fit: Fit, guesses: Sequence[_Guess]) -> Fit:
    """One round of expectation maximisation."""
    number = sum(guess.weight for guess in guesses)
    mean = sum(guess.weight * guess.mean for guess in guesses) / number
    blur = sum(guess.weight * guess.variance for guess in guesses)
    scatter = sum(guess.weight * (guess.mean - mean) ** 2 for guess in guesses) + blur
    sigma = math.sqrt((fit.sigma**2 * scatter + _PRIOR_SIGMA**2) / (number + 1))
    # Tasks with only one known bound could pull mean and deviation ever further that way.
    least, most = (math.log(seconds) - worth(0, fit.offset) for seconds in (_LEAST_SECONDS, _MOST_SECONDS))
    mu = min(max(fit.mu + fit.sigma * mean, least), most)
    return Fit(mu, min(max(sigma, _LEAST_SIGMA), _MOST_SIGMA), fit.offset, max(number - blur, 0.5))


def _with_offset(fit: Fit, guesses: Sequence[_Guess]) -> Fit:
    """The fit with the overhead under which durations vary least, if the improvement is significant.

    Each task is weighted by how much its polls have narrowed down its duration: the fit's own guesses are no evidence.
    """
    ended = [guess for guess in guesses if guess.course.ended and guess.variance < 1.0]
    points = [
        (1.0 - guess.variance, fit.mu + worth(guess.course.size, fit.offset) + fit.sigma * guess.mean, guess)
        for guess in ended
    ]
    total = sum(part for part, _, _ in points)
    if not total:
        return fit
    blur = fit.sigma**2 * sum(part * guess.variance for part, _, guess in points) + _LEAST_SIGMA**2
    known = [(part, log, guess.course.size) for part, log, guess in points]
    found = [(*_scatter(known, total, offset), offset) for offset in _OFFSETS]
    scatter, mean, offset = min(found)
    if 0.5 * total * math.log((found[0][0] + blur) / (scatter + blur)) < _OFFSET_EVIDENCE:
        scatter, mean, offset = found[0]
    if offset == fit.offset:
        return fit
    return Fit(mean, math.sqrt((scatter + blur + _PRIOR_SIGMA**2) / (total + 1)), offset, fit.sample_size)


def _scatter(known: Sequence[tuple[float, float, int]], total: float, offset: float) -> tuple[float, float]:
    """The residual sum of squares of the logarithms with this overhead, and their mean."""
    first = second = 0.0
    for part, log, size in known:
        rest = log - worth(size, offset)
        first += part * rest
        second += part * rest * rest
    return max(second - first * first / total, 0.0), first / total


def _change(guesses: Sequence[_Guess]) -> tuple[Course | None, bool]:
    """The first task of a change that at least two ended tasks support, and whether a change may be under way."""
    suspect = False
    for shift in (_SHIFT, -_SHIFT):
        total, ended, first = 0.0, 0, 0
        for index, guess in enumerate(guesses):
            evidence = shift_evidence(guess.low, guess.high, guess.mean, shift)
            total += min(evidence, _MOST_EVIDENCE)
            ended += guess.course.ended
            if total <= 0.0:
                total, ended, first = 0.0, 0, index + 1
        if total > _ALARM and ended > 1:
            return guesses[first].course, False
        suspect = suspect or total > _SUSPICION
    return None, suspect
