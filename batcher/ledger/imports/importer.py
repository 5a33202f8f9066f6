"""A manifest's way into the ledger: all of it in one transaction, or none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.errors import ManifestError
from batcher.formatting import counted
from batcher.item import KEY_VERSION
from batcher.ledger.imports import rebuys
from batcher.ledger.imports.conflicts import OtherBatch, other_batches, reject_conflicts
from batcher.ledger.imports.staging import ROW_COLUMNS, Staging, delete_unused_items, stage_changes, staged
from batcher.ledger.records import Batch
from batcher.ledger.storage.planner import LATER_TAKE
from batcher.ledger.storage.schema import batches, items, meta, recalled, rows
from batcher.manifest.reader import Manifest
from batcher.manifest.rows import READING, Rules


def latest_takes(conn: Connection, batch: str) -> dict[str, int]:
    """The take that each row of the batch last stood for, where it is not the first."""
    later = (rows.c.batch_id == _batch_id(conn, batch), LATER_TAKE.of(rows))
    found = {row.id: row.take for row in conn.execute(select(rows.c.id, rows.c.take).where(*later))}
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
    trusted: str | None = None,
) -> Batch:
    """Read the manifest into the ledger as its batch's newest version; `rules` are those that it is read by.

    With `trusted`, a manifest without faults is known again by it: see `known_again`.

    Raises:
        ManifestError: it has faults that are not to be skipped, or without `rebuy` too much that is paid for would be
            bought again; the ledger is as it was.
    """
    batch = rules.batch
    staging = stage(conn, manifest, rules, out_dir, at)
    values = {"source": source, "digest": manifest.digest, "rules": _how(rules), "out_dir": out_dir}
    if not rebuy:
        same_file = is_same_file(conn, manifest, rules)
        rebuys.refuse_rebuys(conn, staging, manifest.name, batch, same_file=same_file)
    values["trusted"] = None if manifest.faults or trusted is None else _as_read(trusted)
    wanted = _merge(conn, staging, batch, values, at)
    _keep_reading(conn, wanted, rules)
    if rebuy:
        _forget_told(conn, batch)
    return wanted


def _keep_reading(conn: Connection, wanted: Batch, rules: Rules) -> None:
    said = {name: getattr(rules, name) for name in ("columns", "encoding")}
    new = {"value": json.dumps(said, default=dict)}
    statement = upsert(meta).values(name=f"reading {wanted.batch_id}", **new)
    conn.execute(statement.on_conflict_do_update(index_elements=["name"], set_=new))


def rules_of(conn: Connection, wanted: Batch) -> Rules:
    """By what the batch's file was taken apart when it was last imported: which columns it was told, which encoding."""
    name = f"reading {wanted.batch_id}"
    said: str | None = conn.execute(select(meta.c.value).where(meta.c.name == name)).scalar()
    return Rules(batch=wanted.name, **json.loads(said or "{}"))


def _forget_told(conn: Connection, batch: str) -> None:
    """A person has agreed to buy rows that results files tell of with other inputs: that is asked once."""
    told = recalled.c.item_key.in_(select(items.c.key))
    conn.execute(delete(recalled).where(recalled.c.batch == batch, ~told))


def known_again(conn: Connection, rules: Rules, *, source: str, out_dir: str, trusted: str) -> Batch | None:
    """The batch, if it was imported from just this file, with no fault, by the same rules; None to have it read."""
    where = (batches.c.name == rules.batch, batches.c.source == source, batches.c.out_dir == out_dir)
    found = conn.execute(select(batches).where(*where, batches.c.trusted == _as_read(trusted))).first()
    if found is None or found.rules != _how(rules):
        return None
    return Batch(batch_id=found.id, name=found.name, version=found.version, out_dir=found.out_dir)


def _as_read(trusted: str) -> str:
    """The same, for as long as this program would read the file as the one that imported it did."""
    return f"{READING}.{KEY_VERSION} {trusted}"


