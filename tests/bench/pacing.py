"""How many polls tasks take and how late their end is found, by the learned pacing, by fixed rules, and at best.

`python -m tests.bench.pacing` prints the figures, all from simulated time. A learner is shown only what a run would
see: that a task was running at the age of one look and had ended by the next. What is best is found by dynamic
programming over the true distribution, and tried on the very same durations.
"""

from __future__ import annotations

import heapq
import math
import random
import sys
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import Final, Protocol

from batcher.pacing.load import SPARSE
from batcher.pacing.pace import Pacing
from batcher.pacing.schedule import best_nexts

KNOWN: Final = 50
"""Tasks count once this many have ended."""
Draw = Callable[[random.Random], tuple[int, float]]
"""The length of a text, and how long its task takes in seconds."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One task of a simulated run."""

    size: int
    seconds: float
    looks: int
    late: float
    after: int  # tasks that had ended before it began


class Watcher(Protocol):
    """Decides when one task is polled."""

    def next_poll_seconds(self, age_seconds: float, chance: float) -> float: ...
    def early_seconds(self, age_seconds: float) -> float: ...
    def running(self, age_seconds: float) -> None: ...
    def ended(self, age_seconds: float) -> None: ...


class Rule:
    """Polls at intervals that begin with `first` and grow by `factor` up to `most`, regardless of the answers."""

    def __init__(self, first: float, factor: float = 1.0, most: float = math.inf) -> None:
        self._interval, self._factor, self._most = first, factor, most

    def next_poll_seconds(self, age_seconds: float, chance: float) -> float:  # noqa: ARG002
        """The next interval."""
        interval, self._interval = self._interval, min(self._interval * self._factor, self._most)
        return interval

    def early_seconds(self, age_seconds: float) -> float:  # noqa: ARG002
        """A fixed rule has no second thoughts."""
        return 0.0

    def running(self, age_seconds: float) -> None:
        """Nothing is learned."""

    def ended(self, age_seconds: float) -> None:
        """Nothing is learned."""


def simulate(draw: Callable[[int], tuple[int, float]], begin: Callable[[int], Watcher], together: int, tasks: int,
             seed: int = 0) -> list[Seen]:  # fmt: skip
    """Run `tasks` tasks, `together` open at a time, and return them in the order of their beginning.

    `draw` is asked for each task by its number, `begin` for a watcher by the length of its text.
    """
    dice = random.Random(seed)
    seen: list[Seen | None] = [None] * tasks
    due: list[tuple[float, int, float]] = []  # when, which task, when it began
    watched: list[tuple[int, float, int, Watcher]] = []
    looks = [0] * tasks
    ended = 0

    def open_next(now: float) -> None:
        number = len(watched)
        size, seconds = draw(number)
        watcher = begin(size)
        watched.append((size, seconds, ended, watcher))
        heapq.heappush(due, (now + watcher.next_poll_seconds(0.0, dice.random()), number, now))

    for _ in range(min(together, tasks)):
        open_next(0.0)
    while due:
        now, number, began = heapq.heappop(due)
        size, seconds, after, watcher = watched[number]
        age = now - began
        if (early := watcher.early_seconds(age)) > 0.0:
            heapq.heappush(due, (now + early, number, began))
            continue
        looks[number] += 1
        if age < seconds:
            watcher.running(age)
            heapq.heappush(due, (now + watcher.next_poll_seconds(age, dice.random()), number, began))
            continue
        watcher.ended(age)
        ended += 1
        seen[number] = Seen(size, seconds, looks[number], age - seconds, after)
        if len(watched) < tasks:
            open_next(now)
    return [one for one in seen if one is not None]


def learned_run(draw: Draw, together: int, tasks: int, seed: int, pacing: Pacing | None = None) -> list[Seen]:
    """A simulated run with pacing that knows nothing, or what it is given."""
    pacing, source = pacing or Pacing(), random.Random(f"tasks {seed}")
    return simulate(lambda _: draw(source), lambda size: pacing.begin("model", size), together, tasks, seed)


def steady(seen: Sequence[Seen]) -> list[Seen]:
    """The tasks that began when enough had ended to learn from."""
    return [one for one in seen if one.after >= KNOWN]


