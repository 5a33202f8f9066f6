"""What identifies a ledger, and distinguishes it from its own backups and earlier states."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from batcher.ledger.storage.schema import meta, runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A ledger's id and world. `copied_at` is set only in a backup that no run has used yet."""

    ledger_id: str
    world: str
    copied_at: float | None


def identity(conn: Connection) -> Identity:
    """The identity recorded in the ledger."""
    facts = dict(conn.execute(select(meta.c.name, meta.c.value)).all())
    copied_at = facts.get("copied_at")
    return Identity(
        ledger_id=facts["ledger_id"], world=facts["world"], copied_at=None if copied_at is None else float(copied_at)
    )


def has_run(conn: Connection, run_id: str) -> bool:
    """Whether the ledger contains this run; an older state of the ledger does not."""
    return conn.execute(select(runs.c.id).where(runs.c.id == run_id)).first() is not None
