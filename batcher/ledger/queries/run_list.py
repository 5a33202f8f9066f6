"""The runs of a ledger, and what each of them still holds."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from batcher.clock import utc
from batcher.item import COLLECTABLE, State
from batcher.ledger.storage.schema import items, runs
from batcher.ledger.storage.sharing import connected, is_shared


def run_list(conn: Connection, limit: int) -> list[dict[str, Any]]:
    """The last runs, newest first. `open_items` are those that the run creates or collects, or did last, and that are
    not done yet; `is_working` says whether the run has recorded no end, and, on a server, still has a session.
    """
    states = (State.SUBMITTING, *COLLECTABLE)
    held = select(func.count()).where(items.c.run_id == runs.c.id, items.c.state.in_(states))
    query = select(runs, held.scalar_subquery().label("open_items")).order_by(runs.c.started_at.desc(), runs.c.id)
    found = conn.execute(query.limit(limit)).all()
    working = {row.id for row in found if row.ended_at is None}
    if is_shared(conn):
        working &= connected(conn, sorted(working))
    return [
        {
            "run_id": row.id,
            "host": row.host,
            "pid": row.pid,
            "started_at": utc(row.started_at),
            "ended_at": utc(row.ended_at),
            "is_working": row.id in working,
            "outcome": row.outcome,
            "exit_code": row.exit_code,
            "created": row.created,
            "collected": row.collected,
            "open_items": row.open_items,
        }
        for row in found
    ]
