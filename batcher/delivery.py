"""From a whole file to done: its rows get their outputs, and the item is recorded as saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio.to_thread
import structlog

from batcher.clock import Clock
from batcher.ledger import collecting
from batcher.ledger.ledger import Ledger
from batcher.ledger.reading import Output, is_known_audio, outputs_of
from batcher.ledger.records import OpenTask
from batcher.store import Store
from batcher.tally import Tally

log = structlog.get_logger()


@dataclass(kw_only=True)
class Delivery:
    """Hands audio to the rows of every batch of the ledger, since what is paid for is also theirs."""

    ledger: Ledger
    store: Store
    tally: Tally
    clock: Clock
    run_id: str
    named: Sequence[int]  # the batches that the run speaks of

    async def save(self, task: OpenTask, outputs: Sequence[Output] | None = None) -> None:
        """The item's recorded file is at its path: link it to its rows (`outputs`, if they are known), and note it."""
        if outputs is None:
            outputs = await self.ledger.do(outputs_of, task.key)
        links = await self._put(outputs)
        at = self.clock.now()
        await self.ledger.do(collecting.record_delivered, task, links, at=at, run_id=self.run_id)
        self.tally.saved(wanted=task.wanted)
        log.info("saved", endpoint="download", key=task.key, attempt=task.attempt, task_id=task.task_id)

    async def link(self, found: Sequence[Output]) -> None:
        """Put the audio of done items at the outputs of rows."""
        if links := await self._put(found):
            await self.ledger.do(collecting.record_links, links)

    async def _put(self, outputs: Sequence[Output]) -> list[collecting.Link]:
        """Link them, as far as can be; an output that cannot be written is named, and counted."""
        links = []
        for output, why in await anyio.to_thread.run_sync(self._link_all, outputs):
            if why is not None and await self._is_ours(output):
                [(_, why)] = await anyio.to_thread.run_sync(self._link_all, [output], True)
            if why is None:
                links.append((output.batch_id, output.row_id, output.key, output.output))
            else:
                self.tally.unlinked += output.batch_id in self.named
                log.error("output not written", row=output.row_id, why=why)
        return links

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
        sha256 = await anyio.to_thread.run_sync(self.store.digest_at, output)
        return sha256 is not None and await self.ledger.do(is_known_audio, sha256)
