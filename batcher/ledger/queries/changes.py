"""The files that a run and later ones have made: for builds that only want what is new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import Connection, and_, func, select

from batcher.clock import utc
from batcher.errors import UsageError
from batcher.files import is_url
from batcher.ledger.queries.outputs import is_linked
from batcher.ledger.storage.schema import batches, events, files, rows, runs


def run_named(conn: Connection, name: str | None) -> tuple[str, float]:
    """Id and start of a run, named by the beginning of its id; of the last one if `name` is None.

    If the time of day was set back since, it is the earliest time of what this run and later ones did.

    Raises:
        UsageError: there is none, or several match.
    """
    query = select(runs.c.id, runs.c.started_at).order_by(runs.c.started_at.desc())
    if name is not None:
        query = query.where(func.substr(runs.c.id, 1, len(name)) == name)
    found = conn.execute(query.limit(2)).all()
    if not found:
        why = "the ledger has no run yet" if name is None else f"the ledger has no run {name!r}"
        raise UsageError(why, "`batcher status` shows the last run.")
    if name is not None and len(found) > 1:
        raise UsageError(f"several runs begin with {name!r}", "Pass more of its id.")
    return found[0].id, min([found[0].started_at, *_earliest_event(conn, found[0].id)])


def _earliest_event(conn: Connection, run_id: str) -> list[float]:
    """The earliest time of an event of this run or after its first one; none if it has none."""
    first = select(func.min(events.c.id)).where(events.c.run_id == run_id).scalar_subquery()
    found = conn.execute(select(func.min(events.c.at)).where(events.c.id >= first)).scalar()
    return [] if found is None else [found]


def changes(conn: Connection, since: float, batch: str | None = None) -> Iterator[dict[str, Any]]:
    """Current rows whose file was put at its output since then, new or replaced, by batch and in manifest order.

    Of all batches, or of the one of this name.

    `output` is relative to the ledger's folder, or a URL in an object store.
    """
    linked_at = func.coalesce(rows.c.linked_at, files.c.saved_at)
    query = (
        select(batches.c.name, batches.c.out_dir, rows.c.number, rows.c.id, rows.c.output, rows.c.item_key, rows.c.take)
        .add_columns(files.c.sha256, files.c.bytes, files.c.audio_seconds, linked_at.label("at"))
        .join(batches, batches.c.id == rows.c.batch_id)
        .join(files, files.c.item_key == rows.c.item_key)
        .where(and_(rows.c.is_current == 1, is_linked, linked_at >= since))
        .order_by(rows.c.batch_id, rows.c.number)
    )
    if batch is not None:
        query = query.where(batches.c.name == batch)
    for row in conn.execute(query):
        yield {
            "batch": row.name,
            "row": row.number,
            "id": row.id,
            "output": _place(row.out_dir, row.output),
            "key": row.item_key,
            "take": row.take,
            "sha256": row.sha256,
            "bytes": row.bytes,
            "audio_seconds": row.audio_seconds,
            "linked_at": utc(row.at),
        }


def _place(out_dir: str, output: str) -> str:
    return f"{out_dir}/{output}" if is_url(out_dir) else str(PurePosixPath(out_dir, output))
