"""The mark in an output folder: which ledger last bought into it, in which run, and whether its results are complete.

A run compares it with its own ledger to detect a restored backup, a new ledger, or a folder of another ledger.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import msgspec

from batcher import files
from batcher.audio import store
from batcher.errors import StorageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The ledger and the run that last worked in an output folder.

    `batches` maps each batch with results there to the digest of its complete results file, None while there is none.
    `original` is False if the folder is a copy of the one that was signed.
    """

    ledger_id: str
    run_id: str
    batches: dict[str, str | None]
    world: str = "real"
    original: bool = True


def owner(out_dir: Path) -> Owner | None:
    """The owner that the folder's mark names. None if there is no readable mark."""
    mark = _path(out_dir)
    try:
        found = json.loads(files.read_config(mark))
        found["original"] = found.pop("inode") == mark.parent.stat().st_ino
        return msgspec.convert(found, Owner, strict=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def sign(out_dir: Path, owner: Owner) -> None:
    """Write the mark durably.

    Raises:
        StorageError: the folder cannot be written.
    """
    mark = _path(out_dir)
    content = {"ledger_id": owner.ledger_id, "run_id": owner.run_id, "batches": owner.batches, "world": owner.world}
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(mark, encoding="utf-8") as file:
            json.dump(content | {"inode": mark.parent.stat().st_ino}, file)
        store.sync_folder(mark.parent)
    except OSError as error:
        raise StorageError(f"cannot write {mark}: {error.strerror}", "Free some space.") from error


def _path(out_dir: Path) -> Path:
    return out_dir / store.ITEMS / ".ledger.json"
