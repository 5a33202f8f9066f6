"""The functions of `import batcher`, for programs without an event loop. `batcher help python` explains them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, Unpack

import anyio

from batcher.errors import own_errors, root_cause
from batcher.maintenance.decisions import Outcome
from batcher.maintenance.doubts import Doubt
from batcher.maintenance.retakes import MarkedRetakes, Retake
from batcher.options import LedgerOptions, Options, StrPath, checked, checked_for_ledger, token_of
from batcher.pipeline import plan as planning
from batcher.pipeline import runner
from batcher.pipeline.stop import StopRequests
from batcher.project import Names, Project, read_batches, read_rows, read_status
from batcher.reports.observer import LogObserver
from batcher.reports.run_report import RunReport
from batcher.row_input import SyncRows, closing_content, paths_of, settings_for, spool_now
from batcher.row_output import Change, Row, Status
from batcher.run_settings import settings_of
from batcher.settings import Settings, folder_of_ledger, project_folder

T = TypeVar("T")


def run(rows: SyncRows | None = None, /, **options: Unpack[Options]) -> RunReport:
    """Create audio for the rows of a manifest, and return the report. This can charge.

    Run it again at any time: it creates new and changed rows, collects open tasks, and never buys the same thing twice.
    It works on a thread of its own, so it may be called from any thread, also one whose event loop is running.
    KeyboardInterrupt lets the run drain: it stops creating, collects open tasks for up to 30 seconds, and then raises.

    Raises:
        TypeError: an option does not exist.
        LockedError: another run holds the ledger.
        ManifestError: rows have faults, which are listed in `faults`; nothing was created.
        UsageError: the ledger, the rows or the options cannot be used.
        CredentialsError: the token is missing or was rejected before anything was created.
        TroubleError: the API cannot be reached, or the disk is full.
    """
    settings = _settings(rows, options, "run")
    with closing_content(settings), own_errors():
        ended = _wait_for(lambda requests: runner.run(settings, LogObserver(), requests))
    if ended.error is not None:
        raise ended.error
    return ended.report


def plan(rows: SyncRows, /, **options: Unpack[Options]) -> planning.Plan:
    """What a run would do and cost. Creates nothing, not even a ledger. KeyboardInterrupt ends it at once.

    Raises:
        TypeError: an option does not exist.
        BatcherError: an option, the rows or the ledger cannot be used. Faults of rows are in the plan.
    """
    settings = _settings(rows, options, "plan")
    with closing_content(settings), own_errors():
        return _wait_for(partial(_until_requested, lambda: planning.plan(settings)))


def status(manifest: StrPath | None = None, /, *, ledger: StrPath | None = None, sandbox: bool = False) -> Status:
    """The progress of a ledger: `ledger`, or that beside the manifest, or in the current folder.

    Raises:
        LedgerError: there is none, or it cannot be used.
    """
    with own_errors():
        return read_status(_of_ledger(manifest, ledger, sandbox=sandbox))


def results(
    manifest: StrPath | None = None,
    /,
    *,
    ledger: StrPath | None = None,
    sandbox: bool = False,
    batch: str | None = None,
) -> Iterator[Row]:
    """The rows of a ledger, which is found as for `status`, or of one batch of it, in the order of the manifests.

    Raises:
        LedgerError: there is no ledger, or it cannot be used.
        UsageError: there is no such batch.
    """
    settings = _of_ledger(manifest, ledger, sandbox=sandbox)
    with own_errors():
        return _results(settings, read_batches(settings, batch))


def open(ledger: StrPath | None = None, /, **options: Unpack[Options]) -> Project:  # noqa: A001 - its public name
    """A project for programs with an event loop: a ledger, which a run creates, and the options of its runs.

    Raises:
        TypeError: an option does not exist.
        UsageError: an option is invalid.
    """
    if ledger is not None:
        if "ledger" in options:
            raise TypeError("open() got two values for 'ledger'")
        options["ledger"] = ledger
    return Project(options)


def changes(
    since: str | None = None, /, *, batch: str | None = None, **of_ledger: Unpack[LedgerOptions]
) -> list[Change]:
    """The files that the last run, or a run `since` and all later ones, have made or replaced; see `Project.changes`.

    `of_ledger`, here and below, names the ledger: see `LedgerOptions`.
    """
    return _decided(of_ledger, "changes", lambda project: project.changes(since, batch=batch))


def retry(
    ids: Names | None = None,
    /,
    *,
    state: Names = (),
    batch: str | None = None,
    **of_ledger: Unpack[LedgerOptions],
) -> list[Outcome]:
    """Let the next run create items again, and pay for them; see `Project.retry`."""
    return _decided(of_ledger, "retry", lambda project: project.retry(ids, state=state, batch=batch))


def abandon(
    ids: Names | None = None,
    /,
    *,
    state: Names = (),
    batch: str | None = None,
    **of_ledger: Unpack[LedgerOptions],
) -> list[Outcome]:
    """Give up items that were rejected, failed or are gone; see `Project.abandon`."""
    return _decided(of_ledger, "abandon", lambda project: project.abandon(ids, state=state, batch=batch))


def doubts(ids: Names | None = None, /, **of_ledger: Unpack[LedgerOptions]) -> list[Doubt]:
    """The items in doubt, all or those named, with the evidence; see `Project.doubts`."""
    return _decided(of_ledger, "doubts", lambda project: project.doubts(ids))


def resolve(
    ids: Names | None = None,
    /,
    *,
    adopt: str | None = None,
    buy_again: bool = False,
    abandon: bool = False,
    all: bool = False,  # noqa: A002 - the option's name
    **of_ledger: Unpack[LedgerOptions],
) -> list[Outcome]:
    """Settle items in doubt by exactly one decision; see `Project.resolve`. With `buy_again`, each may cost twice."""
    decision: dict[str, Any] = {"adopt": adopt, "buy_again": buy_again, "abandon": abandon, "all": all}
    return _decided(of_ledger, "resolve", lambda project: project.resolve(ids, **decision))


def retake(
    ids: Names, /, *, take: int | None = None, batch: str | None = None, **of_ledger: Unpack[LedgerOptions]
) -> list[Retake]:
    """Let the next run pay for another take of done rows, or switch back to `take`, free; see `Project.retake`."""
    return _decided(of_ledger, "retake", lambda project: project.retake(ids, take=take, batch=batch))


def retake_marked(marks: StrPath, /, *, batch: str | None = None, **of_ledger: Unpack[LedgerOptions]) -> MarkedRetakes:
    """Retake the rows marked in a file that was exported from a report page; see `Project.retake_marked`."""
    return _decided(of_ledger, "retake_marked", lambda project: project.retake_marked(marks, batch=batch))


def _decided(of_ledger: LedgerOptions, function: str, decide: Callable[[Project], Awaitable[T]]) -> T:
    """What a method of a project returns."""
    options: Any = checked_for_ledger(of_ledger, function)
    manifest = options.pop("manifest", None)
    project = Project(options, folder=None if manifest is None else project_folder(Path(os.fspath(manifest))))
    with own_errors():
        return _wait_for(partial(_until_requested, lambda: decide(project)))


async def _until_requested(function: Callable[[], Awaitable[T]], requests: StopRequests) -> T:
    """What the function returns, unless a request cancels it before."""

    async def cancel() -> None:
        await requests.reach(1)
        group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(cancel)
            found = await function()
            group.cancel_scope.cancel()
            return found
    except BaseExceptionGroup as errors:
        raise root_cause(errors) from None
    raise RuntimeError("cancelled")  # nobody receives it: the interrupt that requested the end is raised


def _results(settings: Settings, batches: list[Any]) -> Iterator[Row]:
    for batch in batches:
        after, before = 0, -1
        while after != before:
            before = after
            with own_errors():
                rows, after = read_rows(settings, batch, after)
            yield from rows


def _settings(rows: Any, options: Options, function: str) -> Settings:
    values = checked(options, function)
    paths = paths_of(rows)
    content = None if paths or rows is None else spool_now(rows)
    folder = project_folder(paths[0]) if paths else folder_of_ledger(values["ledger"])
    return settings_for(rows is not None, paths, content, values, folder)


def _of_ledger(manifest: StrPath | None, ledger: StrPath | None, *, sandbox: bool) -> Settings:
    values = checked({"ledger": ledger, "sandbox": sandbox}, "status")
    folder = project_folder(None if manifest is None else Path(os.fspath(manifest)))
    return settings_of(values, (), folder=folder, token=token_of(values))


def _wait_for(function: Callable[[StopRequests], Awaitable[T]]) -> T:
    """The result of an asynchronous function, which runs in an event loop and a thread of its own.

    What interrupts the wait, such as KeyboardInterrupt, is a request to end, and is raised afterwards.
    """
    worker = _Worker(function)
    try:
        interrupt = worker.wait()
    finally:
        worker.leave()
    if interrupt is not None:
        raise interrupt
    return worker.result()


class _Worker(Generic[T]):
    """An asynchronous function on a separate thread.

    An interrupt can be raised between any two steps of the waiting thread, so `wait` does every step where an interrupt
    is caught, and only steps that can be repeated. `Thread.join` is none of them: an interrupted one takes the thread
    for ended.
    """

    def __init__(self, function: Callable[[StopRequests], Awaitable[T]]) -> None:
        self._function = function
        self._requests = StopRequests()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._decided: dict[str, bool] = {}  # whether it "begins": in one step, by its thread or a request to end
        self._thread = threading.Thread(target=self._run, name="batcher")
        self._running = threading.Lock()  # until the end
        self._running.acquire()
        self._has_ended = False
        self._results: list[T] = []
        self._error: BaseException | None = None

    def wait(self) -> BaseException | None:
        """Begin, and wait for the end. Returns the last interrupt, each of which is a request to end."""
        interrupt, act = None, self._thread.start
        while True:
            try:
                act()
                if self._decided.get("begins", True) and not self._has_ended:
                    self._running.acquire()
                if self._has_ended:
                    self._thread.join()
            except BaseException as error:  # noqa: BLE001 - raised by the caller
                interrupt, act = error, self._request
            else:
                return interrupt

    def leave(self) -> None:
        """Request the end of a function that nobody waits for any more."""
        if not self._has_ended:
            self._request()

    def result(self) -> T:
        """What the function returned. Raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _request(self) -> None:
        """Keep the function from beginning; or let a run drain, and end at once if that was requested before."""
        if self._decided.setdefault("begins", False) and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: it has ended
                self._loop.call_soon_threadsafe(self._requests.request)

    def _run(self) -> None:
        try:
            anyio.run(self._main)
        except BaseException as error:  # noqa: BLE001 - raised by `result`
            self._error = error
        finally:
            self._has_ended = True
            self._running.release()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._decided.setdefault("begins", True):
            self._results.append(await self._function(self._requests))
