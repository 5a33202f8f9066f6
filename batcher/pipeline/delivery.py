"""From a verified file to done: publishes it, links it to its rows, and records the item as saved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from batcher import files
from batcher.audio import checks
from batcher.errors import StorageError
from batcher.ledger.ledger import Connection
from batcher.ledger.lifecycle import collection, runs
from batcher.ledger.queries import item_counts
from batcher.ledger.queries.outputs import outputs_of, to_link
from batcher.ledger.records import Batch, FileRecord, OpenTask, Output
from batcher.ledger.storage import cached_facts
from batcher.log import log
from batcher.pipeline.context import RunContext
from batcher.pipeline.linking import Linker

_CHUNK: Final = 500
"""Outputs linked in one step."""


@dataclass(kw_only=True)
class Delivery:
    """Delivers audio to the rows of every batch of the ledger, including those that the run does not name.

    `named` are the ids of the batches that it names.
    """

    ctx: RunContext
    named: Sequence[int]
    linker: Linker = field(init=False)

    def __post_init__(self) -> None:
        self.linker = Linker(ledger=self.ctx.ledger, stores=self.ctx.stores, store=self.ctx.store)

    async def deliver(self, task: OpenTask, file: FileRecord) -> None:
        """Sync the verified part of `file`, record it, move it to its path, and link it to its rows.

        Raises:
            OSError: the disk is full or refuses the write.
        """
        seconds = await self.linker.disk.do(sync_part, self.ctx.store.part(file.path), task.format)
        file = replace(file, audio_seconds=seconds)
        outputs = await self.ctx.ledger.do_soon(_record_file, task, file, self.ctx.store.out_dir, self.ctx.clock.now())
        facts = {"bytes": file.bytes, "audio_seconds": file.audio_seconds, "sha256": file.sha256}
        await self._save(task, await self._link(outputs, publish=file.path), facts)
        if self.ctx.store.is_remote:
            self.ctx.store.part(file.path).unlink(missing_ok=True)

    async def save(self, task: OpenTask) -> None:
        """Link an item's recorded file, which is already at its path, to its rows, and record the item as saved."""
        await self._save(task, await self._link(await self.ctx.ledger.do(outputs_of, task.key)), {})

    async def _save(self, task: OpenTask, links: Sequence[collection.Link], facts: dict[str, Any]) -> None:
        at = self.ctx.clock.now()
        await self.ctx.ledger.do_soon(collection.record_delivered, task, links, at=at, run_id=self.ctx.run_id)
        self.ctx.tally.saved(wanted=task.wanted)
        logged = self.ctx.items.of(task.key, task.attempt, task.task_id, endpoint="download")
        logged.info("saved", seconds=round(max(0.0, at - task.accepted_at), 3), rows_linked=len(links), **facts)
        self.ctx.items.forget(task.key)

    async def link(self, outputs: Sequence[Output]) -> None:
        """Link done items to these outputs of rows, and record the links."""
        if links := await self._link(outputs):
            await self.ctx.ledger.do(collection.record_links, links, at=self.ctx.clock.now())

    async def _link(self, outputs: Sequence[Output], publish: str | None = None) -> list[collection.Link]:
        """Link outputs on disk, after publishing the part of the item path `publish`. Returns the links to record.

        An output that cannot be written is logged and counted.

        Raises:
            OSError: the part cannot be published.
        """
        links = []
        for output, why in await self.linker.link(outputs, publish=publish):
            if why is None:
                links.append((output.batch_id, output.row_id, output.key, output.output))
            else:
                self.ctx.tally.unwritten += output.batch_id in self.named
                log.error("output not written", ids=[output.row_id], key=output.key, why=why)
        return links

    async def link_saved(self, batches: Sequence[Batch]) -> None:
        """Link saved audio to every output of these batches that lacks it."""
        for batch in batches:
            after = 0
            while outputs := await self.ctx.ledger.do(to_link, batch, after, _CHUNK):
                await self.link(outputs)
                after = outputs[-1].number


def sync_part(part: Path, audio_format: str) -> float | None:
    """Make the part durable. Returns the duration of its audio in seconds, None if unknown."""
    descriptor = files.open_regular(part, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return checks.seconds(part, audio_format)


def _record_file(conn: Connection, task: OpenTask, file: FileRecord, out_dir: str, at: float) -> list[Output]:
    """Record a file that is about to be moved to its path. Returns the outputs of its rows."""
    collection.record_file(conn, task, file, out_dir=out_dir, at=at)
    return outputs_of(conn, task.key)


SWEPT: Final = "swept"
"""Name of the cached fact that there are no unfinished parts."""


async def recover_files(delivery: Delivery) -> None:
    """Save the recorded files that an earlier run left at their paths, and remove its unfinished parts.

    Raises:
        StorageError: the parts cannot be removed.
    """
    ledger, stores, disk = delivery.ctx.ledger, delivery.ctx.stores, delivery.linker.disk
    for task, out_dir, path, sha256 in await ledger.do(collection.recorded_files):
        if await disk.do(stores.at(out_dir).holds, path, sha256):
            await delivery.save(task)
    open_tasks = await ledger.do(item_counts.collectable)
    if open_tasks or not await ledger.do(cached_facts.get, SWEPT):
        await sweep(delivery.ctx)


async def sweep(ctx: RunContext) -> None:
    """Remove unfinished parts, and record that there are none. Not while other runs work, which may be writing them.

    Raises:
        StorageError: they cannot be removed.
    """
    if await ctx.ledger.do(runs.others_work, ctx.run_id):
        return
    try:
        for part in list(ctx.store.leftovers()):
            part.unlink(missing_ok=True)
    except OSError as error:
        hint = "Check the permissions of the output folder, then run it again."
        raise StorageError(f"cannot clean up {error.filename}: {error.strerror}", hint) from error
    await ctx.ledger.do(cached_facts.put, SWEPT, "rows", True)
