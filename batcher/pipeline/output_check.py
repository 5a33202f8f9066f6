"""Checks the rows' outputs on disk before a run: paths taken by other files, missing links, unchanged folders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from batcher.audio.store import Store
from batcher.clock import Clock
from batcher.ledger.ledger import Connection, Ledger
from batcher.ledger.lifecycle import collection
from batcher.ledger.queries import outputs
from batcher.ledger.records import Batch, Output
from batcher.ledger.storage import cached_facts

_CONFLICTS_SHOWN: Final = 50
"""Maximum number of conflicts described to the user."""
_MAX_FOLDERS: Final = 1000
"""The outputs of a batch in more folders are checked by every run."""
_CHUNK: Final = 500
"""Missing links recorded in one statement."""
_CLOCK_GRAIN_SECONDS: Final = 2.0
"""The coarsest resolution of file times: a second change within it may not alter a stamp."""

_Stamps = dict[str, list[int] | None]
"""Folders below an output folder, each with its stamp."""


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
    """The outputs of a run's batches, as found on disk before the run linked any."""

    def __init__(self, ledger: Ledger, store: Store, clock: Clock) -> None:
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._checked: dict[Batch, _Stamps] = {}

    @property
    def checked(self) -> list[Batch]:
        """The batches whose outputs were checked and may lack links."""
        return list(self._checked)

    async def run(self, batches: Sequence[Batch], *, rescan: bool) -> Conflicts:
        """Check the outputs of these batches, except, unless `rescan`, where nothing has changed since the last run."""
        conflicts = Conflicts()
        for batch in batches:
            if rescan or not await self._ledger.do(self._is_unchanged, batch):
                self._checked[batch] = await self._ledger.do(self._stamp_folders, batch)
                await self._ledger.do(self._check, batch, conflicts)
        return conflicts

    def record_complete(self, conn: Connection) -> None:
        """All outputs are linked: record the folders' stamps, so that the next run can skip the check.

        A batch is recorded only if nobody, including this run, has changed its folders since the check.
        """
        for batch, stamps in self._checked.items():
            unchanged = self._store.stamps(batch.out_dir, list(stamps)) == stamps
            if stamps and unchanged and all(one is None or is_settled(one, self._clock) for one in stamps.values()):
                cached_facts.put(conn, f"outputs {batch.batch_id}", "rows", stamps)

    def _is_unchanged(self, conn: Connection, batch: Batch) -> bool:
        """Whether neither the batch nor its output folders have changed since a run linked all its outputs."""
        stamps = cached_facts.get(conn, f"outputs {batch.batch_id}")
        return stamps is not None and self._store.stamps(batch.out_dir, list(stamps)) == stamps

    def _stamp_folders(self, conn: Connection, batch: Batch) -> _Stamps:
        """The stamps of the batch's output folders; none if there are too many."""
        folders = outputs.folders(conn, batch, _MAX_FOLDERS + 1)
        return self._store.stamps(batch.out_dir, folders if len(folders) <= _MAX_FOLDERS else [])

    def _check(self, conn: Connection, batch: Batch, conflicts: Conflicts) -> None:
        """Collect conflicts, and mark outputs that are no longer on disk as not linked."""
        missing = []
        for row_id, output, linked in outputs.row_outputs(conn, batch):
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
        return None if why is None or self._is_our_audio(conn, output) else why

    def _is_our_audio(self, conn: Connection, output: Output) -> bool:
        """Whether the file at the output is audio that the ledger has: another row's, or a restored row's."""
        if self._store.is_item(output):
            return True
        sha256 = self._store.digest_at(output)
        return sha256 is not None and bool(outputs.places_of_audio(conn, sha256))


def is_settled(stamp: list[int], clock: Clock) -> bool:
    """Whether the last change is old enough that any further change alters the stamp."""
    return max(stamp[-2:]) / 1e9 <= clock.now() - _CLOCK_GRAIN_SECONDS
