"""Virtual time, which passes only when everybody waits, and hasty time, for programs that wait for real servers."""

from __future__ import annotations

import asyncio
import heapq
import itertools
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


class HastyClock(Clock):
    """A clock on which a pause of the event loop of a millisecond takes `seconds`, as long as somebody waits.

    A busy machine slows it as it slows the program, so that nothing is late for want of a processor.
    """

    def __init__(self, seconds: float = 1.0, *, start_at: float = START_AT) -> None:
        self._seconds = seconds
        self._start_at = start_at
        self._at = 0.0
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._ticking: asyncio.Task[None] | None = None

    def now(self) -> float:
        return self._start_at + self._at

    def steady(self) -> float:
        return self._at

    async def sleep(self, seconds: float) -> None:
        over = anyio.Event()
        self._call(seconds, over.set)
        await over.wait()

    def limit(self, seconds: float) -> anyio.CancelScope:
        scope = anyio.CancelScope()
        self._call(seconds, scope.cancel)
        return scope

    def _call(self, seconds: float, what: Callable[[], object]) -> None:
        if seconds <= 0:
            what()
            return
        heapq.heappush(self._waiting, (self._at + seconds, next(self._order), what))
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.get_running_loop().create_task(self._tick())

    async def _tick(self) -> None:
        while self._waiting:
            await asyncio.sleep(0.001)
            self._at += self._seconds
            while self._waiting and self._waiting[0][0] <= self._at:
                heapq.heappop(self._waiting)[2]()
