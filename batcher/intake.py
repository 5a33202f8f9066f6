"""The manifests' way in: read, judged as a whole, taken into the ledger; then what their rows' outputs need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

from batcher import report
from batcher.clock import Clock
from batcher.delivery import Delivery
from batcher.errors import ManifestError
from batcher.ledger import collecting, importing, reading
from batcher.ledger.ledger import Connection, Ledger
from batcher.ledger.reading import Output
from batcher.ledger.records import Wanted
from batcher.manifest import Manifest
from batcher.progress import Progress
from batcher.settings import Settings, Source
from batcher.store import Store
from batcher.words import counted


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
        self.to_link: list[Output] = []
        self.refused: str | None = None
        self.told: str | None = None  # what the last run ended with: the same again is no news

    async def run(self) -> None:
        """Take every manifest in; all that is wrong with any of them is told before the first create."""
        known = {batch.name: batch for batch in await self._ledger.do(reading.current_batches)}
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
        rules = replace(source.rules, takes=await self._ledger.do(importing.latest_takes, source.rules.batch))
        manifest = Manifest(source.path, rules, stdin=self._stdin)
        wanted = await self._ledger.do(
            importing.import_manifest,
            manifest,
            rules,
            source=source.name,
            out_dir=self._store.out_dir,
            at=self._clock.now(),
            rebuy=self._settings.rebuy,
        )
        tell = self._progress.say if wanted == before else self._progress.warn
        for line in manifest.faults.lines():
            tell(f"skipped: {line}")
        if before is None:
            self._introduce(manifest, rules.filename)
        return wanted

    def _need_free_results(self, batch: str) -> None:
        for path in report.results_paths(self._settings.out_dir, [batch]):
            if path.exists():
                message = f"{path} was not written by this ledger; nothing was created"
                raise ManifestError(message, [], "Move it away, or choose another --batch or --out-dir.")

    def _introduce(self, manifest: Manifest, filename: str) -> None:
        """Say, the first time, what is made of the columns."""
        sent = ", ".join(
            header if header == name else f"{header} (as {name})" for header, name in manifest.columns_sent.items()
        )
        carried = ", ".join(manifest.columns_carried)
        self._progress.say(f"columns used: {sent}" + (f"; only carried to the results: {carried}" if carried else ""))
        if "id" not in manifest.columns_sent.values() and "{id" in filename:
            self._progress.say(
                "there is no id column: outputs are named by row number, and inserting a row renames what follows"
            )

    async def _survey(self) -> None:
        conflicts, self.to_link = await self._ledger.do(survey, self.named, self._store)
        if conflicts:
            self.refuse(
                f"{counted(len(conflicts), 'output')} would take the place of other files; nothing was created",
                conflicts[:50],
                "Move those files away, or choose another --out-dir or --filename.",
            )

    def refuse(self, message: str, lines: Sequence[str], hint: str) -> None:
        """Let nothing be created, and say why."""
        tell = self._progress.say if message == self.told else self._progress.warn
        for line in (*lines, hint):
            if line:
                tell(line)
        self.refused = message if self.refused is None else f"{self.refused}; {message}"
        self.wanted = []


def survey(conn: Connection, batches: Sequence[Wanted], store: Store) -> tuple[list[str], list[Output]]:
    """Look at where the rows' outputs belong. Returns what is in the way, and the outputs that only need linking."""
    conflicts, to_link = [], []
    for output in reading.outputs(conn, batches):
        if output.linked:
            if store.missing(output):
                to_link.append(output)
        elif (why := store.conflict(output)) is not None and not _is_our_audio(conn, store, output):
            conflicts.append(f"row {output.row_id}: {why}")
        elif output.saved:
            to_link.append(output)
    return conflicts, to_link


def _is_our_audio(conn: Connection, store: Store, output: Output) -> bool:
    """Whether what lies at the output is audio that the ledger keeps anyway: another row's, or found when restored."""
    if store.is_item(output):
        return True
    sha256 = store.digest_at(output)
    return sha256 is not None and reading.is_known_audio(conn, sha256)


async def take_up_files(ledger: Ledger, store: Store, delivery: Delivery) -> None:
    """Take up what an earlier run left on disk: a recorded file in its place is saved, unfinished parts go."""
    for task, out_dir, path, sha256 in await ledger.do(collecting.recorded_files):
        if store.holds(out_dir, path, sha256):
            await delivery.save(task)
    for part in list(store.leftovers()):
        part.unlink(missing_ok=True)
