"""A session of a PostgreSQL server whose commits are confirmed, and which another thread can end."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.errors import Diagnostic


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

    def close(self) -> None:
        """Close it, as usual."""
        super().close()
        self._socket.close()

    def _note(self, notice: Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self._warning = notice.message_primary
