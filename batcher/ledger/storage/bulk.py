"""Faster insertion of very many rows, within the current transaction.

SHA-256 keys fall on random pages of an index. Beyond the page cache, each row then costs a read and a write of a page.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Table

_CACHE_KIB: Final = 65_536
"""Size of the large page cache, or of a server's memory for one sorting; only as much as needed is allocated."""
MIN_ROWS: Final = 5_000
"""Below this number of rows, an index is not worth building again, nor a table worth analyzing."""


@contextmanager
def large_cache(conn: Connection) -> Iterator[None]:
    """Give the connection a large page cache for a while.

    Not while an index is built: sorting then takes as much memory again.
    """
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql(f"SET LOCAL work_mem = {_CACHE_KIB}")  # until the transaction ends
        yield
        return
    before: int = conn.exec_driver_sql("PRAGMA cache_size").scalar_one()
    conn.exec_driver_sql(f"PRAGMA cache_size = -{_CACHE_KIB}")
    try:
        yield
    finally:
        conn.exec_driver_sql(f"PRAGMA cache_size = {before}")
        conn.exec_driver_sql("PRAGMA shrink_memory")


@contextmanager
def indexes_built_last(conn: Connection, table: str, changes: int) -> Iterator[None]:
    """Build the table's indexes, except those of its constraints, after `changes` rows are inserted or updated.

    Only if that is faster: if there are many changes, at least as many as the table has rows. Sorting all keys takes
    about a quarter of the time of inserting each.

    A server keeps its indexes.
    """
    if conn.dialect.name == "postgresql":
        yield
        return
    existing: int = conn.exec_driver_sql(f"SELECT coalesce(max(rowid), 0) FROM {table}").scalar_one()  # noqa: S608
    if changes < max(MIN_ROWS, existing):
        yield
        return
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL"
    indexes = conn.exec_driver_sql(f"{query} ORDER BY rowid", (table,)).all()
    for index in indexes:
        conn.exec_driver_sql(f"DROP INDEX {index.name}")
    yield
    for index in indexes:
        conn.exec_driver_sql(index.sql)


def analyze(conn: Connection, *tables: Table) -> None:
    """Let a server count what is in tables, for its next queries. It counts other than temporary tables by itself, a
    minute later."""
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql(f"ANALYZE {', '.join(table.name for table in tables)}")
