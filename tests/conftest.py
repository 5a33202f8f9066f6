"""Fixtures of the end-to-end tests: a provider, a project folder, and the program as its users start it."""

from __future__ import annotations

import csv
import gc
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import hypothesis
import pytest

from batcher.address import Server, spill_file, spill_files
from batcher.ledger.ledger import open_readonly
from batcher.ledger.queries import status
from batcher.ledger.storage import database
from batcher.ledger.storage.schema import REVISION
from tests.support import postgres
from tests.support.fake_tts import TOKEN, FakeTTS, audio_of, running
from tests.support.processes import Ended, Started, begin

ROOT: Final = Path(__file__).parents[1]
# Otherwise each worker would compile all tests again, and each process that a test starts the whole program.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# The same examples in each run: `python -m tests.fuzz` looks for new ones.
hypothesis.settings.register_profile("suite", derandomize=True)
hypothesis.settings.load_profile("suite")
# SQLite waits for the disk at each commit, which is of no use to these tests: a killed program's files survive in
# memory, too.
_MEMORY: Final = Path("/dev/shm")
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 4 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))
# A background job of a shell ignores SIGINT, a job of nohup ignores SIGHUP, and each program that a test starts would
# inherit that.
for _number, _action in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _action)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage until all tests are collected, and then never look at what was imported and collected."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_xdist_auto_num_workers() -> int:
    """Three workers for each processor: most tests wait for a process."""
    return 3 * (os.cpu_count() or 1)


@pytest.fixture
def anyio_backend() -> str:
    """The event loop that the program itself uses."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server."""
    with postgres.server() as url:
        yield url


@pytest.fixture(scope="session")
def ledger_url(postgres_url: str) -> Iterator[str]:
    """The URL of a ledger on a server. Whoever writes to it empties it."""
    with postgres.database_of(postgres_url) as url:
        database.create(Server(url, Path("/")), "real")
        yield url


@dataclass
class Project:
    """A user's folder, and `batcher` run in it against the provider."""

    folder: Path
    provider: FakeTTS
    environment: dict[str, str]
    server: str | None = None  # URL of a ledger on a server
    _started: list[Started] = field(default_factory=list)

    def use_server(self, url: str, *, through: str | None = None) -> None:
        """Keep the ledger on this server. Commands reach it `through` another URL, if given."""
        self.server = url
        self.environment["BATCHER_LEDGER"] = through or url

    def on_another_host(self) -> Project:
        """The same project as another host has it: a folder of its own, with shared audio. Copies the manifests."""
        folder = self.folder.with_name("another")
        folder.mkdir()
        self.audio.mkdir(exist_ok=True)
        (folder / "audio").symlink_to(self.audio)
        for manifest in self.folder.glob("*.csv"):
            shutil.copy2(manifest, folder)
        return replace(self, folder=folder, environment=self.environment.copy())

    @property
    def ledger(self) -> Path:
        """The default path of the ledger."""
        return self.folder / "batcher.db"

    @property
    def has_ledger(self) -> bool:
        """Whether there is a ledger."""
        if self.server is None:
            return self.ledger.exists()
        return postgres.rows(self.server, "SELECT to_regclass('alembic_version') AS found", ())[0]["found"] is not None

    @property
    def spill(self) -> Path:
        """The file of answers that the ledger did not take."""
        if self.server is None:
            return spill_file(self.ledger, "", "")
        ledger_id = postgres.rows(self.server, "SELECT value FROM meta WHERE name = 'ledger_id'", ())[0]["value"]
        found = spill_files(Server(self.server, self.folder), ledger_id)
        return next(iter(found.values()), spill_file(Server(self.server, self.folder), ledger_id, "none"))

    @property
    def audio(self) -> Path:
        """The default output folder."""
        return self.folder / "audio"

    def rows(self, number: int, *, first: int = 1) -> list[dict[str, str]]:
        """Rows with ids `r1`, `r2`, … and a different text each."""
        numbers = range(first, first + number)
        return [{"id": f"r{i}", "text": f"Line number {i} of the script.", "voice": "anna"} for i in numbers]

    def manifest(self, rows: int | Sequence[dict[str, str]], name: str = "lines.csv") -> Path:
        """Write a manifest of these rows, or of this many."""
        found = self.rows(rows) if isinstance(rows, int) else rows
        path = self.folder / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(found[0]))
            writer.writeheader()
            writer.writerows(found)
        return path

    def run(self, *arguments: str | Path, **how: Any) -> Ended:
        """Run `batcher run … --json` against the provider to its end."""
        return self.start_run(*arguments, **how).end()

    def start_run(self, *arguments: str | Path, **how: Any) -> Started:
        """Start `batcher run … --json` against the provider."""
        return self.start("run", *arguments, "--api-url", self.provider.url, "--json", **how)

    def batcher(self, *arguments: str | Path, **how: Any) -> Ended:
        """Run any command to its end."""
        return self.start(*arguments, **how).end()

    def start(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        stdin: str = "",
        points: str = "",
        environment: dict[str, str] | None = None,
        enter: Callable[[], None] | None = None,
        terminal: Path | None = None,
    ) -> Started:
        """Start any command, in the terminal if one is given.

        It is killed at `points` (see `killing`). `environment` is added to the usual one, and the process first calls
        `enter`.
        """
        started = begin(
            [*map(str, arguments)],
            cwd or self.folder,
            self.environment | (environment or {}),
            aside=self.folder.parent,
            stdin=stdin,
            points=points,
            enter=enter,
            terminal=terminal,
        )
        self._started.append(started)
        return started

    def states(self) -> dict[str, int]:
        """The number of items in each state that has any, as `status` counts them."""
        with open_readonly(Server(self.server, self.folder) if self.server else self.ledger) as conn:
            return {state: number for state, number in status.status(conn)["states"].items() if number}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query on the ledger."""
        if self.server is not None:
            return [tuple(row.values()) for row in postgres.rows(self.server, sql, ())]
        with closing(sqlite3.connect(f"{self.ledger.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()

    def results(self, batch: str = "lines") -> list[dict[str, Any]]:
        """Lines of the batch's results file."""
        text = (self.audio / f"{batch}.results.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def assert_whole(self, rows: Sequence[dict[str, str]]) -> None:
        """Check that every row's file is the right audio for its text, and that no unfinished file is left."""
        for row in rows:
            assert (self.audio / f"{row['id']}.mp3").read_bytes() == audio_of(row["text"], "mp3"), row["id"]
        assert not [path for path in self.audio.rglob("*") if path.name.endswith(".part")]

    def close(self) -> None:
        """End the processes that a failed test left running."""
        for started in self._started:
            started.close()


@pytest.fixture
def provider() -> Iterator[FakeTTS]:
    """A healthy provider."""
    with running() as provider:
        yield provider


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path, provider: FakeTTS) -> Iterator[Project]:
    """An empty project folder, and an environment that holds only the token.

    With the parameter `postgres`, the ledger is on a server, and the environment has its URL, too.
    """
    if getattr(request, "param", "sqlite") == "postgres":
        with postgres.database_of(request.getfixturevalue("postgres_url")) as url:
            yield from _project(tmp_path, provider, server=url)
    else:
        yield from _project(tmp_path, provider)


