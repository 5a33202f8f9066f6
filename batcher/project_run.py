"""A run of a project, row by row, in the event loop of the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from batcher.address import home_of
from batcher.errors import own_errors
from batcher.ledger.ledger import open_readonly
from batcher.ledger.queries.settled import Result, last_event, next_results, settled_since
from batcher.log import log
from batcher.pipeline import runner
from batcher.pipeline.stop import StopRequests
from batcher.reports.observer import LogObserver, Work
from batcher.reports.run_report import RunReport
from batcher.row_input import Rows, closing_content, settings_for_rows
from batcher.row_output import Row, row_of
from batcher.settings import Settings

CHUNK: Final = 500
"""Rows or events read from the ledger at a time."""
_PAUSE_SECONDS: Final = 0.05
"""Shortest time between two looks for rows that have settled."""


class _Feed(LogObserver):
    """What a run works on, once it is known."""

    def __init__(self) -> None:
        self.work: Work | None = None
        self.changed = anyio.Event()  # set when the work is known or the run has ended

    def begin(self, work: Work) -> None:
        """Keep it."""
        self.work = work
        self.changed.set()

    def end(self) -> None:
        """Wake whoever waits for news of the run."""
        self.changed.set()
        if self.work is not None:
            self.work.committed.ring()


class Run:
    """A run of a project: iterate over it to get each row once it has settled, or await it for its report.

    Rows that were settled before come first. Rows that the run leaves open are not yielded: `report` has the reason.
    If the caller is cancelled or leaves the iteration early, the run stops creating and collects open tasks for up to
    30 seconds; another cancellation ends it at once.

    Raises, from the iteration or the await:
        LockedError: another run holds the ledger.
        ManifestError: rows have faults, which are listed in `faults`; nothing was created.
        UsageError: the ledger, the rows or the options cannot be used.
        CredentialsError: the token is missing or was rejected before anything was created.
        TroubleError: the API cannot be reached, or the disk is full.
    """

    def __init__(self, rows: Rows | None, values: Mapping[str, Any], folder: Path) -> None:
        self._rows = rows
        self._values = values
        self._folder = folder
        self._requests = StopRequests()
        self._feed = _Feed()
        self._task: asyncio.Task[runner.Ended] | None = None
        self._is_reported = False  # whether the caller has its report or its error
        self._beginning = asyncio.Lock()
        self._is_too_late = False  # to begin, since its project was left

    @property
    def report(self) -> RunReport:
        """The report of the run. Raises RuntimeError before its end, and the error that kept it from beginning."""
        if self._task is None or not self._task.done():
            raise RuntimeError("the run has not ended: iterate over it or await it first")
        self._is_reported = True
        report, error = self._task.result()
        if error is not None:
            raise error
        return report

    @property
    def has_ended(self) -> bool:
        """Whether it began and has ended."""
        return self._task is not None and self._task.done()

    def stop(self) -> None:
        """Create nothing more, and collect open tasks for up to 30 seconds; a second call ends the run at once."""
        self._requests.request()

    def __aiter__(self) -> AsyncIterator[Row]:
        return self._iterate()

    def __await__(self) -> Generator[Any, None, RunReport]:
        return self._whole().__await__()

    async def drain(self) -> None:
        """Let the run end early, and wait for that. If it has not begun, it never will."""
        if self._task is None:
            self._is_too_late = True
            return
        self._requests.request_once()
        await self._let_end(self._task)
        error = None if self._task.cancelled() else self._task.exception()
        if error is not None and not self._is_reported:
            log.error("the run failed", why=str(error))

    async def _whole(self) -> RunReport:
        task = await self._begin()
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await self.drain()
            raise
        return self.report

    async def _iterate(self) -> AsyncIterator[Row]:
        task = await self._begin()
        try:
            await self._feed.changed.wait()
            if self._feed.work is not None:
                async for row in self._settled(task, self._feed.work):
                    yield row
            await asyncio.wait([task])
        except GeneratorExit:
            self._requests.request_once()
            raise
        except asyncio.CancelledError:
            await self.drain()
            raise
        _ = self.report  # raises what kept the run from beginning

    async def _begin(self) -> asyncio.Task[runner.Ended]:
        async with self._beginning:  # its rows can be read only once, and may take a while
            if self._task is None:
                settings = await settings_for_rows(self._rows, self._values, self._folder)
                if self._is_too_late:
                    with closing_content(settings):
                        raise RuntimeError("the run did not begin: its project was left before; nothing was created")
                # A task of its own, so that no cancellation reaches a create in flight.
                self._task = asyncio.create_task(self._work(settings), name="batcher run")
                self._task.add_done_callback(lambda _: self._feed.end())
            return self._task

    async def _work(self, settings: Settings) -> runner.Ended:
        with closing_content(settings), own_errors():
            return await runner.run(settings, self._feed, self._requests)

    async def _let_end(self, task: asyncio.Task[runner.Ended]) -> None:
        """Wait for the end of the run, even if cancelled; each cancellation is another request to end."""
        cancelled = None
        with anyio.CancelScope(shield=True):
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError as error:
                    cancelled = error
                    self._requests.request()
        if cancelled is not None:
            raise cancelled

    async def _settled(self, task: asyncio.Task[runner.Ended], work: Work) -> AsyncIterator[Row]:
        """Each settled row once, until the run has ended."""
        reader = _Reader(work)
        while True:
            changed, has_ended = work.committed.next(), task.done()
            rows = await anyio.to_thread.run_sync(reader.next_rows)
            for row in rows:
                yield row
            if reader.is_behind:
                continue
            if has_ended:
                return
            await changed.wait()
            await anyio.sleep(0 if task.done() else _PAUSE_SECONDS)


class _Reader:
    """Reads the rows of a run that have settled: first those that had before, then those with new events.

    `is_behind`: there may be more to read at once.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._snapshot = [*work.batches]
        self._number = 0  # of the last row that was read in the snapshot's first batch
        self._event: int | None = None
        self._seen: dict[int, bytearray] = {batch.batch_id: bytearray() for batch in work.batches}
        self.is_behind = True

    def next_rows(self) -> list[Row]:
        """The next rows, none of which was returned before."""
        with open_readonly(self._work.ledger) as conn:
            if self._event is None:
                self._event = last_event(conn)
            if self._snapshot:
                found, last = next_results(conn, self._snapshot[0], self._number, CHUNK, settled=True)
                if last == self._number:
                    self._snapshot.pop(0)
                self._number = last if last != self._number else 0
            else:
                before = self._event
                found, self._event = settled_since(conn, self._work.batches, self._event, CHUNK)
                self.is_behind = self._event - before >= CHUNK
        return [row_of(one, home_of(self._work.ledger)) for one in found if self._is_new(one)]

    def _is_new(self, result: Result) -> bool:
        number, seen = result.line["row"], self._seen[result.batch.batch_id]
        if self._work.chosen is not None and (result.batch.batch_id, number) not in self._work.chosen:
            return False
        if len(seen) <= number:
            seen.extend(bytes(number + 1 - len(seen)))
        was_seen, seen[number] = seen[number], 1
        return not was_seen
