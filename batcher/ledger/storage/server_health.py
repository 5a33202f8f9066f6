"""The state of a ledger's server, as far as a run depends on it, for `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from batcher.ledger.storage.postgres import HOT


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the ledger's server. Shares are of all row versions, durations in seconds."""

    version: str
    synchronous_commit: str
    dead_share: float  # row versions that the server has not removed yet, in the table that has most
    dead_table: str
    oldest_transaction_seconds: float  # of any session of the database; it keeps old versions from being removed


_DEAD: Final = """
    SELECT relname, n_dead_tup::float / greatest(n_live_tup + n_dead_tup, 1) AS share FROM pg_stat_user_tables
    WHERE relid IN ({tables}) AND n_dead_tup > 10000 ORDER BY share DESC LIMIT 1"""
_OLDEST: Final = """
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""


def server_health(conn: Connection) -> Health | None:
    """The server's health; None for a file."""
    if conn.dialect.name != "postgresql":
        return None
    tables = ", ".join(f"'{name}'::regclass" for name in HOT)
    dead = conn.exec_driver_sql(_DEAD.format(tables=tables)).first()
    return Health(
        version=conn.exec_driver_sql("SHOW server_version").scalar_one(),
        synchronous_commit=conn.exec_driver_sql("SHOW synchronous_commit").scalar_one(),
        dead_share=0.0 if dead is None else dead.share,
        dead_table="" if dead is None else dead.relname,
        oldest_transaction_seconds=conn.exec_driver_sql(_OLDEST).scalar_one(),
    )