def _project(tmp_path: Path, provider: FakeTTS, *, server: str | None = None) -> Iterator[Project]:
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("BATCHER_")}
    inherited |= {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path / "state")}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        inherited.pop(name, None)
    folder = tmp_path / "project"
    folder.mkdir()
    given = {"BATCHER_API_TOKEN": TOKEN} if server is None else {"BATCHER_API_TOKEN": TOKEN, "BATCHER_LEDGER": server}
    project = Project(folder, provider, inherited | given, server)
    yield project
    project.close()


@pytest.fixture
def disk_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The writes, syncs and renames made from now on, in order, each with its inode.

    Only a power cut would show that a sync is missing, and no test can cause one.
    """
    calls: list[tuple[str, int]] = []

    def listen(name: str, word: str) -> None:
        real = getattr(os, name)

        def call(which: Any, *arguments: Any) -> Any:
            calls.append((word, os.stat(which).st_ino))  # noqa: PTH116 - it may be a descriptor
            return real(which, *arguments)

        monkeypatch.setattr(os, name, call)

    for name, word in (("pwrite", "write"), ("fsync", "sync"), ("fdatasync", "sync"), ("replace", "rename")):
        listen(name, word)
    return calls


SECOND_MIGRATION: Final = """
from alembic import op

revision, down_revision = "{new}", "{old}"

def upgrade():
    op.execute("INSERT INTO meta VALUES ('later', 'yes')")
    op.create_index("items_voice", "items", ["voice"])
"""


@pytest.fixture
def next_version(tmp_path: Path) -> Path:
    """Folder of a later version of the program: the same source with another migration."""
    later, new = tmp_path / "later", f"{int(REVISION) + 1:04}"
    for name in ("batcher", "migrations"):
        shutil.copytree(ROOT / name, later / name, ignore=shutil.ignore_patterns("__pycache__"))
    schema = later / "batcher/ledger/storage/schema.py"
    said = schema.read_text(encoding="utf-8").replace(f'REVISION: Final = "{REVISION}"', f'REVISION: Final = "{new}"')
    schema.write_text(said, encoding="utf-8")
    migration = SECOND_MIGRATION.format(old=REVISION, new=new)
    (later / f"migrations/versions/{new}_later.py").write_text(migration, encoding="utf-8")
    return later
