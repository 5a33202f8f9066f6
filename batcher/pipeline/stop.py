"""Why a run stops, as latches: they are set once, looked at by everyone, and cut nothing that is in the air."""

from __future__ import annotations

from enum import IntEnum

import anyio


class Reason(IntEnum):
    """The kinds of reasons, the most telling first."""

    CREDENTIALS = 1  # the token is refused, or tasks belong to another account
    CREDITS = 2  # the account is halted for lack of credits
    TROUBLE = 3  # the API is unreachable, unstable or not itself; the disk is full
    ASKED = 4  # a signal, a budget, --no-wait


class Stop:
    """The two latches of a run: no more creating, and no more collecting either."""

    def __init__(self) -> None:
        self.reasons: dict[Reason, str] = {}
        self.signalled = False
        self.interrupted = False  # by a second signal
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
        """Create nothing more; what is in the air lands, what is open is collected."""
        self._stop("creating", reason, message)

    def stop_all(self, reason: Reason, message: str) -> None:
        """Create nothing more and leave open tasks to the next run; what is in the air lands."""
        self._stop("creating", reason, message)
        self._stop("collecting", reason, message)

    def interrupt(self) -> None:
        """A second signal: only what has arrived is recorded still."""
        self.interrupted = True
        self.stop_all(Reason.ASKED, "interrupted")

    def scope(self, what: str) -> anyio.CancelScope:
        """A scope that ends when `what` (creating, collecting) stops: for waiting, never for what must be recorded."""
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
