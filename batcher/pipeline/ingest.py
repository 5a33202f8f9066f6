"""Ingests a run's manifests: reads, validates and imports each, then checks the rows' outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import anyio.to_thread

from batcher.audio.fingerprints import is_settled, stamp
from batcher.clock import Clock
from batcher.errors import DoubtError, LockedError, ManifestError, StoppedError, UsageError
from batcher.formatting import counted
from batcher.ledger.imports import importer
from batcher.ledger.ledger import Connection
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.queries.manifest_paths import source_name
from batcher.ledger.records import Batch
from batcher.manifest.reader import Manifest
from batcher.manifest.rows import Record
from batcher.manifest.rules import Rules
from batcher.pipeline.context import Confirm, RunContext
from batcher.pipeline.output_check import OutputCheck
from batcher.pipeline.question import ask
from batcher.pipeline.selection import Selection, need_known
from batcher.pipeline.startup import open_manifest
from batcher.reports import results
from batcher.settings import Source

_TURN_SECONDS: Final = 0.1
"""Time between two attempts to import while another run imports a manifest."""
_SHOWN_SECONDS: Final = 2.0
"""A longer wait for that is shown."""


def trusted_stamp(source: Source, clock: Clock) -> str | None:
    """The file's stamp, by which the next run detects a change. None if it was changed too recently for that."""
    found = stamp(source.path) if source.path is not None else None
    return " ".join(map(str, found)) if found is not None and is_settled(found, clock) else None


