"""How many requests of a class at once, how quickly one after another, and not before when.

A gate stands before each class of requests (create, poll, download). What the API permits is not told, so the gate
finds out: it lets ever more through for as long as nothing is refused, and stays just below what was let through once
something is. Whether requests at once or requests per second are counted over there is not told either; the gate has a
`Limit` for both, and a refusal lowers the one that it speaks against. "Later" in one answer holds for the whole class:
`Retry-After` is the least time, and requests begin again one by one, a little later than they might.
"""

from __future__ import annotations

import math
from bisect import bisect, bisect_left
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio

from batcher.clock import Bell, Clock
from batcher.limit import Limit
from batcher.tally import Tally

FIRST_AT_ONCE: Final = 16
FIRST_PER_SECOND: Final = 30.0
LEAST_PER_SECOND: Final = 0.2
BURST_SECONDS: Final = 0.1
"""Starts that were missed are made up for, but no more than fall into this time."""
JITTER: Final = 0.1
"""The time between two starts varies by this share of itself, either way."""
FIRST_PAUSE_SECONDS: Final = 0.1
"""The first wait after a refusal that names no time: what helps is the lower limit, not the wait."""
FIRST_WAIT_SECONDS: Final = 1.0
"""The first wait after a request that got no answer."""
LONGEST_WAIT_SECONDS: Final = 60.0
_MOST_DOUBLINGS: Final = 10
SPREAD: Final = 0.05
"""Beginning again is put off by chance, by up to this share of the wait."""
PATIENCE_SECONDS: Final = 120.0
"""For so long may nothing but failures come back before a run gives up until the next one."""
OVERDUE_SECONDS: Final = 600.0
OVERDUE_TIMES: Final = 10.0

_TOLERANCE_SECONDS: Final = 1e-6  # a sleep may end that much early by rounding
_MEMORY_SECONDS: Final = 2.0
_NEWS: Final = 5
"""So many answers since limits were lowered make the next refusal a new event and not the rest of the last."""
_STUBBORN: Final = 4
"""So many refusals in a row are one, however little was let through between them."""
_EVIDENCE: Final = 3
"""So many let through amid as many others show that a refusal was not for how many there were."""
_FIRST_CUT: Final = 0.75
"""What was permitted when a first refusal comes, as a share of the rate: until then that grows beyond it unseen."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was let through.

    When it left (steady seconds), how many were on their way then, itself included, and whether the rate had held it.
    """

    at: float
    together: int
    paced: bool


