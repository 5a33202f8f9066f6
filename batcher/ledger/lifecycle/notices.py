"""Notices that wait to be posted: stored in the ledger, and removed once received."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, delete, func, insert, or_, select

from batcher.ledger.storage.filters import WORKING
from batcher.ledger.storage.schema import notices, runs

_MOST: Final = 1000
"""Maximum notices that wait; beyond it, the oldest are dropped."""


def add(conn: Connection, body: str, *, run_id: str, at: float) -> None:
    """Store a notice of this run."""
    conn.execute(insert(notices).values(body=body, run_id=run_id, created_at=at))
    newest = select(func.max(notices.c.id)).scalar_subquery()
    conn.execute(delete(notices).where(notices.c.id <= newest - _MOST))


def oldest(conn: Connection, run_id: str) -> tuple[int, str] | None:
    """Number and body of the oldest notice of this run or of one that has ended; None if none waits."""
    others = WORKING.where(runs.c.id != run_id)
    ours = or_(notices.c.run_id.is_(None), notices.c.run_id.not_in(others))
    found = conn.execute(select(notices.c.id, notices.c.body).where(ours).order_by(notices.c.id).limit(1)).first()
    return None if found is None else (found.id, found.body)


def remove(conn: Connection, number: int) -> None:
    """The notice was received."""
    conn.execute(delete(notices).where(notices.c.id == number))
