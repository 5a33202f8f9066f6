"""A ledger with its options, for programs with an event loop; and a run of it, row by row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Unpack

import anyio
import anyio.to_thread

from batcher.errors import UsageError
from batcher.ledger.ledger import open_readonly
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.queries.settled import Result, last_event, next_results, settled_since
from batcher.ledger.queries.status import status
from batcher.ledger.records import Batch
from batcher.log import log
from batcher.options import Options, checked, token_of
from batcher.pipeline import plan, runner
from batcher.pipeline.stop import StopRequests
from batcher.reports.observer import LogObserver, Work
from batcher.reports.run_report import RunReport
from batcher.row_input import TITLE, Rows, paths_of, spool
from batcher.row_output import Row, Status, row_of, status_of
from batcher.run_settings import settings_of, sources_of
from batcher.settings import Settings, ledger_path, project_folder

CHUNK: Final = 500
"""Rows or events read from the ledger at a time."""
_PAUSE_SECONDS: Final = 0.05
"""Shortest time between two looks for rows that have settled."""


class Project:
    """A ledger and the options of its runs, within `async with`. Leaving the block lets active runs drain.

    Everything runs in the event loop of the caller, which must be asyncio's.
    """

    def __init__(self, options: Options) -> None:
        # Every run reads the options, and an iterator can be read only once.
        given = {name: [*value] if isinstance(value, Iterator) else value for name, value in options.items()}
        values = checked(given, "open")
        self._settings = settings_of(values, (), folder=ledger_folder(values), token=token_of(values))
        self._options: dict[str, Any] = given
        self._runs: list[Run] = []
        self._is_open = False

    @property
    def ledger(self) -> Path:
        """The path of the ledger."""
        return self._settings.ledger

    async def __aenter__(self) -> Project:
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        cancelled = None
        for run in self._runs:
            try:
                await run.drain()
            except asyncio.CancelledError as again:  # the other runs are to end, too
                cancelled = again
        if cancelled is not None:
            raise cancelled

    def run(self, rows: Rows | None = None, /, **options: Unpack[Options]) -> Run:
        """A run of these rows, which begins when it is iterated over or awaited. This can charge.

        `options` replace those of the project for this run. Without rows, `collect_only=True` must be given.

        Raises:
            TypeError: an option does not exist.
            UsageError: an option is invalid. See `Run` for what else can keep a run from beginning.
        """
        if not self._is_open:
            raise RuntimeError("use the project within `async with batcher.open(...) as project:`")
        run = Run(rows, self._values(options, "run"), self._settings.ledger.parent)
        self._runs = [one for one in self._runs if not one.has_ended] + [run]
        return run

    async def plan(self, rows: Rows, /, **options: Unpack[Options]) -> plan.Plan:
        """What a run would do and cost. Creates nothing.

        Raises:
            TypeError: an option does not exist.
            BatcherError: an option, the rows or the ledger cannot be used. Faults of rows are in the plan.
        """
        values = self._values(options, "plan")
        settings = await _settings(rows, values, self._settings.ledger.parent)
        with closing_content(settings):
            return await plan.plan(settings)

    async def status(self) -> Status:
        """The progress of the ledger, even while a run is active.

        Raises:
            LedgerError: there is no ledger, or it cannot be used.
        """
        return await anyio.to_thread.run_sync(read_status, self._settings)

    async def results(self, batch: str | None = None) -> AsyncIterator[Row]:
        """The rows of the ledger, or of one batch, in the order of the manifests.

        Raises:
            LedgerError: there is no ledger, or it cannot be used.
        """
        for one in await anyio.to_thread.run_sync(read_batches, self._settings, batch):
            after, before = 0, -1
            while after != before:
                before = after
                rows, after = await anyio.to_thread.run_sync(read_rows, self._settings, one, after)
                for row in rows:
                    yield row

    def _values(self, options: Mapping[str, Any], function: str) -> dict[str, Any]:
        if "ledger" in options:
            raise TypeError(f"{function}() got an unexpected keyword argument 'ledger': that of the project is used")
        return checked({**self._options, **options, "ledger": str(self._settings.ledger)}, function)


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
                settings = await _settings(self._rows, self._values, self._folder)
                if self._is_too_late:
                    with closing_content(settings):
                        raise RuntimeError("the run did not begin: its project was left before; nothing was created")
                # A task of its own, so that no cancellation reaches a create in flight.
                self._task = asyncio.create_task(self._work(settings), name="batcher run")
                self._task.add_done_callback(lambda _: self._feed.end())
            return self._task

    async def _work(self, settings: Settings) -> runner.Ended:
        with closing_content(settings):
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
        return [row_of(one, self._work.ledger.parent) for one in found if self._is_new(one)]

    def _is_new(self, result: Result) -> bool:
        number, seen = result.line["row"], self._seen[result.batch.batch_id]
        if self._work.chosen is not None and (result.batch.batch_id, number) not in self._work.chosen:
            return False
        if len(seen) <= number:
            seen.extend(bytes(number + 1 - len(seen)))
        was_seen, seen[number] = seen[number], 1
        return not was_seen


def ledger_folder(values: Mapping[str, Any]) -> Path:
    """The folder of the ledger that is given, or the current one."""
    ledger = values["ledger"]
    return project_folder(None if ledger is None else ledger_path(ledger, Path(), sandbox=False))


async def _settings(rows: Rows | None, values: Mapping[str, Any], folder: Path) -> Settings:
    """The settings of a run of these rows, which are read to their end if they are not paths."""
    paths = paths_of(rows)
    content = None if paths or rows is None else await spool(rows)
    return settings_for(rows is not None, paths, content, values, folder)


def settings_for(has_rows: bool, paths: list[Path], content: Any, values: Mapping[str, Any], folder: Path) -> Settings:
    """The settings of a run of these manifests, or of the rows in `content`.

    Raises:
        UsageError: options contradict each other, or there are no rows.
    """
    if not has_rows and not values["collect_only"]:
        raise UsageError("no rows given", "Pass a path or rows; or collect_only=True.")
    manifests: list[Path | None] = [*paths] if content is None else [None]
    sources = sources_of(values, manifests, content=content, title=TITLE)
    return settings_of(values, sources, folder=folder, token=token_of(values))


@contextmanager
def closing_content(settings: Settings) -> Iterator[None]:
    """Close the temporary file of passed rows at the end."""
    try:
        yield
    finally:
        for source in settings.sources:
            if source.content is not None:
                source.content.close()


def read_status(settings: Settings) -> Status:
    """The status of a ledger.

    Raises:
        LedgerError: there is none, or it cannot be used.
    """
    with open_readonly(settings.ledger, settings.world) as conn:
        return status_of(status(conn))


def read_batches(settings: Settings, name: str | None) -> list[Batch]:
    """The batches of a ledger, or the one with this name.

    Raises:
        UsageError: there is no batch of this name.
    """
    with open_readonly(settings.ledger, settings.world) as conn:
        found = current_batches(conn)
    if name is None:
        return found
    chosen = [batch for batch in found if batch.name == name]
    if not chosen:
        raise UsageError(f"the ledger has no batch {name!r}", f"It has {', '.join(batch.name for batch in found)}.")
    return chosen


def read_rows(settings: Settings, batch: Batch, after: int) -> tuple[list[Row], int]:
    """The next rows of a batch after row number `after`, and the number of the last; `after` at the end."""
    with open_readonly(settings.ledger, settings.world) as conn:
        found, last = next_results(conn, batch, after, CHUNK)
    return [row_of(one, settings.ledger.parent) for one in found], last
