"""A manifest's rows on their way into the ledger, and the faults that only show over the whole file.

Only what differs from the batch as the ledger has it is staged, in a temporary table; new items go to their own table
at once, where nothing comes upon them before a row stands for them. What only shows over the whole file (an id or an
output used twice) is found by SQL. So memory does not grow with the manifest, nor time with what has not changed in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    func,
    literal,
    select,
    update,
)

from batcher.item import Inputs
from batcher.ledger.lifecycle.transitions import new_item
from batcher.ledger.storage.schema import REPEAT_MARK, batches, rows
from batcher.manifest.reader import Manifest
from batcher.manifest.rows import Row

_CHUNK: Final = 500
_CHUNK_CHARACTERS: Final = 1 << 20
"""Rows are written so many together, or fewer if their texts are long."""
_Fresh = tuple[Row, tuple[Any, ...]]

staged = Table(
    "staged",
    MetaData(),
    Column("number", Integer, primary_key=True),
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
ROW_COLUMNS: Final = ("number", "line", "id", "take", "item_key", "skipped", "reason", "output", "extra")
_ITEM_COLUMNS: Final = ("key", "text_hash", "text", "voice", "model", "format", "params", "bytes", "take")
_COLUMNS: Final = ", ".join(ROW_COLUMNS)
_KNOWN: Final = f"SELECT {_COLUMNS} FROM rows WHERE batch_id = ? AND is_current = 1 ORDER BY number"  # noqa: S608
_STAGE: Final = f"INSERT INTO staged VALUES ({', '.join('?' * len(staged.columns))})"  # noqa: S608
UNCHANGED: Final = (
    "rows.batch_id = :batch_id AND rows.is_current = 1 AND rows.number <= :last "
    "AND rows.number NOT IN (SELECT number FROM staged)"
)
"""The batch's rows that the manifest, whose last row is `:last`, has as they are. Holds until the rows are merged."""
_RIVALS: Final = (
    "rows WHERE rows.id IN (SELECT id FROM staged)",
    "rows WHERE rows.output IN (SELECT output FROM staged)",
    "staged AS other CROSS JOIN rows WHERE rows.output > other.output || '/' AND rows.output < other.output || '0'",
)


@dataclass(frozen=True, slots=True)
class Rival:
    """Another batch: its name, its output folder as the ledger keeps it, and the outputs that are its own."""

    batch: str
    out_dir: str
    outputs: Select[tuple[str]]


def rivals_of(conn: Connection, batch: str) -> list[Rival]:
    """Every other batch of the ledger, as it reads now."""
    outputs = select(rows.c.output).where(rows.c.is_current == 1, rows.c.skipped.is_(None))
    others = conn.execute(select(batches).where(batches.c.name != batch))
    return [Rival(row.name, row.out_dir, outputs.where(rows.c.batch_id == row.id)) for row in others]


