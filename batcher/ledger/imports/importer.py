"""Imports a manifest into its batch, in one transaction or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, insert, select, update

from batcher.errors import ManifestError, Suggestion
from batcher.formatting import counted
from batcher.item import KEY_VERSION
from batcher.ledger.imports import rebuys
from batcher.ledger.imports.conflicts import OtherBatch, other_batches, outputs_within, reject_conflicts
from batcher.ledger.imports.doubts import refuse_doubts, refuse_unlisted_voices
from batcher.ledger.imports.lookalikes import name_hints
from batcher.ledger.imports.parse_options import (
    FileFacts,
    counts_records,
    last_columns,
    refuse_other_filter,
    save_parse_options,
)
from batcher.ledger.imports.renames import refuse_renames
from batcher.ledger.imports.staging import ROW_COLUMNS, Staging, delete_unused_items, stage_changes, staged
from batcher.ledger.records import Batch
from batcher.ledger.storage import bulk
from batcher.ledger.storage.planner import LATER_TAKE
from batcher.ledger.storage.schema import batches, items, recalled, rows
from batcher.ledger.storage.sharing import repeated, try_turn
from batcher.ledger.storage.statements import execute
from batcher.manifest.reader import Manifest
from batcher.manifest.rows import READER_VERSION
from batcher.manifest.rules import PARSE_OPTIONS, Rules

_LATER: Final = PARSE_OPTIONS.keys() - {"columns", "encoding"}


def with_history(conn: Connection, rules: Rules) -> Rules:
    """The rules with what the ledger knows about their batch: its rows' highest takes, and how it numbers them."""
    return replace(rules, takes=highest_takes(conn, rules.batch), counted=counts_records(conn, rules.batch))


def highest_takes(conn: Connection, batch: str) -> dict[str, int]:
    """The highest take that each row of the batch has used, by the row's id, where it is not the first."""
    later = (rows.c.batch_id == _batch_id(conn, batch), LATER_TAKE.of(rows))
    takes = {row.id: row.highest_take for row in conn.execute(select(rows.c.id, rows.c.highest_take).where(*later))}
    restored = select(recalled.c.row_id, recalled.c.take).where(recalled.c.batch == batch, recalled.c.take > 1)
    for row_id, take in conn.execute(restored):
        takes[row_id] = max(take, takes.get(row_id, 1))
    return takes


def import_manifest(
    conn: Connection,
    manifest: Manifest,
    rules: Rules,
    *,
    source: str,
    out_dir: str,
    at: float,
    rebuy: bool = False,
    rename: bool = False,
    refilter: bool = False,
    allow: Collection[str] = (),
    ignores_case: bool = False,
    trusted: str | None = None,
) -> Batch:
    """Import the manifest, read by `rules`, as the newest version of its batch.

    `ignores_case`: in the output folder, names that differ only by case are one file.
    `trusted` is the fingerprint of its file. It is stored if the manifest has no faults, for `find_unchanged`.

    Raises:
        ManifestError: it has faults that are not skipped; or, without `rebuy`, it would buy too many paid rows again;
            or, without `rename`, it would rename the audio of too many; or, without `refilter`, it selects rows
            otherwise than the last import. The ledger is unchanged.
        DoubtError: new texts have contents that are hardly meant to be spoken, of types that `allow` does not name.
            The ledger is unchanged.
        LockedError: another run imports a manifest. Nothing was read.
    """
    try_turn(conn, "import")
    if not refilter:
        refuse_other_filter(conn, rules, manifest.name)
    staging = stage(conn, manifest, rules, out_dir, at, ignores_case=ignores_case)
    if not rename:
        refuse_renames_of(conn, staging, manifest, rules)
    if not rebuy:
        refuse_rebuys_of(conn, staging, manifest, rules)
    refuse_doubts(conn, staging, manifest.name, rules, allow)
    columns = {
        "source": source,
        "digest": manifest.digest,
        "rules": _digest(rules),
        "out_dir": out_dir,
        "imported_at": at,
        "trusted": None if manifest.faults or trusted is None else _versioned(trusted),
    }
    return repeated(conn, lambda: _replace_batch(conn, staging, manifest, rules, columns, rebuy=rebuy))


def _replace_batch(
    conn: Connection, staging: Staging, manifest: Manifest, rules: Rules, columns: dict[str, Any], *, rebuy: bool
) -> Batch:
    """Make the staged rows and these columns the newest version of the batch."""
    batch = _save_batch(conn, rules.batch, columns)
    _merge(conn, staging, batch)
    save_parse_options(conn, batch, rules, facts_of(manifest))
    if rebuy:
        _delete_mismatched_restored_rows(conn, rules.batch)
    return batch


