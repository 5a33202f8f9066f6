"""A ledger on a server under conditions that are only slow or odd: a long reader, a host with a wrong clock."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from batcher.doctor import ledger
from tests.support.fake_tts import FakeTTS, Twist
from tests.support.postgres import Cluster
from tests.support.purchases import assert_all_bought_once, assert_none_twice_or_lost

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = pytest.mark.slow
HOUR = 3600.0


def set_clock(seconds: float) -> None:
    """Set this process's clock forward, or back."""
    right = time.time
    time.time = lambda: right() + seconds


def lose_patience() -> None:
    """Let `doctor` report transactions at once."""
    ledger._MAX_TRANSACTION_SECONDS = 0.0  # type: ignore[misc]


@contextmanager
def reading(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that keeps the server from removing old versions of rows."""
    with psycopg.connect(url) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM items")
        yield reader


def test_a_transaction_that_stays_open_only_slows_a_run_down(
    project: Project, provider: FakeTTS, cluster: Cluster
) -> None:
    """The server keeps every old version of a row meanwhile, and `doctor` shows why."""
    project.use_server(cluster.url)
    rows = 500
    manifest = project.manifest(rows)
    assert project.run(manifest, "--max-items", "1").exit_code == 6
    with reading(cluster.url) as reader:
        ended = project.start_run(manifest, "--concurrency", "50").end(60.0)
        assert ended.exit_code == 0, ended
        checked = project.start("doctor", manifest, "--api-url", provider.url, enter=lose_patience).end()
        assert "server: a transaction has been open for" in checked.out
        assert reader.execute("SELECT count(*) FROM items WHERE state = 'done'").fetchone() == (1,)
    assert_all_bought_once(project, rows)


@pytest.mark.parametrize("skews", [(HOUR, 0.0), (-HOUR, 0.0), (0.0, HOUR), (0.0, -HOUR)])
def test_a_host_whose_clock_is_an_hour_off_disturbs_no_other(
    project: Project, provider: FakeTTS, cluster: Cluster, skews: tuple[float, float]
) -> None:
    """One host is killed, and another takes over: its open tasks are polled as usual."""
    first, second = (partial(set_clock, skew) for skew in skews)
    project.use_server(cluster.url)
    provider.task_seconds = 600.0
    manifest = project.manifest(40)
    killed = project.start_run(manifest, "--concurrency", "8", enter=first)
    provider.until(lambda: len(provider.creates) >= 8)
    time.sleep(1.0)
    killed.send(signal.SIGKILL)
    killed.end()
    for job in provider.jobs.values():
        job.reads = 0
    taken_over = project.start_run(manifest, "--concurrency", "8", enter=second)
    provider.until(lambda: all(job.reads for job in provider.jobs.values()), 20.0)
    time.sleep(2.0)
    provider.end_tasks()
    ended = taken_over.end(20.0)
    assert ended.exit_code == 0, ended
    assert_all_bought_once(project, 40)
    for enter in (first, second):
        again = project.run(manifest, enter=enter)
        assert (again.exit_code, again.report["created"]) == (0, 0)


@pytest.mark.parametrize("skew", [HOUR, -HOUR])
def test_a_halt_by_a_host_whose_clock_is_an_hour_off_is_probed_in_time(
    project: Project, provider: FakeTTS, cluster: Cluster, skew: float
) -> None:
    """Creates without an answer halt the account. Its wait is by the server's clock: no host probes at once."""
    project.use_server(cluster.url)
    provider.on_create = lambda _: Twist(status=500)
    manifest = project.manifest(40)
    options = ("--max-in-doubt", "2", "--concurrency", "2")
    assert project.run(manifest, *options, enter=partial(set_clock, skew)).exit_code == 8
    asked = len(provider.creates)
    assert project.run(manifest, *options).exit_code == 8
    assert len(provider.creates) == asked
    assert_none_twice_or_lost(project)
