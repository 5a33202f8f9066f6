"""Checks the rows' outputs on disk before a run: paths taken by other files, and missing links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import anyio.to_thread

from batcher.audio.store import Store
from batcher.audio.stores import Stores
from batcher.clock import Clock
from batcher.ledger.ledger import Connection, Ledger
from batcher.ledger.lifecycle import collection
from batcher.ledger.queries import outputs
from batcher.ledger.records import Batch, FolderNames, Output
from batcher.ledger.storage import cached_facts, known_folders
from batcher.pipeline.linking import owners_of, row_at
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

    def __init__(self, ledger: Ledger, stores: Stores, clock: Clock) -> None:
        self._ledger = ledger
        self._stores = stores
        self._clock = clock
        self.checked: list[Batch] = []
        """The batches whose outputs were checked and may lack links."""

    async def run(self, batches: Sequence[Batch], *, rescan: bool) -> Conflicts:
        """Check the outputs of these batches; with `rescan`, each of them."""
        conflicts = Conflicts()
        for batch in batches:
            store = self._stores.at(batch.out_dir)
            survey = await self._ledger.do(self._survey, batch, store, rescan=rescan)
            if survey is None:
                continue
            if survey.outputs:
                await anyio.to_thread.run_sync(store.expect, survey.outputs)
            in_the_way = await self._ledger.do(self._check_rows, batch, store, survey)
            for start in range(0, len(in_the_way), _CHUNK):
                await self._add_conflicts(conflicts, batch, store, in_the_way[start : start + _CHUNK])
            self.checked.append(batch)
        return conflicts

    def record_end(self, conn: Connection, batches: Sequence[Batch], *, complete: bool) -> None:
        """Record what this run has linked. `complete`: there were no conflicts, and nothing in these batches failed."""
        known_folders.record_added(conn, self._stores.added.checksums)
        if complete:
            for batch in batches:
                cached_facts.put(conn, _complete(batch), "rows", True)

    def _survey(self, conn: Connection, batch: Batch, store: Store, *, rescan: bool) -> _Survey | None:
        """What is known about the outputs. None if nothing has changed since they were checked."""
        known = {} if rescan else known_folders.get(conn, batch)
        found = {path: self._names(store, path, before) for path, before in known.items()}
        unchanged = bool(known) and all(_same_names(found[path], known[path]) for path in known)
        if unchanged and cached_facts.get(conn, _complete(batch)):
            _record(conn, batch, found, known)
            return None
        folders = outputs.folders(conn, batch, _MAX_FOLDERS + 1, unlinked=unchanged)
        paths = [store.folder_of(folder) for folder in folders]
        current = {path: found.get(path) or self._names(store, path, None) for path in paths}
        rows = outputs.row_outputs(conn, batch, unlinked=unchanged) if store.is_remote else ()
        return _Survey(known, found | current if unchanged else current, unchanged, [output for _, output, _ in rows])

    def _names(self, store: Store, path: str, known: FolderNames | None) -> FolderNames | None:
        return store.names(path, known, reserved=results.RESERVED_ENDINGS, clock=self._clock)

    def _check_rows(self, conn: Connection, batch: Batch, store: Store, survey: _Survey) -> list[str]:
        """Mark outputs that are no longer there as not linked. Returns the rows whose outputs are not free."""
        missing, in_the_way = [], []
        for row_id, output, linked in outputs.row_outputs(conn, batch, unlinked=survey.unchanged):
            if linked:
                if not store.is_there(output):
                    missing.append(row_id)
            elif not store.is_free(output):
                in_the_way.append(row_id)
            if len(missing) >= _CHUNK:
                collection.forget_links(conn, batch.batch_id, missing)
                missing.clear()
        collection.forget_links(conn, batch.batch_id, missing)
        _record(conn, batch, survey.found, survey.known)
        return in_the_way

    async def _add_conflicts(self, conflicts: Conflicts, batch: Batch, store: Store, row_ids: Sequence[str]) -> None:
        """Collect those of these rows whose outputs must not be replaced."""
        found = await self._ledger.do(_outputs_of_rows, batch, row_ids)
        for taken in await anyio.to_thread.run_sync(_taken, store, found):
            if (why := await self._ledger.do(_conflict, store, taken)) is not None:
                conflicts.add(f"row {taken.output.row_id}: {why}")


class _Survey(NamedTuple):
    """The names in the folders of a batch's outputs as the last check has recorded them, and now.

    `unchanged`: only outputs that are not linked must be looked for. `outputs` are those to look for in a remote store.
    """

    known: Mapping[str, FolderNames]
    found: Mapping[str, FolderNames | None]
    unchanged: bool
    outputs: Sequence[str]


class _Taken(NamedTuple):
    """An output whose path is taken: why it cannot be written, the item whose own file is there, and the digest."""

    output: Output
    why: str
    item: tuple[str, str] | None
    sha256: str | None


def _outputs_of_rows(conn: Connection, batch: Batch, row_ids: Sequence[str]) -> list[Output]:
    return [outputs.output_of(conn, batch, row_id) for row_id in row_ids]


def _taken(store: Store, found: Sequence[Output]) -> list[_Taken]:
    reasons = ((output, store.conflict(output)) for output in found)
    return [
        _Taken(output, why, store.item_at(output), store.digest_at(output.output))
        for output, why in reasons
        if why is not None
    ]


def _conflict(conn: Connection, store: Store, taken: _Taken) -> str | None:
    owners = owners_of(conn, taken.output, taken.item, taken.sha256)
    return row_at(conn, store, taken.output, owners) if owners else taken.why


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
