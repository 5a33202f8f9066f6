"""Locks that keep apart the runs of a ledger on a server. A file needs none: `lock` lets one run in at a time.

They are session locks on a run's only connection, so they end with its session. Runs share the ledger's lock, which
others take alone to change the ledger between runs; and each has a lock of its own, by which others see that it lives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar, get_args

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from batcher.address import Server
from batcher.errors import LockedError
from batcher.ledger.storage.statements import first_error, pass_on

T = TypeVar("T")

Turn = Literal["begin", "import", "results", "claim", "mark"]
"""What only one run of a ledger does at a time: see `take_turn`."""

_LOCKS: Final = 7001
"""First half of the key of the ledger's lock; the second is the number of its schema."""
_TURNS: Final = {what: _LOCKS + number for number, what in enumerate(get_args(Turn), 1)}
"""The same for turns."""
_GRACE_MILLISECONDS: Final = 1000
_TIMED_OUT: Final = "55P03"
_TRIES: Final = 5
"""Attempts at a part of a transaction: see `repeated`."""
_IN_TRANSACTION_SECONDS: Final = 10
_ALONE_SECONDS: Final = 60
"""A session that says nothing for this long within a transaction is ended; sooner while others wait for its locks."""

_RUN: Final = f"hashtextextended(%s, {_LOCKS})"
"""The key of a run's lock: 64 bits, so that practically never two runs have the same one."""
_SCHEMA: Final = """coalesce((SELECT nspname FROM pg_namespace JOIN pg_class ON relnamespace = pg_namespace.oid
    WHERE pg_class.oid = to_regclass('alembic_version')), current_schema())"""
"""The schema that has the ledger, or in which it will be created: users may have different first schemas."""
_GRANTED: Final = """FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
_HOLDERS: Final = f"""SELECT pid {_GRANTED} AND objsubid = 2 AND classid = {_LOCKS}
    AND objid::bigint = hashtext({_SCHEMA})::bigint & 4294967295"""
"""The server's processes that hold the ledger's lock."""
_KEY: Final = "(classid::bigint << 32) | objid::bigint"
_HOLDER_OF_RUN: Final = f"SELECT pid {_GRANTED} AND objsubid = 1 AND {_KEY} = {_RUN}"
"""The server's process that holds the run's lock."""
_CONNECTED: Final = f"""SELECT id FROM unnest(%s::text[]) AS given (id)
    WHERE hashtextextended(id, {_LOCKS}) IN (SELECT {_KEY} {_GRANTED} AND objsubid = 1)"""  # noqa: S608


def is_shared(conn: Connection) -> bool:
    """Whether other runs may work on the ledger at the same time: on a server."""
    return conn.dialect.name == "postgresql"


def server_time(conn: Connection) -> float | None:
    """The current time by the server's clock, in unix seconds; None for a file."""
    if not is_shared(conn):
        return None
    return float(conn.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())::float").scalar_one())


def lock(conn: Connection, server: Server, run_id: str | None, *, alone: bool) -> None:
    """Take the ledger's lock for the session, `alone` or together with others; and the run's lock, if it is a run.

    Raises:
        LockedError: another process holds the lock, and does not share it.
    """
    # A session that has just been closed may still have it for a moment.
    conn.exec_driver_sql(f"SET LOCAL lock_timeout = {_GRACE_MILLISECONDS}")
    how = "" if alone else "_shared"
    try:
        conn.exec_driver_sql(f"SELECT pg_advisory_lock{how}({_LOCKS}, hashtext({_SCHEMA}))")
        if run_id is not None:
            conn.exec_driver_sql(f"SELECT pg_advisory_lock({_RUN})", (run_id,))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _TIMED_OUT:
            raise
        conn.rollback()
        hint = "Wait until it has ended; `run` does so with --wait-lock 5m."
        raise LockedError(f"another run holds the ledger {server}{_holder(conn)}", hint) from None
    conn.commit()


def _holder(conn: Connection) -> str:
    who = f"SELECT client_addr, backend_start FROM pg_stat_activity WHERE pid IN ({_HOLDERS}) ORDER BY 2"  # noqa: S608
    found = conn.exec_driver_sql(who).first()
    return "" if found is None else f" (of {found[0] or 'the same host'}, since {found[1]:%Y-%m-%d %H:%M:%S} UTC)"


def has_ended(conn: Connection, run_id: str) -> bool:
    """Whether the session of another run has ended. If so, no third session finds that until this transaction ends."""
    if not is_shared(conn):
        return True
    return bool(conn.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({_RUN})", (run_id,)).scalar_one())


def connected(conn: Connection, run_ids: Sequence[str]) -> set[str]:
    """Those of these runs that have a session with the server; none of a file."""
    if not is_shared(conn):
        return set()
    return set(conn.exec_driver_sql(_CONNECTED, (list(run_ids),)).scalars())


def end_session(conn: Connection, run_id: str) -> None:
    """End the session of a run, if it has one."""
    statement = f"SELECT pg_terminate_backend(pid) FROM ({_HOLDER_OF_RUN}) AS found"  # noqa: S608
    conn.exec_driver_sql(statement, (run_id,))


def take_turn(conn: Connection, what: Turn) -> None:
    """Wait until no other run has its turn at this; ours lasts until the end of the transaction."""
    if is_shared(conn):
        conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_TURNS[what]}, hashtext({_SCHEMA}))")


def try_turn(conn: Connection, what: Turn) -> None:
    """Take this run's turn at what may take others minutes; see `take_turn`.

    Raises:
        LockedError: another run has its turn. Nothing was changed.
    """
    if is_shared(conn):
        key = f"{_TURNS[what]}, hashtext({_SCHEMA})"
        if not conn.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({key})").scalar_one():
            raise LockedError(f"another run has its turn ({what})", "Run it again in a moment.")


def is_deadlock(error: DBAPIError) -> bool:
    """Whether a server aborted the transaction since it and another waited for each other: it may be repeated."""
    return getattr(first_error(error), "sqlstate", None) in ("40001", "40P01")


def repeated(conn: Connection, change: Callable[[], T]) -> T:
    """The result of `change`, a part of a transaction that cannot be repeated as a whole.

    On a server it is repeated if it and another transaction wait for each other, provided that the other waits for
    locks of this part, which it gives up.
    """
    if not is_shared(conn):
        return change()
    pass_on(conn, "SAVEPOINT part")
    for last in (False,) * (_TRIES - 1) + (True,):
        try:
            value = change()
        except DBAPIError as error:
            if last or not is_deadlock(error):
                raise
            pass_on(conn, "ROLLBACK TO part")
        else:
            pass_on(conn, "RELEASE part")
            return value
    raise AssertionError


def set_patience(conn: Connection, *, others_wait: bool) -> None:
    """How soon the session is ended if it falls silent within a transaction: soon while `others_wait` for its locks,
    but not while it reads a manifest or writes results."""
    if is_shared(conn):
        seconds = _IN_TRANSACTION_SECONDS if others_wait else _ALONE_SECONDS
        conn.exec_driver_sql(f"SET idle_in_transaction_session_timeout = '{seconds}s'")
