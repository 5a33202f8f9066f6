"""Where audio belongs, and what of it is there: the outputs of rows, and the results files' lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, and_, bindparam, case, false, func, select

from batcher.item import State
from batcher.ledger.records import Batch, Output
from batcher.ledger.storage.filters import of_wanted
from batcher.ledger.storage.planner import UNLINKED, without_index
from batcher.ledger.storage.schema import REPEAT_MARK, batches, files, items, recalled, rows
from batcher.ledger.storage.statements import Prepared


def outputs(conn: Connection) -> Iterator[Output]:
    """The outputs of every row, in every batch as it reads now."""
    return (Output(**row._mapping) for row in conn.execute(_OUTPUTS))


def outputs_of(conn: Connection, key: str) -> list[Output]:
    """The outputs of one item, in every batch as it reads now."""
    return [Output(**row._asdict()) for row in _OUTPUTS_OF.rows(conn, {"_key": key})]


def to_link(conn: Connection, batch: Batch, after: int, limit: int) -> list[Output]:
    """The first outputs of the batch, behind the row of number `after`, whose audio is there and not linked."""
    ready = (items.c.state == State.DONE, rows.c.number > after)
    ours = rows.c.batch_id == batch.batch_id
    found = conn.execute(_OUTPUTS.where(ours, UNLINKED.of(rows), *ready).limit(limit))
    return [Output(**row._mapping) for row in found]


def _select_outputs() -> Select[Any]:
    old = files.alias("old")
    linked = and_(rows.c.linked_key == rows.c.item_key, rows.c.linked_output == rows.c.output)
    return (
        select(
            rows.c.batch_id,
            rows.c.id.label("row_id"),
            rows.c.number,
            rows.c.item_key.label("key"),
            batches.c.out_dir,
            rows.c.output,
            (items.c.state == State.DONE).label("saved"),
            (files.c.out_dir + "/" + files.c.path).label("source"),
            files.c.sha256,
            func.coalesce(linked, false()).label("linked"),
            rows.c.linked_output,
            (old.c.out_dir + "/" + old.c.path).label("linked_source"),
            old.c.sha256.label("linked_sha256"),
        )
        .join(batches, and_(batches.c.id == rows.c.batch_id, without_index(rows.c.is_current) == 1))
        .join(items, items.c.key == rows.c.item_key)
        .outerjoin(files, files.c.item_key == rows.c.item_key)
        .outerjoin(old, old.c.item_key == rows.c.linked_key)
        .order_by(rows.c.batch_id, rows.c.number)
    )


_OUTPUTS: Final = _select_outputs()


_OUTPUTS_OF: Final = Prepared(_OUTPUTS.where(rows.c.item_key == bindparam("_key")))


def folders(conn: Connection, batch: Batch, limit: int) -> list[str]:
    """Up to `limit` folders, relative to the output folder, that the batch's outputs belong in."""
    folder = func.rtrim(rows.c.output, func.replace(rows.c.output, "/", ""))
    query = select(folder).where(of_wanted([batch]), rows.c.item_key.is_not(None)).distinct().limit(limit)
    return list(conn.execute(query).scalars())


def is_known_audio(conn: Connection, sha256: str) -> bool:
    """Whether some item's saved audio has this digest, or results files say so."""
    saved = select(files.c.item_key).where(files.c.sha256 == sha256, files.c.saved_at.is_not(None))
    told = select(recalled.c.item_key).where(recalled.c.sha256 == sha256)
    return any(conn.execute(query.limit(1)).first() is not None for query in (saved, told))


def results(conn: Connection, batch: Batch) -> Iterator[dict[str, Any]]:
    """The batch's result lines, in manifest order; `output` is relative to the output folder, None until it is made."""
    linked = and_(rows.c.linked_key == rows.c.item_key, rows.c.linked_output == rows.c.output)
    errors = (items.c.error_code, items.c.error_message, items.c.error_request_id, items.c.error_http_status)
    query = (
        select(rows.c.number, rows.c.id, func.coalesce(rows.c.skipped, items.c.state))
        .add_columns(case((linked, rows.c.output)), rows.c.item_key, items.c.task_id, rows.c.take)
        .add_columns(files.c.sha256, files.c.bytes, files.c.audio_seconds, rows.c.reason, rows.c.extra, *errors)
        .outerjoin(items, items.c.key == rows.c.item_key)
        .outerjoin(files, and_(files.c.item_key == rows.c.item_key, items.c.state == State.DONE))
        .where(of_wanted([batch]))
        .order_by(rows.c.number)
    )
    for number, row_id, state, output, key, task_id, take, sha256, size, seconds, reason, extra, *error in conn.execute(
        query
    ):
        yield {
            "batch": batch.name,
            "row": number,
            "id": row_id.partition(REPEAT_MARK)[0],
            "state": state,
            "output": output,
            "key": key,
            "task_id": task_id,
            "take": take if key else None,
            "sha256": sha256,
            "bytes": size,
            "audio_seconds": seconds,
            "error": {"code": "invalid", "message": reason} if state == "invalid" else _error(*error),
            "extra": json.loads(extra) if extra != "{}" else {},
        }


def error_of(row: Row[Any]) -> dict[str, Any] | None:
    """The item's recorded error, or None."""
    return _error(row.error_code, row.error_message, row.error_request_id, row.error_http_status)


def _error(code: str | None, message: str | None, request_id: str | None, status: int | None) -> dict[str, Any] | None:
    if code is None and message is None and status is None:
        return None
    return {"code": code, "message": message, "request_id": request_id, "http_status": status}


def places(conn: Connection, batch: Batch) -> Iterator[tuple[str, str, bool]]:
    """Of each row that stands for an item: its id, its output, and whether that was put there; in manifest order."""
    linked = and_(rows.c.linked_key == rows.c.item_key, rows.c.linked_output == rows.c.output)
    query = select(rows.c.id, rows.c.output, func.coalesce(linked, false())).where(of_wanted([batch]))
    for row in conn.execute(query.where(rows.c.item_key.is_not(None)).order_by(rows.c.number)):
        yield row[0], row[1], row[2]


def output_of(conn: Connection, batch: Batch, row_id: str) -> Output:
    """The output of one row."""
    this = (rows.c.batch_id == batch.batch_id, rows.c.id == row_id)
    return Output(**conn.execute(_OUTPUTS.where(*this)).one()._mapping)
