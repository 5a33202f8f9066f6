"""A ledger on a server: what happens to the session of a run, and that it buys nothing twice all the same."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import DBAPIError

from batcher.address import Server
from batcher.errors import LockedError
from batcher.ledger.ledger import open_readonly
from batcher.ledger.storage import database
from batcher.ledger.storage import postgres as storage
from tests.support import postgres
from tests.support.fake_tts import FakeTTS
from tests.support.purchases import assert_all_bought_once

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = pytest.mark.parametrize("project", ["postgres"], indirect=True)


@pytest.mark.slow
def test_a_run_whose_session_has_ended_creates_nothing_more(project: Project, provider: FakeTTS) -> None:
    """It says why, and the next run goes on; answers that the server did not take come from the spill file."""
    provider.create_seconds = 0.1
    manifest = project.manifest(30)
    started = project.start_run(manifest, "--concurrency", "4")
    provider.until(lambda: len(provider.creates) >= 6)
    postgres.end_sessions(str(project.server))
    ended = started.end()
    assert ended.exit_code == 8, ended
    assert "the ledger postgresql://" in ended.err
    asked = len(provider.creates)
    assert asked < 30
    again = project.run(manifest, "--concurrency", "4")
    assert again.exit_code in (0, 3), again
    assert_all_bought_once(project, 30)


@pytest.mark.slow
def test_a_stopped_run_that_another_has_replaced_creates_nothing_more(project: Project, provider: FakeTTS) -> None:
    """The server ends the session of a stopped process; when that goes on, its ledger is another run's."""
    provider.create_seconds = 0.1
    manifest = project.manifest(30)
    stopped = project.start_run(manifest, "--concurrency", "4")
    provider.until(lambda: len(provider.creates) >= 6)
    stopped.send(signal.SIGSTOP)
    postgres.end_sessions(str(project.server))
    again = project.run(manifest, "--concurrency", "4")
    assert again.exit_code in (0, 3), again
    asked = len(provider.creates)
    stopped.send(signal.SIGCONT)
    assert stopped.end().exit_code == 8
    assert len(provider.creates) == asked
    assert_all_bought_once(project, 30)


def test_a_killed_run_is_replaced_at_once(project: Project, provider: FakeTTS) -> None:
    """The server notices the end of the process by itself."""
    provider.task_seconds = 600.0
    manifest = project.manifest(4)
    killed = project.start_run(manifest)
    provider.until(lambda: len(provider.creates) == 4)
    killed.send(signal.SIGKILL)
    provider.end_tasks()
    again = project.run(manifest)
    assert again.exit_code in (0, 3), again
    assert_all_bought_once(project, 4)


def test_what_changes_the_ledger_between_runs_waits_for_all_of_them(project: Project, provider: FakeTTS) -> None:
    """The message names who works."""
    provider.task_seconds = 600.0
    manifest = project.manifest(4)
    first = project.start_run(manifest)
    provider.until(lambda: len(provider.creates) == 4)
    refused = project.batcher("verify", "--heal", "--json")
    assert refused.exit_code == 7, refused
    assert "another run holds the ledger postgresql://" in refused.report["message"]
    provider.end_tasks()
    assert first.end().exit_code == 0
    assert project.batcher("verify", "--heal", "--json").exit_code == 0


def test_the_server_ends_the_session_of_a_process_that_says_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its lock is free for another."""
    assert project.server is not None
    address = Server(project.server, project.folder)
    database.create(address, "real")
    monkeypatch.setitem(storage._SESSION, "idle_session_timeout", "300ms")
    silent = database.open_existing(address)
    monkeypatch.undo()
    database.open_existing(address).dispose()
    with pytest.raises(DBAPIError), silent.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    with pytest.raises(DBAPIError), silent.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    silent.dispose()


def test_a_server_that_cannot_be_reached_buys_nothing(project: Project, provider: FakeTTS, tmp_path: Path) -> None:
    project.environment["BATCHER_LEDGER"] = f"postgresql://batcher:secret@/none?host={tmp_path}"
    ended = project.run(project.manifest(1))
    assert (ended.exit_code, provider.creates) == (8, [])
    assert "cannot connect to the ledger postgresql://batcher@/none" in ended.err
    assert "secret" not in ended.err + ended.out


def test_a_second_lock_names_its_holder(project: Project) -> None:
    assert project.server is not None
    address = Server(project.server, project.folder)
    database.create(address, "real")
    first = database.open_existing(address)
    with pytest.raises(LockedError, match=r"another run holds the ledger postgresql://.* since "):
        database.open_existing(address)
    with open_readonly(address) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM items").scalar_one() == 0
    first.dispose()
    database.open_existing(address).dispose()
    assert postgres.rows(project.server, "SELECT name FROM meta WHERE name = 'world'", ())


@pytest.mark.slow
def test_a_later_version_upgrades_the_ledger(project: Project, provider: FakeTTS, next_version: Path) -> None:
    """In one transaction, without a backup of its own; this version then refuses it."""
    manifest = project.manifest(2)
    assert project.run(manifest).exit_code == 0
    later = {"PYTHONPATH": str(next_version)}
    ended = project.run(manifest, environment=later)
    assert (ended.exit_code, ended.report["created"]) == (0, 0), ended
    assert "upgraded the ledger\n" in ended.err
    assert project.query("SELECT value FROM meta WHERE name = 'later'") == [("yes",)]
    assert "was written by a newer batcher" in project.run(manifest).err
    assert len(provider.creates) == 2
