"""The outbox: posts the run's report at its end and at a halt, at least once, if need be in the next run."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from batcher.clock import Clock, Wakeup, utc
from batcher.errors import StorageError
from batcher.ledger.ledger import Connection, Ledger
from batcher.ledger.lifecycle import notices
from batcher.reports.observer import Observer
from batcher.reports.run_report import RunReport

Post = Callable[[bytes], Awaitable[str | None]]
"""Posts a notice. Returns None if it was received, or else why it was not."""
_FLUSH_SECONDS: Final = 15.0
"""How long the end of a run waits for the receiver."""


class Outbox:
    """Notices are durable before they are posted and are removed afterwards: a crash in between repeats one."""

    def __init__(self, ledger: Ledger, run_id: str, clock: Clock, progress: Observer, post: Post | None) -> None:
        self._ledger = ledger
        self._run_id = run_id
        self._clock = clock
        self._progress = progress
        self._post = post
        self._added = Wakeup()
        self._posting = anyio.Lock()

    def add(self, conn: Connection, event: str, report: RunReport) -> None:
        """Store a notice about the run, in the transaction of what it reports. Nothing without a receiver."""
        if self._post is None:
            return
        at = self._clock.now()
        facts = {"schema": report.schema, "id": uuid.uuid4().hex, "event": event, "at": utc(at)}
        notices.add(
            conn, json.dumps(facts | {"report": report.facts()}, ensure_ascii=False), run_id=self._run_id, at=at
        )

    async def run(self) -> None:
        """Post what earlier runs have left, then each notice as it is added, until cancelled."""
        while self._post is not None:
            added = self._added.next()
            await self._deliver(self._post)
            await self._added.wait(self._clock, ring=added)

    def ring(self) -> None:
        """Post what was added, in the background."""
        self._added.ring()

    async def flush(self) -> None:
        """Post what is left, as far as the receiver is there."""
        if self._post is None:
            return
        why: str | None = "no answer in time"
        with self._clock.limit(_FLUSH_SECONDS):
            why = await self._deliver(self._post)
        if why is not None:
            self._progress.say(f"the report was not received ({why}); the next run posts it again")

    async def _deliver(self, post: Post) -> str | None:
        """Post the oldest notices until none is left or one is not received. Returns why that was.

        No trouble of a notice may end the run: not even a ledger that cannot be written.
        """
        try:
            async with self._posting:
                while (waiting := await self._ledger.do(notices.oldest, self._run_id)) is not None:
                    if (why := await post(waiting[1].encode())) is not None:
                        return why
                    await self._ledger.do(notices.remove, waiting[0])
        except StorageError as error:
            return error.message
        return None
