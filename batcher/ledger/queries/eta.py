"""Estimate when the remaining items will be done, from the rate of the last ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from batcher.item import State
from batcher.ledger.storage.schema import events

_SAMPLE: Final = 400
"""The rate is taken from at most this many of the run's last done items."""
_PARTS: Final = 5
"""The sample is divided into this many parts; their rates span the range of the estimate."""
_MIN_PART: Final = 3
"""With fewer items per part, no estimate is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Items done per second, and the seconds that the remaining items will take: estimate, minimum and maximum."""

    remaining: int
    per_second: float
    seconds: float
    least_seconds: float
    most_seconds: float


def forecast(conn: Connection, run_id: str, remaining: int) -> Forecast | None:
    """Time that the `remaining` items will take, judged by the run's last items. None if too few are done.

    The range comes from the fastest and the slowest fifth of those items.
    """
    done = select(events.c.at).where(events.c.run_id == run_id, events.c.state == State.DONE)
    times = sorted(conn.execute(done.order_by(events.c.id.desc()).limit(_SAMPLE)).scalars())
    if not remaining or len(times) < _PARTS * _MIN_PART:
        return None
    size = len(times) // _PARTS
    rates = [_rate(times[start : start + size + 1]) for start in range(0, _PARTS * size, size)]
    per_second = _rate(times)
    return Forecast(
        remaining=remaining,
        per_second=per_second,
        seconds=remaining / per_second,
        least_seconds=remaining / max(rates),
        most_seconds=remaining / min(rates),
    )


def _rate(times: Sequence[float]) -> float:
    return (len(times) - 1) / max(times[-1] - times[0], 0.001)
