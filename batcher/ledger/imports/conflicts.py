"""Rejects staged rows that clash with other rows: checks that need the whole file, and the ledger's other batches.

`staged` holds only what changed, so the unchanged rows that share an id, an output or a folder with a staged row are
staged first; each check is then one query over `staged`. A row that clashes becomes a fault of the manifest and is
staged as invalid, which later checks respect.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from sqlalchemy import Connection, select

from batcher.ledger.imports.lookalikes import FORM, add_functions, lookalikes, lookalikes_elsewhere
from batcher.ledger.imports.staging import ROW_COLUMNS, UNCHANGED, Staging
from batcher.ledger.storage.schema import REPEAT_MARK, batches
from batcher.ledger.storage.statements import execute, stream
from batcher.manifest.faults import Faults, literal


@dataclass(frozen=True, slots=True)
class OtherBatch:
    """A batch whose outputs the manifest must leave alone. `outputs` is a SELECT of their paths below `out_dir`."""

    name: str
    out_dir: str
    outputs: str


class _Conflict(NamedTuple):
    """A row that clashes with another. Conflicts with the same `cause` are reported on one line."""

    number: int
    line: int
    column: str
    reason: str
    cause: str


def other_batches(conn: Connection, batch: str) -> list[OtherBatch]:
    """Every batch of the ledger except this one."""
    outputs = "SELECT output FROM rows WHERE batch_id = {} AND is_current = 1 AND skipped IS NULL"
    found = conn.execute(select(batches.c.id, batches.c.name, batches.c.out_dir).where(batches.c.name != batch))
    return [OtherBatch(row.name, row.out_dir, outputs.format(row.id)) for row in found]


def outputs_within(out_dir: str, others: Sequence[OtherBatch]) -> dict[str, str]:
    """The SELECT of the outputs of each of these batches that has this output folder, by its name."""
    return {other.name: other.outputs for other in others if os.path.relpath(out_dir, other.out_dir) == "."}


def reject_conflicts(
    conn: Connection,
    staging: Staging,
    faults: Faults,
    others: Sequence[OtherBatch],
    out_dir: str,
    *,
    ignores_case: bool = False,
) -> bool:
    """Reject staged rows that clash with a row of the same manifest or with an output of another batch.

    Each becomes one of `faults`. `ignores_case`: in the output folder, names that differ only by case are one file.
    Returns whether there are any.
    """
    count = faults.count
    add_functions(conn)
    folders = _folders(conn)
    if 0 < staging.changed < staging.rows:
        _stage_related(conn, staging, folders)
    for check in (
        _repeated_ids(conn),
        _repeated_outputs(conn),
        _outputs_that_look_the_same(conn, ignores_case=ignores_case),
        _outputs_that_are_one_file(conn, outputs_within(out_dir, others) if ignores_case else {}),
        _outputs_used_as_folders(conn, folders),
        *(_outputs_of_other_batch(conn, out_dir, other) for other in others),
    ):
        for conflict in check:
            _reject(conn, conflict, faults)
    return faults.count > count


def _reject(conn: Connection, conflict: _Conflict, faults: Faults) -> None:
    faults.add(conflict.line, conflict.column, conflict.reason, cause=conflict.cause)
    suffix = f"{REPEAT_MARK}{conflict.number}" if conflict.column == "id" else ""
    execute(
        conn,
        "UPDATE staged SET skipped = 'invalid', item_key = NULL, reason = ?, id = id || ? WHERE number = ?",
        (conflict.reason, suffix, conflict.number),
    )


def _folders(conn: Connection) -> set[str]:
    """Folders below the output folder in which outputs of staged rows lie, with the folders above them."""
    nested = stream(conn, "SELECT output FROM staged WHERE skipped IS NULL AND instr(output, '/') > 0")
    return {str(folder) for row in nested for folder in PurePosixPath(row.output).parents if folder.name}


_RELATED: Final = (
    "rows.batch_id = :batch_id AND rows.id = other.id",
    "rows.output = other.output",
    "rows.output > other.output || '/' AND rows.output < other.output || '0'",  # below it ('0' follows '/')
)


_LOOKALIKE: Final = f"rows WHERE {FORM.format('rows.output')} IN (SELECT folded(output) FROM staged)"  # noqa: S608
"""Rows with an output that looks like a staged one. All rows are read."""


def _stage_related(conn: Connection, staging: Staging, folders: set[str]) -> None:
    """Stage unchanged rows that share an id, an output or a folder with a changed one, or look like it."""
    columns = ", ".join(f"rows.{name}" for name in ROW_COLUMNS)
    insert = f"INSERT INTO staged SELECT DISTINCT {columns}, '' FROM"
    for related in _RELATED:
        # CROSS JOIN makes SQLite go from staged rows to the others.
        execute(conn, f"{insert} staged AS other CROSS JOIN rows WHERE {related} AND {UNCHANGED}", staging.parameters)
    execute(conn, f"{insert} {_LOOKALIKE} AND {UNCHANGED}", staging.parameters)
    for folder in sorted(folders):
        where = f"rows WHERE rows.output = :folder AND {UNCHANGED}"
        execute(conn, f"{insert} {where}", staging.parameters | {"folder": folder})


_REPEATED: Final = """
    WITH
        repeated AS MATERIALIZED (SELECT {column} AS value FROM staged GROUP BY {column} HAVING count(*) > 1),
        first AS MATERIALIZED (
            SELECT value, min(number) AS number, min(line) AS line
            FROM repeated CROSS JOIN staged ON staged.{column} = value WHERE {condition} GROUP BY value)
    SELECT staged.number, staged.line, first.value, first.line AS first_line
    FROM first CROSS JOIN staged ON staged.{column} = first.value
    WHERE {condition} AND staged.number > first.number ORDER BY staged.number"""
"""Values are counted in the index alone; only rows with repeated ones are read."""
_REPEATED_IDS: Final = _REPEATED.format(column="id", condition="staged.id <> ''")
_REPEATED_OUTPUTS: Final = _REPEATED.format(column="output", condition="staged.skipped IS NULL")


def _repeated_ids(conn: Connection) -> Iterator[_Conflict]:
    for row in execute(conn, _REPEATED_IDS).all():
        reason = f"{literal(row.value)} is taken by line {row.first_line}"
        yield _Conflict(row.number, row.line, "id", reason, f"id {row.value}")


def _repeated_outputs(conn: Connection) -> Iterator[_Conflict]:
    for row in execute(conn, _REPEATED_OUTPUTS).all():
        reason = f"{literal(row.value)} is taken by line {row.first_line}"
        yield _Conflict(row.number, row.line, "output", reason, f"output path {row.value}")


def _outputs_that_look_the_same(conn: Connection, *, ignores_case: bool) -> Iterator[_Conflict]:
    for one in lookalikes(conn):
        if ignores_case or not one.by_case:
            reason = (
                f"{literal(one.output)} looks like {literal(one.first_output)} of {one.owner}: they differ "
                "only by case, variants of letters or invisible characters: choose another id or output"
            )
            yield _Conflict(one.number, one.line, "output", reason, f"looks like {one.first_output}")


def _outputs_that_are_one_file(conn: Connection, outputs: Mapping[str, str]) -> Iterator[_Conflict]:
    """Outputs that differ only by case from one of another batch."""
    for one in lookalikes_elsewhere(conn, outputs):
        if one.by_case:
            reason = (
                f"{literal(one.output)} is the file {literal(one.first_output)} of {one.owner} here: choose another id"
            )
            yield _Conflict(one.number, one.line, "output", reason, f"the file {one.first_output}")


def _outputs_used_as_folders(conn: Connection, folders: set[str]) -> Iterator[_Conflict]:
    query = "SELECT number, line, output FROM staged WHERE skipped IS NULL AND output = ?"
    for folder in sorted(folders):
        for row in execute(conn, query, (folder,)).all():
            reason = f"{literal(row.output)} is also the folder of other outputs"
            yield _Conflict(row.number, row.line, "output", reason, f"folder {folder}")


def _outputs_of_other_batch(conn: Connection, out_dir: str, other: OtherBatch) -> Iterator[_Conflict]:
    join = _same_path(out_dir, other.out_dir)
    if join is None:
        return
    condition, prefix = join
    query = (
        f"SELECT staged.number, staged.line, staged.output FROM ({other.outputs}) AS other JOIN staged ON {condition}"  # noqa: S608
        " WHERE staged.skipped IS NULL ORDER BY staged.number"
    )
    for row in execute(conn, query, {"prefix": prefix}).all():
        hint = "choose another --filename, --out-dir or --batch"
        reason = f"{literal(row.output)} belongs to batch {literal(other.name)}: {hint}"
        yield _Conflict(row.number, row.line, "output", reason, f"outputs of batch {other.name}")


def _same_path(out_dir: str, other_dir: str) -> tuple[str, str] | None:
    """SQL for a staged output being the same file as another batch's, and its `:prefix`.

    None if neither output folder lies in the other.
    """
    ours, theirs = os.path.relpath(out_dir, other_dir), os.path.relpath(other_dir, out_dir)
    if ours == ".":
        return "other.output = staged.output", ""
    if not ours.startswith(".."):
        return "other.output = :prefix || staged.output", f"{ours}/"
    if not theirs.startswith(".."):
        return "staged.output = :prefix || other.output", f"{theirs}/"
    return None
