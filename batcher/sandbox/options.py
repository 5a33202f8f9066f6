"""How to rehearse trouble: the settings of the sandbox."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass

from batcher.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """What the sandbox charges, how quickly it works, and which trouble it makes. The defaults make none.

    Raises:
        UsageError: a value is out of its range.
    """

    credits: float = 1_000_000.0  # a new store's balance
    price: float = 1.0  # credits per UTF-8 byte of text
    speed: float = 1.0  # how many times faster than a plausible provider
    concurrent: int = 0  # creates handled at once before 429; 0: no limit
    rate: float = 0.0  # creates per second before 429 with Retry-After; 0: no limit
    fail: float = 0.0  # share of tasks that end as failed
    drop: float = 0.0  # share of creates that are charged and then get no answer
    url_seconds: float = 60.0  # how long an audio URL is good for
    seed: int = 0  # another seed, another choice of tasks to fail and creates to drop

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = -math.inf if name in ("url_seconds", "seed") else 0
            most = 1 if name in ("fail", "drop") else math.inf
            if not (math.isfinite(value) and least <= value <= most):
                raise UsageError(f"the sandbox's {name} cannot be {value}")
        if self.speed == 0:
            raise UsageError("the sandbox's speed must be above 0")

    def chance(self, what: str, number: int) -> float:
        """A number from 0 up to 1 that looks random, and is the same for the same seed and arguments."""
        digest = hashlib.sha256(f"{self.seed}:{what}:{number}".encode()).digest()
        return int.from_bytes(digest[:6]) / 2**48


DEFAULTS = SandboxOptions()
