"""A ledger behind a real connection pooler: refused if it loses locks, otherwise as good as the server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from batcher.address import Server
from batcher.errors import LedgerError, StorageError
from batcher.ledger.storage import database, pooler
from batcher.ledger.storage import postgres as storage
from tests.support import pgbouncer
from tests.support.fake_tts import FakeTTS
from tests.support.postgres import Cluster
from tests.support.purchases import assert_all_bought_once

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = pytest.mark.slow
REFUSED = "is a connection pooler in transaction or statement mode, which loses locks"


@pytest.mark.parametrize("settings", [{}, {"ignore_startup_parameters": "options"}, {"server_round_robin": "1"}])
def test_a_pooler_in_transaction_mode_is_refused(
    project: Project, provider: FakeTTS, cluster: Cluster, settings: dict[str, str]
) -> None:
    """By every command, although it gives a single user the same connection again and again."""
    project.use_server(cluster.url)
    manifest = project.manifest(3)
    assert project.run(manifest, "--max-items", "1").exit_code == 6
    with pgbouncer.pooler(cluster, "transaction", **settings) as url:
        project.use_server(cluster.url, through=url)
        ended = project.run(manifest)
        assert (ended.exit_code, ended.report["message"].count(REFUSED)) == (2, 1), ended
        looked = project.batcher("status")
        assert (looked.exit_code, looked.err.count(REFUSED)) == (2, 1), looked
        checked = project.batcher("doctor", manifest, "--api-url", provider.url)
        assert REFUSED in checked.out, checked
        with psycopg.connect(url) as other:  # has one of the connections that the commands had
            assert other.execute("SHOW idle_session_timeout").fetchone() == ("0",)
    assert len(provider.creates) == 1


def test_a_pooler_in_statement_mode_is_refused(project: Project, provider: FakeTTS, cluster: Cluster) -> None:
    with pgbouncer.pooler(cluster, "statement") as url:
        project.use_server(cluster.url, through=url)
        ended = project.run(project.manifest(1))
    assert (ended.exit_code, ended.report["message"].count(REFUSED)) == (2, 1), ended
    assert provider.creates == []


@pytest.mark.parametrize("settings", [{}, {"ignore_startup_parameters": "options"}])
def test_through_a_pooler_in_session_mode_all_guarantees_hold(
    project: Project, provider: FakeTTS, cluster: Cluster, settings: dict[str, str]
) -> None:
    """The lease is in force, the locks hold, and a killed run is replaced at once."""
    provider.task_seconds = 600.0
    manifest = project.manifest(4)
    with pgbouncer.pooler(cluster, "session", **settings) as url:
        project.use_server(cluster.url, through=url)
        with storage.connect(Server(url, project.folder)) as session:
            names = list(storage._SESSION)
            found = [session.execute(f"SHOW {name}").fetchone() for name in names]
        assert dict(zip(names, found, strict=True))["idle_session_timeout"] == ("1min",)
        first = project.start_run(manifest)
        provider.until(lambda: len(provider.creates) == 4)
        assert project.batcher("ledger", "copy", url, project.folder / "copy.db").exit_code == 7
        first.close()
        provider.end_tasks()
        assert project.run(manifest).exit_code in (0, 3)
        assert project.batcher("status").exit_code == 0
    assert_all_bought_once(project, 4)


def test_a_pooler_that_drops_the_schema_of_the_url_is_refused(project: Project, cluster: Cluster) -> None:
    """The ledger would be another one, and everything would be bought again."""
    options = "?options=-csearch_path%3Dother"
    for settings in ({}, {"ignore_startup_parameters": "options"}):
        with pgbouncer.pooler(cluster, "session", **settings) as url:
            with pytest.raises(LedgerError, match="does not accept the URL's options") as error:
                database.exists(Server(url + options, project.folder))
            assert "ALTER ROLE" in (error.value.hint or "")


def test_a_pooler_without_a_second_connection_is_refused(
    project: Project, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a moment, not after the two minutes for which it lets a query wait."""
    monkeypatch.setattr(pooler, "_WAIT_SECONDS", 0.5)
    with (
        pgbouncer.pooler(cluster, "session", default_pool_size="1") as url,
        pytest.raises(StorageError, match="did not open a second connection to its server"),
    ):
        database.exists(Server(url, project.folder))