class Staging:
    """One manifest against its batch, whose number is `batch_id` (None for a new one).

    What staged rows ask for is kept in `asked`. With `whole` every row is staged, as if it had changed.
    """

    def __init__(
        self, conn: Connection, manifest: Manifest, batch_id: int | None, asked: Table, *, whole: bool = False
    ) -> None:
        self.batch_id = batch_id
        self.asked = asked
        self._compared = None if whole else batch_id
        self.last = 0
        """The number of the manifest's last row, once all are staged."""
        self.changed = 0
        """How many of them differ from the batch's."""
        self._conn = conn
        self._manifest = manifest

    def stage(self, rivals: Sequence[Rival], out_dir: str, at: float) -> None:
        """Stage what differs, and add to the manifest's faults what is wrong over the whole of it.

        No output may be one of `rivals`, the outputs of other batches.

        Raises:
            ManifestError: the file cannot be read at all.
        """
        self._conn.exec_driver_sql("DROP TABLE IF EXISTS temp.staged")
        staged.create(self._conn)
        newest: int = self._conn.exec_driver_sql(f"SELECT coalesce(max(rowid), 0) FROM {self.asked}").scalar_one()  # noqa: S608
        for chunk in _chunks(self._fresh()):
            self.changed += len(chunk)
            self._keep_items(chunk, at)
            self._conn.exec_driver_sql(_STAGE, [(*values, ",".join(row.defaulted)) for row, values in chunk])
        for column in ("id", "output", "item_key"):
            self._conn.exec_driver_sql(f"CREATE INDEX temp.staged_{column} ON staged ({column})")
        self._find_faults(rivals, out_dir, newest)

    @property
    def bound(self) -> dict[str, Any]:
        """What stands for the names in `UNCHANGED`."""
        return {"batch_id": self.batch_id, "last": self.last}

    def _fresh(self) -> Iterator[_Fresh]:
        """The rows that the batch has not got in just that place with just these values."""
        known = iter(self._conn.exec_driver_sql(_KNOWN, (self._compared,)))
        old = next(known, None)
        for row in self._manifest.rows():
            self.last = row.number
            while old is not None and old[0] < row.number:
                old = next(known, None)
            values = _values(row)
            if old is None or tuple(old) != values:
                yield row, values

    def _keep_items(self, found: Sequence[_Fresh], at: float) -> None:
        """Keep an item of each row that there is none for."""
        fixed = new_item(at)
        new = [_item(row.inputs, key) + tuple(fixed.values()) for row, (*_, key, _, _, _, _) in found if row.inputs]
        names = (*_ITEM_COLUMNS, *fixed)
        into = f"{self.asked} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        if new:
            self._conn.exec_driver_sql(f"INSERT INTO {into} ON CONFLICT (key) DO NOTHING", new)

    def _find_faults(self, rivals: Sequence[Rival], out_dir: str, newest: int) -> None:
        before = self._manifest.faults.count
        folders = self._folders()
        if self.changed < self.last:
            self._stage_rivals(folders)
        self._find_repeats("id")
        self._find_repeats("output")
        self._find_folders(folders)
        for rival in rivals:
            self._find_taken_outputs(rival, out_dir)
        if self._manifest.faults.count > before:
            # What was made for rows that are set aside now is nobody's.
            self._conn.exec_driver_sql(
                f"DELETE FROM {self.asked} WHERE rowid > ? AND key NOT IN "  # noqa: S608
                "(SELECT item_key FROM staged WHERE item_key IS NOT NULL)",
                (newest,),
            )

    def _stage_rivals(self, folders: set[str]) -> None:
        """Stage the unchanged rows too that have an id, an output or a folder in common with a changed one."""
        columns = ", ".join(f"rows.{name}" for name in ROW_COLUMNS)
        insert = f"INSERT INTO staged SELECT DISTINCT {columns}, '' FROM"
        for rivals in _RIVALS:
            self._conn.exec_driver_sql(f"{insert} {rivals} AND {UNCHANGED}", self.bound)
        for folder in sorted(folders):
            where = f"rows WHERE rows.output = :folder AND {UNCHANGED}"
            self._conn.exec_driver_sql(f"{insert} {where}", self.bound | {"folder": folder})

    def _folders(self) -> set[str]:
        """Every folder that a staged row's output lies in, below the output folder."""
        nested = select(staged.c.output).where(staged.c.skipped.is_(None), staged.c.output.contains("/"))
        found = self._conn.execute(nested)
        return {str(folder) for row in found for folder in PurePosixPath(row.output).parents if folder.name}

    def _find_repeats(self, column: str) -> None:
        """Report every row whose `column` an earlier row has, and set it aside as invalid."""
        value = staged.c[column]
        good = staged.c.skipped.is_(None) if column == "output" else value != ""
        first = (
            select(
                value.label("value"), func.min(staged.c.number).label("number"), func.min(staged.c.line).label("line")
            )
            .where(good)
            .group_by(value)
            .having(func.count() > 1)
            .subquery()
        )
        query = (
            select(staged.c.number, staged.c.line, first.c.value, first.c.line.label("first_line"))
            .join(first, first.c.value == value)
            .where(good, staged.c.number > first.c.number)
            .order_by(staged.c.number)
        )
        for row in self._conn.execute(query).all():
            what = "id" if column == "id" else "output path"
            reason = f"{row.value!r} is taken by line {row.first_line}"
            self._set_aside(row.number, row.line, column, reason, f"{what} {row.value}")

    def _find_folders(self, folders: set[str]) -> None:
        """Report every row whose output would have to be a file and a folder at once."""
        query = select(staged.c.number, staged.c.line, staged.c.output).where(staged.c.skipped.is_(None))
        for folder in sorted(folders):
            for row in self._conn.execute(query.where(staged.c.output == folder)).all():
                reason = f"{row.output!r} is also the folder of other outputs"
                self._set_aside(row.number, row.line, "output", reason, f"folder {folder}")

    def _find_taken_outputs(self, rival: Rival, out_dir: str) -> None:
        """Report every row whose output is another batch's, also where one's output folder lies within the other's."""
        inwards, outwards = os.path.relpath(out_dir, rival.out_dir), os.path.relpath(rival.out_dir, out_dir)
        mine: ColumnElement[str] = staged.c.output
        theirs: ColumnElement[str] = rival.outputs.selected_columns[0]
        if inwards != "." and not inwards.startswith(".."):
            mine = literal(f"{inwards}/") + mine
        elif outwards != "." and not outwards.startswith(".."):
            theirs = literal(f"{outwards}/") + theirs
        elif inwards != ".":
            return
        query = rival.outputs.join(staged, theirs == mine).where(staged.c.skipped.is_(None))
        found = query.with_only_columns(staged.c.number, staged.c.line, staged.c.output).order_by(staged.c.number)
        for row in self._conn.execute(found).all():
            hint = "choose another --filename, --out-dir or --batch"
            reason = f"{row.output!r} belongs to batch {rival.batch!r}: {hint}"
            self._set_aside(row.number, row.line, "output", reason, f"outputs of batch {rival.batch}")

    def _set_aside(self, number: int, line: int, column: str, reason: str, cause: str) -> None:
        self._manifest.faults.add(line, column, reason, cause=cause)
        values: dict[str, Any] = {"skipped": "invalid", "item_key": None, "reason": reason}
        if column == "id":
            values["id"] = staged.c.id + f"{REPEAT_MARK}{number}"
        self._conn.execute(update(staged).where(staged.c.number == number).values(**values))


def _chunks(found: Iterator[_Fresh]) -> Iterator[list[_Fresh]]:
    chunk: list[_Fresh] = []
    size = 0
    for one in found:
        chunk.append(one)
        size += len(one[0].inputs.text) if one[0].inputs is not None else 0
        if len(chunk) == _CHUNK or size > _CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _values(row: Row) -> tuple[Any, ...]:
    """The row as its table has it, in the order of `ROW_COLUMNS`."""
    key, take = (None, 1) if row.inputs is None else (row.inputs.key(), row.inputs.take)
    extra = json.dumps(row.extra, ensure_ascii=False) if row.extra else "{}"
    return row.number, row.line, row.id, take, key, row.skipped, row.reason, row.output, extra


def _item(inputs: Inputs, key: str) -> tuple[Any, ...]:
    """What a row asks for, in the order of `_ITEM_COLUMNS`."""
    params = json.dumps(inputs.params, ensure_ascii=False, sort_keys=True) if inputs.params else "{}"
    size = len(inputs.text.encode())
    words = (inputs.text, inputs.voice, inputs.model, inputs.format)
    return key, inputs.text_hash(), *words, params, size, inputs.take
