"""A limit that nobody tells, learned from what is let through and what is refused.

Until a first refusal it doubles again and again. A refusal shows a ceiling: the limit drops just below it, comes near
it again for as long as it is trusted, and then tries what lies beyond, quicker and quicker. How long it is trusted is
a matter of price. A refusal at the value v closes the gate for P seconds, and so costs P v requests. A ceiling that
was at b and now is at v costs b - v requests a second from when it is back at b until that is found out, half the time
T between two trials later. If it comes back every R seconds on average, and one that was never higher doubles every D
seconds, then what is lost per second is

    P v / T + T / 2 ((b - v) / R + v / D),     and is least for     T = sqrt(2 P / ((b / v - 1) / R + 1 / D)),

the law of the square root, as for any inspection that has a price. Each trial in vain makes the return less likely:
R grows with their number. So nobody can have both: where each refusal costs seconds, to find a limit raised within
seconds takes a share P / T of the limit as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

DOUBLING_SECONDS: Final = 1.0
DROP: Final = 0.03
"""After a refusal the limit is below its ceiling by this share."""
TRIAL_SECONDS: Final = 2.0
"""So long into a trial the limit is beyond its ceiling by DROP, and from there on by the cube of the time."""
REFUTED: Final = 1.2
"""Beyond a ceiling by this factor there is none."""
RETURN_SECONDS: Final = 600.0
RISE_SECONDS: Final = 1800.0
"""R and D of the text above."""
_FIRST_TIMES: Final = 4.0
_NEXT_TIMES: Final = 4.0
"""A ceiling that is not exact is tried after so many times P, and so many times later each time it is met again: then
the trials that make it exact cost no more than a share of the time that has passed."""
_MOST_MET: Final = 20
_LEAST_TRUST_SECONDS: Final = 0.4
_FRESH_SECONDS: Final = 3.0
_MOST_EARLY: Final = 2
"""Each cut that comes before the last could show its worth goes deeper, twice and four times as DROP at most."""
_PROVEN_SECONDS: Final = 6.0
_SAME: Final = 0.2
_LONGEST_STEP_SECONDS: Final = 1.0


class Limit:
    """A number (`value`) between `least` and `most`, with the `ceiling` beyond which requests were refused, if known.

    `exact`: what refusals show of it can be trusted at once. `learned` is what `to_json` of an earlier one gave: it
    begins there, and not with `start`.
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
        known = learned or {}
        self._least = least
        self._most = most
        self._exact = exact
        self.ceiling = _positive(known.get("ceiling"))
        self._best = _positive(known.get("best")) or 0.0  # the ceiling that has stood, before it fell
        self._trust_seconds = _positive(known.get("trust_seconds")) or _LEAST_TRUST_SECONDS
        self._age_seconds = 0.0  # of the ceiling, counted while the limit holds requests back
        self._met = self._early = 0
        self._climbing = False  # from a ceiling that no longer stands to the best
        self._cut_at = self._grown_at = -math.inf
        below = math.inf if self.ceiling is None else (1 - DROP) * self.ceiling
        self._set(min(_positive(known.get("value")) or start, below))

    def to_json(self) -> dict[str, float | None]:
        """What was learned."""
        known = {"ceiling": self.ceiling, "best": self._best or None, "trust_seconds": self._trust_seconds}
        return {"value": self.value, **known}

    def trying(self, at: float) -> bool:
        """Whether what lies beyond all that was let through was just being tried at `at` (steady seconds)."""
        beyond = self.ceiling is None or self._climbing or self.value > self.ceiling
        return beyond and at - self._grown_at < _LONGEST_STEP_SECONDS

    def fresh(self, at: float) -> bool:
        """Whether it had only just been lowered at `at`."""
        return at - self._cut_at < min(_FRESH_SECONDS, self._trust_seconds)

    def grow(self, at: float) -> None:
        """Something was let through at `at` that this limit had held back until then."""
        seconds = min(at - self._grown_at, _LONGEST_STEP_SECONDS) if self._grown_at > -math.inf else 0.0
        self._grown_at = at
        doubled = self.value * 2 ** (seconds / DOUBLING_SECONDS)
        below = math.inf if self.ceiling is None else (1 - DROP) * self.ceiling
        if self.ceiling is None or self.value < below:
            self._set(min(doubled, below))
            return
        self._climbing = False
        self._age_seconds += seconds
        beyond = self._age_seconds - self._trust_seconds
        self._set(self.ceiling * (1 + DROP * (beyond / (TRIAL_SECONDS if beyond > 0 else self._trust_seconds)) ** 3))
        if self.value > REFUTED * self.ceiling:
            self._climbing = self._best > self.value
            self.ceiling = self._best if self._climbing else None
            self._age_seconds, self._met = 0.0, 0

    def cut(self, ceiling: float, at: float, *, lost_seconds: float) -> None:
        """Requests were refused, which cost `lost_seconds` until `at`; `ceiling` is the most that is let through."""
        old = self.ceiling
        self._early = min(self._early + 1, _MOST_EARLY) if self.fresh(at) else 0
        ceiling *= 1 - DROP * (2**self._early - 1)
        self._met = self._met + 1 if old is not None and abs(ceiling / old - 1) <= _SAME else 0
        if old is not None:
            if at - self._cut_at - lost_seconds > _PROVEN_SECONDS and old > (1 - _SAME) * self._best:
                self._best = old
            if self.value > old:  # a trial does not undo what has stood, and shows a little more than there is
                ceiling = old + max(0.0, ceiling - old) / (1 + self._met)
        self.ceiling = max(ceiling, self._least)
        self._trust_seconds = self._worth_trying_after(self.ceiling, lost_seconds)
        self._age_seconds, self._climbing = 0.0, False
        self._grown_at = self._cut_at = at
        self._set((1 - DROP) * self.ceiling)

    def _worth_trying_after(self, ceiling: float, lost_seconds: float) -> float:
        """T of the text above, and less for as long as the ceiling is known roughly."""
        fallen = max(0.0, self._best / ceiling - 1)
        hazard = fallen / (RETURN_SECONDS * max(1, self._met)) + 1 / RISE_SECONDS
        seconds = math.sqrt(2 * lost_seconds / hazard)
        if not self._exact:
            seconds = min(seconds, _FIRST_TIMES * lost_seconds * _NEXT_TIMES ** min(self._met, _MOST_MET))
        return max(seconds, _LEAST_TRUST_SECONDS)

    def _set(self, value: float) -> None:
        self.value = min(max(value, self._least), self._most)


def _positive(number: Any) -> float | None:
    """The number, if it is one that a limit can have."""
    return float(number) if isinstance(number, int | float) and 0 < number < math.inf else None