def looks_of(seen: Sequence[Seen]) -> float:
    """Looks a task."""
    return fmean(one.looks for one in seen)


def lateness_of(seen: Sequence[Seen]) -> float:
    """Mean lateness in seconds."""
    return fmean(one.late for one in seen)


def share_of(seen: Sequence[Seen]) -> float:
    """Mean lateness as a share of how long the task took."""
    return fmean(one.late / one.seconds for one in seen)


class Best:
    """The optimum for a known distribution: lateness by number of polls, for durations drawn from it."""

    def __init__(self, draw: Draw, *, draws: int = 4000) -> None:
        source = random.Random("the truth")
        drawn = Counter(draw(source)[1] for _ in range(draws))
        self._ages = [0.0, *sorted(drawn)]
        ended = list(accumulate(drawn[age] / draws for age in self._ages))
        spent = list(accumulate(age * drawn[age] / draws for age in self._ages))
        median = self._ages[bisect_left(ended, 0.5)]
        costs = [median * SPARSE * 1.25**power for power in range(-12, 10)]
        self._nexts = [best_nexts(self._ages, ended, spent, cost) for cost in costs]

    def lateness(self, seconds: Sequence[float], looks: float) -> float:
        """The mean lateness for these durations, of the best schedules with this number of polls per task."""
        points = sorted(self._tried(nexts, seconds) for nexts in self._nexts)
        place = min(max(bisect_right(points, (looks, 0.0)), 1), len(points) - 1)
        (fewer, later), (more, sooner) = points[place - 1], points[place]
        return later + (sooner - later) * (looks - fewer) / (more - fewer) if more > fewer else later

    def curve(self, seconds: Sequence[float]) -> list[tuple[float, float]]:
        """Polls and lateness of the best schedules, from few polls to many."""
        return sorted(self._tried(nexts, seconds) for nexts in self._nexts)

    def _tried(self, nexts: list[float], seconds: Sequence[float]) -> tuple[float, float]:
        looks, late = 0, 0.0
        plan = [0.0]
        while plan[-1] < self._ages[-1]:
            plan.append(nexts[bisect_right(self._ages, plan[-1]) - 1])
        for one in seconds:
            place = next((place for place, age in enumerate(plan) if age >= one), None)
            looks += place if place is not None else len(plan)
            late += (plan[place] if place is not None else max(1.5 * plan[-1], one)) - one
        return looks / len(seconds), late / len(seconds)


def lognormal(median: float, sigma: float) -> Draw:
    """Durations that have nothing to do with the text."""
    return lambda source: (source.randint(20, 2000), median * math.exp(sigma * source.gauss(0.0, 1.0)))


def constant(seconds: float) -> Draw:
    """Durations that are all the same."""
    return lambda source: (source.randint(20, 2000), seconds)


def by_length(per_character: float, overhead: float = 0.0, sigma: float = 0.0) -> Draw:
    """Durations that follow the text's length, up to a scatter."""

    def draw(source: random.Random) -> tuple[int, float]:
        size = source.randint(20, 2000)
        return size, (overhead + per_character * size) * math.exp(sigma * source.gauss(0.0, 1.0))

    return draw


def two_kinds(quick: float, slow: float) -> Draw:
    """A third of the tasks are quick, the others slow: nothing like the shape that is assumed."""
    return lambda source: (100, (quick if source.random() < 1 / 3 else slow) * math.exp(0.15 * source.gauss(0.0, 1.0)))


def exponential(mean: float) -> Draw:
    """Durations without memory."""
    return lambda source: (100, max(source.expovariate(1.0 / mean), 0.01 * mean))


