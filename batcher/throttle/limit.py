"""A limit that the API enforces but does not publish."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

DOUBLING_SECONDS: Final = 1.0
"""Time in which a limit doubles while it has no ceiling or is well below it."""
MARGIN: Final = 0.03
"""Share by which a limit stays below its ceiling: at 0, random variation alone would be refused."""
TRIAL_SECONDS: Final = 2.0
"""Time into a trial after which the limit exceeds its ceiling by `MARGIN`; the excess grows with the cube of time."""
REFUTED: Final = 1.2
"""Multiple of the ceiling at which a trial ends: the ceiling is obsolete."""
SAME: Final = 0.2
"""Two ceilings that differ by no more than this share count as the same one, met again."""
RETURN_SECONDS: Final = 600.0
"""Expected time until a ceiling that halved returns; grows with the number of trials in vain."""
RISE_SECONDS: Final = 1800.0
"""Expected time until a limit that was never higher doubles."""
FIRST_TRUST: Final = 4.0
"""First trust in a measured ceiling, in multiples of the time that its refusal cost."""
NEXT_TRUST: Final = 4.0
"""Factor by which that grows each time the ceiling is met again, so that early trials correct a rough measurement."""
LEAST_TRUST_SECONDS: Final = 0.4
"""Shortest trust, where a refusal costs next to nothing."""
LONGEST_STEP_SECONDS: Final = 1.0
"""Longest time that one success can count for, after a pause in which the limit was not used."""
_MOST_MET: Final = 20  # keeps the power finite


class Limit:
    """A number (`value`) between `least` and `most`, and the `ceiling` above which requests were refused, if known.

    Without a ceiling the value doubles. A refusal sets the ceiling: the value drops to just below it, approaches it for
    as long as the ceiling is trusted, then tries what lies beyond. A refuted ceiling gives way to the
    one that stood before it fell. `exact`: a refusal shows the ceiling exactly, so early trials are unnecessary.
    `learned` is the `to_json` of an earlier run.

    A refusal costs P seconds of work. If the ceiling rises about every R seconds, trials T apart lose P / T to
    refusals and T / 2R to late discovery, so T = sqrt(2 P R) loses least.
    """

    def __init__(
        self,
        start: float,
        *,
        least: float,
        most: float,
        exact: bool = False,
        learned: Mapping[str, Any] | None = None,
    ) -> None:
        saved = learned or {}
        self._range = (least, most)
        self._exact = exact
        self.ceiling = _positive(saved.get("ceiling"))
        self._best = _positive(saved.get("best")) or 0.0  # ceiling to return to, the last that stood before it fell
        self._trust_seconds = _positive(saved.get("trust_seconds")) or LEAST_TRUST_SECONDS
        self._age_seconds = 0.0  # of the ceiling, counted only while the limit is in use
        self._met = 0
        self._cut_at = self._grown_at = -math.inf
        self.value = self._below_ceiling(_positive(saved.get("value")) or start)

    def to_json(self) -> dict[str, float | None]:
        """What was learned."""
        best = self._best or None
        return {"value": self.value, "ceiling": self.ceiling, "best": best, "trust_seconds": self._trust_seconds}

    def trying(self, at: float) -> bool:
        """Whether the limit was rising beyond every known ceiling at `at` (steady seconds)."""
        beyond = self.ceiling is None or self.value > self.ceiling
        return beyond and at - self._grown_at < LONGEST_STEP_SECONDS

    def grow(self, at: float) -> None:
        """Rise after a success at `at` (steady seconds) that this limit had delayed."""
        seconds = min(at - self._grown_at, LONGEST_STEP_SECONDS) if self._grown_at > -math.inf else 0.0
        self._grown_at = at
        if self.ceiling is None or self.value < _below(self.ceiling):
            self._double(seconds)
            return
        self._age_seconds += seconds
        beyond = self._age_seconds - self._trust_seconds
        progress = beyond / (TRIAL_SECONDS if beyond > 0 else self._trust_seconds)
        self.value = self._within(self.ceiling * (1 + MARGIN * progress**3))
        if self.value > REFUTED * self.ceiling:
            self.ceiling = None
            self._met = 0

    def _double(self, seconds: float) -> None:
        value = self.value * 2 ** (seconds / DOUBLING_SECONDS)
        if self.ceiling is None and self.value < _below(self._best) <= value:
            self.ceiling = self._best
            self._age_seconds = 0.0
        self.value = self._below_ceiling(value)

    def cut(self, ceiling: float, at: float, *, lost_seconds: float) -> None:
        """Set the ceiling at `at` (steady seconds), after refusals that cost `lost_seconds`."""
        old = self.ceiling
        self._met = self._met + 1 if old is not None and abs(ceiling / old - 1) <= SAME else 0
        if old is not None:
            if at - self._cut_at > lost_seconds and old > (1 - SAME) * self._best:
                self._best = old
            if self.value > old:  # a trial in vain: average its measurement with those before
                ceiling = old + (ceiling - old) / (1 + self._met)
        self.ceiling = max(ceiling, self._range[0])
        self._trust_seconds = self._worth_trying_after(self.ceiling, lost_seconds)
        self._age_seconds = 0.0
        self._grown_at = self._cut_at = at
        self.value = self._below_ceiling(math.inf)

    def _worth_trying_after(self, ceiling: float, lost_seconds: float) -> float:
        fallen = max(0.0, self._best / ceiling - 1)
        rises_per_second = fallen / (RETURN_SECONDS * max(1, self._met)) + 1 / RISE_SECONDS
        seconds = math.sqrt(2 * lost_seconds / rises_per_second)
        if not self._exact:
            seconds = min(seconds, FIRST_TRUST * lost_seconds * NEXT_TRUST ** min(self._met, _MOST_MET))
        return max(seconds, LEAST_TRUST_SECONDS)

    def _below_ceiling(self, value: float) -> float:
        return self._within(value if self.ceiling is None else min(value, _below(self.ceiling)))

    def _within(self, value: float) -> float:
        least, most = self._range
        return min(max(value, least), most)


def _below(ceiling: float) -> float:
    return (1 - MARGIN) * ceiling


def _positive(number: Any) -> float | None:
    return float(number) if isinstance(number, int | float) and 0 < number < math.inf else None
