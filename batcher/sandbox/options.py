"""The settings of the sandbox, including the failures that it simulates."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass

from batcher.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """Prices, speed and simulated failures of the sandbox. By default nothing fails.

    Raises:
        UsageError: a value is out of its range.
    """

    credits: float = 1_000_000.0  # balance of a new store
    price: float = 1.0  # credits per UTF-8 byte of text
    speed: float = 1.0  # rendering speed relative to a plausible provider
    concurrent: int = 0  # maximum concurrent creates, 429 beyond it; 0: no limit
    rate: float = 0.0  # maximum creates per second, 429 with Retry-After beyond it; 0: no limit
    fail: float = 0.0  # share of tasks that fail
    drop: float = 0.0  # share of creates that are charged and never answered
    url_seconds: float = 60.0  # lifetime of an audio URL
    seed: int = 0  # selects which tasks fail and which creates are dropped

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = -math.inf if name in ("url_seconds", "seed") else 0
            most = 1 if name in ("fail", "drop") else math.inf
            if not (math.isfinite(value) and least <= value <= most):
                bounds = "a finite number" if least < 0 else "from 0 to 1" if most == 1 else "0 or more"
                raise UsageError(f"the sandbox's --{name.replace('_', '-')} must be {bounds}, not {value:g}")
        if self.speed == 0:
            raise UsageError("the sandbox's --speed must be above 0")

    def chance(self, what: str, number: int) -> float:
        """A pseudorandom number from 0 to 1, determined by the seed and the arguments."""
        digest = hashlib.sha256(f"{self.seed}:{what}:{number}".encode()).digest()
        return int.from_bytes(digest[:6]) / 2**48


DEFAULTS = SandboxOptions()
