"""PgBouncer, a connection pooler for PostgreSQL, in front of a server of the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.support.postgres import Cluster, free_port


@contextmanager
def pooler(cluster: Cluster, mode: str, **settings: str) -> Iterator[str]:
    """The URL of a pooler in this mode; skips the test without the program. As root, it runs as `nobody`."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    port, file = free_port(), cluster.folder / "pgbouncer.ini"
    file.write_text(_config(cluster, {"pool_mode": mode, "listen_port": str(port), **settings}), encoding="utf-8")
    process = subprocess.Popen([program, "-q", str(file)], cwd="/", stderr=subprocess.DEVNULL, **_user())
    url = f"postgresql://batcher@127.0.0.1:{port}/postgres"
    try:
        _await(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def _config(cluster: Cluster, settings: dict[str, str]) -> str:
    (cluster.folder / "users.txt").write_text('"batcher" ""\n', encoding="utf-8")
    usual = {
        "listen_addr": "127.0.0.1",
        "auth_type": "trust",
        "auth_file": str(cluster.folder / "users.txt"),
        "unix_socket_dir": "",
        "admin_users": "batcher",
    }
    lines = [f"{name} = {value}" for name, value in (usual | settings).items()]
    return "\n".join(["[databases]", f"* = host={cluster.folder} port={cluster.port}", "[pgbouncer]", *lines, ""])


def _user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _await(url: str) -> None:
    give_up_at = time.monotonic() + 10.0
    while True:
        try:
            psycopg.connect(url.replace("/postgres", "/pgbouncer"), autocommit=True).close()
        except psycopg.OperationalError:
            assert time.monotonic() < give_up_at, "the pooler does not start"
            time.sleep(0.05)
        else:
            return
