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
    """The share between `low` and `high`, without the cancellation of a difference of numbers near 1."""
    return below(-low) - below(-high) if low > 0.0 else below(high) - below(low)


def truncated(low: float, high: float) -> tuple[float, float]:
    """Mean and variance between `low` and `high`; either may be infinite, but not both on the same side.

    Standard formulas for the doubly truncated normal distribution (Johnson, Kotz, Balakrishnan, Continuous Univariate
    Distributions 1, 10.1). A narrow interval counts as uniform, one in a far tail as a point at its nearer end.
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
    """Log-likelihood ratio of a value between `low` and `high` if the distribution is shifted by `shift`.

    `mean` is the mean between the two; in a narrow interval the ratio is a linear function of it.
    """
    if high - low < _NARROW:
        return shift * mean - shift * shift / 2
    now, moved = between(low, high), between(low - shift, high - shift)
    return math.log(max(moved, _NOTHING) / max(now, _NOTHING))
