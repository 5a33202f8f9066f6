"""When to poll a task next.

The objective over all tasks is the least expected lateness plus a price per poll: `schedule` has the formula, and
`load` derives the price from what the API permits and from whether items wait for a slot. The price is proportional to
the duration of tasks of that model and length, so one rule serves tasks of a fifth of a second and of an hour. Without
data, and for a task that outlives all known ones, polls come at ages that grow by a constant factor; until the first
task has ended, only a few are polled on behalf of all. A due poll is delayed if what was learned meanwhile shows that
it is too early.

A schedule that polls only when a task has almost certainly ended would never learn that tasks have become quicker.
Hence one task in twenty is polled once at an age at which few have ended.

When more polls are due than can be sent, each second of delay costs, for each task, the probability that it has already
ended. So the next poll goes to the task with the greatest probability. For a waiting task it approaches 1, so each task
gets its turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from batcher.pacing.distribution import Course, Distribution
from batcher.pacing.durations import Durations
from batcher.pacing.load import SPARSELY, Load
from batcher.pacing.schedule import growth

SHORTEST_SECONDS: Final = 0.05
LONGEST_SECONDS: Final = 600.0
FIRST_SECONDS: Final = 0.25
"""Age at the first poll, without data."""
OVERDUE_SECONDS: Final = 600.0
"""A task without progress for this long counts as stuck, while few durations are known."""
OVERDUE_LEAST_SECONDS: Final = 120.0
OVERDUE_TIMES: Final = 5.0
"""With enough data, a task counts as stuck after this many times the 99th percentile for its model and length."""
_OVERDUE_SAMPLE_SIZE: Final = 10
_OVERDUE_SHARE: Final = 0.99
_WORTH_WAITING: Final = 0.1
"""A due poll is delayed only if it is early by more than this share of the whole wait."""
_EXPLORED: Final = 1 / 20
_FEW: Final = 0.16
"""Such a poll comes at an age at which at most this share of the tasks has ended."""
_JITTER: Final = 0.2
"""The first poll is shifted by this many deviations each way: tasks begun together are not polled together, and the
bounds of their durations differ."""
_DIGITS: Final = 4


class Pace:
    """Schedules the polls of one task and records their outcomes. Ages are seconds since the task was accepted."""

    __slots__ = ("_chance", "_course", "_durations", "_from", "_polls")

    def __init__(self, durations: Durations, course: Course) -> None:
        self._durations = durations
        self._course = course
        self._polls = 0
        self._from: float | None = None  # the age and the chance of the latest `next_poll_seconds`
        self._chance = 0.0

    def next_poll_seconds(self, age_seconds: float, chance: float, load: Load = SPARSELY) -> float:
        """Seconds from this age to the next poll, if the task is still running; `chance` is uniform from 0 to 1."""
        self._from, self._chance = age_seconds, chance
        known = self._durations.known
        at = self._cold_age(age_seconds, load) if known is None else self._scheduled_age(known, age_seconds, load)
        return min(max(at - age_seconds, SHORTEST_SECONDS), LONGEST_SECONDS)

    def early_seconds(self, age_seconds: float, load: Load = SPARSELY) -> float:
        """Seconds by which a poll at this age is too early, given what was learned since `next_poll_seconds`; or 0."""
        if self._from is None:
            return 0.0
        planned = self.next_poll_seconds(self._from, self._chance, load)
        early = self._from + planned - age_seconds
        return early if early > _WORTH_WAITING * planned else 0.0

    def running(self, age_seconds: float) -> None:
        """Record a poll: the task was running at this age."""
        self._polls += 1
        self._durations.running(self._course, age_seconds)

    def ended(self, age_seconds: float, took_seconds: tuple[float, float] | None = None) -> None:
        """Record a poll: the task had succeeded by this age. `took_seconds` bounds its duration, if known."""
        low, high = self._course.low, age_seconds
        if took_seconds is not None and took_seconds[0] <= high and took_seconds[1] >= low:
            low, high = max(low, took_seconds[0]), min(high, took_seconds[1])
        self._durations.ended(self._course, low, high)

    def gain(self, age_seconds: float) -> float:
        """Expected gain of a poll at this age: the probability that the task has ended since its last poll."""
        known, low = self._durations.known, self._course.low
        if age_seconds <= low:
            return 0.0
        if known is None:
            return 1.0 - low / age_seconds
        running_then = 1.0 - known.ended_by(self._course.size, low)
        running_now = 1.0 - known.ended_by(self._course.size, age_seconds)
        return 1.0 - running_now / running_then if running_then > 0.0 else 1.0

    def overdue_seconds(self) -> float:
        """Seconds without progress after which the task counts as stuck."""
        known = self._durations.known
        if known is None or known.sample_size < _OVERDUE_SAMPLE_SIZE:
            return OVERDUE_SECONDS
        return max(OVERDUE_LEAST_SECONDS, OVERDUE_TIMES * known.quantile(self._course.size, _OVERDUE_SHARE))

    def _cold_age(self, age: float, load: Load) -> float:
        """The age of the next poll, without data."""
        age = max(age, self._durations.outlived_seconds)
        return max(age * (1.0 + growth(load.poll_cost(age))), FIRST_SECONDS)

    def _scheduled_age(self, known: Distribution, age: float, load: Load) -> float:
        """The age of the next poll, given known durations."""
        size = self._course.size
        if self._polls == 0 and self._chance < _EXPLORED:
            early = known.quantile(size, _FEW * (1.0 - self._chance / _EXPLORED))
            if early > age:
                return early
        at = known.next_poll(size, age, load.poll_cost(known.median(size)))
        if self._polls == 0:
            at *= 1.0 + _JITTER * known.scatter * (2.0 * self._chance - 1.0)
        return at


class Pacing:
    """Learned task durations of one account, by model."""

    def __init__(self) -> None:
        self._models: dict[str | None, Durations] = {}

    def begin(self, model: str | None, size: int) -> Pace:
        """The pace of a task with a text of `size` characters, accepted just now. Its duration is learned."""
        durations = self._of(model)
        return Pace(durations, durations.begin(size))

    def join(self, model: str | None, size: int) -> Pace:
        """The pace of a task that was not polled from its beginning. Its duration is not learned."""
        return Pace(self._of(model), Course(size))

    def to_json(self) -> list[dict[str, Any]]:
        """The learned durations as JSON values: for each model the latest ended tasks, rounded."""
        return [
            {"model": model, "tasks": [_rounded(*task) for task in tasks]}
            for model, durations in self._models.items()
            if (tasks := durations.ended_tasks())
        ]

    @classmethod
    def from_json(cls, learned: list[Mapping[str, Any]]) -> Pacing:
        """Restore what `to_json` returned."""
        pacing = cls()
        for entry in learned:
            pacing._of(entry["model"]).remember([(size, low, high) for size, low, high in entry["tasks"]])
        return pacing

    def _of(self, model: str | None) -> Durations:
        return self._models.setdefault(model, Durations())


def _rounded(size: int, low: float, high: float) -> list[float]:
    return [size, float(f"{low:.{_DIGITS}g}"), float(f"{high:.{_DIGITS}g}")]
