"""A ledger on a server whose standby takes over: what the standby lacks may have been bought."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import gethostname
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from batcher.ledger.storage.spill import Spill
from tests.support.fake_tts import FakeTTS
from tests.support.postgres import STANDBY, Cluster, own_cluster
from tests.support.purchases import assert_all_bought_once, assert_none_twice_or_lost

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.processes import Started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
ROWS = 60
SYNCHRONOUS = {"synchronous_standby_names": STANDBY}


@contextmanager
def with_standby(primary: Cluster) -> Iterator[Cluster]:
    """A standby that receives what the primary writes."""
    with own_cluster(template=primary) as standby:
        standby.start()
        with psycopg.connect(primary.url, autocommit=True) as admin:
            wait_for(lambda: admin.execute("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'").fetchone())
        yield standby


@contextmanager
def run_under_way(project: Project, provider: FakeTTS, primary: Cluster) -> Iterator[tuple[Started, Cluster]]:
    """A run that is creating on a server with a standby."""
    provider.create_seconds = 0.1
    with with_standby(primary) as standby:
        project.use_server(primary.url)
        started = project.start_run(project.manifest(ROWS), "--concurrency", "4")
        provider.until(lambda: len(provider.creates) >= 12)
        yield started, standby


def fail_over(project: Project, standby: Cluster, *runs: Started) -> None:
    """The primary was killed: wait for the end of the runs, and use the standby from now on."""
    assert [run.end().exit_code for run in runs] == [8] * len(runs)
    standby.promote()
    project.use_server(standby.url)


@contextmanager
def lagging(primary: Cluster) -> Iterator[None]:
    """Within the block, the standby receives nothing; what it has not received by the end, it never will."""
    pid = sender(primary)
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGKILL)


def wait_for(holds: Callable[[], Any]) -> None:
    give_up_at = time.monotonic() + 10.0
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def set_on(cluster: Cluster, **settings: str) -> None:
    """Change settings of a running server."""
    with psycopg.connect(cluster.url, autocommit=True) as admin:
        for name, value in settings.items():
            admin.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        admin.execute("SELECT pg_reload_conf()")


def sender(cluster: Cluster) -> int:
    """The process that sends the standby what the server writes."""
    with psycopg.connect(cluster.url) as admin:
        [(pid,)] = admin.execute("SELECT pid FROM pg_stat_replication").fetchall()
    return int(pid)


@pytest.mark.parametrize("when", ["between runs", "in mid-run"])
def test_a_failover_to_a_synchronous_standby_loses_nothing(
    project: Project, provider: FakeTTS, cluster: Cluster, when: str
) -> None:
    """The next run goes on. The intents file of its host says what was on the way."""
    provider.create_seconds = 0.2
    manifest = project.manifest(ROWS)
    with with_standby(cluster) as standby:
        set_on(cluster, **SYNCHRONOUS)
        project.use_server(cluster.url)
        if when == "between runs":
            assert project.run(manifest, "--max-items", "20").exit_code == 6
            cluster.kill()
        else:
            started = project.start_run(manifest, "--concurrency", "4")
            provider.until(lambda: len(provider.creates) >= 20)
            cluster.kill()
            assert started.end().exit_code == 8
        standby.promote()
        project.use_server(standby.url)
        again = project.run(manifest)
        # The answers in flight were in the spill file.
        assert again.exit_code == 0, again
        assert "in another database" not in again.err
        assert_all_bought_once(project, ROWS)


def test_a_failover_that_loses_acknowledged_intents_is_noticed(
    project: Project, provider: FakeTTS, cluster: Cluster
) -> None:
    """What was bought in the window that the standby lacks is not bought again."""
    with run_under_way(project, provider, cluster) as (started, standby):
        with lagging(cluster):
            provider.until(lambda: len(provider.creates) >= 30)
            cluster.kill()
        fail_over(project, standby, started)
        manifest, asked = project.folder / "lines.csv", len(provider.creates)
        spilled = {record.task_id for record in Spill(project.spill).records()}
        assert spilled
        [(known,)] = project.query("SELECT count(*) FROM attempts")
        assert known < asked, "the standby has every intent: the test shows nothing"
        again = project.run(manifest)
        assert again.exit_code == 3, again
        assert f"which lacks {asked - known} create requests" in again.err
        assert_none_twice_or_lost(project)
        assert project.run(manifest).exit_code in (0, 3)
        assert_none_twice_or_lost(project)
        assert len(provider.creates) == ROWS
        recorded = {task_id for (task_id,) in project.query("SELECT task_id FROM tasks")}
        assert recorded >= spilled  # evidence for the doubts that they are about


def test_after_a_failover_no_other_host_creates_before_the_intents_are_compared(
    project: Project, provider: FakeTTS, cluster: Cluster
) -> None:
    """It lacks the file of the host whose run was under way, and names that host."""
    with run_under_way(project, provider, cluster) as (started, standby):
        cluster.kill()
        fail_over(project, standby, started)
        manifest, asked = project.folder / "lines.csv", len(provider.creates)
        (intents,) = project.folder.glob("*.intents")
        elsewhere = intents.rename(project.folder.parent / intents.name)
        refused = project.run(manifest)
        assert refused.exit_code == 2, refused
        assert f"in another database than before, which may lack what was bought last (by runs on {gethostname()}" in (
            refused.err
        )
        assert len(provider.creates) == asked
        elsewhere.rename(intents)
        assert project.run(manifest).exit_code in (0, 3)
        assert_none_twice_or_lost(project)
        assert list(project.folder.glob("*.intents")) == []


def test_a_commit_that_stops_waiting_for_its_standby_sends_nothing(
    project: Project, provider: FakeTTS, cluster: Cluster
) -> None:
    """The server stores it and only warns. The standby, which may take over, does not have it."""
    provider.create_seconds = 0.1
    manifest = project.manifest(ROWS)
    with with_standby(cluster):
        set_on(cluster, **SYNCHRONOUS)
        project.use_server(cluster.url)
        started = project.start_run(manifest, "--concurrency", "4")
        provider.until(lambda: len(provider.creates) >= 12)
        stopped = sender(cluster)
        os.kill(stopped, signal.SIGSTOP)
        try:
            with psycopg.connect(cluster.url, autocommit=True) as admin:
                waits = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                wait_for(lambda: admin.execute(f"SELECT 1 {waits}").fetchone())
                time.sleep(1.0)  # what was on its way has arrived
                asked = len(provider.creates)
                admin.execute(f"SELECT pg_cancel_backend(pid) {waits}")
                time.sleep(1.0)
                set_on(cluster, synchronous_standby_names="")
            ended = started.end()
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert ended.exit_code == 8, ended
        assert "the commit may be lost" in ended.err
        assert len(provider.creates) == asked
        assert project.run(manifest).exit_code in (0, 3)
        assert_all_bought_once(project, ROWS)


def test_after_a_failover_each_host_settles_its_own_run(project: Project, provider: FakeTTS, cluster: Cluster) -> None:
    """The first host to come back is refused, since the other one's file is missing, and has settled its own."""
    provider.create_seconds = 0.1
    manifest = project.manifest(ROWS)
    elsewhere = project.folder.parent / "elsewhere"
    elsewhere.mkdir()
    other = elsewhere / manifest.name
    other.write_bytes(manifest.read_bytes())
    options = ("--concurrency", "4", "--out-dir", str(project.audio))
    with with_standby(cluster) as standby:
        project.use_server(cluster.url)
        both = [project.start_run(manifest, *options), project.start_run(other, *options)]
        provider.until(lambda: len(provider.creates) >= 20, 30.0)
        assert len(list(elsewhere.glob("*.intents"))) == 1
        with lagging(cluster):
            asked = len(provider.creates)
            provider.until(lambda: len(provider.creates) >= asked + 8)
            cluster.kill()
        fail_over(project, standby, *both)
        asked = len(provider.creates)
        assert project.run(other, *options).exit_code == 2
        assert len(provider.creates) == asked
        assert project.run(manifest, *options).exit_code == 3
        assert project.run(other, *options).exit_code in (0, 3)
        assert_none_twice_or_lost(project)
