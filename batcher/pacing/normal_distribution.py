"""The standard normal distribution, whole and truncated."""

from __future__ import annotations

import math
from typing import Final

_ROOT_2: Final = math.sqrt(2.0)
_ROOT_2_PI: Final = math.sqrt(2.0 * math.pi)
_NARROW: Final = 0.05
_NOTHING: Final = 1e-12


def density(z: float) -> float:
    """The density at `z`, which may be infinite."""
    return math.exp(-0.5 * z * z) / _ROOT_2_PI


def below(z: float) -> float:
    """The share of the distribution below `z`."""
    return 0.5 * math.erfc(-z / _ROOT_2)


def between(low: float, high: float) -> float:
    """The share between `low` and `high`, without the loss of digits that a difference near 1 would bring."""
    return below(-low) - below(-high) if low > 0.0 else below(high) - below(low)


def truncated(low: float, high: float) -> tuple[float, float]:
    """Mean and variance of what is left between `low` and `high`; either may be infinite, but not on the same side.

    From the standard formulas for the doubly truncated normal distribution (Johnson, Kotz, Balakrishnan, Continuous
    Univariate Distributions 1, 10.1); evenly spread in a narrow interval, all at the nearer end of a far one.
    """
    if high - low < _NARROW:
        return (low + high) / 2, (high - low) ** 2 / 12
    share = between(low, high)
    if share < _NOTHING:
        return (low if low > 0.0 else high), 0.0
    at_low, at_high = density(low), density(high)
    mean = (at_low - at_high) / share
    edges = (low * at_low if at_low else 0.0) - (high * at_high if at_high else 0.0)
    return mean, max(1.0 + edges / share - mean * mean, 0.0)


def shift_evidence(low: float, high: float, mean: float, shift: float) -> float:
    """How much likelier, as a logarithm, a value between `low` and `high` is if all values are moved by `shift`.

    `mean` is the mean between the two, of which the evidence is a linear function once they are close.
    """
    if high - low < _NARROW:
        return shift * mean - shift * shift / 2
    now, moved = between(low, high), between(low - shift, high - shift)
    return math.log(max(moved, _NOTHING) / max(now, _NOTHING))
