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
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.records import Batch
from batcher.ledger.storage import cached_facts
from batcher.manifest.reader import Manifest
from batcher.pipeline.output_check import Stamps, _Conflicts, are_as_left, folders_as_they_are, survey
from batcher.reports import results
from batcher.reports.progress import Progress
from batcher.settings import Settings, Source

_CLOCK_GRAIN_SECONDS: Final = 2.0
"""Two changes within it may leave a file with the same time: the coarsest file systems count in twos."""


class Ingest:
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
        self.named: list[Batch] = []
        self.wanted: list[Batch] = []
        self.surveyed: list[Batch] = []  # whose outputs were looked for, and may have to be linked
        self._found: dict[int, Stamps] = {}  # by batch, the folders of its outputs as they were before that
        self.refused: str | None = None
        self.hints: list[str] = []  # what to do about it, to be said right after it
        self.told: str | None = None  # what the last run ended with: the same again is no news

    async def run(self) -> None:
        """Take every manifest in; all that is wrong with any of them is told before the first create."""
        known = {batch.name: batch for batch in await self._ledger.do(current_batches)}
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

    async def _import(self, source: Source, before: Batch | None) -> Batch:
        if before is None and not self._settings.restored:
            self._need_free_results(source.rules.batch)
        rules = replace(source.rules, takes=await self._ledger.do(importer.latest_takes, source.rules.batch))
        trusted = self._stamp(source)
        names = {"source": source.name, "out_dir": self._store.out_dir}
        if trusted is not None and not (self._settings.rescan or self._settings.restored):
            known = await self._ledger.do(importer.find_unchanged, rules, **names, trusted=trusted)
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
        for path in results.results_paths(self._settings.out_dir, [batch]):
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
                cached_facts.put(conn, f"outputs {batch.batch_id}", "rows", found)

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
        if hint and hint not in self.hints:
            self.hints.append(hint)
        self.refused = message if self.refused is None else f"{self.refused}; {message}"
        self.wanted = []
