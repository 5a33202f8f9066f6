"""A ledger on a server that a run cannot reach any more, while it reaches the provider."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support import network
from tests.support.fake_tts import FakeTTS, running
from tests.support.postgres import Cluster
from tests.support.purchases import assert_none_twice_or_lost
from tests.support.relay import relay_to

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
ROWS = 600
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
    """Nobody is told: no FIN, no reset. Another run takes over once the server has ended the session."""
    cluster.stop("fast")
    cluster.start(listen_addresses="127.0.0.1")
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
        second = other.start_run(other.folder / manifest.name, "--concurrency", "8", "--wait-lock", "100s")
        time.sleep(LATCH_SECONDS + 1.0)
        asked = len(provider.creates)
        provider.until(lambda: len(provider.creates) > asked, 100.0)
        assert LEASE_SECONDS - 5 < provider.creates[asked].arrived_at - lost_at < LEASE_SECONDS + 20
        assert first.end(100.0).exit_code == 8
        assert time.monotonic() - lost_at < LEASE_SECONDS + 30
    assert provider.creates[asked - 1].arrived_at - lost_at < LATCH_SECONDS
    assert second.end(100.0).exit_code in (0, 3)
    assert_none_twice_or_lost(project)
    project.use_server(cluster.url)
    assert project.run(manifest).exit_code in (0, 3)
    assert_answered_are_settled(project)


def test_a_host_cut_off_from_the_database_alone_stops_creating(project: Project, cluster: Cluster) -> None:
    """Another takes over once the server has ended its session. Creates in flight are in doubt until it returns."""
    with network.hosts(2) as (cut, whole), running(network.PROVIDER_ADDRESS) as provider:
        cluster.stop("fast")
        cluster.start(listen_addresses=network.DATABASE_ADDRESS)
        project.provider = provider
        provider.create_seconds = 0.2
        manifest = project.manifest(ROWS)
        other = project.on_another_host()
        for one in (project, other):
            one.use_server(cluster.url, through=cluster.url_at(network.DATABASE_ADDRESS))
        how = ("--concurrency", "8", "--allow-http")
        first = project.start_run(manifest, *how, enter=cut.enter)
        provider.until(lambda: len(provider.creates) >= 50)
        cut.cut_off()
        cut_at = time.monotonic()
        second = other.start_run(other.folder / manifest.name, *how, "--wait-lock", "100s", enter=whole.enter)
        time.sleep(LATCH_SECONDS + 1.0)
        asked = len(provider.creates)
        assert provider.creates[-1].arrived_at - cut_at < LATCH_SECONDS
        assert first.end(100.0).exit_code == 8
        provider.until(lambda: len(provider.creates) > asked, 100.0)
        assert provider.creates[asked].arrived_at - cut_at < KEEPALIVE_SECONDS + 10
        assert second.end(100.0).exit_code in (0, 3)
        assert_none_twice_or_lost(project)
        cut.rejoin()
        assert project.run(manifest, *how, enter=cut.enter).exit_code in (0, 3)
        assert_answered_are_settled(project)


def assert_answered_are_settled(project: Project) -> None:
    """Check that nothing is in doubt whose create was answered: the first host's spill file has the answers."""
    assert_none_twice_or_lost(project)
    in_doubt = {text for (text,) in project.query("SELECT text FROM items WHERE state = 'in_doubt'")}
    assert not in_doubt & {create.text for create in project.provider.creates if create.status is not None}
