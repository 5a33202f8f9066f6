"""Where audio belongs and which of it is there: the outputs of rows, and the lines of results files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    and_,
    bindparam,
    case,
    false,
    func,
    or_,
    select,
)

from batcher.item import State
from batcher.ledger.queries.ignored import names
from batcher.ledger.records import Batch, Output
from batcher.ledger.storage.chosen import in_state
from batcher.ledger.storage.filters import of_wanted
from batcher.ledger.storage.planner import IGNORED, UNLINKED, with_index, without_index
from batcher.ledger.storage.schema import REPEAT_MARK, batches, files, items, recalled, rows, tasks
from batcher.ledger.storage.statements import Prepared


def outputs(conn: Connection) -> Iterator[Output]:
    """The outputs of every row in the current version of every batch."""
    return (Output(**row._mapping) for row in conn.execute(_OUTPUTS))


def outputs_of(conn: Connection, key: str) -> list[Output]:
    """The outputs of one item in the current version of every batch."""
    found = _OUTPUTS_OF.rows(conn, {"_key": key})
    return [Output(**row._asdict() | {"saved": bool(row.saved), "linked": bool(row.linked)}) for row in found]


def to_link(conn: Connection, batch: Batch, after: int, limit: int) -> list[Output]:
    """The batch's next `limit` outputs after row number `after` whose audio is saved but not linked yet."""
    of_batch = rows.c.batch_id == batch.batch_id
    query = _OUTPUTS.where(of_batch, UNLINKED.of(rows), in_state(State.DONE), rows.c.number > after)
    return [Output(**row._mapping) for row in conn.execute(query.limit(limit))]


is_linked = and_(rows.c.linked_key == rows.c.item_key, rows.c.linked_output == rows.c.output)


def _select_outputs() -> Select[Any]:
    linked_file = files.alias("linked_file")
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
            func.coalesce(is_linked, false()).label("linked"),
            rows.c.linked_output,
            (linked_file.c.out_dir + "/" + linked_file.c.path).label("linked_source"),
            linked_file.c.sha256.label("linked_sha256"),
        )
        .join(batches, and_(batches.c.id == rows.c.batch_id, without_index(rows.c.is_current) == 1))
        .join(items, items.c.key == rows.c.item_key)
        .outerjoin(files, files.c.item_key == rows.c.item_key)
        .outerjoin(linked_file, linked_file.c.item_key == rows.c.linked_key)
        .order_by(rows.c.batch_id, rows.c.number)
    )


_OUTPUTS: Final = _select_outputs()
_OUTPUTS_OF: Final = Prepared(_OUTPUTS.where(rows.c.item_key == bindparam("_key")))


def folders(conn: Connection, batch: Batch, limit: int, *, unlinked: bool) -> list[str]:
    """Up to `limit` folders of the batch's outputs, or of those not linked, relative to the output folder."""
    folder = func.rtrim(rows.c.output, func.replace(rows.c.output, "/", ""))
    return list(conn.execute(_rows_with_items(batch, unlinked, folder).distinct().limit(limit)).scalars())


def places_of_audio(conn: Connection, sha256: str) -> list[tuple[str, str, str]]:
    """Where the items' own files with this digest belong: output folder, item's key, file extension.

    They are those of recorded audio, saved or about to be, and of restored rows. Empty if the digest is not known.
    """
    recorded = select(files.c.out_dir, files.c.item_key, files.c.path).where(files.c.sha256 == sha256)
    restored = select(recalled.c.out_dir, recalled.c.item_key, recalled.c.output).where(recalled.c.sha256 == sha256)
    found = [row for query in (recorded, restored) for row in conn.execute(query)]
    return [(row[0], row[1], PurePosixPath(row[2] or "").suffix.removeprefix(".")) for row in found]


def linked_elsewhere(conn: Connection, keys: Sequence[str], output: Output) -> list[tuple[str, str, str, str]]:
    """Batch, id, output folder and output of other current rows, to whose outputs one of these items is linked."""
    other = or_(rows.c.batch_id != output.batch_id, rows.c.id != output.row_id)
    query = select(batches.c.name, rows.c.id, batches.c.out_dir, rows.c.output).join(batches)
    found = conn.execute(query.where(rows.c.item_key.in_(keys), is_linked, rows.c.is_current == 1, other))
    return [(row[0], row[1], row[2], row[3]) for row in found]


def has_audio(conn: Connection, key: str) -> bool:
    """Whether the ledger has recorded an item's audio, saved or about to be."""
    return conn.execute(select(files.c.item_key).where(files.c.item_key == key)).first() is not None


