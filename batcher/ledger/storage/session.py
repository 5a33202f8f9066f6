"""A session of a PostgreSQL server whose commits are confirmed, and which another thread can end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from typing import Any, Final

import psycopg
from psycopg.errors import Diagnostic

OPENING_SECONDS: Final = 20.0
"""Longest time for the statements of one step of opening a ledger."""


class Session(psycopg.Connection[Any]):
    """A connection whose commits raise OperationalError if the server stored them, but stopped waiting for its standby.

    They would be lost if that standby takes over.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._socket = socket.socket(fileno=os.dup(self.pgconn.socket))
        self._warning: str | None = None
        self.add_notice_handler(self._note)

    def commit(self) -> None:
        """Commit, and check that the standby has it if there is one."""
        self._warning = None
        super().commit()
        if self._warning is not None:
            raise psycopg.OperationalError(f"the commit may be lost: {self._warning}")

    def cut(self) -> None:
        """Cut the connection: the statement under way in another thread fails."""
        with suppress(OSError):  # it was lost meanwhile
            self._socket.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Cut the connection if the block takes longer than `OPENING_SECONDS`."""
        timer = Timer(OPENING_SECONDS, self.cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        """Close it, as usual."""
        super().close()
        self._socket.close()

    def _note(self, notice: Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self._warning = notice.message_primary
