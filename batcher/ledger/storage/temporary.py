"""Temporary tables of one connection, which other connections cannot see and which disappear when it is closed.

Read-only connections have them, too: see `writable`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError


@contextmanager
def writable(conn: Connection) -> Iterator[None]:
    """Allow a read-only connection to create and write temporary tables for a while."""
    forbid, allow = (
        (FORBID_WRITES, "RELEASE SAVEPOINT reading")
        if conn.dialect.name == "postgresql"
        else ("PRAGMA query_only = 1", "PRAGMA query_only = 0")
    )
    conn.exec_driver_sql(allow)
    try:
        yield
    except DBAPIError:  # the transaction has failed
        raise
    except BaseException:
        conn.exec_driver_sql(forbid)
        raise
    conn.exec_driver_sql(forbid)


FORBID_WRITES: Final = "SAVEPOINT reading; SET TRANSACTION READ ONLY"
"""Makes a transaction of PostgreSQL read-only until the savepoint is released. A transaction that begins as read-only
cannot create temporary tables later."""


def number_rows(conn: Connection, table: Table) -> None:
    """Give a new table the column `rowid`, which SQLite's tables have anyway: the order in which rows were added."""
    if conn.dialect.name == "postgresql":
        numbered = "ADD COLUMN rowid bigint GENERATED ALWAYS AS IDENTITY"
        conn.exec_driver_sql(f"ALTER TABLE {table.name} {numbered}")
        conn.exec_driver_sql(f"CREATE INDEX {table.name}_rowid ON {table.name} (rowid)")
