"""Twenty thousand tasks open at once, as with long texts and a generous account."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.support.processes import Started

OPEN = 20_000


class Patient:
    """A provider in its own process, whose tasks run until it ends them."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.bench.provider", "inf"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"{self._process.stdout.readline().strip()}/api/open/v1"

    def end_tasks(self) -> None:
        """Complete all tasks."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> int:
        """Stop answering; return the number of creates received."""
        said, _ = self._process.communicate("")
        return int(said)

    def close(self) -> None:
        """Make sure that the process is gone."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def patient() -> Iterator[Patient]:
    provider = Patient()
    yield provider
    provider.close()


def _start(project: Project, patient: Patient, manifest: Path) -> Started:
    return project.start("run", manifest, "--api-url", patient.url, "--concurrency", str(OPEN), "--json")


def _wait(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 600.0
    while not holds():
        assert time.monotonic() < give_up_at, "what the test waits for did not come about"
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_thousand_open_tasks_survive_a_kill_and_ctrl_c(project: Project, patient: Patient) -> None:
    """None is bought twice, none lost."""

    def submitted() -> int:
        return project.states().get("submitted", 0)

    def told() -> bool:
        return project.query("SELECT exit_code FROM runs ORDER BY started_at DESC LIMIT 1") != [(None,)]

    manifest = project.manifest(project.rows(OPEN))
    killed = _start(project, patient, manifest)
    _wait(project.ledger.exists)
    _wait(lambda: submitted() >= OPEN / 2)
    killed.send(signal.SIGKILL)
    assert killed.end().exit_code == -signal.SIGKILL
    stopped = _start(project, patient, manifest)
    _wait(lambda: set(project.states()) <= {"submitted", "in_doubt"})
    assert submitted() > 0.99 * OPEN
    stopped.send(signal.SIGINT)
    _wait(told)
    assert stopped.end().exit_code == 6
    patient.end_tasks()
    last = _start(project, patient, manifest)
    _wait(lambda: not told())
    _wait(told)
    ended = last.end()
    doubts = ended.report["states"]["in_doubt"]
    assert ended.report["states"]["done"] == OPEN - doubts
    assert ended.exit_code == (3 if doubts else 0)
    ((recorded, items),) = project.query("SELECT count(*), count(DISTINCT item_key) FROM tasks")
    assert recorded == items == OPEN - doubts
    assert patient.end() <= recorded + doubts