def facts_of(manifest: Manifest) -> FileFacts:
    """What reading the manifest to its end found out about it."""
    return FileFacts(
        notes=manifest.description(),
        columns_sent=manifest.columns_sent,
        columns_carried=manifest.columns_carried,
        left_out=manifest.left_out,
        stripped=manifest.stripped,
    )


def find_unchanged(conn: Connection, rules: Rules, *, source: str, out_dir: str, trusted: str) -> Batch | None:
    """The batch, if its last import read a file with this fingerprint by the same rules and found no faults.

    None if the file must be read.
    """
    where = (batches.c.name == rules.batch, batches.c.source == source, batches.c.out_dir == out_dir)
    found = conn.execute(select(batches).where(*where, batches.c.trusted == _versioned(trusted))).first()
    if found is None or found.rules != _digest(rules):
        return None
    return Batch(batch_id=found.id, name=found.name, version=found.version, out_dir=found.out_dir)


def stage(
    conn: Connection,
    manifest: Manifest,
    rules: Rules,
    out_dir: str,
    at: float,
    *,
    requested: Table = items,
    others: Sequence[OtherBatch] | None = None,
    ignores_case: bool = False,
) -> Staging:
    """Stage the manifest's rows, with the items that they request in `requested`.

    `others` are the batches whose outputs they must leave alone, by default all others of the ledger. Hints about
    names are added to the manifest's.

    Raises:
        ManifestError: it has faults that are not skipped, or voices that `[voices]` lacks.
    """
    # Restored rows are compared with every row, changed or not.
    restored = conn.execute(select(recalled.c.row_id).where(recalled.c.batch == rules.batch).limit(1)).first()
    batch_id = _batch_id(conn, rules.batch)
    staging = stage_changes(conn, manifest, rules.batch, batch_id, requested, at, all_rows=restored is not None)
    others = other_batches(conn, rules.batch) if others is None else others
    if reject_conflicts(conn, staging, manifest.faults, others, out_dir, ignores_case=ignores_case):
        delete_unused_items(conn, staging)
    if manifest.faults.fatal or (manifest.faults and not rules.skip_invalid):
        hint = "Fix them; --skip-invalid cannot skip all of them."
        if not manifest.faults.fatal:
            hint = "Fix them, or pass --skip-invalid to continue with the valid rows."
        message = f"{manifest.name}: {counted(manifest.faults.count, 'fault')}; nothing was created"
        hint = "\n".join([" ".join([hint, *manifest.faults.hints]), *_voices_table(manifest.faults.speakers)])
        raise ManifestError(message, manifest.faults.lines(), hint, suggestion=_as_meant(manifest, rules))
    refuse_unlisted_voices(conn, staging, manifest.name, rules)
    manifest.hints += name_hints(conn, outputs_within(out_dir, others))
    return staging


def _as_meant(manifest: Manifest, rules: Rules) -> Suggestion | None:
    """The command with the options that the faults name, beside the columns that are named already."""
    options = {name: list(values) for name, values in manifest.faults.options.items()}
    named_text = "--header-row" in options or any(pair.startswith("text=") for pair in options.get("--column", ()))
    if not options or not (named_text or "text" in manifest.columns_sent.values()):
        return None
    if "--column" in options:
        named = {pair.partition("=")[0] for pair in options["--column"]}
        before = [f"{field}={header}" for field, header in rules.columns.items() if field not in named]
        options["--column"] = before + options["--column"]
    return Suggestion("To read it like this:", options)


def _voices_table(speakers: Collection[str]) -> list[str]:
    """The lines of `batcher.toml` to complete, if a column of speakers may name the voices."""
    if not speakers:
        return []
    table = [f'  {json.dumps(speaker, ensure_ascii=False)} = "VOICE"' for speaker in speakers]
    return ["If the column has names instead of voice IDs, put these lines into batcher.toml:", "  [voices]", *table]


def refuse_renames_of(conn: Connection, staging: Staging, manifest: Manifest, rules: Rules) -> None:
    """Refuse an import that would rename the audio of too many rows.

    Raises:
        ManifestError: it would.
    """
    columns = last_columns(conn, staging.batch_id)
    same_file = is_same_file(conn, manifest, rules)
    refuse_renames(conn, staging, manifest.name, columns, same_file=same_file)


def refuse_rebuys_of(conn: Connection, staging: Staging, manifest: Manifest, rules: Rules) -> None:
    """Refuse an import that would buy again more than a few edited rows, or anything because a default changed.

    Raises:
        ManifestError: it would.
    """
    same_file = is_same_file(conn, manifest, rules)
    last = last_columns(conn, staging.batch_id)
    rebuys.refuse_rebuys(conn, staging, manifest, rules, last, same_file=same_file)