class Gate:
    """The gate of one class of requests: at most `most_at_once` and `most_per_second`, and none while it is closed.

    `learned` is what `to_json` of an earlier gate of the same class gave, if there is one.
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
        known = learned or {}
        most = math.inf if most_per_second is None else most_per_second
        self.size = most_at_once
        self._clock = clock
        self._at_once = Limit(FIRST_AT_ONCE, least=1, most=most_at_once, learned=known.get("at_once"))
        self._per_second = Limit(
            FIRST_PER_SECOND, least=min(LEAST_PER_SECOND, most), most=most, learned=known.get("per_second")
        )
        self._patience_seconds = patience_seconds
        self._queue = anyio.Lock(fast_acquire=True)
        self._left = Bell()
        self._in_flight = 0
        self._next_at: float | None = None  # before then the rate lets nothing start
        self._opens_at = -math.inf
        self._shut_at = -math.inf
        self._cut_at = -math.inf
        self._passed: deque[tuple[float, float]] = deque()  # when what was let through lately left and was answered
        self._refusals = 0  # closings since something was let through
        self._refusals_since_cut = 0
        self._ahead: Sent | None = None
        self._failing_since_at: float | None = None

    def to_json(self) -> dict[str, dict[str, float | None]]:
        """What was learned, in a few numbers."""
        return {"at_once": self._at_once.to_json(), "per_second": self._per_second.to_json()}

    @property
    def closed(self) -> bool:
        """Whether no request may leave now, whatever the limits are."""
        return self._clock.steady() < self._opens_at

    @property
    def closed_seconds(self) -> float:
        """How long until the first request may leave again."""
        return max(0.0, self._opens_at - self._clock.steady())

    @property
    def room(self) -> int:
        """How many requests may leave now."""
        if self.closed:
            return 0
        now = self._clock.steady() + _TOLERANCE_SECONDS
        due = math.floor(1 + (now - self._due_at(now)) * self._per_second.value)
        return max(0, min(due, self._free))

    def _due_at(self, now: float) -> float:
        """From when the rate counts what may start: what was missed long ago is not made up for."""
        return now if self._next_at is None else max(self._next_at, now - BURST_SECONDS)

    @property
    def _free(self) -> int:
        if self._refusals > 1:  # whether the trouble is over is for one request to find out
            return int(self._ahead is None)
        return round(self._at_once.value) - self._in_flight

    async def turn(self) -> None:
        """Wait until a request may leave. For one waiter; where there are many, each takes a `slot`."""
        while self.room == 0:
            if self.closed:
                await self.opened()
            elif self._free <= 0:
                await self._left.wait(self._clock)
            else:
                now = self._clock.steady()
                await self._clock.sleep(self._due_at(now) - now)

    async def opened(self) -> None:
        """Wait until the gate is open, and a little longer if it was closed."""
        while (wait := self._opens_at - self._clock.steady()) > 0:
            await self._clock.sleep(wait * (1 + SPREAD * self._clock.chance()))

    def enter(self) -> Sent:
        """Let one request leave, now that there is `room`; `leave` is owed as soon as it is answered."""
        now = self._clock.steady()
        apart = (1 + JITTER * (2 * self._clock.chance() - 1)) / self._per_second.value
        self._next_at = self._due_at(now) + apart
        self._in_flight += 1
        sent = Sent(at=now, together=self._in_flight, paced=self._next_at > now)
        if self._refusals > 1:
            self._ahead = sent
        return sent

    def leave(self, sent: Sent) -> None:
        """The request is no longer on its way."""
        self._in_flight -= 1
        if sent is self._ahead:
            self._ahead = None
        self._left.ring()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Sent]:
        """The leave of one request, had in the order of asking as soon as there is room."""
        async with self._queue:
            await self.turn()
            sent = self.enter()
        try:
            yield sent
        finally:
            self.leave(sent)

    def succeeded(self, sent: Sent) -> None:
        """An answer came that means business: more may be let through, and the next refusal waits briefly again."""
        self._failing_since_at = None
        if sent.at < self._cut_at:
            return  # it left before limits were lowered, so it says nothing about the limits now
        self._refusals = 0
        now = self._clock.steady()
        self._passed.append((sent.at, now))
        while self._passed[0][0] < sent.at - max(_MEMORY_SECONDS, 2 * _NEWS / self._per_second.value):
            self._passed.popleft()
        if sent.paced:
            self._per_second.grow(now)
        if sent.together >= math.floor(self._at_once.value):
            self._at_once.grow(now)

    def close(self, sent: Sent, retry_after_seconds: float | None = None) -> None:
        """The answer to `sent` was "later": nothing leaves for as long as it says, else briefly, longer each time.

        The refusals of one burst are one event: those that left before the gate closed lower no limit again.
        """
        asked = retry_after_seconds or 0.0
        anew = sent.at >= max(self._cut_at, self._shut_at)
        if anew:
            self._shut(FIRST_PAUSE_SECONDS)
            self._refusals_since_cut += 1
        self._close_until(self._clock.steady() + asked)
        if anew and (len(self._passed) >= _NEWS or self._refusals_since_cut >= _STUBBORN):
            self._cut(sent, asked)

    def failed(self) -> bool:
        """No answer came, or none that makes sense. Returns whether that has now lasted beyond patience."""
        now = self._clock.steady()
        if self._failing_since_at is None:
            self._failing_since_at = now
        self._shut(FIRST_WAIT_SECONDS)
        return now - self._failing_since_at >= self._patience_seconds

    def _shut(self, first_seconds: float) -> None:
        """Close for twice as long each time, until something is let through."""
        wait = min(first_seconds * 2 ** min(self._refusals, _MOST_DOUBLINGS), LONGEST_WAIT_SECONDS)
        if not self.closed:
            self._refusals += 1
        self._shut_at = self._clock.steady()
        self._close_until(self._shut_at + wait)

    def _close_until(self, at: float) -> None:
        self._opens_at = max(self._opens_at, at)
        self._next_at = max(self._next_at or self._opens_at, self._opens_at)  # nothing is made up for after that

    def _cut(self, sent: Sent, lost_seconds: float) -> None:
        """Lower the limit that the refusal of `sent` speaks against, or both while that cannot be told."""
        now = self._clock.steady()
        together = self._let_through_together()
        crowded = sum(number >= sent.together for number in together) < _EVIDENCE
        if crowded and together:
            self._at_once.cut(max(together), now, lost_seconds=lost_seconds)
        if sent.paced or not crowded or not together:
            self._per_second.cut(self._permitted(), now, lost_seconds=lost_seconds)
        self._passed.clear()
        self._refusals_since_cut = 0
        self._cut_at = now

    def _let_through_together(self) -> list[int]:
        """How many requests that were let through were on their way when each of them left: others don't count."""
        left = sorted(at for at, _ in self._passed)
        answered = sorted(at for _, at in self._passed)
        return [number - bisect(answered, at) for number, at in enumerate(left, 1)]

    def _permitted(self) -> float:
        """The rate that was let through before a refusal; a little less than was tried, and not below half of it."""
        tried = self._per_second.value
        if self._cut_at == -math.inf and self._per_second.ceiling is None:
            return _FIRST_CUT * tried
        if len(self._passed) < _NEWS:
            return tried / 2
        left = sorted(at for at, _ in self._passed)
        seconds = left[-1] - left[0]
        passed = max(_rate(left, seconds), _rate(left, seconds / 4))
        most = 0.98 if seconds > _MEMORY_SECONDS / 2 else 0.9  # in a short time luck has a larger share
        return min(max(passed, tried / 2), most * tried)


