"""What the rows' outputs need before a run: which paths are taken, which links are missing."""

from __future__ import annotations

from typing import Final

from batcher.audio.store import Store
from batcher.ledger.ledger import Connection
from batcher.ledger.lifecycle import collection
from batcher.ledger.queries import outputs
from batcher.ledger.records import Batch, Output
from batcher.ledger.storage import cached_facts

_CONFLICTS_SHOWN: Final = 50


_FOLDERS_KEPT: Final = 1000
"""The outputs of a batch that has more are looked for by every run."""


_CHUNK: Final = 500


Stamps = dict[str, list[int] | None]
"""Folders below an output folder, each with its `stamp`."""


class _Conflicts:
    """How many outputs are taken by other files, and the first of them."""

    def __init__(self) -> None:
        self.number = 0
        self.first: list[str] = []

    def add(self, line: str) -> None:
        self.number += 1
        if self.number <= _CONFLICTS_SHOWN:
            self.first.append(line)


def survey(conn: Connection, batch: Batch, store: Store, conflicts: _Conflicts) -> None:
    """Look at where the rows' outputs belong: what is in the way, and which are there no longer, to be linked again."""
    missing = []
    for row_id, place, linked in outputs.row_outputs(conn, batch):
        if linked:
            if not store.is_there(batch.out_dir, place):
                missing.append(row_id)
        elif not store.is_free(batch.out_dir, place):
            output = outputs.output_of(conn, batch, row_id)
            if (why := store.conflict(output)) is not None and not _is_our_audio(conn, store, output):
                conflicts.add(f"row {row_id}: {why}")
        if len(missing) >= _CHUNK:
            collection.forget_links(conn, batch.batch_id, missing)
            missing.clear()
    collection.forget_links(conn, batch.batch_id, missing)


def are_as_left(conn: Connection, batch: Batch, store: Store) -> bool:
    """Whether neither the batch nor a folder of its outputs has changed since a run left every output in its place."""
    left = cached_facts.get(conn, f"outputs {batch.batch_id}")
    return left is not None and store.stamps(batch.out_dir, list(left)) == left


def folders_as_they_are(conn: Connection, batch: Batch, store: Store) -> Stamps:
    """The folders of the batch's outputs, and by what they are known to be unchanged; too many are not looked at."""
    folders = outputs.folders(conn, batch, _FOLDERS_KEPT + 1)
    return store.stamps(batch.out_dir, folders if len(folders) <= _FOLDERS_KEPT else [])


def _is_our_audio(conn: Connection, store: Store, output: Output) -> bool:
    """Whether what lies at the output is audio that the ledger keeps anyway: another row's, or found when restored."""
    if store.is_item(output):
        return True
    sha256 = store.digest_at(output)
    return sha256 is not None and outputs.is_known_audio(conn, sha256)
