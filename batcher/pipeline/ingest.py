"""The manifests' way in: read, judged as a whole, taken into the ledger; then what their rows' outputs need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO, Final

from batcher.audio.store import Store, stamp
from batcher.clock import Clock
from batcher.errors import ManifestError
from batcher.formatting import counted
from batcher.ledger.imports import importer
from batcher.ledger.ledger import Connection, Ledger
from batcher.ledger.lifecycle import collection
from batcher.ledger.queries import item_counts
from batcher.ledger.queries.item_counts import Output
from batcher.ledger.records import Wanted
from batcher.ledger.storage import cached_facts
from batcher.manifest import Manifest
from batcher.pipeline.delivery import Delivery
from batcher.reports import run_report
from batcher.reports.progress import Progress
from batcher.settings import Settings, Source

_CLOCK_GRAIN_SECONDS: Final = 2.0
"""Two changes within it may leave a file with the same time: the coarsest file systems count in twos."""
_CONFLICTS_SHOWN: Final = 50
_FOLDERS_KEPT: Final = 1000
"""The outputs of a batch that has more are looked for by every run."""
_CHUNK: Final = 500
SWEPT: Final = "swept"
Stamps = dict[str, list[int] | None]
"""Folders below an output folder, each with its `stamp`."""


class Intake:
    """What the manifests of one run came to.

    `named` are the batches that the run speaks of, `wanted` those that it may buy for: none of them once `refused`
    says what is wrong with any.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        store: Store,
        progress: Progress,
        clock: Clock,
        stdin: BinaryIO | None,
    ) -> None:
        self._stdin = stdin
        self._settings = settings
        self._ledger = ledger
        self._store = store
        self._progress = progress
        self._clock = clock
        self.named: list[Wanted] = []
        self.wanted: list[Wanted] = []
        self.surveyed: list[Wanted] = []  # whose outputs were looked for, and may have to be linked
        self._found: dict[int, Stamps] = {}  # by batch, the folders of its outputs as they were before that
        self.refused: str | None = None
        self.ways_out: list[str] = []  # what to do about it, to be said right after it
        self.told: str | None = None  # what the last run ended with: the same again is no news

    async def run(self) -> None:
        """Take every manifest in; all that is wrong with any of them is told before the first create."""
        known = {batch.name: batch for batch in await self._ledger.do(item_counts.current_batches)}
        if not self._settings.sources:
            self.named = list(known.values())
        for source in self._settings.sources:
            batch = source.rules.batch
            try:
                self.named.append(await self._import(source, known.get(batch)))
            except ManifestError as error:
                self.refuse(error.message, error.faults, error.hint)
                self.named += [known[batch]] if batch in known else []
        await self._survey()
        self.wanted = [] if self.refused or self._settings.collect_only else self.named

    async def _import(self, source: Source, before: Wanted | None) -> Wanted:
        if before is None and not self._settings.restored:
            self._need_free_results(source.rules.batch)
        rules = replace(source.rules, takes=await self._ledger.do(importer.latest_takes, source.rules.batch))
        trusted = self._stamp(source)
        names = {"source": source.name, "out_dir": self._store.out_dir}
        if trusted is not None and not (self._settings.rescan or self._settings.restored):
            known = await self._ledger.do(importer.known_again, rules, **names, trusted=trusted)
            if known is not None:
                return known
        manifest = Manifest(source.path, rules, stdin=self._stdin)
        wanted = await self._ledger.do(
            importer.import_manifest,
            manifest,
            rules,
            **names,
            at=self._clock.now(),
            rebuy=self._settings.rebuy,
            trusted=trusted if trusted == self._stamp(source) else None,
        )
        tell = self._progress.say if wanted == before else self._progress.warn
        for line in manifest.faults.lines():
            tell(f"skipped: {line}")
        if before is None:
            self._introduce(manifest, rules.filename)
        return wanted

    def _need_free_results(self, batch: str) -> None:
        for path in run_report.results_paths(self._settings.out_dir, [batch]):
            if path.exists():
                message = f"{path} was not written by this ledger; nothing was created"
                raise ManifestError(message, [], "Move it away, or choose another --batch or --out-dir.")

    def _introduce(self, manifest: Manifest, filename: str) -> None:
        """Say, the first time, what is made of the columns, and of a workbook which sheet is read."""
        if manifest.sheet is not None:
            self._progress.say(f"of the workbook the first sheet is read: {manifest.sheet}")
        sent = ", ".join(
            header if header == name else f"{header} (as {name})" for header, name in manifest.columns_sent.items()
        )
        carried = ", ".join(manifest.columns_carried)
        self._progress.say(f"columns used: {sent}" + (f"; only carried to the results: {carried}" if carried else ""))
        if "id" not in manifest.columns_sent.values() and "{id" in filename:
            self._progress.say(
                "there is no id column: outputs are named by row number, and inserting a row renames what follows"
            )

    def _stamp(self, source: Source) -> str | None:
        """By what an unchanged file will be known again; None where a change might leave that as it is."""
        found = stamp(source.path) if source.path is not None else None
        return " ".join(map(str, found)) if found is not None and self._is_old(found) else None

    def _is_old(self, found: list[int]) -> bool:
        return max(found[-2:]) / 1e9 <= self._clock.now() - _CLOCK_GRAIN_SECONDS

    def leave(self, conn: Connection) -> None:
        """Every output that can be there is in its place: where nobody, this run included, has put a file there or
        taken one away since it was looked for, keep by what the next run will know that it need not look."""
        for batch in self.surveyed:
            found = self._found[batch.batch_id]
            untouched = self._store.stamps(batch.out_dir, list(found)) == found
            if found and untouched and all(one is None or self._is_old(one) for one in found.values()):
                cached_facts.keep(conn, f"outputs {batch.batch_id}", "rows", found)

    async def _survey(self) -> None:
        conflicts = _Conflicts()
        for batch in self.named:
            if self._settings.rescan or not await self._ledger.do(are_as_left, batch, self._store):
                self.surveyed.append(batch)
                self._found[batch.batch_id] = await self._ledger.do(folders_as_they_are, batch, self._store)
                await self._ledger.do(survey, batch, self._store, conflicts)
        if conflicts.number:
            self.refuse(
                f"{counted(conflicts.number, 'output')} would take the place of other files; nothing was created",
                conflicts.first,
                "Move those files away, or choose another --out-dir or --filename.",
            )

    def refuse(self, message: str, lines: Sequence[str], hint: str) -> None:
        """Let nothing be created: show `lines` now; the end of the run says the message, and the way out after it."""
        tell = self._progress.say if message == self.told else self._progress.warn
        for line in lines:
            if line != message:
                tell(line)
        if hint and hint not in self.ways_out:
            self.ways_out.append(hint)
        self.refused = message if self.refused is None else f"{self.refused}; {message}"
        self.wanted = []