def _rate(starts: Sequence[float], seconds: float) -> float:
    """Starts per second in the last `seconds` of these, which are in order."""
    lately = starts[bisect_left(starts, starts[-1] - seconds) :]
    return (len(lately) - 1) / max(lately[-1] - lately[0], _TOLERANCE_SECONDS)


class Throttle:
    """The gates of one account's requests. `learned` is what `to_json` of an earlier one gave, if there is one.

    Rates are in requests per second at most; None leaves them to be found out.
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
        known = learned or {}
        self.create = Gate(clock, creates_at_once, most_per_second=create_rate, learned=known.get("create"))
        self.poll = Gate(clock, polls_at_once, most_per_second=poll_rate, learned=known.get("poll"))
        self.download = Gate(clock, downloads_at_once, learned=known.get("download"))

    def to_json(self) -> dict[str, Any]:
        """What was learned, in a few numbers by class of requests."""
        gates = {"create": self.create, "poll": self.poll, "download": self.download}
        return {name: gate.to_json() for name, gate in gates.items()}


class Places:
    """How many tasks may be open at the provider at once, those of earlier runs included."""

    def __init__(self, limit: int, changed: Bell, tally: Tally) -> None:
        self._limit = limit
        self._changed = changed
        self._tally = tally

    @property
    def free(self) -> int:
        """Places that are left."""
        return max(0, self._limit - self._tally.open)

    @property
    def none_taken(self) -> bool:
        """Whether no task is open."""
        return self._tally.open <= 0

    def take(self, number: int = 1) -> None:
        """Fill places; tasks of earlier runs may fill more than there are."""
        self._tally.open += number

    def release(self) -> None:
        """A task has ended, is overdue, or was never made."""
        self._tally.open -= 1
        self._changed.ring()


def overdue_seconds(longest_seconds: float) -> float:
    """Without a word of progress for so long, a task is taken for stuck, when the longest so far took that long."""
    return max(OVERDUE_SECONDS, OVERDUE_TIMES * longest_seconds)
