"""Tasks that never end and an API that throttles: the batch goes on, and stuck tasks are named."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from batcher.audio.stores import Stores
from batcher.ledger.ledger import open_ledger
from batcher.ledger.storage.lock import owner_lock
from batcher.manifest.rules import Rules
from batcher.pipeline import runner
from batcher.pipeline.context import RunContext
from batcher.pipeline.startup import ready_ledger
from batcher.pipeline.stop import StopRequests
from batcher.reports.observer import LogObserver
from batcher.reports.run_report import RunReport
from batcher.settings import Settings, Source
from tests.support.fake_tts import TOKEN, Create, FakeTTS, Job, Twist, refusal
from tests.support.virtual import HastyClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Project

HASTE = 1200.0
"""How many seconds of the run a second takes."""


def run_hastily(project: Project, manifest: Path, provider: FakeTTS, **changes: object) -> RunReport:
    """A run within this process, on a hasty clock."""
    settings = Settings(
        sources=(Source(path=manifest, rules=Rules(batch="lines")),),
        ledger=project.ledger,
        out_dir=project.audio,
        api_url=provider.url,
        token=TOKEN,
        **changes,  # type: ignore[arg-type]
    )
    progress = LogObserver()
    with owner_lock(settings.ledger):
        ready_ledger(settings, progress)
        with open_ledger(settings.ledger, settings.world) as ledger:
            stores, clock = Stores(settings.home), HastyClock(HASTE / 1000)
            ctx = RunContext(settings=settings, ledger=ledger, stores=stores, progress=progress, clock=clock)
            return anyio.run(runner._Run(ctx, None, None).run, False, StopRequests()).report


def stuck(*texts: str) -> Callable[[Job], Twist | None]:
    """A twist that keeps the tasks of these texts running for ever."""

    def read(job: Job) -> Twist | None:
        word = {"task": {"id": job.id, "status": "processing"}, "record": {}, "requestId": "req_1"}
        return Twist(status=200, body=word) if job.text in texts else None

    return read


def test_a_stuck_task_does_not_stop_the_batch(project: Project, provider: FakeTTS) -> None:
    """It gives up its slot and is polled once more after the others; the run ends and names it."""
    rows = project.rows(6)
    provider.on_read = stuck(rows[0]["text"], rows[2]["text"])
    provider.task_seconds = 0.0
    report = run_hastily(project, project.manifest(rows), provider, concurrency=2)
    assert (report.exit_code, report.outcome, report.states["done"], report.states["submitted"]) == (6, "stopped", 4, 2)
    assert report.message == "2 items unfinished; overdue: r1, r3; run it again later"
    assert report.created == len(provider.creates) == 6
    looks = [job.reads for job in provider.jobs.values() if job.text == rows[0]["text"]]
    assert looks[0] > 2
    provider.on_read = lambda _: None
    ended = project.run(project.folder / "lines.csv")
    assert (ended.exit_code, ended.report["created"], ended.report["collected"]) == (0, 0, 2)
    project.assert_whole(rows)


def test_with_max_runtime_an_overdue_task_is_polled_to_the_end(project: Project, provider: FakeTTS) -> None:
    """If it ends in time it is collected."""
    rows = project.rows(2)
    provider.on_read = stuck(rows[0]["text"])
    provider.task_seconds = 0.0
    threading.Timer(1.5, lambda: setattr(provider, "on_read", lambda _: None)).start()
    report = run_hastily(project, project.manifest(rows), provider, max_runtime_seconds=30 * HASTE)
    assert (report.exit_code, report.states["done"]) == (0, 2)


def test_a_task_still_overdue_after_max_runtime_is_named(project: Project, provider: FakeTTS) -> None:
    rows = project.rows(1)
    provider.on_read = stuck(rows[0]["text"])
    report = run_hastily(project, project.manifest(rows), provider, max_runtime_seconds=2.5 * HASTE)
    assert report.exit_code == 6
    assert report.message == "--max-runtime reached; overdue: r1; run it again later"


@pytest.mark.slow
def test_a_run_finds_the_permitted_rate_by_itself(project: Project, provider: FakeTTS) -> None:
    """Everything is bought once, and few creates get a 429."""
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
def test_a_retry_after_holds_the_creates_of_every_worker(project: Project, provider: FakeTTS) -> None:
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


def test_create_rate_and_poll_rate_are_kept(project: Project, provider: FakeTTS) -> None:
    """As options or in batcher.toml."""
    (project.folder / "batcher.toml").write_text("poll-rate = 200.0\n", encoding="utf-8")
    assert project.run(project.manifest(9), "--create-rate", "10").exit_code == 0
    arrived = [create.arrived_at for create in provider.creates]
    assert arrived[-1] - arrived[0] >= 0.7 * 8 / 10


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast"])
def test_an_invalid_rate_is_refused(project: Project, provider: FakeTTS, text: str) -> None:
    """Before anything is done."""
    ended = project.run(project.manifest(1), "--create-rate", text)
    assert ended.exit_code == 2
    assert "is not a number above 0" in ended.report["message"]
    assert provider.creates == []