class _Conflicts:
    """How many outputs are taken by other files, and the first of them."""

    def __init__(self) -> None:
        self.number = 0
        self.first: list[str] = []

    def add(self, line: str) -> None:
        self.number += 1
        if self.number <= _CONFLICTS_SHOWN:
            self.first.append(line)


def survey(conn: Connection, batch: Wanted, store: Store, conflicts: _Conflicts) -> None:
    """Look at where the rows' outputs belong: what is in the way, and which are there no longer, to be linked again."""
    missing = []
    for row_id, place, linked in item_counts.places(conn, batch):
        if linked:
            if not store.is_there(batch.out_dir, place):
                missing.append(row_id)
        elif not store.is_free(batch.out_dir, place):
            output = item_counts.output_of(conn, batch, row_id)
            if (why := store.conflict(output)) is not None and not _is_our_audio(conn, store, output):
                conflicts.add(f"row {row_id}: {why}")
        if len(missing) >= _CHUNK:
            collection.forget_links(conn, batch.batch_id, missing)
            missing.clear()
    collection.forget_links(conn, batch.batch_id, missing)


def are_as_left(conn: Connection, batch: Wanted, store: Store) -> bool:
    """Whether neither the batch nor a folder of its outputs has changed since a run left every output in its place."""
    left = cached_facts.look(conn, f"outputs {batch.batch_id}")
    return left is not None and store.stamps(batch.out_dir, list(left)) == left


def folders_as_they_are(conn: Connection, batch: Wanted, store: Store) -> Stamps:
    """The folders of the batch's outputs, and by what they are known to be unchanged; too many are not looked at."""
    folders = item_counts.folders(conn, batch, _FOLDERS_KEPT + 1)
    return store.stamps(batch.out_dir, folders if len(folders) <= _FOLDERS_KEPT else [])


def _is_our_audio(conn: Connection, store: Store, output: Output) -> bool:
    """Whether what lies at the output is audio that the ledger keeps anyway: another row's, or found when restored."""
    if store.is_item(output):
        return True
    sha256 = store.digest_at(output)
    return sha256 is not None and item_counts.is_known_audio(conn, sha256)


async def take_up_files(ledger: Ledger, store: Store, delivery: Delivery) -> None:
    """Take up what an earlier run left on disk: a recorded file in its place is saved, unfinished parts go."""
    for task, out_dir, path, sha256 in await ledger.do(collection.recorded_files):
        if store.holds(out_dir, path, sha256):
            await delivery.save(task)
    open_tasks = await ledger.do(item_counts.collectable)
    if open_tasks or not await ledger.do(cached_facts.look, SWEPT):
        await sweep(ledger, store)


async def sweep(ledger: Ledger, store: Store) -> None:
    """Remove unfinished parts, and remember that there are none."""
    for part in list(store.leftovers()):
        part.unlink(missing_ok=True)
    await ledger.do(cached_facts.keep, SWEPT, "rows", True)
