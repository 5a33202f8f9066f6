"""The runs of a ledger, and what each of them still holds."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from batcher.clock import utc
from batcher.item import COLLECTABLE, State
from batcher.ledger.storage.schema import attempts, items, runs


def run_list(conn: Connection, limit: int) -> list[dict[str, Any]]:
    """The last runs, newest first. `open_items` were created by the run and are not done yet; `is_working` says whether
    the run has recorded no end, though it may have been killed.
    """
    same = (items.c.key == attempts.c.item_key, items.c.attempt == attempts.c.attempt)
    states = (State.SUBMITTING, *COLLECTABLE)
    held = select(func.count()).select_from(attempts).join(items, same[0] & same[1])
    held = held.where(attempts.c.run_id == runs.c.id, items.c.state.in_(states))
    query = select(runs, held.scalar_subquery().label("open_items")).order_by(runs.c.started_at.desc(), runs.c.id)
    return [
        {
            "run_id": row.id,
            "host": row.host,
            "pid": row.pid,
            "started_at": utc(row.started_at),
            "ended_at": utc(row.ended_at),
            "is_working": row.ended_at is None,
            "outcome": row.outcome,
            "exit_code": row.exit_code,
            "created": row.created,
            "collected": row.collected,
            "open_items": row.open_items,
        }
        for row in conn.execute(query.limit(limit))
    ]
