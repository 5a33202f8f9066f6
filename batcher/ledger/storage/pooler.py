"""Connection poolers between a session and its server: whether the session has one connection of the server for itself.

Only then are its locks and its settings its own.
"""

from __future__ import annotations

import re
from contextlib import closing
from threading import Timer
from typing import TYPE_CHECKING, Any, Final

import psycopg

from batcher.errors import LedgerError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from batcher.address import Server
    from batcher.ledger.storage.session import Session

_WAIT_SECONDS: Final = 10.0
"""Longest time to wait until the pooler assigns a second connection."""
_SEARCH_PATH: Final = re.compile(r"(?:-c\s*|--)search_path=((?:\\.|\S)+)")
_PID: Final = "SELECT pg_backend_pid()"


def check_pooler(session: Session, server: Server, again: Callable[[], Session]) -> None:
    """Check that `session` reaches the server directly, or through a pooler that assigns it one connection for good.

    `again` opens a second session. In both, each statement is a transaction.

    Raises:
        LedgerError: the pooler assigns a connection for each transaction only, or drops the options.
        StorageError: the pooler has no second connection, so that this is unknown.
    """
    pid = _pid(session)
    if pid == session.info.backend_pid:  # a pooler announces a number of its own
        return
    if _is_shared(session, server, again, pid):
        hint = "Connect to the server itself, or to a pooler in session mode."
        raise LedgerError(f"{server} is a connection pooler in transaction or statement mode, which loses locks", hint)
    _check_options(session, server)


def is_refusal(error: psycopg.OperationalError) -> bool:
    """Whether a pooler refused the user's `options`."""
    return "startup parameter" in str(error)


def options_refused(server: Server) -> LedgerError:
    """The error for `options` that do not pass a pooler: without its schema, the user would get another ledger."""
    hint = "Leave them out of the URL and PGOPTIONS; a schema can be set with ALTER ROLE … SET search_path."
    return LedgerError(f"{server} is a connection pooler that does not accept the URL's options", hint)


def _is_shared(session: Session, server: Server, again: Callable[[], Session], pid: int) -> bool:
    """Whether the server's connection is given to another session while `session` is between two transactions."""
    other = again()
    timer = Timer(_WAIT_SECONDS, other.cut)
    timer.start()
    try:
        with closing(other):
            other.autocommit = False  # from now on, it keeps what it is given
            return _pid(other) == pid or _pid(session) != pid
    except psycopg.Error as error:
        if "statement pooling" in str(error):
            return True
        why = str(error).strip().partition("\n")[0]
        message = f"the connection pooler {server} did not open a second connection to its server: {why}"
        raise StorageError(message, "Check its pool size and mode (session), then run it again.") from None
    finally:
        timer.cancel()


def _check_options(session: Session, server: Server) -> None:
    asked = _SEARCH_PATH.search(session.info.options)
    if asked is not None and _schemas(asked[1].replace("\\", "")) != _schemas(_value(session, "SHOW search_path")):
        raise options_refused(server)


def _schemas(search_path: str) -> list[str]:
    return [name.strip() for name in search_path.split(",")]


def _pid(session: Session) -> int:
    pid: int = _value(session, _PID)
    return pid


def _value(session: Session, query: str) -> Any:
    row = session.execute(query).fetchone()
    assert row is not None  # noqa: S101
    return row[0]
