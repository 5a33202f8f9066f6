"""The ledger's file: made by the migrations, equal to the schema, private, and refused when it is not ours."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from batcher.errors import LedgerError
from batcher.ledger import database, schema


def _objects(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%'"
        )
        return {name: "".join(sql.split()).replace('"', "") for name, sql in found}


def test_migrations_build_the_schema(tmp_path: Path) -> None:
    """A ledger made by every migration in turn is a new ledger, word for word."""
    database.create(tmp_path / "new.db", "real")
    engine = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with engine.begin() as connection:
        database._migrate(connection)
    engine.dispose()
    assert _objects(tmp_path / "migrated.db") == _objects(tmp_path / "new.db")
    for name in ("new.db", "migrated.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(schema.REVISION,)]


def test_revision_is_the_newest_migration() -> None:
    """The revision that the program compares with is the newest migration there is."""
    assert max(database._known_revisions()) == schema.REVISION


def test_ledger_is_private(tmp_path: Path) -> None:
    """A new ledger can be read by its owner alone."""
    path = tmp_path / "batcher.db"
    database.create(path, "real")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_newer_ledger_is_refused(tmp_path: Path) -> None:
    """A ledger of a later version is refused with what to do."""
    path = tmp_path / "batcher.db"
    database.create(path, "real")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerError, match="newer batcher") as caught:
        database.open_existing(path)
    assert "Upgrade" in caught.value.hint
    with pytest.raises(LedgerError, match="newer batcher"):
        database.needs_upgrade(path)


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100])
def test_not_a_ledger_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no ledger is refused and left as it is."""
    path = tmp_path / "batcher.db"
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        database.open_existing(path)
    assert path.read_bytes() == content


def test_the_other_world_is_refused(tmp_path: Path) -> None:
    """A ledger of the sandbox never serves the real API, nor the other way round."""
    path = tmp_path / "batcher.db"
    database.create(path, "sandbox")
    with pytest.raises(LedgerError, match="sandbox world"):
        database.open_existing(path, world="real")
    database.open_existing(path, world="sandbox").dispose()


def test_odd_paths(tmp_path: Path) -> None:
    """A folder with blanks, signs and letters of any script can hold a ledger."""
    path = tmp_path / "50% off? #1 & für 語" / "batcher.db"
    database.create(path, "real")
    database.open_existing(path, world="real").dispose()
