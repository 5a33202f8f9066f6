"""The mark in an output folder: which ledger last bought into it, in which run, and whether its results are complete.

A run compares it with its own ledger to detect a restored backup, a new ledger, or a folder of another ledger.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import msgspec

from batcher.audio.store import ITEMS, Store
from batcher.errors import StorageError

_MARK: Final = f"{ITEMS}/.ledger.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The ledger and the run that last worked in an output folder.

    `batches` maps each batch with results there to the digest of its complete results file, None while there is none.
    `original` is False if the folder is a copy of the one that was signed. `ended`: the ledger has the end of that run.
    """

    ledger_id: str
    run_id: str
    batches: dict[str, str | None]
    world: str = "real"
    original: bool = True
    ended: bool = False


def owner(store: Store) -> Owner | None:
    """The owner that the folder's mark names. None if there is no readable mark.

    Raises:
        StorageError: an object store does not answer.
    """
    content = store.read(_MARK)
    try:
        found = json.loads(content or b"")
        found["original"] = found.pop("inode") == store.identity()
        return msgspec.convert(found, Owner, strict=True)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def sign(store: Store, owner: Owner) -> None:
    """Write the mark durably.

    Raises:
        StorageError: the folder cannot be written.
    """
    names = ("ledger_id", "run_id", "batches", "world", "ended")
    content = {name: getattr(owner, name) for name in names}
    try:
        with store.replacing(_MARK, encoding="utf-8") as file:
            json.dump(content | {"inode": store.identity()}, file)
        store.flush()
    except OSError as error:
        hint = "Run it again later." if store.is_remote else "Free some space."
        raise StorageError(f"cannot write {store.shown(_MARK)}: {error.strerror}", hint) from error
