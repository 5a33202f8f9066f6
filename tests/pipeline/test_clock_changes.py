"""The time of day is set while a run works, as by a correction, a laptop's wakeup or a summer time set by hand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from batcher.cli.screen import Screen
from batcher.clock import Clock
from batcher.item import State
from batcher.ledger.ledger import open_readonly
from batcher.ledger.queries import changes
from batcher.pipeline import runner
from batcher.pipeline.stop import StopRequests
from batcher.reports.observer import LogObserver
from batcher.reports.run_report import RunReport
from batcher.reports.tally import Tally
from tests.conftest import Project
from tests.support.fake_tts import TOKEN
from tests.support.virtual import VirtualClock, run_virtually

JUMPS = [-3600.0, 86_400.0, -1.7e9]


def run(project: Project, manifest: Path) -> RunReport:
    from batcher.manifest.rules import Rules
    from batcher.settings import Settings, Source

    settings = Settings(
        sources=(Source(path=manifest, rules=Rules(batch="lines")),),
        ledger=project.ledger,
        out_dir=project.audio,
        api_url=project.provider.url,
        token=TOKEN,
    )
    return anyio.run(runner.run, settings, LogObserver(), StopRequests()).report


def changed(project: Project, since: str | None) -> list[str]:
    """The rows that `batcher changes` lists."""
    with open_readonly(project.ledger) as conn:
        return [one["id"] for one in changes.changes(conn, changes.run_named(conn, since)[1])]


@pytest.mark.parametrize("jump", JUMPS)
def test_a_run_is_not_disturbed_when_the_clock_is_set(
    project: Project, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """All is done, nothing twice, its duration is that which passed, and no stored time precedes one before it."""
    manifest, real = project.manifest(12), time.time
    monkeypatch.setattr("time.time", lambda: real() + (jump if len(project.provider.creates) > 3 else 0.0))
    report = run(project, manifest)
    assert (report.exit_code, report.states[State.DONE], len(project.provider.creates)) == (0, 12, 12)
    assert 0 < report.elapsed_seconds < 60
    times = [at for (at,) in project.query("SELECT at FROM events ORDER BY id")]
    ((started_at, ended_at),) = project.query("SELECT started_at, ended_at FROM runs")
    assert [started_at, *times, ended_at] == sorted([started_at, *times, ended_at])
    waits = project.query(
        "SELECT saved_at - accepted_at, ended_at - accepted_at FROM tasks JOIN files USING (item_key)"
    )
    assert len(waits) == 12
    assert min(min(row) for row in waits) >= 0.0
    assert len(changed(project, report.run_id)) == len(changed(project, None)) == 12


def test_changes_are_not_missed_after_a_run_whose_clock_was_ahead(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, real = project.rows(3), time.time
    with monkeypatch.context() as ahead:
        ahead.setattr("time.time", lambda: real() + 3600)
        first = run(project, project.manifest(rows[:2]))
    second = run(project, project.manifest(rows))
    assert changed(project, first.run_id) == ["r1", "r2", "r3"]
    assert "r3" in changed(project, second.run_id)
    assert "r3" in changed(project, None)


def test_the_time_of_day_goes_on_where_it_was_if_it_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It follows when it is set forward, as after a computer slept."""
    clock, shown = Clock(), []
    for at in (100.0, 101.0, 50.0, 50.0, 53.0, 40.0, 41.0, 1000.0):
        monkeypatch.setattr("time.time", lambda at=at: at)
        shown.append(clock.now())
    assert shown == [100.0, 101.0, 101.0, 101.0, 104.0, 104.0, 105.0, 1064.0]


class _Set(VirtualClock):
    """A clock that is set at every look."""

    def __init__(self, jump: float) -> None:
        super().__init__()
        self.jump = jump

    def now(self) -> float:
        """The time of day, further off each time."""
        self.jump *= 2
        return super().now() + self.jump


@pytest.mark.parametrize("jump", JUMPS)
def test_rates_are_those_of_the_time_that_passed(capsys: pytest.CaptureFixture[str], jump: float) -> None:
    tally = Tally()
    tally.begin(dict.fromkeys(map(str, State), 0) | {State.PENDING: 90, State.DONE: 10})

    async def follow() -> Any:
        clock = _Set(jump)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Screen()._print, tally, clock)
            await clock.sleep(10.0)
            for _ in range(15):
                tally.saved(wanted=True)
            await clock.sleep(25.0)
            tasks.cancel_scope.cancel()

    run_virtually(follow)
    assert "25 of 100 done, 30/min" in capsys.readouterr().err
