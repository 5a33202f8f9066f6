"""How a batch's file was parsed, so that other commands read it in the same way and its rows keep their numbers."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.ledger.lifecycle.restored_rows import has_counted_rows
from batcher.ledger.records import Batch
from batcher.ledger.storage.schema import batches, meta
from batcher.manifest.rules import PARSE_OPTIONS, Rules


def last_parse_options(conn: Connection, batch: Batch) -> Rules:
    """Rules with options of the batch's last import: those of parsing, and the template for file names."""
    return Rules(batch=batch.name, **_stored(conn, batch.batch_id))


def last_columns(conn: Connection, batch_id: int | None) -> dict[str, str]:
    """The column mapping of the batch's last import; empty for a batch that the ledger lacks."""
    columns: dict[str, str] = {} if batch_id is None else _stored(conn, batch_id).get("columns", {})
    return columns


def counts_records(conn: Connection, batch: str) -> bool:
    """Whether the batch's rows are numbered from 1, as the first versions did, and not as spreadsheets do.

    Ids and file names come from these numbers, so a batch keeps those of its first import. Of a batch that the ledger
    lacks, restored rows tell.
    """
    batch_id = conn.execute(select(batches.c.id).where(batches.c.name == batch)).scalar()
    if batch_id is None:
        return has_counted_rows(conn, batch)
    counted: bool = _stored(conn, batch_id)["counted"]
    return counted


def save_parse_options(conn: Connection, batch: Batch, rules: Rules) -> None:
    """Remember the parse options of an import, and its template for file names."""
    value = json.dumps({name: getattr(rules, name) for name in (*PARSE_OPTIONS, "filename", "counted")}, default=dict)
    statement = upsert(meta).values(name=_name(batch.batch_id), value=value)
    conn.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


def _stored(conn: Connection, batch_id: int) -> dict[str, Any]:
    """The stored options; without that of the numbers, a version imported the batch that counted records."""
    options: str | None = conn.execute(select(meta.c.value).where(meta.c.name == _name(batch_id))).scalar()
    stored: dict[str, Any] = json.loads(options or "{}")
    return {"counted": True} | stored


def _name(batch_id: int) -> str:
    return f"reading {batch_id}"