def is_same_file(conn: Connection, manifest: Manifest, rules: Rules) -> bool:
    """Whether the batch's last import read the same content. The manifest must have been read to its end."""
    before: str | None = conn.execute(select(batches.c.digest).where(batches.c.name == rules.batch)).scalar()
    return before is not None and before == manifest.digest


def _batch_id(conn: Connection, batch: str) -> int | None:
    batch_id: int | None = conn.execute(select(batches.c.id).where(batches.c.name == batch)).scalar()
    return batch_id


def _versioned(fingerprint: str) -> str:
    """The fingerprint, valid until a version of the program reads files or makes keys in another way."""
    return f"{READER_VERSION}.{KEY_VERSION} {fingerprint}"


def _digest(rules: Rules) -> str:
    """SHA-256 of the rules, all of which can change what is imported. Those that came later count only when set: the
    rules of older versions stay the same, and so does `counted` for each batch."""
    values = {name: getattr(rules, name) for name in Rules.__dataclass_fields__ if name != "counted"}
    values = {name: value for name, value in values.items() if value or name not in _LATER}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=dict).encode()).hexdigest()


def _save_batch(conn: Connection, name: str, columns: dict[str, Any]) -> Batch:
    """Insert or update the batch; a changed file or changed rules make its next version."""
    out_dir = columns["out_dir"]
    old = conn.execute(select(batches).where(batches.c.name == name)).first()
    if old is None:
        new = insert(batches).values(columns | {"name": name, "version": 1}).returning(batches.c.id)
        return Batch(batch_id=conn.execute(new).scalar_one(), name=name, version=1, out_dir=out_dir)
    version = old.version + ((columns["digest"], columns["rules"]) != (old.digest, old.rules))
    conn.execute(update(batches).where(batches.c.id == old.id).values(columns | {"version": version}))
    if out_dir != old.out_dir:
        conn.execute(update(rows).where(rows.c.batch_id == old.id).values(linked_key=None, linked_output=None))
    return Batch(batch_id=old.id, name=name, version=version, out_dir=out_dir)


_IS_LINK_UNCERTAIN: Final = """
    rows.linked_key = excluded.item_key AND rows.linked_output = excluded.output
    AND NOT (rows.is_current = 1 AND rows.item_key IS excluded.item_key AND rows.output = excluded.output)"""
"""A row that is as it was before an earlier import, and was linked then: its output has not been checked since."""


def _merge(conn: Connection, staging: Staging, batch: Batch) -> None:
    """Make the staged and the unchanged rows the current rows of the batch."""
    if staging.batch_id is not None:
        _retire_missing(conn, staging)
    columns = ", ".join(ROW_COLUMNS)
    changes = ", ".join(f"{name} = excluded.{name}" for name in ("is_current", *ROW_COLUMNS) if name != "id")
    changes += f", linked_key = iif({_IS_LINK_UNCERTAIN}, NULL, rows.linked_key)"
    changes += ", highest_take = nullif(iif(rows.highest_take > excluded.take, rows.highest_take, excluded.take), 1)"
    with bulk.indexes_built_last(conn, "rows", staging.changed), bulk.large_cache(conn):
        execute(
            conn,
            f"INSERT INTO rows (batch_id, is_current, highest_take, {columns}) "  # noqa: S608
            f"SELECT ?, 1, nullif(take, 1), {columns} FROM staged WHERE true ORDER BY number "
            f"ON CONFLICT (batch_id, id) DO UPDATE SET {changes}",
            (batch.batch_id,),
        )
    if staging.changed >= bulk.MIN_ROWS:
        bulk.analyze(conn, rows, items)
    staged.drop(conn)


def _retire_missing(conn: Connection, staging: Staging) -> None:
    """Mark rows that the manifest no longer has as not current; they stay in the ledger."""
    execute(
        conn,
        "UPDATE rows SET is_current = 0 WHERE batch_id = :batch_id AND is_current = 1 "
        "AND (number > :last OR EXISTS (SELECT 1 FROM staged WHERE staged.number = rows.number) "
        "OR EXISTS (SELECT 1 FROM gaps WHERE gaps.number = rows.number)) "
        "AND NOT EXISTS (SELECT 1 FROM staged WHERE staged.id = rows.id)",
        staging.parameters,
    )


def _delete_mismatched_restored_rows(conn: Connection, batch: str) -> None:
    """Delete restored rows whose items the ledger lacks: `--rebuy` agreed to buy them with other inputs."""
    in_ledger = recalled.c.item_key.in_(select(items.c.key))
    conn.execute(delete(recalled).where(recalled.c.batch == batch, ~in_ledger))
