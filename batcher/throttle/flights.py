"""Requests in flight."""

from __future__ import annotations

from dataclasses import dataclass

from batcher.clock import Clock, Wakeup
from batcher.throttle.limit import Limit


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """A request that left at `at` (steady seconds), when `together` were in flight, including itself."""

    at: float
    together: int


class Flights:
    """The requests in flight, at most `at_once` of them."""

    def __init__(self, at_once: Limit) -> None:
        self._at_once = at_once
        self._flying: set[Sent] = set()
        self._landed = Wakeup()

    @property
    def started(self) -> list[float]:
        """When each request in flight left (steady seconds)."""
        return [sent.at for sent in self._flying]

    @property
    def room(self) -> int:
        """Number of requests that may join; negative after the limit fell."""
        return round(self._at_once.value) - len(self._flying)

    def probe_room(self, since_at: float) -> int:
        """1 if no request that left after `since_at` is in flight, else 0."""
        return int(not any(sent.at >= since_at for sent in self._flying))

    def start(self, at: float) -> Sent:
        """Add a request that leaves at `at` (steady seconds)."""
        sent = Sent(at, len(self._flying) + 1)
        self._flying.add(sent)
        return sent

    def end(self, sent: Sent) -> None:
        """Remove a request, and wake whoever waits for room."""
        self._flying.discard(sent)
        self._landed.ring()

    async def landing(self, clock: Clock) -> None:
        """Wait until a request ends."""
        await self._landed.wait(clock)
