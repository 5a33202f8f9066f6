"""The other runs that work on a ledger on a server: shares the account's slots with them, and takes over what they
leave. A file has one run at a time, which takes over what earlier ones left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from batcher.formatting import counted
from batcher.ledger.ledger import Connection
from batcher.ledger.lifecycle import account, collection, runs
from batcher.ledger.records import OpenTask
from batcher.ledger.recovery import recover
from batcher.pipeline.context import ApiContext, RunContext
from batcher.pipeline.downloader import Downloader
from batcher.pipeline.ingest import Ingest
from batcher.pipeline.poller import Poller

_SHARE_SECONDS: Final = 2.0
"""Time between two looks at how many runs share the slots."""
_LOOK_SECONDS: Final = 5.0
"""Time between two looks for runs that have ended, and at what the others have done."""
_COUNT_SHARE: Final = 50
"""Counting all items again takes at most 1/N of the time: a large ledger takes seconds."""


@dataclass(kw_only=True)
class Neighbours:
    """What one run does because of the others. `save_learned` stores what it has learned about the account."""

    ctx: RunContext
    api: ApiContext
    ingest: Ingest
    poller: Poller
    downloader: Downloader
    save_learned: Callable[[], Awaitable[None]]
    _counted_at: float = field(init=False, default=0.0)
    _count_seconds: float = field(init=False, default=0.0)

    async def take_over(self) -> bool:
        """Continue with the tasks that no run collects, even if their rows are gone. Returns whether there are any."""
        if not self.ctx.settings.wait:
            return False
        tasks = await self.ctx.ledger.do(self._take_over)
        for task in tasks:
            if task.rendered:
                self.downloader.add(task, None)
            else:
                self.api.slots.take()
                self.poller.watch(task, at_once=True)
        return bool(tasks)

    def _take_over(self, conn: Connection) -> list[OpenTask]:
        only_chosen = self.ingest.selection.is_limited
        tasks = collection.take_over(
            conn, self.api.account_id, self.ingest.named, run_id=self.ctx.run_id, only_chosen=only_chosen
        )
        self.ctx.items.read(conn, [task.key for task in tasks])
        return tasks

    async def watch(self) -> None:
        """Look at the other runs now and then, until cancelled."""
        if not self.ctx.ledger.is_shared:
            return
        # Soon for the first time: a run that was killed just before may have seemed alive.
        looked_at = self.ctx.clock.steady() - _LOOK_SECONDS + _SHARE_SECONDS
        with self.ctx.stop.on_storage_error():
            while True:
                await self._share_slots()
                await self.ctx.clock.sleep(_SHARE_SECONDS)
                if self.ctx.clock.steady() - looked_at >= _LOOK_SECONDS:
                    looked_at = self.ctx.clock.steady()
                    await self._look()

    async def _share_slots(self) -> None:
        slots = await self.ctx.ledger.do(account.share, self.api.account_id, self.ctx.settings.concurrency)
        self.api.slots.resize(slots)

    async def _look(self) -> None:
        at, run_id = self.ctx.clock.now(), self.ctx.run_id
        vanished = await self.ctx.ledger.do(runs.end_vanished, run_id, at=at)
        for host in vanished:
            self.ctx.progress.warn(f"a run on {host} has ended without a record of it; its tasks are taken over")
        most = self.ctx.settings.max_in_doubt
        warn_of_doubts(self.ctx, await recover(self.ctx.ledger, run_id=run_id, at=at, max_in_doubt=most))
        if not self.poller.has_ended:
            await self.take_over()
        await self.save_learned()
        await self._count()

    async def _count(self) -> None:
        """Show what the other runs have done."""
        before = self.ctx.clock.steady()
        if before - self._counted_at < self._count_seconds * _COUNT_SHARE:
            return
        counts = await self.ctx.ledger.do(self.ingest.selection.count, self.ingest.named)
        self.ctx.tally.begin(counts.states)
        self._counted_at = self.ctx.clock.steady()
        self._count_seconds = self._counted_at - before


def warn_of_doubts(ctx: RunContext, doubts: int) -> None:
    """Say how many creates of runs that have ended are now in doubt, if any."""
    if doubts:
        ctx.progress.warn(
            f"{counted(doubts, 'create request')} of an earlier run had no answer when it ended "
            "(may have been bought); see `batcher resolve`"
        )
