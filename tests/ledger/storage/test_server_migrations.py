"""Ledgers on a server are migrated like files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from batcher.address import Server
from batcher.ledger.storage import database
from batcher.ledger.storage.schema import REVISION
from tests.support import postgres

_ADDED: Final = {
    "accounts": ("next_create_at", "closed_until_at"),
    "items": ("run_id",),
    "runs": ("shift_id", "is_creating"),
    "tasks": ("overdue_at",),
    "notices": ("run_id",),
}
"""Columns that a ledger of revision 0010, the first on a server, lacks."""
_COLUMNS: Final = """SELECT table_name, column_name, data_type, collation_name, is_nullable
    FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 2"""


@pytest.fixture
def new(postgres_url: str) -> Iterator[Server]:
    """A new ledger in a database of its own."""
    with postgres.database_of(postgres_url) as url:
        address = Server(url, Path("/"))
        database.create(address, "real")
        yield address


def test_the_migrations_build_the_tables_of_a_new_ledger(new: Server) -> None:
    """From the first revision that was on a server."""
    expected = postgres.rows(new.url, _COLUMNS, ())
    engine = database._open(new, readonly=False)
    with engine.begin() as connection:
        for table, names in _ADDED.items():
            for name in names:
                connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN {name}")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0010'")
    engine.dispose()
    assert database.needs_upgrade(new)
    assert database.upgrade(new) is None
    assert not database.needs_upgrade(new)
    assert postgres.rows(new.url, _COLUMNS, ()) == expected
    assert postgres.rows(new.url, "SELECT version_num FROM alembic_version", ()) == [{"version_num": REVISION}]
