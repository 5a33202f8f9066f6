"""A ledger on a server that a run cannot reach any more, while it reaches the provider."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.fake_tts import FakeTTS
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
    # The answers that the first host has in its spill file settle the doubts of the second.
    project.use_server(cluster.url)
    assert project.run(manifest).exit_code in (0, 3)
    in_doubt = {text for (text,) in project.query("SELECT text FROM items WHERE state = 'in_doubt'")}
    answered = {create.text for create in provider.creates if create.status is not None}
    assert not in_doubt & answered
