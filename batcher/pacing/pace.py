"""When to look at a task next.

What is aimed at, for all tasks together, is the least expected lateness plus a price for each look (`schedule` has the
formula), with a price in proportion to what tasks of that model and length take: so the same rule serves tasks of a
fifth of a second and of an hour. While nothing is known, and for a task that outlives all that is known, looks come
at ages that grow by a constant factor; until the first has ended, a few are looked at for all. A look that is due is
put off if what other tasks have taught meanwhile says that it comes too early.

A schedule that always looks when a task has surely ended would never learn that tasks have become quicker. Hence one
task in twenty is looked at once at an age at which few have ended, and every second one while that brings surprises.

When more looks are due than can be made, every second of delay costs, for each task, the chance that it has already
ended: so the next look goes where that chance is greatest. It comes ever closer to 1 for a task that has to wait, so
each has its turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from batcher.pacing.durations import Course, Durations, Fit
from batcher.pacing.normal_distribution import below
from batcher.pacing.schedule import GROWTH, for_scatter

SHORTEST_SECONDS: Final = 0.05
LONGEST_SECONDS: Final = 600.0
FIRST_SECONDS: Final = 0.25
"""The first look at a task of which nothing is known."""
OVERDUE_SECONDS: Final = 600.0
"""Without progress for so long, a task of whose like little is known is taken for stuck."""
OVERDUE_LEAST_SECONDS: Final = 120.0
OVERDUE_TIMES: Final = 5.0
"""Where enough is known, it is for so many times as long as 99 in 100 tasks of its model and length take."""
_OVERDUE_TOLD: Final = 10.0
_Z_99: Final = 2.326
_JITTER: Final = 0.1
"""Looks are spread by so many deviations to either side, that tasks begun together are not all looked at together."""
_UNKNOWN_JITTER: Final = 0.15
_WORTH_WAITING: Final = 0.1
"""A look is put off only by more than this share of the whole wait."""
_EXPLORED: Final = 1 / 20
_EXPLORED_IN_SUSPICION: Final = 1 / 2
_DIGITS: Final = 4


class Pace:
    """The pace of looks at one task, and what they show. Ages count from the task's acceptance, in seconds."""

    __slots__ = ("_chance", "_course", "_durations", "_from", "_looks")

    def __init__(self, durations: Durations, course: Course) -> None:
        self._durations = durations
        self._course = course
        self._looks = 0
        self._from: float | None = None  # the age and the chance with which the next look was last asked for
        self._chance = 0.0

    def next_poll_seconds(self, age_seconds: float, chance: float) -> float:
        """Seconds from this age, at which the task may still run, to the next look; `chance` is even from 0 to 1."""
        self._from, self._chance = age_seconds, chance
        fit = self._durations.fit
        if fit is None:
            at = max(max(age_seconds, self._durations.outlived_seconds) * (1.0 + GROWTH), FIRST_SECONDS)
            seconds = (at - age_seconds) * (1.0 + _UNKNOWN_JITTER * (2.0 * chance - 1.0))
        else:
            seconds = self._known_look(fit, age_seconds, chance) - age_seconds
        return min(max(seconds, SHORTEST_SECONDS), LONGEST_SECONDS)

    def early_seconds(self, age_seconds: float) -> float:
        """How much too early a look at this age is, by what was learned since `next_poll_seconds` was asked; or 0."""
        if self._from is None:
            return 0.0
        planned = self.next_poll_seconds(self._from, self._chance)
        early = self._from + planned - age_seconds
        return early if early > _WORTH_WAITING * planned else 0.0

    def running(self, age_seconds: float) -> None:
        """A look showed that the task was running at this age."""
        self._looks += 1
        self._durations.running(self._course, age_seconds)

    def ended(self, age_seconds: float, took_seconds: tuple[float, float] | None = None) -> None:
        """A look showed that the task had ended well by this age, and perhaps that it took so much, least and most."""
        low, high = self._course.low, age_seconds
        if took_seconds is not None and took_seconds[0] <= high and took_seconds[1] >= low:
            low, high = max(low, took_seconds[0]), min(high, took_seconds[1])
        self._durations.ended(self._course, low, high)

    def gain(self, age_seconds: float) -> float:
        """How much a look at this age may tell: the chance, 0 to 1, that the task has ended since its last look."""
        fit, low = self._durations.fit, self._course.low
        if age_seconds <= low:
            return 0.0
        if fit is None:
            return 1.0 - low / age_seconds
        median, sigma = fit.median(self._course.size), fit.predictive_sigma
        if age_seconds / median <= 0.0:
            return 0.0  # so young that the share is no number any more
        running_then = below(-math.log(low / median) / sigma) if low / median > 0.0 else 1.0
        running_now = below(-math.log(age_seconds / median) / sigma)
        return 1.0 - running_now / running_then if running_then > 0.0 else 1.0

    def overdue_seconds(self) -> float:
        """Without a word of progress for longer than these seconds, the task is taken for stuck."""
        fit = self._durations.fit
        if fit is None or fit.told < _OVERDUE_TOLD:
            return OVERDUE_SECONDS
        most = fit.median(self._course.size) * math.exp(_Z_99 * fit.predictive_sigma)
        return max(OVERDUE_LEAST_SECONDS, OVERDUE_TIMES * most)

    def _known_look(self, fit: Fit, age: float, chance: float) -> float:
        """The age of the next look, given that durations are known."""
        median, sigma = fit.median(self._course.size), fit.predictive_sigma
        explored = _EXPLORED_IN_SUSPICION if self._durations.suspect else _EXPLORED
        if self._looks == 0 and chance < explored:
            early = median * math.exp(-sigma * (1.0 + 2.0 * chance / explored))
            if early > age:
                return early
        return median * for_scatter(sigma).next_poll(age / median) * math.exp(_JITTER * sigma * (2.0 * chance - 1.0))


class Pacing:
    """What one account's tasks have taught about their durations, by model."""

    def __init__(self) -> None:
        self._models: dict[str | None, Durations] = {}

    def begin(self, model: str | None, size: int) -> Pace:
        """The pace for a task with a text of `size` characters that was accepted just now; it is learned from."""
        durations = self._of(model)
        return Pace(durations, durations.begin(size))

    def join(self, model: str | None, size: int) -> Pace:
        """The pace for a task that nobody watched from its beginning: it is not learned from."""
        return Pace(self._of(model), Course(size))

    def to_json(self) -> list[dict[str, Any]]:
        """What was learned, as values that JSON has: for each model the fit and, shortened, the last ended tasks."""
        return [
            {"model": model, "fit": _fit_to_json(known.fit), "tasks": [_shortened(*task) for task in known.known()]}
            for model, known in self._models.items()
            if known.fit is not None
        ]

    @classmethod
    def from_json(cls, learned: list[Mapping[str, Any]]) -> Pacing:
        """What `to_json` gave, to go on from."""
        pacing = cls()
        for entry in learned:
            mu, sigma, offset, told = entry["fit"]
            fit = Fit(mu, sigma, math.inf if offset is None else offset, told)
            pacing._of(entry["model"]).remember([(size, low, high) for size, low, high in entry["tasks"]], fit)
        return pacing

    def _of(self, model: str | None) -> Durations:
        return self._models.setdefault(model, Durations())


def _fit_to_json(fit: Fit) -> list[float | None]:
    return [fit.mu, fit.sigma, None if fit.offset == math.inf else fit.offset, fit.told]


def _shortened(size: int, low: float, high: float) -> list[float]:
    return [size, float(f"{low:.{_DIGITS}g}"), float(f"{high:.{_DIGITS}g}")]
