"""A ledger on a server that a run cannot reach any more, while it reaches the provider."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support import network
from tests.support.fake_tts import FakeTTS, running
from tests.support.postgres import Cluster
from tests.support.purchases import assert_all_bought_once
from tests.support.relay import relay_to

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
ROWS = 150
LATCH_SECONDS = 20.0
"""After this time without a confirmed commit, a run creates nothing."""
LEASE_SECONDS = 60.0
"""After this time without a statement, the server ends a session."""
KEEPALIVE_SECONDS = 25.0
"""After this time without a packet, the server ends a session."""


@pytest.mark.parametrize("lost", ["to_server", "to_client"])
def test_a_connection_that_loses_everything_silently_ends_creating(
    project: Project, provider: FakeTTS, cluster: Cluster, lost: str
) -> None:
    """Nobody is told: no FIN, no reset. Another host takes over once the server has ended the session."""
    restart(cluster, "127.0.0.1")
    provider.create_seconds = 0.2
    manifest = project.manifest(ROWS)
    other = project.on_another_host()
    other.use_server(cluster.url)
    with relay_to("127.0.0.1", cluster.port) as relay:
        project.use_server(cluster.url, through=cluster.url_at("127.0.0.1", relay.port))
        first = project.start_run(manifest, "--concurrency", "8")
        provider.until(lambda: len(provider.creates) >= 50)
        getattr(relay, f"{lost}_lost").set()
        lost_at = time.monotonic()
        assert seconds_until_freed(cluster, lost_at) < LEASE_SECONDS + 10
        assert first.end(100.0).exit_code == 8
        assert time.monotonic() - lost_at < LEASE_SECONDS + 30
    assert provider.creates[-1].arrived_at - lost_at < LATCH_SECONDS
    take_over(other, other.folder / manifest.name)
    # The answers that the first host has in its spill file settle the doubts of the second.
    project.use_server(cluster.url)
    assert project.run(manifest).exit_code in (0, 3)
    assert_answered_are_settled(project)


def test_a_host_cut_off_from_the_database_alone_stops_creating(project: Project, cluster: Cluster) -> None:
    """Another takes over once the server has ended its session. Creates in flight are in doubt until it returns."""
    with network.hosts(2) as (cut, whole), running(network.PROVIDER_ADDRESS) as provider:
        restart(cluster, network.DATABASE_ADDRESS)
        project.provider = provider
        provider.create_seconds = 0.2
        manifest = project.manifest(ROWS)
        other = project.on_another_host()
        for one in (project, other):
            one.use_server(cluster.url, through=cluster.url_at(network.DATABASE_ADDRESS))
        first = project.start_run(manifest, "--concurrency", "8", "--allow-http", enter=cut.enter)
        provider.until(lambda: len(provider.creates) >= 50)
        cut.cut_off()
        cut_at = time.monotonic()
        assert seconds_until_freed(cluster, cut_at) < KEEPALIVE_SECONDS + 10
        assert first.end(100.0).exit_code == 8
        assert time.monotonic() - cut_at < KEEPALIVE_SECONDS + 20
        assert provider.creates[-1].arrived_at - cut_at < LATCH_SECONDS
        take_over(other, other.folder / manifest.name, "--allow-http", enter=whole.enter)
        cut.rejoin()
        assert project.run(manifest, "--allow-http", enter=cut.enter).exit_code in (0, 3)
        assert_answered_are_settled(project)


def restart(cluster: Cluster, address: str) -> None:
    """Let the server listen on this address, too."""
    cluster.stop("fast")
    cluster.start(listen_addresses=address)


def seconds_until_freed(cluster: Cluster, since: float) -> float:
    """Wait until the server has ended the only run's session. Returns the seconds `since`, a monotonic time."""
    ours = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'batcher'"
    with psycopg.connect(cluster.url, autocommit=True) as admin:
        while admin.execute(ours).fetchone():
            assert time.monotonic() - since < 2 * LEASE_SECONDS
            time.sleep(0.1)
    return time.monotonic() - since


def take_over(host: Project, manifest: Path, *options: str, **how: Any) -> None:
    """Finish the batch on another host."""
    bought = len(host.provider.creates)
    ended = host.start_run(manifest, "--concurrency", "16", *options, **how).end(60.0)
    assert ended.exit_code in (0, 3), ended
    assert len(host.provider.creates) > bought
    assert_all_bought_once(host, ROWS)


def assert_answered_are_settled(project: Project) -> None:
    """Check that nothing is in doubt whose create was answered: the first host's spill file has the answers."""
    assert_all_bought_once(project, ROWS)
    in_doubt = {text for (text,) in project.query("SELECT text FROM items WHERE state = 'in_doubt'")}
    assert not in_doubt & {create.text for create in project.provider.creates if create.status is not None}
