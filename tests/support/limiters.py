"""Providers that limit requests in one of several ways, and clients that send to them, in virtual or real time."""

from __future__ import annotations

import json
import math
from bisect import bisect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final, Literal, Protocol

import anyio

from batcher.provider.parsing import retry_after
from batcher.throttle.gate import Gate
from tests.support.virtual import VirtualClock, run_virtually

Hint = Literal["none", "seconds", "date"]
NETWORK_SECONDS: Final = 0.01
"""Mean one-way latency."""
SERVICE_SECONDS: Final = 0.1
"""Mean time to serve a request."""
WORKERS: Final = 128
LOOP_WORKERS: Final = 16


class Limiter(Protocol):
    """A provider's rule for admitting requests."""

    def enter(self, at: float) -> float | None:
        """None if a request that arrives at `at` is admitted, else the seconds until it may try again."""

    def leave(self) -> None:
        """An admitted request has been served."""


@dataclass
class TokenBucket:
    """`rate` a second, of which up to `burst` can be saved up."""

    rate: float
    burst: float
    _tokens: float = field(default=math.inf, init=False)
    _at: float = field(default=0.0, init=False)

    def enter(self, at: float) -> float | None:
        self._tokens = min(self.burst, self._tokens + (at - self._at) * self.rate)
        self._at = at
        if self._tokens < 1:
            return (1 - self._tokens) / self.rate
        self._tokens -= 1
        return None

    def leave(self) -> None:
        """Requests in flight do not count."""


@dataclass
class FixedWindow:
    """At most `most` in each window of `seconds`; the count restarts with each window."""

    most: int
    seconds: float = 1.0
    _window: float = field(default=-1.0, init=False)
    _count: int = field(default=0, init=False)

    def enter(self, at: float) -> float | None:
        window = at // self.seconds
        if window != self._window:
            self._window, self._count = window, 0
        if self._count >= self.most:
            return (window + 1) * self.seconds - at
        self._count += 1
        return None

    def leave(self) -> None:
        """Requests in flight do not count."""


@dataclass
class SlidingWindow:
    """At most `most` in any span of `seconds`."""

    most: int
    seconds: float = 1.0
    _entered: deque[float] = field(default_factory=deque, init=False)

    def enter(self, at: float) -> float | None:
        while self._entered and self._entered[0] <= at - self.seconds:
            self._entered.popleft()
        if len(self._entered) >= self.most:
            return self._entered[0] + self.seconds - at
        self._entered.append(at)
        return None

    def leave(self) -> None:
        """Requests in flight do not count."""


@dataclass
class AtOnce:
    """At most `most(at)` in flight."""

    most: Callable[[float], int]
    _inside: int = field(default=0, init=False)

    def enter(self, at: float) -> float | None:
        if self._inside >= self.most(at):
            return 1.0
        self._inside += 1
        return None

    def leave(self) -> None:
        self._inside -= 1


@dataclass
class Provider:
    """A limiter behind a network. Records what was admitted, refused, and sent inside a `Retry-After` (`too_early`)."""

    limiter: Limiter
    hint: Hint
    clock: VirtualClock
    passed: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    too_early: int = 0
    _not_before: float = 0.0

    async def serve(self) -> tuple[bool, float | None]:
        """Serve one request: whether it was admitted, and the `Retry-After` of its refusal in seconds."""
        self.too_early += self.clock.steady() < self._not_before
        await self._travel()
        arrived_at = self.clock.steady()
        wait = self.limiter.enter(arrived_at)
        if wait is None:
            self.passed.append(arrived_at)
            await self.clock.sleep(SERVICE_SECONDS * (0.5 + self.clock.chance()))
            self.limiter.leave()
            await self._travel()
            return True, None
        self.refused.append(arrived_at)
        header = self._header(wait)
        await self._travel()
        asked = retry_after(header, self.clock.now())
        self._not_before = max(self._not_before, self.clock.steady() + (asked or 0.0))
        return False, asked

    async def _travel(self) -> None:
        await self.clock.sleep(NETWORK_SECONDS * (0.5 + self.clock.chance()))

    def _header(self, wait: float) -> str | None:
        if self.hint == "none":
            return None
        return str(math.ceil(wait)) if self.hint == "seconds" else formatdate(math.ceil(self.clock.now() + wait))


