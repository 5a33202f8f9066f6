"""How a batch's file was parsed, so that other commands read it in the same way and its rows keep their numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.errors import ManifestError, Suggestion
from batcher.ledger.lifecycle.restored_rows import has_counted_rows
from batcher.ledger.records import Batch
from batcher.ledger.storage.schema import batches, meta
from batcher.manifest.faults import printable
from batcher.manifest.row_filter import is_same_filter
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


def rows_left_out(conn: Connection, wanted: Sequence[Batch]) -> int | None:
    """Rows of these manifests that `--where` left out in their last import; None if none of them had it."""
    found = [_reading(conn, batch.batch_id) for batch in wanted]
    filtered = [one["left_out"] for one in found if one.get("where")]
    return sum(filtered) if filtered else None


def refuse_other_filter(conn: Connection, rules: Rules, name: str) -> None:
    """Refuse to select rows otherwise than the batch's last import did.

    Without the filter, rows would be bought that are not meant to be. With another one, paid rows would leave the
    results.

    Raises:
        ManifestError: the filter is another one.
    """
    batch_id = conn.execute(select(batches.c.id).where(batches.c.name == rules.batch)).scalar()
    last: list[str] = [] if batch_id is None else _reading(conn, batch_id).get("where", [])
    if batch_id is None or is_same_filter(last, rules.where):
        return
    before, now = (
        " ".join(f"--where {printable(one)}" for one in where) or "no --where" for where in (last, rules.where)
    )
    message = f"{name}: the last run of batch {rules.batch} had {before}, and this one has {now}; nothing was created"
    hint = "To accept the new selection, pass --refilter: added rows are bought, and removed ones leave the results."
    if not last:
        hint = f"Remove --where, also from batcher.toml and the environment. {hint}"
    suggestion = Suggestion("To select the same rows as before:", {"--where": last}) if last else None
    raise ManifestError(message, [message], hint, suggestion=suggestion)


class FileFacts(NamedTuple):
    """What the last import found out about a file, for people: see `Manifest`."""

    notes: list[str]
    columns_sent: dict[str, str]
    columns_carried: list[str]
    left_out: int
    stripped: int


def file_facts(conn: Connection, batch: Batch) -> FileFacts | None:
    """What the batch's last import found out about its file; None if an older version imported it."""
    stored = _reading(conn, batch.batch_id)
    return FileFacts(left_out=stored["left_out"], **stored["file"]) if "file" in stored else None


def save_parse_options(conn: Connection, batch: Batch, rules: Rules, facts: FileFacts) -> None:
    """Remember the parse options of an import, its template for file names, and facts about the file."""
    options = {name: getattr(rules, name) for name in (*PARSE_OPTIONS, "filename", "counted")}
    file = facts._asdict()
    value = json.dumps(options | {"left_out": file.pop("left_out"), "file": file}, default=dict)
    statement = upsert(meta).values(name=_name(batch.batch_id), value=value)
    conn.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


def _stored(conn: Connection, batch_id: int) -> dict[str, Any]:
    """The stored options; without that of the numbers, a version imported the batch that counted records."""
    stored = _reading(conn, batch_id)
    for name in ("left_out", "file"):
        stored.pop(name, None)
    return {"counted": True} | stored


def _reading(conn: Connection, batch_id: int) -> dict[str, Any]:
    options: str | None = conn.execute(select(meta.c.value).where(meta.c.name == _name(batch_id))).scalar()
    found: dict[str, Any] = json.loads(options or "{}")
    return found


def _name(batch_id: int) -> str:
    return f"reading {batch_id}"
