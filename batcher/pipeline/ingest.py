"""Ingests a run's manifests: reads, validates and imports each, then checks the rows' outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

from batcher.audio.store import Store, stamp
from batcher.clock import Clock
from batcher.errors import ManifestError
from batcher.formatting import counted
from batcher.ledger.imports import importer
from batcher.ledger.ledger import Connection, Ledger
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.records import Batch
from batcher.manifest.reader import Manifest
from batcher.pipeline.output_check import OutputCheck, is_settled
from batcher.reports import results
from batcher.reports.progress import Progress
from batcher.settings import Settings, Source


class Ingest:
    """The batches of one run.

    `named` are the batches that the run reports on, `wanted` those that it may buy for. A set `refused` is the reason
    why there are none, and `hints` are its remedies. `told` is the message of the previous run: the same message
    again is not news.
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
        self._settings = settings
        self._ledger = ledger
        self._store = store
        self._progress = progress
        self._clock = clock
        self._stdin = stdin
        self._outputs = OutputCheck(ledger, store, clock)
        self.named: list[Batch] = []
        self.wanted: list[Batch] = []
        self.refused: str | None = None
        self.hints: list[str] = []
        self.told: str | None = None

    @property
    def surveyed(self) -> list[Batch]:
        """The batches whose outputs were checked and may lack links."""
        return self._outputs.checked

    async def run(self) -> None:
        """Import every manifest, and report all faults of all of them before the first create."""
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
        await self._check_outputs()
        self.wanted = [] if self.refused or self._settings.collect_only else self.named

    async def _import(self, source: Source, before: Batch | None) -> Batch:
        if before is None and not self._settings.restored:
            self._need_free_results(source.rules.batch)
        rules = replace(source.rules, takes=await self._ledger.do(importer.latest_takes, source.rules.batch))
        trusted = self._stamp(source)
        if trusted is not None and not (self._settings.rescan or self._settings.restored):
            unchanged = await self._ledger.do(
                importer.find_unchanged, rules, source=source.name, out_dir=self._store.out_dir, trusted=trusted
            )
            if unchanged is not None:
                return unchanged
        manifest = Manifest(source.path, rules, stdin=self._stdin)
        imported = await self._ledger.do(
            importer.import_manifest,
            manifest,
            rules,
            source=source.name,
            out_dir=self._store.out_dir,
            at=self._clock.now(),
            rebuy=self._settings.rebuy,
            trusted=trusted if trusted == self._stamp(source) else None,
        )
        show = self._progress.say if imported == before else self._progress.warn
        for line in manifest.faults.lines():
            show(f"skipped: {line}")
        if before is None:
            self._describe(manifest, rules.filename)
        return imported

    def _need_free_results(self, batch: str) -> None:
        for path in results.results_paths(self._settings.out_dir, [batch]):
            if path.exists():
                message = f"{path} was not written by this ledger. Nothing was created."
                raise ManifestError(message, [], "Move it away, or choose another --batch or --out-dir.")

    def _describe(self, manifest: Manifest, filename: str) -> None:
        """Print, on a batch's first import, which sheet and columns are used, and how outputs are named."""
        if manifest.sheet is not None:
            self._progress.say(f"reading the first visible sheet of the workbook: {manifest.sheet}")
        sent = ", ".join(
            header if header == name else f"{header} (as {name})" for header, name in manifest.columns_sent.items()
        )
        carried = ", ".join(manifest.columns_carried)
        self._progress.say(f"columns used: {sent}" + (f"; only copied to the results: {carried}" if carried else ""))
        if "id" not in manifest.columns_sent.values() and "{id" in filename:
            self._progress.say(
                "no id column: outputs are named by row number, so inserting a row renames the outputs after it"
            )

    def _stamp(self, source: Source) -> str | None:
        """The file's stamp, by which the next run detects a change. None if it was changed too recently for that."""
        found = stamp(source.path) if source.path is not None else None
        return " ".join(map(str, found)) if found is not None and is_settled(found, self._clock) else None

    async def _check_outputs(self) -> None:
        conflicts = await self._outputs.run(self.named, rescan=self._settings.rescan)
        if conflicts.number:
            self.refuse(
                f"{counted(conflicts.number, 'output')} would replace other files. Nothing was created.",
                conflicts.first,
                "Move those files away, or choose another --out-dir or --filename.",
            )

    def leave(self, conn: Connection) -> None:
        """All outputs are linked: let the next run skip their check if nothing changes until then."""
        self._outputs.record_complete(conn)

    def refuse(self, message: str, lines: Sequence[str], hint: str) -> None:
        """Create nothing: show `lines` now; the end of the run shows the message and the hint."""
        show = self._progress.say if message == self.told else self._progress.warn
        for line in lines:
            if line != message:
                show(line)
        if hint and hint not in self.hints:
            self.hints.append(hint)
        self.refused = message if self.refused is None else _join(self.refused, message)
        self.wanted = []


def _join(first: str, second: str) -> str:
    return f"{first}{' ' if first.endswith('.') else '; '}{second}"
