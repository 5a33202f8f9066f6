"""When the rest is likely done, judged by how quickly the last items were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from batcher.item import State
from batcher.ledger.storage.schema import events

_LAST: Final = 400
_PARTS: Final = 5
_LEAST: Final = 3
"""Items in each part, below which nothing is foretold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """How many items are done per second of running, and the seconds that the rest may take, least and most."""

    per_second: float
    seconds: float
    least_seconds: float
    most_seconds: float


def forecast(conn: Connection, run_id: str, remaining: int) -> Forecast | None:
    """What the run's last items foretell for the `remaining` ones; None where too few were done to tell.

    The range is that of the rates in fifths of those items: what has varied will vary.
    """
    done = select(events.c.at).where(events.c.run_id == run_id, events.c.state == State.DONE)
    times = sorted(conn.execute(done.order_by(events.c.id.desc()).limit(_LAST)).scalars())
    if not remaining or len(times) < _PARTS * _LEAST:
        return None
    size = len(times) // _PARTS
    rates = [_rate(times[start : start + size + 1]) for start in range(0, _PARTS * size, size)]
    per_second = _rate(times)
    return Forecast(
        per_second=per_second,
        seconds=remaining / per_second,
        least_seconds=remaining / max(rates),
        most_seconds=remaining / min(rates),
    )


def _rate(times: Sequence[float]) -> float:
    return (len(times) - 1) / max(times[-1] - times[0], 0.001)
