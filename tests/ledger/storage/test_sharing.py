"""The locks by which runs of a ledger on a server know of each other."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from batcher.address import Server
from batcher.errors import LockedError
from batcher.ledger.storage import database, sharing
from tests.support.ledger_kit import book_in

_LOCKS: Final = """SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database
    WHERE locktype = 'advisory' AND datname = current_database()"""


@pytest.fixture
def opened(ledger_url: str, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Opens the ledger on the server, as a run if it is given its id."""
    engines = []

    def call(run_id: str | None = None) -> Engine:
        engines.append(database.open_existing(Server(ledger_url, tmp_path), run_id=run_id, alone=run_id is None))
        return engines[-1]

    yield call
    for engine in engines:
        engine.dispose()


def ask(engine: Engine, question: Callable[..., Any], *values: Any) -> Any:
    with engine.begin() as connection:
        return question(connection, *values)


def until(holds: Callable[[], bool]) -> None:
    """Wait: the server ends a session a moment after its connection."""
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    pytest.fail("the session does not end")


def test_runs_share_the_ledger_and_see_each_other(opened: Callable[..., Engine]) -> None:
    """Until their sessions end."""
    first, second = opened("a"), opened("b")
    assert ask(first, sharing.connected, ["a", "b", "c"]) == {"a", "b"}
    assert [ask(first, sharing.has_ended, name) for name in ("b", "c")] == [False, True]
    second.dispose()
    until(lambda: ask(first, sharing.connected, ["a", "b", "c"]) == {"a"})
    assert ask(first, sharing.has_ended, "b")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[object]]:
    """Waits for a lock only for a moment."""

    @contextmanager
    def call() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(sharing, "_GRACE_MILLISECONDS", 20)
            yield

    return call


def test_whoever_needs_the_ledger_alone_is_told_who_has_it(
    opened: Callable[..., Engine], impatient: Callable[[], AbstractContextManager[object]], ledger_url: str
) -> None:
    """And nobody enters while it is used alone."""
    run = opened("a")
    with impatient(), pytest.raises(LockedError) as error:
        opened()
    holder = r"another run holds the ledger .* \(of the same host, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\)"
    assert re.fullmatch(holder, error.value.message)
    assert "--wait-lock" in (error.value.hint or "")
    run.dispose()
    with psycopg.connect(ledger_url, autocommit=True) as connection:
        until(lambda: connection.execute(_LOCKS).fetchone() is None)
    opened()
    with impatient(), pytest.raises(LockedError):
        opened("b")


def test_a_lock_refused_for_another_reason_is_not_blamed_on_another_run(
    opened: Callable[..., Engine], ledger_url: str, tmp_path: Path
) -> None:
    """The caller gets the server's own error."""
    first, _ = opened("a"), opened("b")
    with first.connect() as connection:
        connection.exec_driver_sql("SET statement_timeout = 20")
        with pytest.raises(DBAPIError, match="statement timeout"):
            sharing.lock(connection, Server(ledger_url, tmp_path), None, alone=True)


def fail(connection: Connection, sqlstate: str) -> None:
    """Have the server end the transaction with this error."""
    connection.exec_driver_sql(f"DO $$ BEGIN RAISE 'no' USING ERRCODE = '{sqlstate}'; END $$")


@pytest.mark.parametrize(
    ("sqlstate", "failures", "tries"),
    [("40P01", 0, 1), ("40P01", 4, 5), ("40001", 4, 5), ("40P01", 5, 5), ("22012", 1, 1)],
    ids=["none", "deadlocks", "conflicts", "too many deadlocks", "another error"],
)
def test_a_part_of_a_transaction_is_repeated_if_another_waits_for_it(
    opened: Callable[..., Engine], sqlstate: str, failures: int, tries: int
) -> None:
    """Five times at most. What was done before stays, what a failed try did does not, and no savepoint is left."""
    done: list[int] = []
    with opened("a").connect() as connection:
        connection.exec_driver_sql("CREATE TEMPORARY TABLE steps (number integer) ON COMMIT DROP")

        def change() -> str:
            done.append(len(done))
            connection.exec_driver_sql("INSERT INTO steps VALUES (%s)", (done[-1],))
            if len(done) <= failures:
                fail(connection, sqlstate)
            return "done"

        if failures < tries:
            assert sharing.repeated(connection, change) == "done"
            assert connection.exec_driver_sql("SELECT number FROM steps").scalars().all() == [failures]
            with pytest.raises(DBAPIError, match="savepoint"):
                connection.exec_driver_sql("RELEASE part")
        else:
            with pytest.raises(DBAPIError, match="no"):
                sharing.repeated(connection, change)
    assert len(done) == tries


def test_the_session_of_a_stopped_run_can_be_ended(opened: Callable[..., Engine], ledger_url: str) -> None:
    """Of no other."""
    engine = opened("a")
    with psycopg.connect(ledger_url, autocommit=True) as run, psycopg.connect(ledger_url, autocommit=True) as other:
        for connection, name in ((run, "b"), (other, "c")):
            connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 7001))", (name,))
        ask(engine, sharing.end_session, "b")
        with pytest.raises(psycopg.OperationalError):
            run.execute("SELECT 1")
        assert other.execute("SELECT 1").fetchone() == (1,)


def test_the_patience_with_a_silent_session_depends_on_whether_others_wait(opened: Callable[..., Engine]) -> None:
    with opened("a").connect() as connection:
        for others_wait, seconds in ((True, "10s"), (False, "1min")):
            sharing.set_patience(connection, others_wait=others_wait)
            shown = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout")
            assert shown.scalar_one() == seconds


def test_the_servers_time_is_in_unix_seconds(opened: Callable[..., Engine]) -> None:
    assert abs(ask(opened("a"), sharing.server_time) - time.time()) < 60


def test_a_ledger_in_a_file_has_one_run(tmp_path: Path) -> None:
    """Which waits for nobody, and whose others have all ended."""
    with book_in(tmp_path) as book:
        assert book.do(sharing.server_time) is None
        assert book.do(sharing.has_ended, "other")
        assert book.do(sharing.connected, ["run-1", "other"]) == set()
        book.do(sharing.take_turn, "begin")
        book.do(sharing.set_patience, others_wait=True)
        assert book.do(sharing.repeated, lambda: "done") == "done"
