"""The time of day is set while a run works, as by a correction, a laptop's wakeup or a summer time set by hand."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from batcher.cli.screen import Screen
from batcher.item import State
from batcher.pipeline import runner
from batcher.pipeline.stop import StopRequests
from batcher.reports.observer import LogObserver
from batcher.reports.tally import Tally
from tests.conftest import Project
from tests.support.fake_tts import TOKEN
from tests.support.virtual import VirtualClock, run_virtually

JUMPS = [-3600.0, 86_400.0, -1.7e9]


@pytest.mark.parametrize("jump", JUMPS)
def test_a_run_is_not_disturbed_when_the_clock_is_set(
    project: Project, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """All is done, nothing twice, and its duration is that which passed."""
    from batcher.manifest.rules import Rules
    from batcher.settings import Settings, Source

    manifest, real = project.manifest(12), time.time
    monkeypatch.setattr("time.time", lambda: real() + (jump if len(project.provider.creates) > 3 else 0.0))
    settings = Settings(
        sources=(Source(path=manifest, rules=Rules(batch="lines")),),
        ledger=project.ledger,
        out_dir=project.audio,
        api_url=project.provider.url,
        token=TOKEN,
    )
    report = anyio.run(runner.run, settings, LogObserver(), StopRequests()).report
    assert (report.exit_code, report.states[State.DONE], len(project.provider.creates)) == (0, 12, 12)
    assert 0 < report.elapsed_seconds < 60


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
    tally.begin(100, done=10, in_doubt=0)

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
