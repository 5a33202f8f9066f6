"""Tasks that never end, and an API that refuses: the batch goes on, and what is stuck is named."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from batcher.audio.store import Store
from batcher.clock import Clock
from batcher.ledger.ledger import open_ledger
from batcher.ledger.storage.lock import owner_lock
from batcher.manifest.rows import Rules
from batcher.pipeline import runner
from batcher.pipeline.context import RunContext
from batcher.pipeline.startup import ready_ledger
from batcher.reports.progress import Progress
from batcher.reports.run_report import RunReport
from batcher.settings import Settings, Source
from tests.support.fake_tts import TOKEN, Create, FakeTTS, Job, Twist, refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Project

HASTE = 1200.0


class HastyClock(Clock):
    """A clock by which ten minutes are half a second."""

    def now(self) -> float:
        return 1_700_000_000.0 + self.steady()

    def steady(self) -> float:
        return time.monotonic() * HASTE

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(0.0, seconds) / HASTE)

    def limit(self, seconds: float) -> anyio.CancelScope:
        return anyio.move_on_after(max(0.0, seconds) / HASTE)


def run_hastily(project: Project, manifest: Path, provider: FakeTTS, **changes: object) -> RunReport:
    """A run within this process, by a clock in haste."""
    settings = Settings(
        sources=(Source(path=manifest, rules=Rules(batch="lines")),),
        ledger=project.ledger,
        out_dir=project.audio,
        api_url=provider.url,
        token=TOKEN,
        **changes,  # type: ignore[arg-type]
    )
    progress = Progress(quiet=True)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        with owner_lock(settings.ledger, wait_seconds=0.0):
            ready_ledger(settings, progress)
            with open_ledger(settings.ledger, settings.world) as ledger:
                store, clock = Store(settings.ledger.parent, settings.out_dir), HastyClock()
                ctx = RunContext(settings=settings, ledger=ledger, store=store, progress=progress, clock=clock)
                return anyio.run(runner._Run(ctx, None, None).run, False)
    finally:
        # A run blocks signals at its very end, since its process is about to end; this one starts further processes.
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def stuck(*texts: str) -> Callable[[Job], Twist | None]:
    """A twist by which the tasks of these texts run for ever."""

    def read(job: Job) -> Twist | None:
        word = {"task": {"id": job.id, "status": "processing"}, "record": {}, "requestId": "req_1"}
        return Twist(status=200, body=word) if job.text in texts else None

    return read


def test_a_stuck_task_does_not_stop_the_batch(project: Project, provider: FakeTTS) -> None:
    """It gives up its place, the others are finished, it is looked at once more, and the run ends and names it."""
    rows = project.rows(6)
    provider.on_read = stuck(rows[0]["text"], rows[2]["text"])
    provider.task_seconds = 0.0
    report = run_hastily(project, project.manifest(rows), provider, concurrency=2)
    assert (report.exit_code, report.outcome, report.states["done"], report.states["submitted"]) == (6, "stopped", 4, 2)
    assert report.message == "2 items unfinished; overdue: r1, r3; run again to collect"
    assert report.created == len(provider.creates) == 6
    looks = [job.reads for job in provider.jobs.values() if job.text == rows[0]["text"]]
    assert looks[0] > 2
    provider.on_read = lambda _: None
    ended = project.run(project.folder / "lines.csv")
    assert (ended.exit_code, ended.report["created"], ended.report["collected"]) == (0, 0, 2)
    project.assert_whole(rows)


def test_with_a_time_to_end_by_a_stuck_task_is_waited_for(project: Project, provider: FakeTTS) -> None:
    """A run with --max-runtime looks at an overdue task until then; when it ends after all, it is collected."""
    rows = project.rows(2)
    provider.on_read = stuck(rows[0]["text"])
    provider.task_seconds = 0.0
    threading.Timer(1.5, lambda: setattr(provider, "on_read", lambda _: None)).start()
    report = run_hastily(project, project.manifest(rows), provider, max_runtime_seconds=30 * HASTE)
    assert (report.exit_code, report.states["done"]) == (0, 2)


def test_overdue_at_the_end_of_max_runtime(project: Project, provider: FakeTTS) -> None:
    """A task that is stuck still when the time is over is named beside the reason."""
    rows = project.rows(1)
    provider.on_read = stuck(rows[0]["text"])
    report = run_hastily(project, project.manifest(rows), provider, max_runtime_seconds=2.5 * HASTE)
    assert report.exit_code == 6
    assert report.message == "--max-runtime reached; overdue: r1; run again to collect"


@pytest.mark.slow
def test_an_api_that_permits_so_many_a_second(project: Project, provider: FakeTTS) -> None:
    """Against 429s the program finds its pace by itself: all is bought once, and few creates are refused."""
    entered: list[float] = []

    def limited(create: Create) -> Twist | None:
        now = time.monotonic()
        if len([at for at in entered if at > now - 0.5]) >= 8:
            return refusal(429, "rate_limited")
        entered.append(now)
        return None

    provider.on_create = limited
    rows = project.rows(60)
    ended = project.run(project.manifest(rows), "--concurrency", "60")
    refused = sum(create.status == 429 for create in provider.creates)
    assert (ended.exit_code, ended.report["created"]) == (0, 60)
    assert {len(task_ids) for task_ids in provider.paid.values()} == {1}
    assert ended.report["requests"]["throttled"] == refused
    assert 0 < refused <= 20
    project.assert_whole(rows)


@pytest.mark.slow
def test_no_create_inside_a_retry_after(project: Project, provider: FakeTTS) -> None:
    """Once a create was told to come in two seconds, none arrives until then, whichever worker it was."""

    def once(create: Create) -> Twist | None:
        return refusal(429, "rate_limited", Retry_After="2") if create.number == 8 else None

    provider.on_create = once
    assert project.run(project.manifest(20), "--concurrency", "10").exit_code == 0
    told_at = next(create.answered_at for create in provider.creates if create.status == 429)
    assert told_at is not None
    later = [create.arrived_at - told_at for create in provider.creates if create.arrived_at > told_at + 1.0]
    assert len(provider.creates) == 21
    assert len(later) >= 10
    assert min(later) >= 2.0


def test_rates_set_by_hand(project: Project, provider: FakeTTS) -> None:
    """--create-rate and --poll-rate hold, by flag or by file: creates arrive no faster."""
    (project.folder / "batcher.toml").write_text("poll-rate = 200.0\n", encoding="utf-8")
    assert project.run(project.manifest(9), "--create-rate", "10").exit_code == 0
    arrived = [create.arrived_at for create in provider.creates]
    assert arrived[-1] - arrived[0] >= 0.7 * 8 / 10


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast"])
def test_rates_that_are_none(project: Project, provider: FakeTTS, text: str) -> None:
    """What is no rate is refused before anything is done."""
    ended = project.run(project.manifest(1), "--create-rate", text)
    assert ended.exit_code == 2
    assert "is not a number above 0" in ended.report["message"]
    assert provider.creates == []
