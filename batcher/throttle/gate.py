"""How many requests of a class at once, how quickly one after another, and not before when.

A gate stands before each class of requests (create, poll, download). What the API permits is not told, so the gate
finds out: it lets ever more through for as long as nothing is refused, and stays just below what was let through once
something is. Whether requests at once or requests per second are counted over there is not told either; the gate has a
`Limit` for both (`limit` says what the trials of a limit are worth), and a refusal lowers the one that it speaks
against, as far as can be told when the gate opens again. "Later" in one answer holds for the whole class:
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

from batcher.clock import Clock, Wakeup
from batcher.throttle.limit import Limit

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

_TOLERANCE_SECONDS: Final = 1e-6  # a sleep may end that much early by rounding
_MEMORY_SECONDS: Final = 12.0
_LATELY_SECONDS: Final = 1.0
"""A rate is that of so long before a refusal, or of as long as the silence after it lasts."""
_NEWS: Final = 5
"""Fewer answers than these since limits were lowered are no ground for lowering them again."""
CROWD: Final = 0.1
"""No more than this share of those let through went amid as many others, if that was what a refusal was for."""
ROUNDED_SECONDS: Final = 1.0
"""`Retry-After` speaks of whole seconds: so much of it may be for nothing."""
_CAREFUL: Final = 0.92
_BELOW_TRIED: Final = 0.98
"""What was refused at a rate is permitted at this share of it at most."""


@dataclass(frozen=True, slots=True, eq=False)
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
        self._at_once = Limit(FIRST_AT_ONCE, least=1, most=most_at_once, exact=True, learned=known.get("at_once"))
        self._per_second = Limit(
            FIRST_PER_SECOND, least=min(LEAST_PER_SECOND, most), most=most, learned=known.get("per_second")
        )
        self._patience_seconds = patience_seconds
        self._queue = anyio.Lock(fast_acquire=True)
        self._left = Wakeup()
        self._flying: set[Sent] = set()
        self._next_at: float | None = None  # before then the rate lets nothing start
        self._opens_at = -math.inf
        self._shut_at = -math.inf
        self._cut_at = -math.inf
        self._passed: deque[tuple[float, float]] = deque()  # when what was let through lately left and was answered
        self._refusals = 0  # closings since something was let through
        self._refused: list[Sent] = []  # since it was judged last
        self._refused_bound = self._was_crowded = False
        self._silent_since = math.inf  # since when nothing but refusals came back
        self._asked_seconds = 0.0
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
        return round(self._at_once.value) - len(self._flying)

    async def turn(self) -> None:
        """Wait until a request may leave. For one waiter; where there are many, each takes a `slot`."""
        while True:
            if self.closed:
                await self.opened()
            elif self._refused:
                self._judge()
            elif self.room:
                return
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
        due_at = self._due_at(now)
        sent = Sent(at=now, together=len(self._flying) + 1, paced=due_at > now - BURST_SECONDS)
        self._next_at = due_at + apart
        self._flying.add(sent)
        if self._refusals > 1:
            self._ahead = sent
        return sent

    def leave(self, sent: Sent) -> None:
        """The request is no longer on its way."""
        self._flying.discard(sent)
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
        now = self._clock.steady()
        self._passed.append((sent.at, now))
        if sent.at < self._shut_at:
            return  # it left before the last refusal, so it says nothing about the limits now
        self._refusals = 0
        self._silent_since = math.inf
        while self._passed[0][0] < sent.at - max(_MEMORY_SECONDS, 2 * _NEWS / self._per_second.value):
            self._passed.popleft()
        if sent.together >= math.floor(self._at_once.value):
            self._at_once.grow(now)
        elif sent.paced and self._rate_is_used():
            self._per_second.grow(now)

    def _rate_is_used(self) -> bool:
        """Whether it is the rate that holds back what is let through."""
        number = min(len(self._passed), max(2, round(0.5 * self._per_second.value)))
        seconds = self._passed[-1][0] - self._passed[-number][0]
        return seconds * 0.7 * self._per_second.value <= number - 1

    def close(self, sent: Sent, retry_after_seconds: float | None = None) -> None:
        """The answer to `sent` was "later": nothing leaves for as long as it says, else briefly, longer each time.

        The refusals of one burst are one event, which is judged when the gate opens again: by then it is known how
        many of the burst were let through.
        """
        now = self._clock.steady()
        asked = retry_after_seconds or 0.0
        if sent.at >= self._shut_at:
            self._silent_since = min(self._silent_since, now)
            self._shut(FIRST_PAUSE_SECONDS)
        if sent.at >= self._cut_at:
            if not self._refused:
                self._refused_bound = sent.together >= math.floor(self._at_once.value)
            self._refused.append(sent)
            self._asked_seconds = max(self._asked_seconds, asked)
        self._close_until(now + asked)

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

    def _judge(self) -> None:
        """Lower what the refusals since the gate was open last speak against."""
        refused, self._refused = sorted(self._refused, key=lambda sent: sent.at), []
        now = self._clock.steady()
        latency = self._passed[-1][1] - self._passed[-1][0] if self._passed else 0.0
        # The gate was closed, then the first has to come back, and those that were refused have another turn.
        lost = now - self._shut_at + latency + len(refused) / self._per_second.value
        numbers, number = self._numbers(refused)
        crowded, too_fast = self._blame(refused, numbers, number)
        if crowded:
            self._at_once.cut(min(max(numbers), max(1, number - 1)), now, lost_seconds=lost)
        if too_fast:
            self._per_second.cut(self._permitted(now, careful=not crowded), now, lost_seconds=lost)
        if crowded or too_fast:
            self._cut_at = now
        self._next_at = now
        if self._asked_seconds:
            self._passed.clear()  # a rate that such a pause is a part of is nobody's limit
        self._asked_seconds = 0.0

    @property
    def _refused_since(self) -> float:
        return min(self._silent_since, self._shut_at)

    def _blame(self, refused: Sequence[Sent], numbers: Sequence[int], number: int) -> tuple[bool, bool]:
        """Whether there were too many at once, and whether they came too quickly.

        What was just being tried is to blame. If that is neither, it is the number at once where that held requests
        back and was not lowered a moment ago, or where requests amid fewer others were let through, as seen twice or
        in a burst; and else the rate. Both are, if both were being tried and numbers don't tell.
        """
        bound = self._refused_bound
        more = self._at_once.trying(self._refused_since)
        faster = self._per_second.trying(self._refused_since) and not bound
        if more != faster:
            crowded = more
        elif bound:
            crowded = not self._at_once.fresh(self._shut_at)
        else:
            apart = sum(other >= number for other in numbers) <= CROWD * len(numbers)
            crowded = apart and (self._was_crowded or faster or len(refused) >= _NEWS)
            self._was_crowded = apart
        known = len(numbers) >= _NEWS
        crowded = crowded and known
        return crowded, (more and faster) or (not crowded and (known or self._refusals > 1))

    def _numbers(self, refused: Sequence[Sent]) -> tuple[list[int], int]:
        """Of each request that was let through since limits were lowered: how many such were on their way when it left.

        And the same of a refused one: of the last, where more were refused than not. Requests that are not answered
        yet pass for let through.
        """
        left = sorted([at for at, _ in self._passed] + [sent.at for sent in self._flying])
        answered = sorted(at for _, at in self._passed)
        numbers = [place - bisect(answered, at) for place, at in enumerate(left, 1) if at >= self._cut_at]
        at = refused[-1 if len(refused) >= len(numbers) else len(refused) // 2].at
        return numbers, 1 + bisect_left(left, at) - bisect(answered, at)

    def _permitted(self, now: float, *, careful: bool) -> float:
        """Requests a second that were let through until the refusals, with the silence that these asked for.

        What is let through in a burst is paid for by silence, and only both together are a rate. `careful`: where a
        refusal is dear, a first guess had better be too low.
        """
        tried, dear = self._per_second.value, self._asked_seconds > 0
        silence = now - self._refused_since
        if silence < (2.5 * ROUNDED_SECONDS if dear else 2.5 * FIRST_PAUSE_SECONDS):
            silence = 0.0  # no more than what is asked for in any case
        elif dear:
            silence -= ROUNDED_SECONDS
        seconds = max(_LATELY_SECONDS, silence, 2 * _NEWS / tried)
        left = [at for at, _ in self._passed if at >= self._refused_since - seconds]
        if len(left) < _NEWS:
            return tried / 2
        rate = len(left) / (self._refused_since - min(left) + silence)
        first = self._per_second.ceiling is None
        return min(_CAREFUL * rate if careful and dear and first else rate, _BELOW_TRIED * tried)


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