def stage(
    conn: Connection,
    manifest: Manifest,
    rules: Rules,
    out_dir: str,
    at: float,
    *,
    requested: Table = items,
    others: Sequence[OtherBatch] | None = None,
) -> Staging:
    """Stage the manifest's rows, with the items that they request in `requested`.

    `others` are the batches whose outputs they must leave alone, by default all others of the ledger.

    Raises:
        ManifestError: it has faults that cannot or must not be skipped.
    """
    # Restored rows are compared with every row, changed or not.
    restored = conn.execute(select(recalled.c.row_id).where(recalled.c.batch == rules.batch).limit(1)).first()
    batch_id = _batch_id(conn, rules.batch)
    staging = stage_changes(conn, manifest, batch_id, requested, at, all_rows=restored is not None)
    others = other_batches(conn, rules.batch) if others is None else others
    if reject_conflicts(conn, staging, manifest.faults, others, out_dir):
        delete_unused_items(conn, staging)
    if manifest.faults.fatal or (manifest.faults and not rules.skip_invalid):
        hint = "Mend them; --skip-invalid cannot pass over all of them."
        if not manifest.faults.fatal:
            hint = "Mend them, or pass --skip-invalid to go on with the good rows."
        message = f"{manifest.name}: {counted(manifest.faults.count, 'fault')}; nothing was created"
        raise ManifestError(message, manifest.faults.lines(), hint)
    return staging


def _batch_id(conn: Connection, batch: str) -> int | None:
    number: int | None = conn.execute(select(batches.c.id).where(batches.c.name == batch)).scalar()
    return number


def is_same_file(conn: Connection, manifest: Manifest, rules: Rules) -> bool:
    """Whether the batch was last imported from a file with the same content, once the manifest is read to its end."""
    before: str | None = conn.execute(select(batches.c.digest).where(batches.c.name == rules.batch)).scalar()
    return before is not None and before == manifest.digest


def _how(rules: Rules) -> str:
    """A digest of everything in the rules that changes what a row comes to."""
    how = {name: getattr(rules, name) for name in Rules.__dataclass_fields__}
    return hashlib.sha256(json.dumps(how, sort_keys=True, default=dict).encode()).hexdigest()


def _merge(conn: Connection, staging: Staging, batch: str, values: dict[str, Any], at: float) -> Batch:
    """Make what is staged, with what is unchanged, the batch as it reads now."""
    wanted = _version(conn, batch, values, at)
    if staging.batch_id is not None:
        _retire(conn, staging)
    columns = ", ".join(ROW_COLUMNS)
    change = ", ".join(f"{name} = excluded.{name}" for name in ("is_current", *ROW_COLUMNS) if name != "id")
    into = f"rows (batch_id, is_current, {columns}) SELECT ?, 1, {columns} FROM staged WHERE true ORDER BY number"  # noqa: S608
    statement = f"INSERT INTO {into} ON CONFLICT (batch_id, id) DO UPDATE SET {change}"
    conn.exec_driver_sql(statement, (wanted.batch_id,))
    staged.drop(conn)
    return wanted


def _retire(conn: Connection, staging: Staging) -> None:
    """What the manifest has no longer is not current any more."""
    conn.exec_driver_sql(
        "UPDATE rows SET is_current = 0 WHERE batch_id = :batch_id AND is_current = 1 "
        "AND (number > :last OR number IN (SELECT number FROM staged)) AND id NOT IN (SELECT id FROM staged)",
        staging.parameters,
    )


def _version(conn: Connection, batch: str, values: dict[str, Any], at: float) -> Batch:
    values = values | {"imported_at": at}
    out_dir = values["out_dir"]
    old = conn.execute(select(batches).where(batches.c.name == batch)).first()
    if old is None:
        made = insert(batches).values(name=batch, version=1, **values).returning(batches.c.id)
        return Batch(batch_id=conn.execute(made).scalar_one(), name=batch, version=1, out_dir=out_dir)
    version = old.version + ((values["digest"], values["rules"]) != (old.digest, old.rules))
    conn.execute(update(batches).where(batches.c.id == old.id).values(version=version, **values))
    if out_dir != old.out_dir:
        conn.execute(update(rows).where(rows.c.batch_id == old.id).values(linked_key=None, linked_output=None))
    return Batch(batch_id=old.id, name=batch, version=version, out_dir=out_dir)
