"""From a whole file to done: the item is recorded as saved, its rows get their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio.to_thread
import structlog

from batcher.clock import Clock
from batcher.ledger import collecting
from batcher.ledger.ledger import Ledger
from batcher.ledger.reading import Output, is_known_audio, outputs_of, to_link
from batcher.ledger.records import OpenTask, Wanted
from batcher.store import Store
from batcher.tally import Tally

log = structlog.get_logger()

_CHUNK: Final = 500


@dataclass(kw_only=True)
class Delivery:
    """Hands audio to the rows of `batches`: every batch of the ledger, since what is paid for is also theirs."""

    ledger: Ledger
    store: Store
    tally: Tally
    clock: Clock
    run_id: str
    batches: Sequence[Wanted]
    named: Sequence[int]  # those that the run speaks of

    async def save(self, task: OpenTask) -> None:
        """The item's recorded file is at its path: note that, then link it."""
        await self.ledger.do(collecting.record_saved, task, at=self.clock.now(), run_id=self.run_id)
        self.tally.saved(wanted=task.wanted)
        log.info("saved", endpoint="download", key=task.key, attempt=task.attempt, task_id=task.task_id)
        await self.link(await self.ledger.do(outputs_of, self.batches, task.key))

    async def link(self, found: Sequence[Output]) -> None:
        """Put audio at the outputs of rows; one that cannot be is named, and counted."""
        linked = []
        for output in found:
            try:
                why = await self._link(output)
            except OSError as error:
                why = f"{error.filename}: {error.strerror}"
            if why is None:
                linked.append((output.batch_id, output.row_id, output.key, output.output))
            else:
                self.tally.unlinked += output.batch_id in self.named
                log.error("output not written", row=output.row_id, why=why)
        if linked:
            await self.ledger.do(collecting.record_links, linked)

    async def link_saved(self, batches: Sequence[Wanted]) -> None:
        """Put audio that is there already at every output of these batches that has it not."""
        for batch in batches:
            after = 0
            while found := await self.ledger.do(to_link, batch, after, _CHUNK):
                await self.link(found)
                after = found[-1].number

    async def _link(self, output: Output) -> str | None:
        why = await anyio.to_thread.run_sync(self.store.link, output)
        sha256 = await anyio.to_thread.run_sync(self.store.digest_at, output) if why is not None else None
        if sha256 is not None and await self.ledger.do(is_known_audio, sha256):
            return await anyio.to_thread.run_sync(partial(self.store.link, output, replace=True))
        return why
