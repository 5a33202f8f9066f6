"""A ledger on a server that is restarted, has a full disk, or cannot be reached any more while a run works."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import killing
from tests.support.fake_tts import FakeTTS
from tests.support.postgres import Cluster, own_cluster
from tests.support.purchases import assert_all_bought_once

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
ROWS = 100


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_restart_of_the_server_ends_the_run_and_the_next_continues(
    project: Project, provider: FakeTTS, cluster: Cluster, how: str
) -> None:
    """Answers in flight go to the spill file. While the server is down, a run creates nothing."""
    project.use_server(cluster.url)
    provider.create_seconds = 0.5
    manifest = project.manifest(ROWS)
    started = project.start_run(manifest, "--concurrency", "8")
    provider.until(lambda: len(provider.creates) >= 20)
    cluster.stop(how)
    ended = started.end()
    assert ended.exit_code == 8, ended
    assert "the ledger postgresql://" in ended.err
    asked = len(provider.creates)
    assert asked < ROWS
    assert (project.run(manifest).exit_code, len(provider.creates)) == (8, asked)
    [spill] = project.folder.glob("*.spill")
    assert b"task_" in spill.read_bytes()
    cluster.start()
    again = project.run(manifest, "--concurrency", "8")
    assert again.exit_code == 0, again  # without a doubt: every answer was in the spill file
    assert_all_bought_once(project, ROWS)


@contextmanager
def small_disk() -> Iterator[Path]:
    """A disk of 64 MB for everybody, filled quickly; skips the test where it cannot be mounted."""
    folder = tempfile.mkdtemp(prefix="batcher-disk-")
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=1777", "batcher", folder]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
    finally:
        Path(folder).rmdir()


@pytest.mark.parametrize("what", ["journal", "tables"])
def test_a_full_disk_of_the_server_ends_the_run_and_the_next_continues(
    project: Project, provider: FakeTTS, what: str
) -> None:
    """Without space for its journal the server crashes; without space for tables it refuses what needs some."""
    provider.create_seconds = 0.5
    with small_disk() as disk:
        initdb = ["--wal-segsize=1", "-X", str(disk / "wal")] if what == "journal" else ["--wal-segsize=1"]
        with own_cluster(initdb=initdb) as cluster:
            cluster.start(max_wal_size="8MB", min_wal_size="2MB")
            if what == "tables":
                _put_tables_on(cluster, disk)
            project.use_server(cluster.url)
            manifest = project.manifest(ROWS)
            started = project.start_run(manifest, "--concurrency", "8")
            provider.until(lambda: len(provider.creates) >= 8)
            killing.ballast(disk)
            _use_up(cluster, what)
            ended = started.end()
            assert ended.exit_code == 8, ended
            asked = len(provider.creates)
            assert asked < ROWS
            assert project.run(manifest).exit_code == 8
            assert len(provider.creates) == asked
            (disk / "ballast").unlink()
            cluster.close()
            cluster.start()
            again = project.run(manifest, "--concurrency", "8")
            assert again.exit_code == 0, again
            assert_all_bought_once(project, ROWS)


def _put_tables_on(cluster: Cluster, disk: Path) -> None:
    """Let the server create new tables on this disk."""
    folder = disk / "tables"
    folder.mkdir()
    shutil.chown(folder, cluster.data.owner())
    with psycopg.connect(cluster.url, autocommit=True) as admin:
        admin.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        admin.execute("ALTER SYSTEM SET default_tablespace = 'small'")
        admin.execute("SELECT pg_reload_conf()")


def _use_up(cluster: Cluster, what: str) -> None:
    """Fill the files that the server had before its disk was full."""
    fill = {
        "journal": "SELECT pg_logical_emit_message(false, '', repeat('x', 100000))",
        "tables": "INSERT INTO meta SELECT gen_random_uuid(), repeat('x', 100) FROM generate_series(1, 100)",
    }
    with suppress(psycopg.Error), psycopg.connect(cluster.url, autocommit=True) as admin:
        while True:
            admin.execute(fill[what])
