"""How long the tasks of one model take, learned from what looks at them show.

A look never shows when a task ended: only that it was running at one age and had ended by another. Of a task still
open it is known that it takes longer than its age at the last look, and this counts as much: of many tasks begun
together the first to end are the quickest, and alone would give a false picture.

The logarithm of a duration is taken to be normal, around that of the length of the text plus what the overhead of any
task is worth in characters. Mean and deviation are the likeliest for what is known of each task, found by expectation
maximisation (Dempster, Laird and Rubin, 1977): the distribution truncated to what is known of a task says what its
duration was on average, and these averages give the next distribution.

What is remembered are the last tasks in the order in which they began. A sum of log-likelihood ratios in that order
that starts again whenever it falls below zero (Page's CUSUM, 1954) tells when durations have changed, and since when;
what is older is then forgotten.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from batcher.pacing.normal_distribution import shift_evidence, truncated

WINDOW: Final = 64
"""So many ended tasks are remembered, and whatever began among them."""
_MOST_WEIGHED: Final = 256
"""Of more tasks than this, some of the open ones stand for the others."""
_REFITS: Final = 4
"""Learned anew whenever the remembered have changed by one part in so many: seldom enough to cost next to nothing."""
_LATE_COUNTS: Final = 4
"""That a task takes far longer than known counts like news of so many others; many may come together. That one took
far less, which only an early look can show, is acted on at once."""
_OFFSETS: Final = (math.inf, *(2.0 ** (half / 2) for half in range(6, 27)), 0.0)
"""Overheads to choose from, in characters of text; with the first, the text does not matter."""
_OFFSET_EVIDENCE: Final = 3.0
"""An overhead must make what is known likelier by this much, as a logarithm, than if the text did not matter."""
_PRIOR_SIGMA: Final = 0.2
"""A deviation that counts like one more task: it keeps the first few from being taken for all there can be."""
_LEAST_SIGMA: Final = 0.02
_MOST_SIGMA: Final = 4.0
_LEAST_SECONDS: Final = 1e-3
_MOST_SECONDS: Final = 1e7
_ROUNDS: Final = 15
_SETTLED: Final = 0.03
_SCOUTS: Final = 32
"""Once so many tasks have outlived an age and none is known to have ended, no other need be looked at before it: the
chance that the next one has ended by then is about one in thirty (Laplace's rule of succession). So many, since their
texts must tell long from short."""
_STRANGE: Final = 2.5
_SHIFT: Final = 2.0
"""The change that is looked for, in deviations."""
_ALARM: Final = 9.0
_MOST_EVIDENCE: Final = 5.0
"""What one task may say for a change, as a logarithm: less than the alarm needs."""
_SUSPICION: Final = 3.0


@dataclass(slots=True, eq=False)
class Course:
    """What is known of one task: it takes more than `low` seconds, and once it has ended no more than `high`."""

    size: int
    low: float = 0.0
    high: float = math.inf
    kept: bool = False

    @property
    def ended(self) -> bool:
        """Whether the task is known to have ended."""
        return self.high < math.inf


@dataclass(frozen=True, slots=True)
class Fit:
    """What was learned: the logarithm of a duration in seconds, less the `worth` of the text, is normal."""

    mu: float
    sigma: float
    offset: float = math.inf
    told: float = 1.0  # how many exactly known durations would have told as much

    def median(self, size: int) -> float:
        """Seconds that half the tasks with texts of `size` characters take at most."""
        return math.exp(self.mu + worth(size, self.offset))

    def quantile(self, size: int, z: float) -> float:
        """Seconds that lie `z` deviations above the median for texts of `size` characters."""
        return self.median(size) * math.exp(z * self.sigma)

    @property
    def predictive_sigma(self) -> float:
        """The deviation to expect of the next task, mean and deviation being estimates themselves."""
        return self.sigma * math.sqrt(1.0 + 2.0 / self.told)


@dataclass(slots=True)
class _Guess:
    """One task as a fit sees it, in deviations from the mean; it stands for `weight` tasks."""

    course: Course
    weight: int
    low: float
    high: float
    mean: float
    variance: float


def worth(size: int, offset: float) -> float:
    """The logarithm of a text's length and the overhead, in characters; 0 if the text does not matter."""
    return 0.0 if offset == math.inf else math.log(max(size, 1) + offset)


class Durations:
    """What is known about the durations of one model's tasks; `fit` is None before the first has ended."""

    def __init__(self) -> None:
        self.fit: Fit | None = None
        self.suspect = False  # a change may be under way
        self._scouts: list[Course] = []
        self._courses: deque[Course] = deque()
        self._ended = 0
        self._news = 0

    def begin(self, size: int) -> Course:
        """A task with a text of `size` characters begins now."""
        self._courses.append(course := Course(size, kept=True))
        return course

    def running(self, course: Course, age_seconds: float) -> None:
        """The task was running at this age."""
        before, course.low = course.low, max(course.low, age_seconds)
        if self.fit is None:
            self._scout(course)
        if course.kept and self.fit is not None and before <= self.fit.quantile(course.size, _STRANGE) < course.low:
            self._hear(_LATE_COUNTS)

    def ended(self, course: Course, low_seconds: float, high_seconds: float) -> None:
        """The task took more than `low_seconds` and no more than `high_seconds`, or just so long if both are equal."""
        course.high = max(high_seconds, _LEAST_SECONDS)
        course.low = min(max(low_seconds, 0.0), course.high)
        if course.kept:
            self._ended += 1
            while self._ended > WINDOW:
                self._forget()
            quick = self.fit is not None and course.high < self.fit.quantile(course.size, -_STRANGE)
            self._hear(WINDOW if quick else 1)

    def known(self) -> list[tuple[int, float, float]]:
        """Size, low and high of the ended tasks that are remembered, in the order in which they began."""
        return [(course.size, course.low, course.high) for course in self._courses if course.ended]

    def remember(self, known: Sequence[tuple[int, float, float]], fit: Fit) -> None:
        """Take up what `known` and `fit` were in an earlier run."""
        self._courses.extend(Course(size, low, high, kept=True) for size, low, high in known)
        self._ended, self.fit = len(known), fit

    @property
    def outlived_seconds(self) -> float:
        """An age that enough tasks have been seen to outlive, before any has been seen to end; 0 for none."""
        return min(course.low for course in self._scouts) if len(self._scouts) == _SCOUTS else 0.0

    def _scout(self, course: Course) -> None:
        """Keep the few tasks that were seen running at the greatest ages."""
        if course not in self._scouts:
            self._scouts.append(course)
            if len(self._scouts) > _SCOUTS:
                self._scouts.remove(min(self._scouts, key=lambda scout: scout.low))

    def _hear(self, news: int) -> None:
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
        course.kept = False
        self._ended -= course.ended

    def _sample(self) -> list[tuple[Course, int]]:
        """The tasks of which anything is known, in the order in which they began, with their weights."""
        every = -(-len(self._courses) // _MOST_WEIGHED)
        return [
            (course, 1 if course.ended else every)
            for place, course in enumerate(self._courses)
            if course.ended or (course.low > 0.0 and place % every == 0)
        ]


def _first_fit(sample: Sequence[tuple[Course, int]]) -> Fit:
    """Something to start from: the middles of what is known of the ended tasks."""
    ended = [course for course, _ in sample if course.ended]
    logs = [0.5 * math.log(max(course.low, course.high / 2) * course.high) for course in ended]
    mean = sum(logs) / len(logs)
    scatter = sum((log - mean) ** 2 for log in logs) + _PRIOR_SIGMA**2
    return Fit(mean, math.sqrt(scatter / (len(logs) + 1)))


def _fitted(fit: Fit, sample: Sequence[tuple[Course, int]]) -> tuple[Fit, list[_Guess]]:
    """The likeliest fit for the sample, coming from `fit`, and what the last but one makes of each task."""
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
    # Tasks of which only one end is known may draw mean and deviation ever further that way.
    least, most = (math.log(seconds) - worth(0, fit.offset) for seconds in (_LEAST_SECONDS, _MOST_SECONDS))
    mu = min(max(fit.mu + fit.sigma * mean, least), most)
    return Fit(mu, min(max(sigma, _LEAST_SIGMA), _MOST_SIGMA), fit.offset, max(number - blur, 0.5))


def _with_offset(fit: Fit, guesses: Sequence[_Guess]) -> Fit:
    """The fit with the overhead under which durations scatter least, if that is no accident.

    Each task counts for as much as its looks have told: what a fit fills in for the rest can only speak for that fit.
    """
    ended = [guess for guess in guesses if guess.course.ended and guess.variance < 1.0]
    points = [
        (1.0 - guess.variance, fit.mu + worth(guess.course.size, fit.offset) + fit.sigma * guess.mean, guess)
        for guess in ended
    ]
    told = sum(part for part, _, _ in points)
    if not told:
        return fit
    blur = fit.sigma**2 * sum(part * guess.variance for part, _, guess in points) + _LEAST_SIGMA**2
    known = [(part, log, guess.course.size) for part, log, guess in points]
    found = [(*_scatter(known, told, offset), offset) for offset in _OFFSETS]
    scatter, mean, offset = min(found)
    if 0.5 * told * math.log((found[0][0] + blur) / (scatter + blur)) < _OFFSET_EVIDENCE:
        scatter, mean, offset = found[0]
    if offset == fit.offset:
        return fit
    return Fit(mean, math.sqrt((scatter + blur + _PRIOR_SIGMA**2) / (told + 1)), offset, fit.told)


def _scatter(known: Sequence[tuple[float, float, int]], told: float, offset: float) -> tuple[float, float]:
    """The sum of squares that is left of the logarithms with this overhead, and their mean."""
    first = second = 0.0
    for part, log, size in known:
        rest = log - worth(size, offset)
        first += part * rest
        second += part * rest * rest
    return max(second - first * first / told, 0.0), first / told


def _change(guesses: Sequence[_Guess]) -> tuple[Course | None, bool]:
    """The first task of a change that at least two ended ones bear witness to, and whether one may be under way."""
    suspect = False
    for shift in (_SHIFT, -_SHIFT):
        total, ended, first = 0.0, 0, 0
        for place, guess in enumerate(guesses):
            evidence = shift_evidence(guess.low, guess.high, guess.mean, shift)
            total += min(evidence, _MOST_EVIDENCE)
            ended += guess.course.ended
            if total <= 0.0:
                total, ended, first = 0.0, 0, place + 1
        if total > _ALARM and ended > 1:
            return guesses[first].course, False
        suspect = suspect or total > _SUSPICION
    return None, suspect
