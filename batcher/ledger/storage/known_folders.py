"""The names of the files in each batch's output folders, as they were when its outputs were last checked on disk.

Every linked output of the batch was there then. So while a folder has these names, and those that runs have added
since, every linked output is still there. They are in the table `meta`, since no change of the ledger outdates them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.ledger.records import Batch, FolderNames
from batcher.ledger.storage.schema import meta

_PREFIX: Final = "folders "


def get(conn: Connection, batch: Batch) -> dict[str, FolderNames]:
    """The batch's folders, by their paths relative to the ledger's; none if its outputs must be checked."""
    value = conn.execute(select(meta.c.value).where(meta.c.name == f"{_PREFIX}{batch.batch_id}")).scalar()
    return {} if value is None else _parse(value)


def put(conn: Connection, batch: Batch, folders: Mapping[str, FolderNames]) -> None:
    """Replace the batch's folders: its outputs were checked after their names were read."""
    _store(conn, f"{_PREFIX}{batch.batch_id}", folders)


def record_added(conn: Connection, added: Mapping[str, int]) -> None:
    """Add the checksums of names that this run added to folders, whichever batches have outputs there."""
    for name, value in conn.execute(select(meta.c.name, meta.c.value).where(meta.c.name.startswith(_PREFIX))).all():
        folders = _parse(value)
        changed = {
            path: FolderNames(folders[path].checksum + checksum, folders[path].stamp, trusted=False)
            for path, checksum in added.items()
            if path in folders
        }
        if changed:
            _store(conn, name, folders | changed)


def _parse(value: str) -> dict[str, FolderNames]:
    return {path: FolderNames(*names) for path, names in json.loads(value).items()}


def _store(conn: Connection, name: str, folders: Mapping[str, FolderNames]) -> None:
    value = json.dumps(folders)
    statement = upsert(meta).values(name=name, value=value)
    conn.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": value}))
