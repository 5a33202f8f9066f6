"""`batcher runs`: the runs of a ledger."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.contract import checked
from tests.support.fake_tts import FakeTTS

if TYPE_CHECKING:
    from tests.conftest import Project


def test_runs_lists_the_last_runs_with_what_they_hold(project: Project, provider: FakeTTS) -> None:
    """Newest first; one that was killed has recorded no end."""
    provider.task_seconds = 600.0
    manifest = project.manifest(3)
    killed = project.start_run(manifest)
    provider.until(lambda: len(provider.creates) == 3)
    killed.until(lambda: project.query("SELECT count(*) FROM tasks") == [(3,)])
    killed.send(signal.SIGKILL)
    killed.end()
    (first,) = checked(project.batcher("runs", "--json"), "runs")["runs"]
    assert (first["is_working"], first["open_items"], first["ended_at"]) == (True, 3, None)
    provider.end_tasks()
    project.run(manifest)
    second, first = checked(project.batcher("runs", "--json"), "runs")["runs"]
    assert (second["outcome"], second["collected"], second["open_items"]) == ("done", 3, 0)
    assert (first["is_working"], first["outcome"]) == (False, "vanished")
    told = project.batcher("runs").out.splitlines()
    assert told[0].startswith(f"{second['run_id']}  {second['host']}, process {second['pid']}: started ")
    assert len(project.batcher("runs", "--limit", "1").out.splitlines()) == 1


def test_a_run_on_a_file_is_ended_by_its_process(project: Project, provider: FakeTTS) -> None:
    project.run(project.manifest(1))
    ended = project.batcher("runs", "--end", "0000")
    assert (ended.exit_code, "no run 0000 is working" in ended.err) == (2, True)


@pytest.mark.parametrize("project", ["postgres"], indirect=True)
def test_the_session_of_a_run_on_a_server_can_be_ended(project: Project, provider: FakeTTS) -> None:
    """It stops with exit 8, and another run takes over."""
    provider.task_seconds = 600.0
    manifest = project.manifest(3)
    hanging = project.start_run(manifest)
    provider.until(lambda: len(provider.creates) == 3)
    (run,) = checked(project.batcher("runs", "--json"), "runs")["runs"]
    ended = project.batcher("runs", "--end", run["run_id"][:6])
    assert ended.out.endswith(f"ended the session of run {run['run_id'][:6]}\n"), ended
    provider.end_tasks()
    assert hanging.end().exit_code == 8
    assert project.run(manifest).exit_code in (0, 3)
    assert len(provider.creates) == 3