def results(conn: Connection, batch: Batch) -> Iterator[dict[str, Any]]:
    """The batch's result lines, in manifest order; `output` is relative to the output folder, None until linked."""
    query = select_results().where(of_wanted([batch])).order_by(rows.c.number)
    return (result_line(row, batch.name) for row in conn.execute(query))


def select_results(start: FromClause = rows) -> Select[Any]:
    """Query for `result_line`, from the rows in `start`."""
    own = and_(without_index(tasks.c.account_id) == items.c.account_id, tasks.c.task_id == items.c.task_id)
    is_current = and_(tasks.c.item_key == rows.c.item_key, own, IGNORED.of(tasks))
    saved = and_(files.c.item_key == rows.c.item_key, items.c.state == State.DONE)
    return select(*_RESULT).select_from(
        start.outerjoin(items, items.c.key == rows.c.item_key).outerjoin(tasks, is_current).outerjoin(files, saved)
    )


_RESULT: Final = (
    *(rows.c.number, rows.c.id, func.coalesce(rows.c.skipped, items.c.state).label("state")),
    *(case((is_linked, rows.c.output)).label("output"), rows.c.item_key, items.c.task_id, rows.c.take),
    *(files.c.sha256, files.c.bytes, files.c.audio_seconds, rows.c.reason, rows.c.extra, tasks.c.ignored),
    *(items.c.error_code, items.c.error_message, items.c.error_request_id, items.c.error_http_status),
)


def result_line(row: Row[Any], batch: str) -> dict[str, Any]:
    """One row as the results files have it."""
    return {
        "batch": batch,
        "row": row.number,
        "id": row.id.partition(REPEAT_MARK)[0],
        "state": row.state,
        "output": row.output,
        "key": row.item_key,
        "task_id": row.task_id,
        "take": row.take if row.item_key else None,
        "sha256": row.sha256,
        "bytes": row.bytes,
        "audio_seconds": row.audio_seconds,
        "error": {"code": "invalid", "message": row.reason} if row.state == "invalid" else error_of(row),
        "extra": json.loads(row.extra) if row.extra != "{}" else {},
        "ignored": names(row.ignored),
    }


def error_of(row: Row[Any]) -> dict[str, Any] | None:
    """The item's recorded error, or None."""
    return _error(row.error_code, row.error_message, row.error_request_id, row.error_http_status)


def _error(code: str | None, message: str | None, request_id: str | None, status: int | None) -> dict[str, Any] | None:
    if code is None and message is None and status is None:
        return None
    return {"code": code, "message": message, "request_id": request_id, "http_status": status}


def row_outputs(conn: Connection, batch: Batch, *, unlinked: bool) -> Iterator[tuple[str, str, bool]]:
    """Id, output and whether it is linked, of each row that has an item, or only of those not linked; in their order.

    The number of steps grows with the rows returned.
    """
    query = _rows_with_items(batch, unlinked, rows.c.id, rows.c.output, func.coalesce(is_linked, false()))
    for row in conn.execute(query.order_by(rows.c.number)):
        yield row[0], row[1], row[2]


def _rows_with_items(batch: Batch, unlinked: bool, *columns: ColumnElement[Any]) -> Select[Any]:
    if not unlinked:
        return select(*columns).where(of_wanted([batch]), rows.c.item_key.is_not(None))
    of_batch = and_(rows.c.batch_id == batch.batch_id, with_index(rows.c.number), without_index(rows.c.is_current) == 1)
    return select(*columns).where(of_batch, UNLINKED.of(rows), rows.c.item_key.is_not(None))


def output_of(conn: Connection, batch: Batch, row_id: str) -> Output:
    """The output of one row."""
    row = conn.execute(_OUTPUTS.where(rows.c.batch_id == batch.batch_id, rows.c.id == row_id)).one()
    return Output(**row._mapping)


def expected_audio(conn: Connection) -> dict[str, tuple[int, float | None]]:
    """By format: characters of texts whose audio is still to come, and bytes per character of the audio so far."""
    unfinished = (State.PENDING, State.SUBMITTING, State.SUBMITTED, State.RENDERED, State.IN_DOUBT)
    length = func.length(items.c.text)
    waiting = select(items.c.format, func.sum(length)).where(items.c.state.in_(unfinished)).group_by(items.c.format)
    saved = select(items.c.format, func.sum(files.c.bytes) * 1.0 / func.sum(length))
    saved = saved.join(files, files.c.item_key == items.c.key).group_by(items.c.format)
    rate: dict[str, float] = dict(conn.execute(saved).all())
    return {row[0]: (row[1], rate.get(row[0])) for row in conn.execute(waiting)}
