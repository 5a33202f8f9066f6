"""Ledgers on a server are migrated like files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from batcher.address import Server
from batcher.ledger.ledger import open_readonly
from batcher.ledger.lifecycle import collection
from batcher.ledger.money.spending import spending
from batcher.ledger.storage import database
from batcher.ledger.storage.schema import REVISION
from tests.support import postgres
from tests.support.ledger_kit import ending, opened_book

_ADDED: Final = {
    "accounts": ("next_create_at", "closed_until_at"),
    "items": ("run_id",),
    "runs": ("shift_id", "is_creating", "claimed"),
    "tasks": ("overdue_at",),
    "notices": ("run_id",),
}
"""Columns that a ledger of revision 0010, the first on a server, lacks."""
_WITHOUT_TRIGGERS: Final = (
    "DROP INDEX runs_working",
    "DELETE FROM costs",
    "DROP FUNCTION note_costs_of_task, note_costs_of_attempt CASCADE",
    "ALTER TABLE costs DROP COLUMN id, ADD CONSTRAINT costs_pkey PRIMARY KEY (batch_id, model),"
    " ALTER COLUMN untold_bytes TYPE integer, ALTER COLUMN priced_bytes TYPE integer",
)
"""What takes from a ledger what revision 0011 added beside columns."""
_SCHEMA: Final = (
    """SELECT table_name, column_name, data_type, collation_name, is_nullable
    FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 2""",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1",
    "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = current_schema()::regnamespace ORDER BY 1, 2",
)
"""Columns, indexes, triggers and functions."""


@pytest.fixture
def new(postgres_url: str) -> Iterator[Server]:
    """A new ledger in a database of its own."""
    with postgres.database_of(postgres_url) as url:
        address = Server(url, Path("/"))
        database.create(address, "real")
        yield address


def _downgrade(address: Server) -> None:
    """Make the ledger one of revision 0010."""
    engine = database._open(address, readonly=False)
    with engine.begin() as connection:
        for statement in _WITHOUT_TRIGGERS:
            connection.exec_driver_sql(statement)
        for table, names in _ADDED.items():
            for name in names:
                connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN {name}")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0010'")
    engine.dispose()


def test_the_migrations_build_the_tables_of_a_new_ledger(new: Server) -> None:
    """From the first revision that was on a server."""
    expected = [postgres.rows(new.url, part, ()) for part in _SCHEMA]
    _downgrade(new)
    assert database.needs_upgrade(new)
    assert database.upgrade(new) is None
    assert not database.needs_upgrade(new)
    assert [postgres.rows(new.url, part, ()) for part in _SCHEMA] == expected
    assert postgres.rows(new.url, "SELECT version_num FROM alembic_version", ()) == [{"version_num": REVISION}]


def test_a_migration_counts_the_costs_of_earlier_tasks(new: Server, tmp_path: Path) -> None:
    with opened_book(Server(new.url, tmp_path)) as book:
        book.take_in("id,text\na,one\n")
        book.do(collection.record_rendered, ending(book.submitted("t1"), credits=2.0))
    _downgrade(new)
    assert database.upgrade(new) is None
    with open_readonly(new) as connection:
        assert spending(connection).spent == 2.0
