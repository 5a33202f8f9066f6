"""The batches of a ledger."""

from __future__ import annotations

from sqlalchemy import Connection, select

from batcher.ledger.records import Batch
from batcher.ledger.storage.schema import batches


def current_batches(conn: Connection) -> list[Batch]:
    """Every batch of the ledger in its current version, oldest batch first."""
    found = conn.execute(select(batches).order_by(batches.c.id))
    return [Batch(batch_id=row.id, name=row.name, version=row.version, out_dir=row.out_dir) for row in found]
