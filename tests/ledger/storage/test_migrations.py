"""The ledger's file: built by the migrations, equal to the schema, private, and refused if it is another's."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine

from batcher.errors import LedgerError
from batcher.item import KEY_VERSION
from batcher.ledger.imports import importer
from batcher.ledger.queries import item_counts
from batcher.ledger.storage import database, schema
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules


def _objects(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%'"
        )
        return {name: "".join(sql.split()).replace('"', "") for name, sql in found}


def test_migrations_build_the_schema(tmp_path: Path) -> None:
    """A ledger that every migration has built in turn equals a new ledger, word for word."""
    database.create(tmp_path / "new.db", "real")
    engine = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with engine.begin() as connection:
        database._migrate(connection)
    engine.dispose()
    assert _objects(tmp_path / "migrated.db") == _objects(tmp_path / "new.db")
    for name in ("new.db", "migrated.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(schema.REVISION,)]


def _indexes(path: Path) -> dict[str, list[str]]:
    """Names of each table's indexes, in the order of their creation."""
    with closing(sqlite3.connect(path)) as connection:
        found: dict[str, list[str]] = {}
        for table, name in connection.execute(
            "SELECT tbl_name, name FROM sqlite_master WHERE type = 'index' ORDER BY rowid"
        ):
            found.setdefault(table, []).append(name)
    return found


def test_new_and_migrated_ledgers_have_their_indexes_in_one_order(tmp_path: Path) -> None:
    """SQLite chooses between equally good indexes by their order, so all ledgers get the same plans."""
    database.create(tmp_path / "new.db", "real")
    _old_ledger(tmp_path / "migrated.db", schema.REVISION)
    assert _indexes(tmp_path / "migrated.db") == _indexes(tmp_path / "new.db")


def test_revision_is_the_newest_migration() -> None:
    """The program's revision is that of the newest migration."""
    assert max(database._known_revisions()) == schema.REVISION


def test_a_new_ledger_is_readable_only_by_its_owner(tmp_path: Path) -> None:
    """Its mode is 0600."""
    path = tmp_path / "batcher.db"
    database.create(path, "real")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    """The hint is to upgrade."""
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
def test_a_file_that_is_no_ledger_is_refused_and_left_unchanged(tmp_path: Path, content: bytes) -> None:
    """An empty file, too, which SQLite would turn into a database."""
    path = tmp_path / "batcher.db"
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        database.open_existing(path)
    assert path.read_bytes() == content


def test_a_sandbox_ledger_is_refused_for_the_real_api(tmp_path: Path) -> None:
    """It opens for the sandbox."""
    path = tmp_path / "batcher.db"
    database.create(path, "sandbox")
    with pytest.raises(LedgerError, match="belongs to the sandbox"):
        database.open_existing(path, world="real")
    database.open_existing(path, world="sandbox").dispose()


def test_a_ledger_may_have_any_path(tmp_path: Path) -> None:
    """Spaces, signs and letters of any script are allowed."""
    path = tmp_path / "50% off? #1 & für 語" / "batcher.db"
    database.create(path, "real")
    database.open_existing(path, world="real").dispose()


RELEASED = {1: ("0001", "bdd09c08d6c3c543989f24473c36d7ab91ff0a7e9e06d83383d3e74c5c360dbe")}
"""For every released key version: the revision of its ledgers, and one key that they contain."""


