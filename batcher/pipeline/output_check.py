"""Checks the rows' outputs on disk before a run: paths taken by other files, and missing links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from batcher.audio.store import Store
from batcher.clock import Clock
from batcher.ledger.ledger import Connection, Ledger
from batcher.ledger.lifecycle import collection
from batcher.ledger.queries import outputs
from batcher.ledger.records import Batch, FolderNames
from batcher.ledger.storage import cached_facts, known_folders
from batcher.pipeline.linking import owners_at, row_at
from batcher.reports import results

_CONFLICTS_SHOWN: Final = 50
"""Maximum number of conflicts described to the user."""
_MAX_FOLDERS: Final = 10_000
"""Maximum number of folders whose names are recorded. Outputs in more folders are checked by every run."""
_CHUNK: Final = 500
"""Missing links recorded in one statement."""


class Conflicts:
    """Outputs whose paths are taken by other files: their number, and descriptions of the first few."""

    def __init__(self) -> None:
        self.number = 0
        self.first: list[str] = []

    def add(self, description: str) -> None:
        """Count a conflict."""
        self.number += 1
        if self.number <= _CONFLICTS_SHOWN:
            self.first.append(description)


class OutputCheck:
    """The outputs of a run's batches, as found on disk before the run linked any.

    Linked outputs are looked for one by one only if somebody else has added or removed files in their folders: see
    `known_folders`. Other outputs are checked for files in the way, unless nothing has changed since a complete run.
    """

    def __init__(self, ledger: Ledger, store: Store, clock: Clock) -> None:
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self.checked: list[Batch] = []
        """The batches whose outputs were checked and may lack links."""

    async def run(self, batches: Sequence[Batch], *, rescan: bool) -> Conflicts:
        """Check the outputs of these batches; with `rescan`, each of them."""
        conflicts = Conflicts()
        for batch in batches:
            if await self._ledger.do(self._check, batch, conflicts, rescan=rescan):
                self.checked.append(batch)
        return conflicts

    def record_end(self, conn: Connection, batches: Sequence[Batch], *, complete: bool) -> None:
        """Record what this run has linked. `complete`: there were no conflicts, and nothing in these batches failed."""
        known_folders.record_added(conn, self._store.added.checksums)
        if complete:
            for batch in batches:
                cached_facts.put(conn, _complete(batch), "rows", True)

    def _check(self, conn: Connection, batch: Batch, conflicts: Conflicts, *, rescan: bool) -> bool:
        """Returns whether there was anything to check."""
        known = {} if rescan else known_folders.get(conn, batch)
        found = {path: self._names(batch, path, before) for path, before in known.items()}
        unchanged = bool(known) and all(_same_names(found[path], known[path]) for path in known)
        if unchanged and cached_facts.get(conn, _complete(batch)):
            _record(conn, batch, found, known)
            return False
        folders = outputs.folders(conn, batch, _MAX_FOLDERS + 1, unlinked=unchanged)
        paths = [self._store.folder_of(batch.out_dir, folder) for folder in folders]
        current = {path: found.get(path) or self._names(batch, path, None) for path in paths}
        self._check_rows(conn, batch, conflicts, unlinked=unchanged)
        _record(conn, batch, found | current if unchanged else current, known)
        return True

    def _names(self, batch: Batch, path: str, known: FolderNames | None) -> FolderNames | None:
        return self._store.names(
            path, known, out_dir=batch.out_dir, reserved=results.RESERVED_ENDINGS, clock=self._clock
        )

    def _check_rows(self, conn: Connection, batch: Batch, conflicts: Conflicts, *, unlinked: bool) -> None:
        """Collect conflicts, and mark outputs that are no longer on disk as not linked. `unlinked`: only of rows not
        linked so far."""
        missing = []
        for row_id, output, linked in outputs.row_outputs(conn, batch, unlinked=unlinked):
            if linked:
                if not self._store.is_there(batch.out_dir, output):
                    missing.append(row_id)
            elif not self._store.is_free(batch.out_dir, output) and (why := self._conflict(conn, batch, row_id)):
                conflicts.add(f"row {row_id}: {why}")
            if len(missing) >= _CHUNK:
                collection.forget_links(conn, batch.batch_id, missing)
                missing.clear()
        collection.forget_links(conn, batch.batch_id, missing)

    def _conflict(self, conn: Connection, batch: Batch, row_id: str) -> str | None:
        output = outputs.output_of(conn, batch, row_id)
        why = self._store.conflict(output)
        if why is None:
            return None
        owners = owners_at(conn, self._store, output)
        return row_at(conn, self._store, output, owners) if owners else why


def _same_names(found: FolderNames | None, known: FolderNames) -> bool:
    return found is not None and found.checksum == known.checksum


def _record(
    conn: Connection, batch: Batch, found: Mapping[str, FolderNames | None], known: Mapping[str, FolderNames]
) -> None:
    """Replace the batch's known folders; by none if there are too many, or one cannot be listed."""
    listed = {path: names for path, names in found.items() if names is not None}
    folders = listed if len(listed) == len(found) <= _MAX_FOLDERS else {}
    if folders != known:
        known_folders.put(conn, batch, folders)


def _complete(batch: Batch) -> str:
    """Name of the cached fact that every output of the batch is linked, or free until its item is done."""
    return f"outputs {batch.batch_id}"
