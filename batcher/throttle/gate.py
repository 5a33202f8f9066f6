"""The gates through which all requests of an account pass."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio

from batcher.clock import Clock
from batcher.throttle.closure import Closure
from batcher.throttle.flights import Flights, Sent
from batcher.throttle.judge import Judge
from batcher.throttle.limit import Limit
from batcher.throttle.spacing import Spacing

__all__ = ["Gate", "Sent", "Throttle"]

FIRST_AT_ONCE: Final = 16
"""Requests in flight before anything is learned."""
FIRST_PER_SECOND: Final = 30.0
"""Rate before anything is learned."""
LEAST_PER_SECOND: Final = 0.2
"""Lowest rate, so that recovery after long trouble takes seconds, not hours."""
PATIENCE_SECONDS: Final = 120.0
"""How long nothing but failures may come back before a run gives up."""


class Gate:
    """Admits the requests of one class: at most `most_at_once` in flight and `most_per_second`, none while closed.

    Ask for a `slot`, then report the answer with `succeeded`, `close` or `failed`. `learned` is the `to_json` of the
    same class in an earlier run.
    """

    def __init__(
        self,
        clock: Clock,
        most_at_once: int,
        *,
        most_per_second: float | None = None,
        learned: Mapping[str, Any] | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        saved = learned or {}
        most = math.inf if most_per_second is None else most_per_second
        self.size = most_at_once
        self._clock = clock
        self._at_once = Limit(FIRST_AT_ONCE, least=1, most=most_at_once, exact=True, learned=saved.get("at_once"))
        self._rate = Limit(
            FIRST_PER_SECOND, least=min(LEAST_PER_SECOND, most), most=most, learned=saved.get("per_second")
        )
        self._closure = Closure(clock, patience_seconds)
        self._spacing = Spacing(clock, self._rate)
        self._flights = Flights(self._at_once)
        self._judge = Judge(self._at_once, self._rate)
        self._queue = anyio.Lock(fast_acquire=True)

    def to_json(self) -> dict[str, dict[str, float | None]]:
        """What was learned, for the next run."""
        return {"at_once": self._at_once.to_json(), "per_second": self._rate.to_json()}

    @property
    def closed(self) -> bool:
        """Whether no request may leave now, regardless of the limits."""
        return self._closure.seconds > 0

    @property
    def closed_seconds(self) -> float:
        """Seconds until the first request may leave, 0 if the gate is open."""
        return self._closure.seconds

    @property
    def room(self) -> int:
        """Number of requests that may leave now."""
        return 0 if self.closed else max(0, min(self._spacing.room, self._free))

    @property
    def per_second(self) -> float:
        """Requests per second that the limits permit, as far as they are known."""
        latency = self._judge.latency_seconds
        return min(self._rate.value, self._at_once.value / latency) if latency > 0 else self._rate.value

    @property
    def _free(self) -> int:
        return self._flights.probe_room(self._closure.since_at) if self._closure.probing else self._flights.room

    async def turn(self) -> None:
        """Wait until a request may leave. For a single waiter; where there are several, each takes a `slot`."""
        while True:
            if self.closed:
                await self.opened()
            elif self._judge.pending:
                self._judge.decide(self._clock.steady(), self._closure, self._flights)
                self._spacing.restart()
            elif self.room:
                return
            elif self._free <= 0:
                await self._flights.landing(self._clock)
            else:
                await self._clock.sleep(self._spacing.wait_seconds)

    async def opened(self) -> None:
        """Wait until the gate is open, and a little longer if it was closed."""
        await self._closure.opened()

    def enter(self) -> Sent:
        """Start a request, for which there must be `room`; call `leave` as soon as it is answered."""
        self._spacing.take()
        return self._flights.start(self._clock.steady())

    def leave(self, sent: Sent) -> None:
        """The request is no longer in flight."""
        self._flights.end(sent)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Sent]:
        """Wait for room, first come first served, and hold it for one request."""
        async with self._queue:
            await self.turn()
            sent = self.enter()
        try:
            yield sent
        finally:
            self.leave(sent)

    def succeeded(self, sent: Sent) -> None:
        """Record that the API admitted the request, regardless of the rest of its answer."""
        self._closure.succeeded(sent.at)
        self._judge.succeeded(sent, self._clock.steady(), outdated=sent.at < self._closure.since_at)

    def close(self, sent: Sent, retry_after_seconds: float | None = None) -> None:
        """The request was refused (429): close for `Retry-After`, or else briefly, and longer each time."""
        asked = retry_after_seconds or 0.0
        self._closure.refused(sent.at, asked)
        self._judge.refused(sent, self._clock.steady(), asked)
        self._spacing.restart(self.closed_seconds)

    def failed(self) -> bool:
        """The request had no usable answer: close. Returns whether that has lasted beyond patience."""
        exhausted = self._closure.failed()
        self._spacing.restart(self.closed_seconds)
        return exhausted


class Throttle:
    """The gates of one account's requests. `learned` is the `to_json` of an earlier run.

    `create_rate` and `poll_rate` are upper bounds in requests per second; None leaves the rate to be learned.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        creates_at_once: int,
        polls_at_once: int,
        downloads_at_once: int,
        create_rate: float | None = None,
        poll_rate: float | None = None,
        learned: Mapping[str, Any] | None = None,
    ) -> None:
        saved = learned or {}
        self.create = Gate(clock, creates_at_once, most_per_second=create_rate, learned=saved.get("create"))
        self.poll = Gate(clock, polls_at_once, most_per_second=poll_rate, learned=saved.get("poll"))
        self.download = Gate(clock, downloads_at_once, learned=saved.get("download"))

    def to_json(self) -> dict[str, Any]:
        """What was learned, by class of requests."""
        gates = {"create": self.create, "poll": self.poll, "download": self.download}
        return {name: gate.to_json() for name, gate in gates.items()}
