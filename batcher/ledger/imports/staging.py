"""Compares a manifest with its batch in the ledger and stages the differences.

The manifest's rows and the batch's current rows are read side by side in the order of their numbers. A row that equals
the batch's row of the same number is skipped; every other row is inserted into the temporary table `staged`, and the
item that it requests, if the ledger has none with that key, into the table of items. `conflicts` then rejects staged
rows that clash with other rows, and `importer` merges the staged rows into the batch. `UNCHANGED` finds the skipped
rows again. Numbers have gaps where the manifest has blank rows: the temporary table `gaps` lists those of the batch's
rows that fell into one. So memory does not grow with the manifest, and unchanged rows are only read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text

from batcher.item import Inputs, State
from batcher.ledger.lifecycle.transitions import new_item
from batcher.ledger.storage import bulk
from batcher.ledger.storage.statements import execute
from batcher.manifest.reader import Manifest
from batcher.manifest.rows import Former, Row

_CHUNK_ROWS: Final = 500
_CHUNK_CHARACTERS: Final = 1 << 20
"""Rows are written in chunks of at most this many rows, or fewer once their texts exceed this many characters."""

staged: Final = Table(
    "staged",
    MetaData(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("line", Integer, nullable=False),
    Column("id", Text, nullable=False),
    Column("take", Integer, nullable=False),
    Column("item_key", Text),
    Column("skipped", Text),
    Column("reason", Text),
    Column("output", Text, nullable=False),
    Column("extra", Text, nullable=False),
    Column("defaulted", Text, nullable=False),
    prefixes=["TEMPORARY"],
)
gaps: Final = Table(
    "gaps",
    MetaData(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    prefixes=["TEMPORARY"],
)
ROW_COLUMNS: Final = ("number", "line", "id", "take", "item_key", "skipped", "reason", "output", "extra")
"""Columns that `staged` has in common with `rows`."""
UNCHANGED: Final = (
    "+rows.batch_id = :batch_id AND +rows.is_current = 1 AND +rows.number <= :last "
    "AND NOT EXISTS (SELECT 1 FROM staged WHERE staged.number = rows.number)"
    " AND NOT EXISTS (SELECT 1 FROM gaps WHERE gaps.number = rows.number)"
)
"""Selects the batch's rows that the manifest leaves as they are, given `Staging.parameters`; only before the merge.

With the plus signs SQLite finds rows by the condition beside this one, instead of going through the whole batch."""

_KEY: Final = ROW_COLUMNS.index("item_key")
_ITEM_COLUMNS: Final = ("key", "text_hash", "text", "voice", "model", "format", "params", "bytes", "take")
_CURRENT: Final = f"SELECT {', '.join(ROW_COLUMNS)} FROM rows WHERE batch_id = ? AND is_current = 1 ORDER BY number"  # noqa: S608
_FORMER: Final = """
    SELECT output, item_key, take, true AS bought FROM recalled WHERE batch = ? AND row_id = ? AND output IS NOT NULL
    UNION ALL SELECT output, item_key, take, (SELECT state <> 'pending' FROM items WHERE key = item_key)
    FROM rows WHERE batch_id = ? AND id = ? LIMIT 1"""
_STATE: Final = """
    SELECT state FROM main.items WHERE key = ? UNION ALL SELECT 'done' FROM recalled WHERE item_key = ? LIMIT 1"""
_STAGE: Final = f"INSERT INTO staged VALUES ({', '.join('?' * len(staged.columns))})"  # noqa: S608


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """What the table `staged` holds, until the next manifest is staged on the same connection."""

    batch_id: int | None  # None: the batch is new
    rows: int  # rows of the manifest
    last: int  # number of the last
    changed: int  # rows that differ from the batch's
    items: Table  # where requested items were inserted
    newest_item: int  # rowid of the newest item before that

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of `UNCHANGED`."""
        return {"batch_id": self.batch_id, "last": self.last}


class _Changed(NamedTuple):
    row: Row
    values: tuple[Any, ...]  # of ROW_COLUMNS


def stage_changes(
    conn: Connection,
    manifest: Manifest,
    batch: str,
    batch_id: int | None,
    items: Table,
    at: float,
    *,
    all_rows: bool = False,
) -> Staging:
    """Stage the rows that differ from the batch's, or all of them, and insert the items that they request in `items`.

    Raises:
        ManifestError: the file cannot be read at all.
    """
    for table in (staged, gaps):
        execute(conn, f"DROP TABLE IF EXISTS temp.{table}")
        table.create(conn)
    newest: int = execute(conn, f"SELECT coalesce(max(rowid), 0) FROM {items}").scalar_one()  # noqa: S608
    indexed = ["id", "output"]
    if all_rows or execute(conn, "SELECT EXISTS (SELECT 1 FROM main.items)").scalar():
        indexed.append("item_key")  # for comparisons with earlier items
    comparison = _Comparison(conn, batch_id, batch, all_rows=all_rows)
    changed = 0
    with bulk.large_cache(conn), closing(comparison):
        for chunk in _chunks(comparison.changed(manifest)):
            changed += len(chunk)
            _insert_items(conn, items, chunk, at)
            execute(conn, _STAGE, [(*values, ",".join(row.defaulted)) for row, values in chunk])
    for column in indexed:
        execute(conn, f"CREATE INDEX temp.staged_{column} ON staged ({column})")
    bulk.analyze(conn, staged, gaps)
    return Staging(
        batch_id=batch_id,
        rows=comparison.rows,
        last=comparison.last,
        changed=changed,
        items=items,
        newest_item=newest,
    )