def _migrate_to(path: Path, revision: str) -> None:
    """Bring a ledger to the revision of an earlier program."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = database._config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def _old_ledger(path: Path, revision: str) -> None:
    """Create a ledger as an earlier program left it."""
    _migrate_to(path, revision)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO meta VALUES ('world', 'real'), ('ledger_id', 'x'), ('created_at', '1')")
    engine.dispose()


@pytest.mark.parametrize(("version", "revision", "key"), [(v, r, k) for v, (r, k) in RELEASED.items()])
def test_items_with_any_released_key_version_are_found_after_an_upgrade(
    tmp_path: Path, version: int, revision: str, key: str
) -> None:
    """An item bought by an earlier version is done when its manifest is imported."""
    path = tmp_path / "batcher.db"
    _old_ledger(path, revision)
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in _ONE_DONE.format(version=version, key=key).split(";"):
            connection.execute(statement)
    database.upgrade(path)
    (tmp_path / "m.csv").write_text("id,text,voice\nr1,Hello,anna\n")
    engine = database.open_existing(path)
    rules = Rules(batch="m")
    with engine.begin() as conn:
        manifest = Manifest(tmp_path / "m.csv", rules)
        wanted = importer.import_manifest(conn, manifest, rules, source="m.csv", out_dir="audio", at=9.0)
        assert item_counts.count(conn, [wanted]).states["done"] == 1
        found = conn.exec_driver_sql("SELECT count(*), max(state) FROM items").one()
    engine.dispose()
    assert tuple(found) == (1, "done")
    assert set(RELEASED) == set(range(1, KEY_VERSION + 1)), "a new key version needs a line here"


def test_the_migration_to_0002_loses_nothing(tmp_path: Path) -> None:
    """Events stay word for word, and each attempt is assigned to the batch that has its item."""
    path = tmp_path / "batcher.db"
    _old_ledger(path, "0001")
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in _ONE_DONE.format(version=1, key="k" * 64).split(";"):
            connection.execute(statement)
        before = connection.execute("SELECT * FROM events").fetchall()
    database.upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM events").fetchall() == before
        assert connection.execute("SELECT batch_id FROM attempts").fetchall() == [(1,)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_the_migration_to_0008_forgets_when_creates_were_due_and_incredible_costs(tmp_path: Path) -> None:
    """A day's Retry-After stored by an earlier version binds no run."""
    path = tmp_path / "batcher.db"
    _old_ledger(path, "0001")
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in _ONE_DONE.format(version=1, key="k" * 64).split(";"):
            connection.execute(statement)
    _migrate_to(path, "0007")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE items SET not_before_at = 4e9")
        connection.execute("UPDATE tasks SET credits = 1e308")
        connection.execute("UPDATE attempts SET credits = -1")
        connection.execute("INSERT INTO balances (account_id, at, credits, quota) VALUES (1, 1.0, -1e300, 7)")
    database.upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT state, not_before_at FROM items").fetchall() == [("done", 0.0)]
        for table in ("tasks", "attempts"):
            assert connection.execute(f"SELECT credits FROM {table}").fetchall() == [(None,)]
        assert connection.execute("SELECT credits, quota FROM balances").fetchall() == [(None, 7.0)]
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(schema.REVISION,)]


_ONE_DONE = """
    INSERT INTO accounts VALUES (1, 'https://api.test', 'u1', 'f');
    INSERT INTO batches VALUES (1, 'm', 'm.csv', 1, 'd', 'r', 'audio', 1.0);
    INSERT INTO runs (id, started_at, pid, host, out_dir) VALUES ('run', 1.0, 1, 'h', 'audio');
    INSERT INTO items (key, key_version, text_hash, text, voice, format, params, take, bytes, state, attempt,
        not_before_at, deferrals, created_at, changed_at)
        VALUES ('{key}', {version}, 'h', 'Hello', 'anna', 'mp3', '{{}}', 1, 5, 'pending', 0, 0, 0, 1.0, 1.0);
    INSERT INTO attempts (item_key, attempt, run_id, account_id, intended_at, answered_at, answer_no, outcome)
        VALUES ('{key}', 1, 'run', 1, 2.0, 3.0, 1, 'accepted');
    INSERT INTO tasks (account_id, task_id, item_key, attempt, accepted_at, looks, missing_looks, unusable_looks)
        VALUES (1, 't1', '{key}', 1, 3.0, 1, 0, 0);
    UPDATE items SET state = 'done', attempt = 1, account_id = 1, task_id = 't1';
    INSERT INTO rows (batch_id, id, number, line, version, take, item_key, output, extra)
        VALUES (1, 'r1', 1, 2, 1, 1, '{key}', 'r1.mp3', '{{}}');
    INSERT INTO files VALUES ('{key}', 'audio', '.items/x.mp3', 'aa', 10, 1.0, 4.0, 5.0);
    INSERT INTO events VALUES (1, '{key}', 1, 'claim', 'submitting', 2.0, 'run', NULL);
    INSERT INTO events VALUES (2, '{key}', 1, 'saved', 'done', 5.0, 'run', 'x')"""