CASES: Final[dict[str, Draw]] = {
    "log-normal, median 0.2 s, sigma 0.8": lognormal(0.2, 0.8),
    "log-normal, median 2 s, sigma 0.8": lognormal(2.0, 0.8),
    "log-normal, median 200 s, sigma 0.8": lognormal(200.0, 0.8),
    "log-normal, median 2 s, sigma 0.3": lognormal(2.0, 0.3),
    "constant 0.5 s": constant(0.5),
    "20 ms a character": by_length(0.02),
    "20 ms a character, +-5 %": by_length(0.02, sigma=0.05),
    "1 s and 10 ms a character, +-5 %": by_length(0.01, 1.0, 0.05),
    "exponential, mean 2 s": exponential(2.0),
    "a third about 1 s, the others 6 s": two_kinds(1.0, 6.0),
}
RULES: Final[dict[str, Callable[[int], Watcher]]] = {
    "every 2 s": lambda _: Rule(2.0),
    "1 s, doubling to 30 s": lambda _: Rule(1.0, 2.0, 30.0),
}


def _say(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")


def compare(name: str, draw: Draw, together: int, seeds: int) -> None:
    """Print the figures of one distribution, by the learned pacing, the fixed rules, and at best."""
    runs = [steady(learned_run(draw, together, 400 + 4 * together, seed)) for seed in range(seeds)]
    seen = [one for run in runs for one in run]
    best = Best(draw).lateness([one.seconds for one in seen], looks_of(seen))
    ratio = f"{lateness_of(seen) / best:.2f}" if looks_of(seen) > 1.4 and best > 0.0 else "   -"
    _say(f"{name}, {together} open")
    _say(
        f"    {'learned':22} {looks_of(seen):6.2f} looks {lateness_of(seen):8.3f} s late {share_of(seen):7.1%}"
        f"   {ratio} of the best at as many looks"
    )
    for rule, begin in RULES.items():
        source = random.Random(f"tasks {name}")
        fixed = simulate(lambda _, source=source: draw(source), begin, together, 1000)  # type: ignore[misc]
        _say(f"    {rule:22} {looks_of(fixed):6.2f} looks {lateness_of(fixed):8.3f} s late {share_of(fixed):7.1%}")


def change(factor: float, together: int, seeds: int) -> tuple[list[float], list[float]]:
    """Looks and lateness, in medians of their time, of the tasks from 50 before to 150 after durations change."""
    turn, looks, late = 200, [0.0] * 200, [0.0] * 200
    for seed in range(seeds):
        source, pacing = random.Random(f"change {seed}"), Pacing()

        def draw(number: int, source: random.Random = source) -> tuple[int, float]:
            return lognormal(2.0 if number < turn else 2.0 * factor, 0.8)(source)

        seen = simulate(draw, lambda size, pacing=pacing: pacing.begin("m", size), together, 400, seed)  # type: ignore[misc]
        for place, one in enumerate(seen[turn - 50 : turn + 150]):
            looks[place] += one.looks / seeds
            late[place] += one.late / (2.0 if place < 50 else 2.0 * factor) / seeds
    return looks, late


def tell_change(factor: float, together: int, seeds: int) -> None:
    """Print how pacing takes a change of durations."""
    looks, late = change(factor, together, seeds)
    _say(f"durations x {factor:g} from one task on, {together} open (log-normal, sigma 0.8; lateness in medians)")
    for first, last in ((-50, 0), (0, 5), (5, 10), (10, 20), (20, 30), (30, 50), (50, 75), (75, 100), (100, 150)):
        part = slice(50 + first, 50 + last)
        _say(f"    tasks {first + 1:4} to {last:4} {fmean(looks[part]):6.2f} looks {fmean(late[part]):6.2f} late")


def main() -> None:
    """Print everything."""
    for name, draw in CASES.items():
        compare(name, draw, 300, 4)
        compare(name, draw, 5, 12)
    _say()
    source = random.Random("curve")
    draw = lognormal(2.0, 0.8)
    _say("the best there is, log-normal, median 2 s, sigma 0.8")
    for looks, late in Best(draw).curve([draw(source)[1] for _ in range(20_000)])[::2]:
        _say(f"    {looks:5.2f} looks {late:6.3f} s late  {'*' * round(30 * late)}")
    _say()
    for factor in (10.0, 0.1):
        for together in (5, 50):
            tell_change(factor, together, 20)
    began = time.process_time()
    looks = sum(one.looks for one in learned_run(draw, 50, 3000, 0))
    _say(f"CPU: {1e6 * (time.process_time() - began) / looks:.0f} us a look, simulation included")


if __name__ == "__main__":
    main()
