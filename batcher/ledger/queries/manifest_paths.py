"""Where the manifests of batches are. Those in the ledger's folder, or below, are found again after it was moved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from batcher.ledger.records import Batch
from batcher.ledger.storage.database import home_folder
from batcher.ledger.storage.schema import batches

STDIN: Final = "<stdin>"
"""The source of a batch that was read from standard input."""


def source_name(manifest: Path | None, home: Path) -> str:
    """The source of a batch, as it is stored: relative to the ledger's folder `home` if the manifest is in it."""
    if manifest is None:
        return STDIN
    path = Path(os.path.realpath(manifest.parent)) / manifest.name  # the file itself may be a link, which stays
    return str(path.relative_to(home) if path.is_relative_to(home) else path)


def source_of(conn: Connection, batch: Batch) -> tuple[str, str]:
    """The manifest of the batch's last import, an absolute path unless it was `STDIN`, and its content's SHA-256."""
    row = conn.execute(select(batches.c.source, batches.c.digest).where(batches.c.id == batch.batch_id)).one()
    return _path_of(row.source, home_folder(conn)), row.digest


def batches_of(conn: Connection, manifest: Path) -> list[str]:
    """Names of the batches that were imported from this manifest."""
    query, home = select(batches.c.name, batches.c.source).order_by(batches.c.id), home_folder(conn)
    wanted = os.path.realpath(manifest)
    return [row.name for row in conn.execute(query) if os.path.realpath(_path_of(row.source, home)) == wanted]


def _path_of(source: str, home: Path) -> str:
    """The path of a stored source. Earlier versions stored absolute paths: a file of that name in `home` is preferred,
    since a folder that was moved or copied has it there."""
    if source == STDIN:
        return source
    own = home / Path(source).name
    return str(own if Path(source).is_absolute() and own.is_file() else home / source)
