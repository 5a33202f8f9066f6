"""A ledger in a schema of a server: whose it is, and what else may be there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.exc import DBAPIError

from batcher.address import Server
from batcher.errors import LedgerError, LockedError, StorageError
from batcher.ledger.storage import database
from batcher.ledger.storage import postgres as storage
from tests.support import postgres


@pytest.fixture
def place(postgres_url: str, tmp_path: Path) -> Iterator[Server]:
    """A server without a ledger."""
    with postgres.database_of(postgres_url) as url:
        yield Server(url, tmp_path)


def admin(place: Server) -> psycopg.Connection[Any]:
    return psycopg.connect(place.url, autocommit=True)


def with_schemas(place: Server, schemas: str) -> Server:
    """The server as a user sees it who looks for tables in these schemas."""
    return Server(f"{place.url}&options=-csearch_path%3D{schemas}", place.home)


def test_users_with_different_first_schemas_share_one_lock(place: Server) -> None:
    """The lock is of the schema that has the ledger, or both would buy the same rows."""
    database.create(place, "real")
    with admin(place) as connection:
        connection.execute("CREATE SCHEMA other")
    first = database.open_existing(place)
    with pytest.raises(LockedError, match="another run holds the ledger"):
        database.open_existing(with_schemas(place, "other,public"))
    first.dispose()
    database.open_existing(with_schemas(place, "other,public")).dispose()


def test_the_options_of_the_url_choose_the_schema(place: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As do those of the environment; without changing those that the ledger depends on."""
    with admin(place) as connection:
        connection.execute("CREATE SCHEMA other")
    other = with_schemas(place, "other%20-csynchronous_commit%3Doff")
    database.create(other, "real")
    assert database.exists(other)
    assert not database.exists(place)
    monkeypatch.setenv("PGOPTIONS", "-c search_path=other")
    assert database.exists(place)
    with storage.connect(other) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_of_two_that_create_the_ledger_at_once_the_second_waits(place: Server) -> None:
    """It finds the ledger that the first has just created, and takes that one."""
    database.create(place, "real")
    with pytest.raises(LockedError, match="another run has just created the ledger"):
        database.create(place, "real")


def test_the_tables_of_another_program_are_left_alone(place: Server) -> None:
    with admin(place) as connection:
        connection.execute("CREATE TABLE items (id integer)")
    with pytest.raises(LedgerError, match="already exists") as error:
        database.create(place, "real")
    assert error.value.hint == "Give the ledger a schema or database without other tables."
    assert not database.exists(place)


def test_a_database_that_another_program_migrates_is_not_a_ledger(place: Server) -> None:
    """Not even if its version has a name that a version of a ledger has."""
    with admin(place) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        connection.execute("INSERT INTO alembic_version VALUES ('0009')")
    with pytest.raises(LedgerError, match="is a database but not a batcher ledger"):
        database.needs_upgrade(place)


def test_a_commit_that_no_standby_has_is_an_error(postgres_url: str, tmp_path: Path) -> None:
    """The server stores it and only warns, if the wait for the standby is cancelled. The standby may take over."""
    with postgres.database_of(postgres_url) as url:
        place = Server(url, tmp_path)
        database.create(place, "real")
        engine = database.open_existing(place)
        with admin(place) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'none'")
            connection.execute("SELECT pg_reload_conf()")
            try:
                with ThreadPoolExecutor() as pool:
                    commit = _waiting_commit(pool, engine, connection)
                    connection.execute(f"SELECT pg_cancel_backend(pid) {_WAITING}")
                    with pytest.raises(DBAPIError, match="the commit may be lost: canceling"):
                        commit.result()
            finally:
                connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
                connection.execute("SELECT pg_reload_conf()")
        engine.dispose()


_WAITING = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = current_database()"


def _waiting_commit(pool: ThreadPoolExecutor, engine: Engine, connection: psycopg.Connection[Any]) -> Future[None]:
    """A commit that waits for its standby. Until the server has read its settings, commits end at once."""
    for _ in range(200):
        commit = pool.submit(_write, engine)
        while not commit.done():
            if connection.execute(f"SELECT 1 {_WAITING}").fetchone():
                return commit
        commit.result()
    pytest.fail("no commit waited for its standby")


def _write(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO meta VALUES ('some', 'fact') ON CONFLICT DO NOTHING")
        connection.exec_driver_sql("UPDATE meta SET value = 'new' WHERE name = 'some'")


def test_a_user_who_may_not_create_tables_is_told_so(place: Server) -> None:
    with admin(place) as connection:
        connection.execute("REVOKE ALL ON SCHEMA public FROM public")
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN")
        user = connection.info.user
    with pytest.raises(LedgerError) as error:
        database.create(Server(place.url.replace(f"{user}@", "guest@"), place.home), "real")
    assert "must be able to create and use tables" in (error.value.hint or "")
    with admin(place) as connection:
        connection.execute("DROP ROLE guest")


_HELLO = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x19client_encoding\0UTF8\0Z\0\0\0\x05I"
"""What a server sends to a user whom it trusts."""


def _refusal(text: bytes) -> bytes:
    fields = b"SERROR\0VERROR\0CXX000\0M" + text + b"\0\0"
    return b"E" + (len(fields) + 4).to_bytes(4, "big") + fields


@pytest.mark.parametrize("answer", [b"", b"T\0\0\0\x1f", _refusal(b"\x1b[31mred you sent pass-word " + b"x" * 5000)])
def test_a_server_that_fails_at_the_first_statement_is_trouble(tmp_path: Path, answer: bytes) -> None:
    """Such as one that is restarted just then. Its message is one short line, without the password."""

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(_HELLO)
            connection.recv(4096)
            connection.sendall(answer + b"Z\0\0\0\x05I" * (answer[:1] == b"E"))

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve)
        port = listening.getsockname()[1]
        place = Server(f"postgresql://me:pass-word@127.0.0.1:{port}/db?sslmode=disable", tmp_path)
        with pytest.raises(StorageError, match="cannot connect to the ledger postgresql://me@") as caught:
            storage.connect(place)
        served.result()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400
    assert "pass-word" not in caught.value.message


def test_a_server_that_stops_answering_after_the_connection_is_trouble(
    place: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.create(place, "real")
    monkeypatch.setattr(database, "_check_world", lambda conn, *_: conn.exec_driver_sql("SELECT pg_sleep(60)"))
    monkeypatch.setattr("batcher.ledger.storage.session.OPENING_SECONDS", 0.3)
    with pytest.raises(StorageError, match=r"the ledger postgresql://.* failed"):
        database.open_existing(place)


def test_a_server_that_does_not_answer_the_first_statement_is_trouble(
    place: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy sends it when it connects, to learn the server's version."""
    database.create(place, "real")
    sleep = "SELECT pg_sleep(60)"
    monkeypatch.setattr(PGDialect, "_get_server_version_info", lambda _, conn: conn.exec_driver_sql(sleep))
    monkeypatch.setattr("batcher.ledger.storage.session.OPENING_SECONDS", 0.3)
    with pytest.raises(StorageError, match=r"the ledger postgresql://.* failed"):
        database.open_existing(place)
