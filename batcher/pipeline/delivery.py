"""From a whole file to done: its rows get their outputs, and the item is recorded as saved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import structlog

from batcher.audio import checks
from batcher.audio.io_threads import Disk
from batcher.audio.store import Store
from batcher.clock import Clock
from batcher.ledger.ledger import Connection, Ledger
from batcher.ledger.lifecycle import collection
from batcher.ledger.queries import item_counts
from batcher.ledger.queries.outputs import is_known_audio, outputs_of, to_link
from batcher.ledger.records import Batch, FileRecord, OpenTask, Output
from batcher.ledger.storage import cached_facts
from batcher.reports.tally import Tally

log = structlog.get_logger()

_CHUNK: Final = 500


@dataclass(kw_only=True)
class Delivery:
    """Hands audio to the rows of every batch of the ledger, since what is paid for is also theirs."""

    ledger: Ledger
    store: Store
    tally: Tally
    clock: Clock
    run_id: str
    named: Sequence[int]  # the batches that the run speaks of
    disk: Disk = field(default_factory=Disk, init=False)

    async def keep(self, task: OpenTask, file: FileRecord) -> None:
        """The part of `file` is whole and verified: make it durable, give it its path and its rows, note each step.

        Raises:
            OSError: the disk does not take it.
        """
        seconds = await self.disk.do(durable, self.store.part(file.path), task.format)
        file = replace(file, audio_seconds=seconds)
        outputs = await self.ledger.do(_record, task, file, self.store.out_dir, self.clock.now())
        await self._save(task, await self._put(outputs, file.path))

    async def save(self, task: OpenTask) -> None:
        """The item's recorded file is at its path already: link it to its rows, and note that."""
        await self._save(task, await self._put(await self.ledger.do(outputs_of, task.key)))

    async def _save(self, task: OpenTask, links: Sequence[collection.Link]) -> None:
        at = self.clock.now()
        await self.ledger.do(collection.record_delivered, task, links, at=at, run_id=self.run_id)
        self.tally.saved(wanted=task.wanted)
        log.info("saved", endpoint="download", key=task.key, attempt=task.attempt, task_id=task.task_id)

    async def link(self, found: Sequence[Output]) -> None:
        """Put the audio of done items at the outputs of rows."""
        if links := await self._put(found):
            await self.ledger.do(collection.record_links, links)

    async def _put(self, outputs: Sequence[Output], path: str | None = None) -> list[collection.Link]:
        """Link them (after publishing `path`), as far as can be; one that cannot be written is named, and counted.

        Raises:
            OSError: the part cannot be published.
        """
        links = []
        for output, why in await self.disk.do(self._publish_and_link, path, outputs):
            if why is not None and await self._is_ours(output):
                [(_, why)] = await self.disk.do(self._link_all, [output], replace=True)
            if why is None:
                links.append((output.batch_id, output.row_id, output.key, output.output))
            else:
                self.tally.unwritten += output.batch_id in self.named
                log.error("output not written", row=output.row_id, why=why)
        return links

    async def link_saved(self, batches: Sequence[Batch]) -> None:
        """Put audio that is there already at every output of these batches that has it not."""
        for batch in batches:
            after = 0
            while found := await self.ledger.do(to_link, batch, after, _CHUNK):
                await self.link(found)
                after = found[-1].number

    def _publish_and_link(self, path: str | None, outputs: Sequence[Output]) -> list[tuple[Output, str | None]]:
        if path is not None:
            self.store.publish(path)
        return self._link_all(outputs)

    def _link_all(self, outputs: Sequence[Output], replace: bool = False) -> list[tuple[Output, str | None]]:
        found: list[tuple[Output, str | None]] = []
        for output in outputs:
            try:
                found.append((output, self.store.link(output, replace=replace)))
            except OSError as error:
                found.append((output, f"{error.filename}: {error.strerror}"))
        return found

    async def _is_ours(self, output: Output) -> bool:
        """Whether what is in the way is audio that the ledger keeps anyway."""
        sha256 = await self.disk.do(self.store.digest_at, output)
        return sha256 is not None and await self.ledger.do(is_known_audio, sha256)


def durable(part: Path, audio_format: str) -> float | None:
    """Make the part durable. Returns how long its audio is, in seconds, where that can be told."""
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return checks.seconds(part, audio_format)


def _record(conn: Connection, task: OpenTask, file: FileRecord, out_dir: str, at: float) -> list[Output]:
    """Note the file that is about to be renamed. Returns where its rows want it."""
    collection.record_file(conn, task, file, out_dir=out_dir, at=at)
    return outputs_of(conn, task.key)


SWEPT: Final = "swept"


async def take_up_files(ledger: Ledger, store: Store, delivery: Delivery) -> None:
    """Take up what an earlier run left on disk: a recorded file in its place is saved, unfinished parts go."""
    for task, out_dir, path, sha256 in await ledger.do(collection.recorded_files):
        if store.holds(out_dir, path, sha256):
            await delivery.save(task)
    open_tasks = await ledger.do(item_counts.collectable)
    if open_tasks or not await ledger.do(cached_facts.get, SWEPT):
        await sweep(ledger, store)


async def sweep(ledger: Ledger, store: Store) -> None:
    """Remove unfinished parts, and remember that there are none."""
    for part in list(store.leftovers()):
        part.unlink(missing_ok=True)
    await ledger.do(cached_facts.put, SWEPT, "rows", True)
