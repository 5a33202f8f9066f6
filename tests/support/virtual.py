"""Virtual time, which passes only when everybody waits: hours in an instant, and the same every time."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import anyio

from batcher.clock import Clock

T = TypeVar("T")
START_AT: Final = 1_700_000_000.0


class _Skipping(selectors.DefaultSelector):
    """A selector that advances the time instead of waiting."""

    at = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everyone waits for something that will never happen")
        self.at += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Seconds of virtual time since the loop was made."""
        return self._skipping.at


class VirtualClock(Clock):
    """A clock on the loop's time, with a seeded random source."""

    def __init__(self, seed: int = 0) -> None:
        self.dice = random.Random(seed)

    def now(self) -> float:
        return START_AT + self.steady()

    def steady(self) -> float:
        return asyncio.get_running_loop().time()

    def chance(self) -> float:
        return self.dice.random()


def run_virtually(function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run the function on virtual time and return its result."""
    return anyio.run(function, *arguments, backend_options={"loop_factory": VirtualLoop})
