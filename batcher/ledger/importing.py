"""A manifest's way into the ledger: all of it in one transaction, or none.

The rows pass through a temporary table, where what only shows over the whole file (an id or an output used twice) is
found by SQL, so that memory does not grow with the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.errors import ManifestError
from batcher.ledger import changes
from batcher.ledger.machine import new_item
from batcher.ledger.records import Wanted
from batcher.ledger.schema import REPEAT_MARK, batches, items, recalled, rows
from batcher.manifest import Manifest, Row, Rules
from batcher.words import counted

_CHUNK: Final = 500

_staged = Table(
    "staged",
    MetaData(),
    Column("number", Integer, primary_key=True),
    Column("line", Integer, nullable=False),
    Column("id", Text, nullable=False, index=True),
    Column("take", Integer, nullable=False),
    Column("item_key", Text),
    Column("skipped", Text),
    Column("reason", Text),
    Column("output", Text, nullable=False, index=True),
    Column("extra", Text, nullable=False),
    Column("text_hash", Text),
    Column("text", Text),
    Column("voice", Text),
    Column("model", Text),
    Column("format", Text),
    Column("params", Text),
    Column("bytes", Integer),
    Column("defaulted", Text, nullable=False),
    prefixes=["TEMPORARY"],
)
_ITEM_COLUMNS: Final = ("text_hash", "text", "voice", "model", "format", "params", "bytes", "take")
_ROW_COLUMNS: Final = ("id", "number", "line", "take", "item_key", "skipped", "reason", "output", "extra")


def latest_takes(conn: Connection, batch: str) -> dict[str, int]:
    """The take that each row of the batch last stood for, where it is not the first."""
    query = select(rows.c.id, rows.c.take).join(batches).where(batches.c.name == batch, rows.c.take > 1)
    found = {row.id: row.take for row in conn.execute(query)}
    told = select(recalled.c.row_id, recalled.c.take).where(recalled.c.batch == batch, recalled.c.take > 1)
    for row_id, take in conn.execute(told):
        found[row_id] = max(take, found.get(row_id, 1))
    return found


def import_manifest(
    conn: Connection,
    manifest: Manifest,
    rules: Rules,
    *,
    source: str,
    out_dir: str,
    at: float,
    rebuy: bool = False,
) -> Wanted:
    """Read the manifest into the ledger as its batch's newest version; `rules` are those that it is read by.

    Raises:
        ManifestError: it has faults that are not to be skipped, or without `rebuy` too much that is paid for would be
            bought again; the ledger is as it was.
    """
    batch = rules.batch
    _stage_all(conn, manifest, rules, out_dir)
    values = {"source": source, "digest": manifest.digest, "rules": _how(rules), "out_dir": out_dir}
    if not rebuy:
        changes.refuse_rebuys(conn, _staged, manifest.name, batch, same_file=_is_same_file(conn, batch, values))
    wanted = _version(conn, batch, values, at)
    _merge(conn, wanted, at)
    if rebuy:
        _forget_told(conn, batch)
    _staged.drop(conn)
    return wanted


def _forget_told(conn: Connection, batch: str) -> None:
    """A person has agreed to buy rows that results files tell of with other inputs: that is asked once."""
    told = recalled.c.item_key.in_(select(items.c.key))
    conn.execute(delete(recalled).where(recalled.c.batch == batch, ~told))


def foresee(
    conn: Connection, manifest: Manifest, rules: Rules, *, out_dir: str, at: float
) -> tuple[Wanted, dict[str, list[str]], str | None]:
    """Import for a plan, into a ledger that is thrown away afterwards.

    Returns the batch, what changed in rows that the ledger knows (fields, and the ids of some such rows), and why
    `--rebuy` would be wanted, if it would.

    Raises:
        ManifestError: it has faults that are not to be skipped.
    """
    _stage_all(conn, manifest, rules, out_dir)
    values = {"source": "", "digest": manifest.digest, "rules": _how(rules), "out_dir": out_dir}
    changed = changes.changed_rows(conn, _staged, rules.batch)
    refusal = None
    try:
        same_file = _is_same_file(conn, rules.batch, values)
        changes.refuse_rebuys(conn, _staged, manifest.name, rules.batch, same_file=same_file)
    except ManifestError as error:
        refusal = "\n".join([*error.faults, error.hint])
    wanted = _version(conn, rules.batch, values, at)
    _merge(conn, wanted, at)
    _staged.drop(conn)
    return wanted, changed, refusal


def _stage_all(conn: Connection, manifest: Manifest, rules: Rules, out_dir: str) -> None:
    _staged.create(conn)
    for chunk in _chunks(manifest.rows()):
        conn.execute(insert(_staged), chunk)
    batch = rules.batch
    _find_repeats(conn, manifest, "id")
    _find_repeats(conn, manifest, "output")
    _find_folders(conn, manifest)
    _find_taken_outputs(conn, manifest, batch, out_dir)
    if manifest.faults.fatal or (manifest.faults and not rules.skip_invalid):
        hint = "Mend them; --skip-invalid cannot pass over all of them."
        if not manifest.faults.fatal:
            hint = "Mend them, or pass --skip-invalid to go on with the good rows."
        message = f"{manifest.name}: {counted(manifest.faults.count, 'fault')}; nothing was created"
        raise ManifestError(message, manifest.faults.lines(), hint)


def _is_same_file(conn: Connection, batch: str, values: dict[str, Any]) -> bool:
    before: str | None = conn.execute(select(batches.c.digest).where(batches.c.name == batch)).scalar()
    return before is not None and before == str(values["digest"])


def _how(rules: Rules) -> str:
    """A digest of everything in the rules that changes what a row comes to."""
    how = {name: getattr(rules, name) for name in Rules.__dataclass_fields__}
    return hashlib.sha256(json.dumps(how, sort_keys=True, default=dict).encode()).hexdigest()


def _chunks(found: Iterator[Row]) -> Iterable[list[dict[str, Any]]]:
    while chunk := [_stage(row) for row in islice(found, _CHUNK)]:
        yield chunk


def _stage(row: Row) -> dict[str, Any]:
    staged: dict[str, Any] = {
        "number": row.number,
        "line": row.line,
        "id": row.id,
        "take": 1,
        "item_key": None,
        "skipped": row.skipped,
        "reason": row.reason,
        "output": row.output,
        "extra": json.dumps(row.extra, ensure_ascii=False),
        "defaulted": ",".join(row.defaulted),
        **dict.fromkeys(_ITEM_COLUMNS[:-1]),
    }
    if row.inputs is not None:
        inputs = row.inputs
        staged |= {"item_key": inputs.key(), "take": inputs.take, "text_hash": inputs.text_hash(), "text": inputs.text}
        staged |= {"voice": inputs.voice, "model": inputs.model, "format": inputs.format}
        staged |= {"bytes": len(inputs.text.encode())}
        staged |= {"params": json.dumps(inputs.params, ensure_ascii=False, sort_keys=True)}
    return staged


def _find_repeats(conn: Connection, manifest: Manifest, column: str) -> None:
    """Report every row whose `column` an earlier row has, and set it aside as invalid."""
    value = _staged.c[column]
    good = _staged.c.skipped.is_(None) if column == "output" else value != ""
    first = (
        select(value.label("value"), func.min(_staged.c.number).label("number"), func.min(_staged.c.line).label("line"))
        .where(good)
        .group_by(value)
        .having(func.count() > 1)
        .subquery()
    )
    query = (
        select(_staged.c.number, _staged.c.line, first.c.value, first.c.line.label("first_line"))
        .join(first, first.c.value == value)
        .where(good, _staged.c.number > first.c.number)
        .order_by(_staged.c.number)
    )
    for row in conn.execute(query).all():
        what = "id" if column == "id" else "output path"
        reason = f"{row.value!r} is taken by line {row.first_line}"
        _set_aside(conn, manifest, row.number, row.line, column, reason, f"{what} {row.value}")


def _find_folders(conn: Connection, manifest: Manifest) -> None:
    """Report every row whose output would have to be a file and a folder at once."""
    nested = select(_staged.c.output).where(_staged.c.skipped.is_(None), _staged.c.output.contains("/"))
    folders = {
        str(folder) for row in conn.execute(nested) for folder in PurePosixPath(row.output).parents if folder.name
    }
    query = select(_staged.c.number, _staged.c.line, _staged.c.output).where(_staged.c.skipped.is_(None))
    for folder in sorted(folders):
        for row in conn.execute(query.where(_staged.c.output == folder)).all():
            reason = f"{row.output!r} is also the folder of other outputs"
            _set_aside(conn, manifest, row.number, row.line, "output", reason, f"folder {folder}")


def _find_taken_outputs(conn: Connection, manifest: Manifest, batch: str, out_dir: str) -> None:
    """Report every row whose output is another batch's, also where one's output folder lies within the other's."""
    others = select(batches).where(batches.c.name != batch)
    for other in conn.execute(others).all():
        inwards, outwards = os.path.relpath(out_dir, other.out_dir), os.path.relpath(other.out_dir, out_dir)
        mine: ColumnElement[str] = _staged.c.output
        theirs: ColumnElement[str] = rows.c.output
        if inwards != "." and not inwards.startswith(".."):
            mine = literal(f"{inwards}/") + mine
        elif outwards != "." and not outwards.startswith(".."):
            theirs = literal(f"{outwards}/") + theirs
        elif inwards != ".":
            continue
        query = (
            select(_staged.c.number, _staged.c.line, _staged.c.output)
            .join(rows, theirs == mine)
            .where(rows.c.batch_id == other.id, rows.c.version == other.version)
            .where(_staged.c.skipped.is_(None), rows.c.skipped.is_(None))
            .order_by(_staged.c.number)
        )
        for row in conn.execute(query).all():
            way_out = "choose another --filename, --out-dir or --batch"
            reason = f"{row.output!r} belongs to batch {other.name!r}: {way_out}"
            _set_aside(conn, manifest, row.number, row.line, "output", reason, f"outputs of batch {other.name}")