def delete_unused_items(conn: Connection, staging: Staging) -> None:
    """Delete the items that were inserted for rows rejected since."""
    execute(
        conn,
        f"DELETE FROM {staging.items} WHERE key IN (SELECT key FROM {staging.items} WHERE rowid > ? "  # noqa: S608
        "EXCEPT SELECT item_key FROM staged WHERE item_key IS NOT NULL)",
        (staging.newest_item,),
    )


class _Comparison:
    """A manifest's rows beside the current rows of a batch. `rows` were read, the last with the number `last`."""

    def __init__(self, conn: Connection, batch_id: int | None, batch: str, *, all_rows: bool) -> None:
        self._conn = conn
        self._batch_id = batch_id
        self._batch = batch
        self._current = execute(conn, _CURRENT, (batch_id,), stream_results=True)
        self._all_rows = all_rows
        self._gaps: list[tuple[int]] = []
        self.rows = self.last = 0

    def changed(self, manifest: Manifest) -> Iterator[_Changed]:
        """The manifest's rows that the batch does not have with the same number and values; or all of them."""
        current = self._current.fetchone()
        for row in manifest.rows(self._former, self._state):
            self.rows += 1
            self.last = row.number
            while current is not None and current[0] < row.number:
                self._add_gap(current[0])
                current = self._current.fetchone()
            values = _values(row)
            if current is None or self._all_rows or tuple(current) != values:
                yield _Changed(row, values)
            if current is not None and current[0] == row.number:
                current = self._current.fetchone()
        self._write_gaps()

    def close(self) -> None:
        """Stop reading the batch's rows."""
        self._current.close()

    def _add_gap(self, number: int) -> None:
        self._gaps.append((number,))
        if len(self._gaps) == _CHUNK_ROWS:
            self._write_gaps()

    def _write_gaps(self) -> None:
        if self._gaps:
            execute(self._conn, "INSERT OR IGNORE INTO gaps VALUES (?)", self._gaps)
            self._gaps = []

    def _former(self, row_id: str) -> Former | None:
        """What a results file restored into the ledger, or else the ledger itself, has for the row."""
        found = execute(self._conn, _FORMER, (self._batch, row_id, self._batch_id, row_id)).first()
        return None if found is None else Former(found.output, found.item_key, found.take, bool(found.bought))

    def _state(self, key: str) -> State | None:
        """The state of the item with this key; one that only a results file restored into the ledger has is done."""
        state: str | None = execute(self._conn, _STATE, (key, key)).scalar()
        return None if state is None else State(state)


def _chunks(changed: Iterator[_Changed]) -> Iterator[list[_Changed]]:
    chunk: list[_Changed] = []
    characters = 0
    for one in changed:
        chunk.append(one)
        characters += len(one.row.inputs.text) if one.row.inputs is not None else 0
        if len(chunk) == _CHUNK_ROWS or characters > _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _insert_items(conn: Connection, items: Table, changed: Sequence[_Changed], at: float) -> None:
    initial = new_item(at)
    new = [(*_item(row.inputs, values[_KEY]), *initial.values()) for row, values in changed if row.inputs is not None]
    columns = (*_ITEM_COLUMNS, *initial)
    if new:
        execute(
            conn,
            f"INSERT INTO {items} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
            " ON CONFLICT (key) DO NOTHING",
            new,
        )


def _values(row: Row) -> tuple[Any, ...]:
    """The row's values for `ROW_COLUMNS`."""
    key, take = (None, 1) if row.inputs is None else (row.inputs.key(), row.inputs.take)
    extra = json.dumps(row.extra, ensure_ascii=False) if row.extra else "{}"
    return row.number, row.line, row.id, take, key, row.skipped, row.reason, row.output, extra


def _item(inputs: Inputs, key: str) -> tuple[Any, ...]:
    """The item's values for `_ITEM_COLUMNS`."""
    params = json.dumps(inputs.params, ensure_ascii=False, sort_keys=True) if inputs.params else "{}"
    size = len(inputs.text.encode())
    parameters = (inputs.text, inputs.voice, inputs.model, inputs.format)
    return key, inputs.text_hash(), *parameters, params, size, inputs.take
