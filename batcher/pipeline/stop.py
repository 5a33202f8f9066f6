"""Why a run stops, as latches: set once, checked by every stage, and never an end to a request in flight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

import anyio
from anyio.abc import TaskStatus

from batcher.clock import Wakeup
from batcher.errors import StorageError

CANCELLED: Final = "Cancelled; nothing was created"
"""Message of a run that a person did not confirm."""


class Reason(IntEnum):
    """Kinds of reasons, the most important first: it decides the exit code."""

    CREDENTIALS = 1  # the token was rejected, or open tasks belong to another account
    CREDITS = 2  # the account is halted: out of credits
    TROUBLE = 3  # the API is unreachable or unstable, another host answers, or the disk is full
    ASKED = 4  # a signal, a budget, --no-wait


class Stop:
    """The two latches of a run: stop creating, and stop collecting too."""

    def __init__(self) -> None:
        self.reasons: dict[Reason, str] = {}
        self.asking = False  # a person is being asked
        self.cancelled = False  # by the answer, or by a request to stop instead
        self.requested = False  # by a signal or the caller
        self.interrupted = False  # by a second request
        self._scopes: dict[str, list[anyio.CancelScope]] = {"creating": [], "collecting": []}
        self._set: set[str] = set()

    @property
    def creating(self) -> bool:
        """Whether nothing more may be created."""
        return "creating" in self._set

    @property
    def collecting(self) -> bool:
        """Whether nothing more may be read or downloaded."""
        return "collecting" in self._set

    def stop_creating(self, reason: Reason, message: str) -> None:
        """Create nothing more. Creates in flight are still recorded, and open tasks collected."""
        self._stop("creating", reason, message)

    def stop_all(self, reason: Reason, message: str) -> None:
        """Create nothing more and leave open tasks to the next run. Creates in flight are still recorded."""
        self._stop("creating", reason, message)
        self._stop("collecting", reason, message)

    def cancel(self) -> None:
        """Create nothing, because a person answered no."""
        self.cancelled = True
        self.stop_creating(Reason.ASKED, CANCELLED)

    def interrupt(self) -> None:
        """Stop at once after a second request: only answers that have arrived are recorded."""
        self.interrupted = True
        self.stop_all(Reason.ASKED, "interrupted")

    @contextmanager
    def on_storage_error(self) -> Iterator[None]:
        """Stop all if the block cannot use the ledger or a file of the run's own."""
        try:
            yield
        except StorageError as error:
            self.stop_all(Reason.TROUBLE, error.one_line())

    def scope(self, what: str) -> anyio.CancelScope:
        """A scope that is cancelled when `what` (creating, collecting) stops: for waiting, never around a record."""
        scope = anyio.CancelScope()
        self._scopes[what].append(scope)
        if what in self._set:
            scope.cancel()
        return scope

    def _stop(self, what: str, reason: Reason, message: str) -> None:
        self.reasons.setdefault(reason, message)
        self._set.add(what)
        for scope in self._scopes[what]:
            scope.cancel()


class StopRequests:
    """What ends a run from outside: the first request lets it drain, the second ends it at once.

    `message` is the run's reason to stop; `way_out` explains, if not empty, how a person ends the run at once.
    """

    message = "stopped as requested; run it again to continue"
    way_out = ""

    def __init__(self) -> None:
        self._number = 0
        self._changed = Wakeup()

    @property
    def any(self) -> bool:
        """Whether the run is to end."""
        return self._number > 0

    def request(self) -> None:
        """Request that the run ends. Call it on the thread of the run's event loop."""
        self._number += 1
        self._changed.ring()

    def request_once(self) -> None:
        """Request that the run ends, unless that has been requested."""
        if not self.any:
            self.request()

    async def reach(self, number: int) -> None:
        """Wait for the request with this number, counted from 1."""
        while self._number < number:
            await self._changed.next().wait()

    async def listen(self, *, task_status: TaskStatus[None]) -> None:
        """Receive requests from elsewhere while the run works; for subclasses."""
        task_status.started()
