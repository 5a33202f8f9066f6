"""Notices that wait to be posted: stored in the ledger, and removed once received."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, delete, func, insert, select

from batcher.ledger.storage.schema import notices

_MOST: Final = 1000
"""Maximum notices that wait; beyond it, the oldest are dropped."""


def add(conn: Connection, body: str, *, at: float) -> None:
    """Store a notice."""
    conn.execute(insert(notices).values(body=body, created_at=at))
    newest = select(func.max(notices.c.id)).scalar_subquery()
    conn.execute(delete(notices).where(notices.c.id <= newest - _MOST))


def oldest(conn: Connection) -> tuple[int, str] | None:
    """Number and body of the oldest notice; None if none waits."""
    found = conn.execute(select(notices.c.id, notices.c.body).order_by(notices.c.id).limit(1)).first()
    return None if found is None else (found.id, found.body)


def remove(conn: Connection, number: int) -> None:
    """The notice was received."""
    conn.execute(delete(notices).where(notices.c.id == number))
