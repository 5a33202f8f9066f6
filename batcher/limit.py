"""A limit that nobody tells, learned from what is let through and what is refused.

Until a first refusal it doubles again and again. A refusal shows a ceiling, which is remembered: the limit drops just
below it, comes near again, stays about it for long, and leaves it behind ever faster if nothing is refused there. That
is the cubic curve of RFC 9438, over time instead of round trips. The more often a ceiling is met, the longer it is
trusted; the longer a refusal closes the gate, the rarer it is tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

DOUBLING_SECONDS: Final = 1.0
DROP: Final = 0.03
"""After a refusal the limit is below its ceiling by this share."""
REFUTED: Final = 1.2
"""Beyond a ceiling by this factor there is none."""
FIRST_TRUST_SECONDS: Final = 1.0
MOST_TRUST_SECONDS: Final = 5.0
"""A ceiling is left behind in three times its trust, so a limit that was raised tenfold is found within 20 s."""
COST: Final = 0.03
"""Where a refusal closes the gate, a ceiling is trusted until trying it takes no more than this share of the time."""
_FIRST_TIMES: Final = 5
"""At first it is trusted for so many times as long as a refusal closes the gate."""
_SAME: Final = 0.2
_LONGEST_STEP_SECONDS: Final = 1.0


class Limit:
    """A number (`value`) between `least` and `most`, with the `ceiling` beyond which requests were refused, if known.

    `learned` is what `to_json` of an earlier one gave: it begins there, and not with `start`.
    """

    def __init__(self, start: float, *, least: float, most: float, learned: Mapping[str, Any] | None = None) -> None:
        known = learned or {}
        self._least = least
        self._most = most
        self.ceiling = _positive(known.get("ceiling"))
        self._trust_seconds = _positive(known.get("trust_seconds")) or FIRST_TRUST_SECONDS
        self._age_seconds = 0.0
        self._grown_at = -math.inf
        below = math.inf if self.ceiling is None else (1 - DROP) * self.ceiling
        self._set(min(_positive(known.get("value")) or start, below))

    def to_json(self) -> dict[str, float | None]:
        """What was learned."""
        return {"value": self.value, "ceiling": self.ceiling, "trust_seconds": self._trust_seconds}

    def grow(self, at: float) -> None:
        """Something was let through at `at` (steady seconds) that this limit had held back until then."""
        seconds = min(at - self._grown_at, _LONGEST_STEP_SECONDS) if self._grown_at > -math.inf else 0.0
        self._grown_at = at
        if self.ceiling is None:
            self._set(self.value * 2 ** (seconds / DOUBLING_SECONDS))
            return
        self._age_seconds += seconds
        self._set(self.ceiling * (1 + DROP * (self._age_seconds / self._trust_seconds - 1) ** 3))
        if self.value > REFUTED * self.ceiling:
            self.ceiling = None

    def cut(self, ceiling: float, at: float, *, lost_seconds: float) -> None:
        """Something was refused at `at`, for which the API asked to stay away for `lost_seconds`; `ceiling` is the most
        that is let through."""
        if self.ceiling is None or abs(ceiling / self.ceiling - 1) > _SAME:
            self._trust_seconds = max(FIRST_TRUST_SECONDS, _FIRST_TIMES * lost_seconds)
        elif self._age_seconds < self._trust_seconds / 4:
            self._trust_seconds = max(FIRST_TRUST_SECONDS, self._trust_seconds / 2)
        elif self._age_seconds >= self._trust_seconds / 2:
            self._trust_seconds = min(2 * self._trust_seconds, max(MOST_TRUST_SECONDS, lost_seconds / COST))
        self.ceiling = max(ceiling, self._least)
        self._age_seconds, self._grown_at = 0.0, at
        self._set((1 - DROP) * self.ceiling)

    def _set(self, value: float) -> None:
        self.value = min(max(value, self._least), self._most)


def _positive(number: Any) -> float | None:
    """The number, if it is one that a limit can have."""
    return float(number) if isinstance(number, int | float) and 0 < number < math.inf else None