class Ingest:
    """The batches of one run.

    `named` are the batches that the run reports on, `wanted` those that it may buy for: none once `refused`, the
    reason for the refusal, is set, or once a request to stop has cut the reading short. `selection` are the rows of
    these batches that it works on. `hints` are the remedies for a refusal. `last_message` is that of the run before:
    the same one again is not news.
    """

    def __init__(self, ctx: RunContext, confirm: Confirm | None = None) -> None:
        self._ctx = ctx
        self._confirm = confirm
        self._outputs = OutputCheck(ctx.ledger, ctx.stores, ctx.clock)
        self.named: list[Batch] = []
        self.wanted: list[Batch] = []
        self.selection = Selection(ctx.settings)
        self.refused: str | None = None
        self.is_cut_short = False
        self.hints: list[str] = []
        self._faults: list[str] = []
        self._errors: list[ManifestError] = []
        self.last_message: str | None = None

    @property
    def checked(self) -> list[Batch]:
        """The batches whose outputs were checked and may lack links."""
        return self._outputs.checked

    async def run(self) -> None:
        """Import every manifest, and report all faults of all of them before the first create."""
        known = {batch.name: batch for batch in await self._ctx.ledger.do(current_batches)}
        if not self._ctx.settings.sources:
            self.named = list(known.values())
        for source in self._ctx.settings.sources:
            batch = source.rules.batch
            try:
                self.named.append(await self._import(source, known.get(batch)))
            except StoppedError:
                self.is_cut_short = True
                self.named += [known[batch]] if batch in known else []
            except ManifestError as error:
                self._errors.append(error)
                self.refuse(error.message, error.faults, *self._ctx.settings.ways_out(error))
                self.named += [known[batch]] if batch in known else []
        await self._check_outputs()
        await self._select_rows()
        refused = self.refused is not None or self.is_cut_short
        self.wanted = [] if refused or self._ctx.settings.collect_only else self.named

    async def _import(self, source: Source, before: Batch | None) -> Batch:
        if before is None and not self._ctx.settings.restored:
            await anyio.to_thread.run_sync(self._need_free_results, source.rules.batch)
        rules, stored = await self._ctx.ledger.do(importer.with_history, source.rules), self._stored_name(source)
        trusted = trusted_stamp(source, self._ctx.clock)
        if trusted is not None and not (self._ctx.settings.rescan or self._ctx.settings.restored):
            unchanged = await self._ctx.ledger.do(
                importer.find_unchanged, rules, source=stored, out_dir=self._ctx.store.out_dir, trusted=trusted
            )
            if unchanged is not None:
                return unchanged
        try:
            manifest, imported = await self._read(source, rules, trusted, self._ctx.settings.allow)
        except DoubtError as error:
            await self._ask(error)
            manifest, imported = await self._read(source, rules, trusted, self._ctx.settings.allow | error.types)
        show = self._ctx.progress.say if imported == before else self._ctx.progress.warn
        for line in manifest.faults.lines():
            show(f"skipped: {line}")
        for hint in manifest.hints:
            show(hint)
        for line in manifest.description() if before is None else ():
            self._ctx.progress.say(line)
        if manifest.stripped and imported != before:
            self._ctx.progress.say(f"markup removed from the texts of {counted(manifest.stripped, 'row')}")
        return imported

    async def _read(
        self, source: Source, rules: Rules, trusted: str | None, allow: frozenset[str]
    ) -> tuple[Manifest, Batch]:
        """Read the manifest to its end, and import it. While another run imports one, wait."""
        show_at = self._ctx.clock.steady() + _SHOWN_SECONDS
        while True:
            try:
                return await self._try_read(source, rules, trusted, allow)
            except LockedError:
                if self._ctx.stop.requested:
                    raise StoppedError from None
            if self._ctx.clock.steady() >= show_at:
                self._ctx.progress.say("waiting until another run has imported its manifest")
                show_at = math.inf
            await self._ctx.clock.sleep(_TURN_SECONDS)

    async def _try_read(
        self, source: Source, rules: Rules, trusted: str | None, allow: frozenset[str]
    ) -> tuple[Manifest, Batch]:
        manifest = open_manifest(source, rules, watch=self._until_stopped)
        imported = await self._ctx.ledger.do_once(
            importer.import_manifest,
            manifest,
            rules,
            source=self._stored_name(source),
            out_dir=self._ctx.store.out_dir,
            at=self._ctx.clock.now(),
            rebuy=self._ctx.settings.rebuy,
            rename=self._ctx.settings.rename,
            refilter=self._ctx.settings.refilter,
            allow=allow,
            ignores_case=self._ctx.store.ignores_case(),
            trusted=trusted if trusted == trusted_stamp(source, self._ctx.clock) else None,
        )
        return manifest, imported

    def _until_stopped(self, rows: Iterator[Record], name: str) -> Iterator[Record]:
        """The rows of the file of this name, until a request to stop: the batch then stays as it was.

        At the end of `--max-runtime` they are read on. Otherwise, a long file might never be imported.
        """
        for row in self._ctx.progress.reading(rows, name):
            if self._ctx.stop.requested:
                raise StoppedError
            yield row

    async def _ask(self, error: DoubtError) -> None:
        """Ask a person whether to buy the texts as they are. Raises the error again unless the answer is yes."""
        if self._confirm is None:
            raise error
        for line in error.faults:
            self._ctx.progress.warn(line)
        if await ask(self._ctx, self._confirm, "buy these texts as they are?"):
            return
        raise ManifestError(error.message, [], error.hint)

    def _need_free_results(self, batch: str) -> None:
        store = self._ctx.store
        for path in results.results_names(batch):
            if store.stamp(path) is not None:
                message = f"{store.shown(path)} was not written by this ledger; nothing was created"
                raise ManifestError(message, [], "Move it away, or choose another --batch or --out-dir.")

    def _stored_name(self, source: Source) -> str:
        return source_name(source.path, self._ctx.settings.home)

    async def _check_outputs(self) -> None:
        conflicts = await self._outputs.run(self.named, rescan=self._ctx.settings.rescan)
        if conflicts.number:
            self.refuse(
                f"{counted(conflicts.number, 'output')} would replace other files; nothing was created",
                conflicts.first,
                "Move those files away, or choose another --out-dir or --filename.",
            )

    async def _select_rows(self) -> None:
        unknown = await self._ctx.ledger.do(self.selection.choose, self.named)
        try:
            need_known([] if self.refused or self.is_cut_short else unknown)
        except UsageError as error:
            self.refuse(error.message, [], error.hint)

    def error(self) -> UsageError | None:
        """Why nothing was created, as an error; None if the run was not refused."""
        if self.refused is None:
            return None
        if [error.message for error in self._errors] == [self.refused] and self._errors[0].suggestion is None:
            return self._errors[0]
        hint = "\n  ".join(self.hints)
        return ManifestError(self.refused, self._faults, hint) if self._faults else UsageError(self.refused, hint)

    def record_end(self, conn: Connection, *, unwritten: int) -> None:
        """Record which outputs this run has linked, and whether any could not be written: the next run checks less."""
        self._outputs.record_end(conn, self.named, complete=not (self.refused or self.is_cut_short or unwritten))

    def refuse(self, message: str, lines: Sequence[str], *hints: str) -> None:
        """Create nothing: show `lines` now; the end of the run shows the message and the hints."""
        show = self._ctx.progress.say if message == self.last_message else self._ctx.progress.warn
        for line in lines:
            if line != message:
                show(line)
        self._faults += lines
        self.hints += [hint for hint in hints if hint and hint not in self.hints]
        self.refused = message if self.refused is None else f"{self.refused}; {message}"
        self.wanted = []