Client = Callable[[Provider, int], Awaitable[object]]
"""Sends a number of requests as quickly as it can, and returns when all were admitted."""


async def adaptive(provider: Provider, items: int, *, gate: Gate | None = None) -> Gate:
    """Our client: many workers, one gate. Returns the gate."""
    shared = gate or Gate(provider.clock, WORKERS)

    async def once() -> bool:
        async with shared.slot() as sent:
            passed, asked = await provider.serve()
        if passed:
            shared.succeeded(sent)
        else:
            shared.close(sent, asked)
        return passed

    async def work(left: Iterator[int]) -> None:
        for _ in left:
            while not await once():
                pass

    await _together(work, items, WORKERS)
    return shared


async def backing_off(provider: Provider, items: int, *, heeding: bool = False, workers: int = LOOP_WORKERS) -> None:
    """The usual loop: after a refusal each worker backs off on its own, twice as long each time, with jitter.

    `heeding`: the worker waits for `Retry-After` instead, if there is one.
    """

    async def work(left: Iterator[int]) -> None:
        for _ in left:
            tries = 0
            passed, asked = await provider.serve()
            while not passed:
                tries += 1
                backoff = min(0.5 * 2**tries, 30.0) * (0.5 + provider.clock.chance() / 2)
                await provider.clock.sleep(asked if heeding and asked is not None else backoff)
                passed, asked = await provider.serve()

    await _together(work, items, workers)


async def heeding(provider: Provider, items: int, *, workers: int = LOOP_WORKERS) -> None:
    """The same loop; each worker obeys `Retry-After`."""
    await backing_off(provider, items, heeding=True, workers=workers)


async def _together(work: Callable[[Iterator[int]], Coroutine[None, None, None]], items: int, workers: int) -> None:
    left = iter(range(items))
    async with anyio.create_task_group() as group:
        for _ in range(workers):
            group.start_soon(work, left)


@dataclass(frozen=True)
class Trial:
    """Result of a client's work: duration, when requests were admitted, refusals, requests inside a `Retry-After`."""

    seconds: float
    passed: list[float]
    refused: int
    too_early: int

    def rate(self, begin: float = 0.0, end: float = math.inf) -> float:
        """Requests admitted per second between two times."""
        end = min(end, self.seconds)
        return (bisect(self.passed, end) - bisect(self.passed, begin)) / (end - begin)

    @property
    def refused_share(self) -> float:
        """Refusals per admitted request."""
        return self.refused / len(self.passed)


def attempt(
    client: Client, limiter: Limiter, hint: Hint, *, seed: int, items: int = 10**9, seconds: float = math.inf
) -> Trial:
    """Run a client for a number of items, or for some seconds, in virtual time."""

    async def work() -> Trial:
        clock = VirtualClock(seed)
        provider = Provider(limiter, hint, clock)
        with anyio.move_on_after(seconds):
            await client(provider, items)
        return Trial(clock.steady(), provider.passed, len(provider.refused), provider.too_early)

    return run_virtually(work)


def attempt_again(limiter: Callable[[], Limiter], hint: Hint, *, seed: int, items: int) -> Trial:
    """Run our client with the values learned by an earlier run of 3,000 items."""
    saved: list[str] = []

    async def first(provider: Provider, items: int) -> None:
        saved.append(json.dumps((await adaptive(provider, items)).to_json()))

    async def second(provider: Provider, items: int) -> None:
        await adaptive(provider, items, gate=Gate(provider.clock, WORKERS, learned=json.loads(saved[0])))

    attempt(first, limiter(), hint, seed=seed, items=3000)
    return attempt(second, limiter(), hint, seed=seed + 1000, items=items)


def permitted_at_once(at_once: int) -> float:
    """Requests per second of a client that always has `at_once` in flight."""
    return at_once / (SERVICE_SECONDS + 2 * NETWORK_SECONDS)
