"""A ledger with its options, for programs with an event loop: runs, their rows, and decisions between runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, Unpack

import anyio
import anyio.to_thread

from batcher.address import option_of
from batcher.errors import UsageError, own_errors
from batcher.item import State
from batcher.ledger.ledger import open_readonly
from batcher.ledger.queries import changes
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.queries.settled import next_results
from batcher.ledger.queries.status import status
from batcher.ledger.records import Batch
from batcher.maintenance import operations, retakes
from batcher.maintenance.decisions import ENDED_BADLY, SETTLED_BY_RETRY, Outcome
from batcher.maintenance.doubts import Doubt
from batcher.maintenance.operations import Choice
from batcher.maintenance.retakes import MarkedRetakes, Retake
from batcher.options import Options, StrPath, checked, token_of
from batcher.pipeline import plan
from batcher.project_run import CHUNK, Run
from batcher.row_input import Rows, closing_content, settings_for_rows
from batcher.row_output import Change, Row, Status, change_of, row_of, status_of
from batcher.run_settings import settings_of
from batcher.settings import Settings, folder_of_ledger

Names = str | Iterable[str]
"""One name or several."""
T = TypeVar("T")


class Project:
    """A ledger and the options of its runs, within `async with`. Leaving the block lets active runs drain.

    Everything runs in the event loop of the caller, which must be asyncio's.
    """

    def __init__(self, options: Options, *, folder: Path | None = None) -> None:
        """`folder` is the project folder; None for that of the ledger."""
        # Every run reads the options, and an iterator can be read only once.
        given = {name: [*value] if isinstance(value, Iterator) else value for name, value in options.items()}
        values = checked(given, "open")
        self._settings = settings_of(
            values, (), folder=folder or folder_of_ledger(values["ledger"]), token=token_of(values)
        )
        self._options: dict[str, Any] = given
        self._runs: list[Run] = []
        self._is_open = False

    @property
    def ledger(self) -> Path | str:
        """The path of the ledger, or the URL of one on a server, without its password."""
        ledger = self._settings.ledger
        return ledger if isinstance(ledger, Path) else str(ledger)

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
        run = Run(rows, self._values(options, "run"), self._settings.home)
        self._runs = [one for one in self._runs if not one.has_ended] + [run]
        return run

    async def plan(self, rows: Rows, /, **options: Unpack[Options]) -> plan.Plan:
        """What a run would do and cost. Creates nothing.

        Raises:
            TypeError: an option does not exist.
            BatcherError: an option, the rows or the ledger cannot be used. Faults of rows are in the plan.
        """
        values = self._values(options, "plan")
        settings = await settings_for_rows(rows, values, self._settings.home)
        with closing_content(settings), own_errors():
            return await plan.plan(settings)

    async def status(self) -> Status:
        """The progress of the ledger, even while a run is active.

        Raises:
            LedgerError: there is no ledger, or it cannot be used.
        """
        return await self._read(read_status, self._settings)

    async def results(self, batch: str | None = None) -> AsyncIterator[Row]:
        """The rows of the ledger, or of one batch, in the order of the manifests.

        Raises:
            LedgerError: there is no ledger, or it cannot be used.
        """
        for one in await self._read(read_batches, self._settings, batch):
            after, before = 0, -1
            while after != before:
                before = after
                rows, after = await self._read(read_rows, self._settings, one, after)
                for row in rows:
                    yield row

    async def changes(self, since: str | None = None, *, batch: str | None = None) -> list[Change]:
        """The files that the last run, or a run `since` and all later ones, have made or replaced.

        Raises:
            UsageError: there is no such run.
            LedgerError: there is no ledger, or it cannot be used.
        """
        return await self._read(read_changes, self._settings, since, batch)

    async def retry(self, ids: Names | None = None, *, state: Names = (), batch: str | None = None) -> list[Outcome]:
        """Let the next run create items again that were rejected, failed, gone or abandoned. It pays for them.

        `ids` are of rows, or beginnings of keys; None with `state` means all items in these states. If an item has a
        task, the API is asked about it first; one that succeeded after all is collected instead.

        Raises:
            UsageError: no item matches.
            LockedError: a run holds the ledger.
            CredentialsError: the token is rejected, or belongs to another account than a task.
            TroubleError: a task cannot be read; its item was not changed.
        """
        with own_errors():
            return await operations.retry(self._settings, _choice(ids, state, batch, SETTLED_BY_RETRY))

    async def abandon(self, ids: Names | None = None, *, state: Names = (), batch: str | None = None) -> list[Outcome]:
        """Give up items that were rejected, failed or are gone; named as for `retry`.

        Raises:
            UsageError: no item matches.
            LockedError: a run holds the ledger.
        """
        with own_errors():
            return await operations.abandon(self._settings, _choice(ids, state, batch, ENDED_BADLY))

    async def doubts(self, ids: Names | None = None) -> list[Doubt]:
        """The items in doubt, all or those named, with the evidence.

        Raises:
            UsageError: none of the named items is in doubt.
            LedgerError: there is no ledger, or it cannot be used.
        """
        with own_errors():
            return await operations.doubts(self._settings, _names(ids))

    async def resolve(
        self,
        ids: Names | None = None,
        *,
        adopt: str | None = None,
        buy_again: bool = False,
        abandon: bool = False,
        all: bool = False,  # noqa: A002 - the option's name
    ) -> list[Outcome]:
        """Settle items in doubt by exactly one decision: those named, or `all`.

        `adopt` assigns the task with this id to the only item, after checking it with the API. `buy_again` lets the
        next run create the items again: each may cost twice. `abandon` gives them up.

        Raises:
            UsageError: the decision is missing or unclear, or none of the named items is in doubt.
            LockedError: a run holds the ledger.
            CredentialsError: the token is rejected, or belongs to another account than the item's.
            TroubleError: the task cannot be read; nothing was changed.
        """
        decision: dict[str, Any] = {"adopt": adopt, "buy_again": buy_again, "abandon": abandon, "everything": all}
        with own_errors():
            return await operations.resolve(self._settings, _names(ids), **decision)

    async def retake(self, ids: Names, *, take: int | None = None, batch: str | None = None) -> list[Retake]:
        """Let the next run create another take of done rows and pay for it. With `take`, switch back to that one, free.

        `ids` are of rows, or beginnings of keys, each for all rows that share its item.

        Raises:
            UsageError: a name matches no row.
            LockedError: a run holds the ledger.
        """
        with own_errors():
            return await retakes.retake(self._settings, _names(ids) or (), take=take, batch=batch)

    async def retake_marked(self, marks: StrPath, *, batch: str | None = None) -> MarkedRetakes:
        """Retake the rows marked in a file that was exported from a report page, except those retaken since.

        Raises:
            UsageError: it is not a marks file of this ledger.
            LockedError: a run holds the ledger.
        """
        with own_errors():
            return await retakes.retake_marked(self._settings, Path(os.fspath(marks)), batch=batch)

    @staticmethod
    async def _read(function: Callable[..., T], *arguments: Any) -> T:
        with own_errors():
            return await anyio.to_thread.run_sync(partial(function, *arguments))

    def _values(self, options: Mapping[str, Any], function: str) -> dict[str, Any]:
        if "ledger" in options:
            raise TypeError(f"{function}() got an unexpected keyword argument 'ledger': that of the project is used")
        return checked({**self._options, **options, "ledger": option_of(self._settings.ledger)}, function)


def _names(given: Names | None) -> list[str] | None:
    """The names as a list; None for none given, which is not the same as an empty list."""
    return given if given is None else [given] if isinstance(given, str) else [str(name) for name in given]


def _choice(ids: Names | None, state: Names, batch: str | None, permitted: Sequence[State]) -> Choice:
    """The items that are named.

    Raises:
        UsageError: a state is not permitted.
    """
    states = _names(state) or []
    if wrong := [name for name in states if name not in permitted]:
        raise UsageError(f"state: {wrong[0]!r} is not one of {', '.join(permitted)}")
    return Choice(ids=_names(ids), states=[State(name) for name in states], batch=batch)


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
    return [row_of(one, settings.home) for one in found], last


def read_changes(settings: Settings, since: str | None, batch: str | None) -> list[Change]:
    """The files that were made or replaced since the run `since` began, or since the last run.

    Raises:
        UsageError: there is no such run.
    """
    with open_readonly(settings.ledger, settings.world) as conn:
        _, started_at = changes.run_named(conn, since)
        return [change_of(one, settings.home) for one in changes.changes(conn, started_at, batch)]