def _set_aside(
    conn: Connection, manifest: Manifest, number: int, line: int, column: str, reason: str, cause: str
) -> None:
    manifest.faults.add(line, column, reason, cause=cause)
    values: dict[str, Any] = {"skipped": "invalid", "item_key": None, "reason": reason}
    if column == "id":
        values["id"] = _staged.c.id + f"{REPEAT_MARK}{number}"
    conn.execute(update(_staged).where(_staged.c.number == number).values(**values))


def _version(conn: Connection, batch: str, values: dict[str, Any], at: float) -> Wanted:
    values = values | {"imported_at": at}
    out_dir = values["out_dir"]
    old = conn.execute(select(batches).where(batches.c.name == batch)).first()
    if old is None:
        made = insert(batches).values(name=batch, version=1, **values).returning(batches.c.id)
        return Wanted(batch_id=conn.execute(made).scalar_one(), name=batch, version=1, out_dir=out_dir)
    version = old.version + ((values["digest"], values["rules"]) != (old.digest, old.rules))
    conn.execute(update(batches).where(batches.c.id == old.id).values(version=version, **values))
    if out_dir != old.out_dir:
        conn.execute(update(rows).where(rows.c.batch_id == old.id).values(linked_key=None, linked_output=None))
    return Wanted(batch_id=old.id, name=batch, version=version, out_dir=out_dir)


def _merge(conn: Connection, wanted: Wanted, at: float) -> None:
    fixed = new_item(at)
    new_items = select(
        _staged.c.item_key, *(_staged.c[name] for name in _ITEM_COLUMNS), *(literal(value) for value in fixed.values())
    ).where(_staged.c.item_key.is_not(None))
    conn.execute(
        upsert(items)
        .from_select(["key", *_ITEM_COLUMNS, *fixed], new_items, include_defaults=False)
        .on_conflict_do_nothing(index_elements=["key"])
    )
    new_rows = select(
        literal(wanted.batch_id), literal(wanted.version), *(_staged.c[name] for name in _ROW_COLUMNS)
    ).where(_staged.c.number > 0)
    statement = upsert(rows).from_select(["batch_id", "version", *_ROW_COLUMNS], new_rows, include_defaults=False)
    changed = {name: statement.excluded[name] for name in ("version", *_ROW_COLUMNS[1:])}
    conn.execute(statement.on_conflict_do_update(index_elements=["batch_id", "id"], set_=changed))
