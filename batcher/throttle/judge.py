"""Which limit a refusal lowers, and to what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from batcher.throttle.closure import Closure
from batcher.throttle.flights import Flights, Sent
from batcher.throttle.history import History
from batcher.throttle.limit import Limit

MEMORY_SECONDS: Final = 12.0
"""How long successes are remembered; longer than the longest window over which a rate is measured."""
ENOUGH: Final = 5
"""Fewest successes from which a rate or a number in flight is measured."""
RECENT_SECONDS: Final = 1.0
"""Span before a refusal over which the rate is measured; as long as the silence after it, if that is longer."""
SILENCE_SECONDS: Final = 2.5
"""Pauses shorter than this are the price of any refusal; longer ones belong to the provider's window."""
ROUNDED_SECONDS: Final = 1.0
"""`Retry-After` is in whole seconds: up to this much of a pause is rounding."""
CAREFUL: Final = 0.92
"""Share of the first measured rate to use where refusals name a `Retry-After`, since each of those is expensive."""
CROWD: Final = 0.1
"""At most this share of successes had as many others in flight, if it is the number in flight that was refused."""
USED: Final = 0.7
"""The rate counts as the bottleneck, and may grow, if at least this share of it was used during `USED_SECONDS`."""
USED_SECONDS: Final = 0.5


class Judge:
    """Raises the limit that holds successes back, and lowers the one that the refusals speak against.

    Refusals are collected while the class is closed and judged as one event when it opens: only then is it known which
    requests of the burst succeeded. To blame is the number in flight if it was at its limit or, where the rate does not
    explain the refusals, if hardly any success had as many others in flight; both limits if both were being tried;
    else the rate.
    """

    def __init__(self, at_once: Limit, rate: Limit) -> None:
        self._at_once = at_once
        self._rate = rate
        self._history = History()
        self._refused: list[Sent] = []
        self._refused_since_at = math.inf  # only refusals have arrived since then
        self._asked_seconds = 0.0
        self._cut_at = -math.inf

    @property
    def latency_seconds(self) -> float:
        """How long the last success took, 0 before the first."""
        return self._history.latency

    @property
    def pending(self) -> bool:
        """Whether refusals have been collected."""
        return bool(self._refused)

    def succeeded(self, sent: Sent, now: float, *, outdated: bool) -> None:
        """Record a success; raise the limit that held it back unless it is outdated, from before the last refusal."""
        self._history.add(sent.at, now)
        if outdated:
            return
        self._refused_since_at = math.inf
        self._history.forget(sent.at - max(MEMORY_SECONDS, 2 * ENOUGH / self._rate.value))
        if self._full(sent):
            self._at_once.grow(now)
        elif self._history.recent_rate(max(2, round(USED_SECONDS * self._rate.value))) >= USED * self._rate.value:
            self._rate.grow(now)

    def refused(self, sent: Sent, now: float, retry_after_seconds: float) -> None:
        """Collect a refusal, unless the request left before the limits were lowered."""
        if sent.at >= self._cut_at:
            self._refused_since_at = min(self._refused_since_at, now)
            self._refused.append(sent)
            self._asked_seconds = max(self._asked_seconds, retry_after_seconds)

    def decide(self, now: float, closure: Closure, flights: Flights) -> None:
        """Lower what the collected refusals speak against. Few successes since the last time are no evidence."""
        refused, self._refused = self._refused, []
        crowds, crowd = self._crowds(sorted(sent.at for sent in refused), flights)
        lost = now - closure.since_at + self.latency_seconds + len(refused) / self._rate.value
        enough = len(crowds) >= ENOUGH
        more, faster = (limit.trying(self._refused_since_at) for limit in (self._at_once, self._rate))
        crowded = enough and (self._full(refused[0]) or _crowded(len(refused), crowds, crowd, more=more, faster=faster))
        too_fast = (more and faster) if crowded else enough or closure.probing
        if crowded:
            self._at_once.cut(min(max(crowds), max(1, crowd - 1)), now, lost_seconds=lost)
        if too_fast:
            self._rate.cut(self._permitted_rate(now), now, lost_seconds=lost)
        if crowded or too_fast:
            self._cut_at = now
        self._asked_seconds = 0.0

    def _full(self, sent: Sent) -> bool:
        return sent.together >= math.floor(self._at_once.value)

    def _crowds(self, refused_at: Sequence[float], flights: Flights) -> tuple[list[int], int]:
        """Number of successes in flight when each success since the last cut left, and when a typical refusal left."""
        started = flights.started
        sent_at = [*self._history.sent_since(self._cut_at), *(at for at in started if at >= self._cut_at)]
        typical_at = refused_at[-1 if len(refused_at) >= len(sent_at) else len(refused_at) // 2]
        *crowds, others = self._history.in_flight([*sent_at, typical_at], started)
        return crowds, others + 1

    def _permitted_rate(self, now: float) -> float:
        """Successes per second before the refusals, counting the silence after them if a burst has to be paid for."""
        since, tried = self._refused_since_at, self._rate.value
        silence = now - since
        if silence < SILENCE_SECONDS:
            silence = 0.0
        elif self._asked_seconds:
            silence -= ROUNDED_SECONDS
        sent_at = self._history.sent_since(since - max(RECENT_SECONDS, silence, 2 * ENOUGH / tried))
        if len(sent_at) < ENOUGH:
            return tried / 2
        measured = len(sent_at) / (since - min(sent_at) + silence)
        expensive = self._asked_seconds > 0 and self._rate.ceiling is None
        return min(tried, CAREFUL * measured if expensive else measured)


def _crowded(refused: int, crowds: Sequence[int], crowd: int, *, more: bool, faster: bool) -> bool:
    """Whether refusals below the limit in flight are nevertheless due to the number in flight.

    The limit that was being tested is to blame. If that was neither or both, the number is, provided that few successes
    had as many in flight.
    """
    if more != faster:
        return more
    unusual = sum(other >= crowd for other in crowds) <= CROWD * len(crowds)
    return unusual and (faster or refused >= ENOUGH)
