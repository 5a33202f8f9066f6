"""What identifies a ledger, and distinguishes it from its own backups and earlier states."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.ledger.storage.database import TIMELINE, timeline
from batcher.ledger.storage.schema import meta, runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A ledger's id and world. `copied_at` is set only in a backup that no run has used yet.

    `was_promoted`: since the last run wrote, another server has taken over, or the ledger was restored to another
    database. It may lack the latest commits.
    """

    ledger_id: str
    world: str
    copied_at: float | None
    was_promoted: bool


def identity(conn: Connection) -> Identity:
    """The identity recorded in the ledger."""
    facts = dict(conn.execute(select(meta.c.name, meta.c.value)).all())
    copied_at = facts.get("copied_at")
    return Identity(
        ledger_id=facts["ledger_id"],
        world=facts["world"],
        copied_at=None if copied_at is None else float(copied_at),
        was_promoted=facts.get(TIMELINE) not in (None, timeline(conn)),
    )


def note_timeline(conn: Connection) -> None:
    """Record the server that a run is about to write to, so that the next run notices if another has taken over."""
    now = timeline(conn)
    if now is not None:
        new = upsert(meta).values(name=TIMELINE, value=now)
        conn.execute(new.on_conflict_do_update(index_elements=["name"], set_={"value": now}))


def working_runs(conn: Connection) -> list[tuple[str, str]]:
    """The runs whose end is not recorded, with their hosts."""
    found = conn.execute(select(runs.c.id, runs.c.host).where(runs.c.ended_at.is_(None)).order_by(runs.c.id))
    return [(row.id, row.host) for row in found]


def has_run(conn: Connection, run_id: str, *, ended: bool = False) -> bool:
    """Whether the ledger contains this run, and its end if it has `ended`; an older state of the ledger does not."""
    found = conn.execute(select(runs.c.exit_code).where(runs.c.id == run_id)).first()
    return found is not None and not (ended and found.exit_code is None)
