"""Unattended runs: pings, metrics and log files, and secrets that stay out of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from batcher.cli import monitoring
from batcher.ledger.storage.lock import owner_lock
from batcher.reports import metrics
from batcher.reports.logs import LogFile
from batcher.reports.run_report import RunReport
from tests.support.fake_tts import TOKEN, FakeTTS, refusal
from tests.support.monitor import Monitor, listening
from tests.support.raw_server import Connection, raw_server

if TYPE_CHECKING:
    from tests.conftest import Project

SAMPLE = re.compile(r'(\w+)\{(?:\w+="(?:[^"\\\n]|\\[\\n"])*",?)+\} (\S+)')


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    """A monitor that is up."""
    with listening() as monitor:
        yield monitor


def test_a_good_run_pings_start_and_exit_status(project: Project, provider: FakeTTS, monitor: Monitor) -> None:
    """With the summary, and never with the token."""
    assert project.run(project.manifest(2), "--ping", f"{monitor.url}?create=1").exit_code == 0
    assert monitor.paths == ["/check/start?create=1", "/check/0?create=1"]
    assert "exit 0 (done)" in monitor.bodies[1]
    assert "done: 2" in monitor.bodies[1]
    assert TOKEN not in "".join(monitor.headers + monitor.bodies)


def test_a_failed_run_pings_its_exit_code(project: Project, provider: FakeTTS, monitor: Monitor) -> None:
    """3 if items need attention; 2 without a start if the manifest is missing."""
    provider.on_create = lambda _: refusal(422, "too_odd")
    manifest = project.manifest(1)
    (project.folder / "batcher.toml").write_text(f'ping = "{monitor.url}"\n', encoding="utf-8")
    project.batcher("trust")
    assert project.run(manifest).exit_code == 3
    assert project.run(manifest, "--batch", "a/b").exit_code == 2
    assert monitor.paths == ["/check/start", "/check/3", "/check/2"]
    assert "a/b" in monitor.bodies[2]


def test_a_run_that_finds_the_ledger_locked_pings_no_failure(
    project: Project, provider: FakeTTS, monitor: Monitor
) -> None:
    """It sends one log line to the monitor and leaves the metrics as they are."""
    there = project.folder / "batcher.prom"
    with owner_lock(project.ledger):
        ended = project.run(project.manifest(1), "--ping", monitor.url, "--metrics", there)
    assert (ended.exit_code, monitor.paths, there.exists()) == (7, ["/check/start", "/check/log"], False)


@pytest.mark.slow
def test_a_monitor_that_is_down_costs_one_line_on_standard_error(
    project: Project, provider: FakeTTS, monitor: Monitor
) -> None:
    """The line does not show its address."""
    monitor.status = 500
    ended = project.run(project.manifest(1), "--ping", monitor.url)
    assert (ended.exit_code, "ping failed: HTTP 500" in ended.err) == (0, True)
    ended = project.run(project.folder / "lines.csv", "--ping", "http://127.0.0.1:9/secret", "--quiet")
    assert (ended.exit_code, ended.err) == (0, "")
    assert project.run(project.folder / "lines.csv", "--ping", "hc-ping.com/x").exit_code == 2


def test_the_metrics_file_holds_the_outcome_of_the_run(project: Project, provider: FakeTTS) -> None:
    """Each metric has its help and type before its first sample."""
    there = project.folder / "batcher.prom"
    ended = project.run(project.manifest(2), "--metrics", there)
    assert ended.exit_code == 0
    lines = there.read_text(encoding="utf-8").splitlines()
    found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    labels = f'ledger="{project.ledger}",batches="lines"'
    assert found[f'batcher_items{{{labels},state="done"}}'] == 2
    assert found[f"batcher_last_run_created_items{{{labels}}}"] == 2
    assert found[f'batcher_last_run_credits{{{labels},kind="end"}}'] == ended.report["credits"]["end"]
    assert found[f'batcher_last_run_requests{{{labels},kind="create"}}'] == 2
    assert found[f"batcher_last_run_exit_code{{{labels}}}"] == 0
    assert found[f"batcher_last_run_timestamp_seconds{{{labels}}}"] > 1.7e9
    assert not list(project.folder.glob(".*.part"))
    refused = project.run(project.folder / "lines.csv", "--metrics", "/proc/no/batcher.prom")
    assert (refused.exit_code, "cannot write metrics to /proc/no/batcher.prom" in refused.err) == (0, True)


def test_each_line_of_the_metrics_is_a_comment_or_a_sample() -> None:
    """Regardless of the ledger's name; an unknown value has no sample."""
    report = RunReport(exit_code=4, outcome="halted", message="", ledger='a"b\\c\nd', batches=["x", "y"])
    text = metrics.render(report, at=1_800_000_000.5)
    samples = [line for line in text.splitlines() if not line.startswith("# ")]
    assert all(SAMPLE.fullmatch(line) for line in samples), text
    assert 'ledger="a\\"b\\\\c\\nd"' in text
    assert "batcher_last_run_credits" not in text
    typed = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(typed) == len(set(typed))
    assert {line.partition("{")[0] for line in samples} == set(typed)
    assert "} 1800000000.5\n" in text


def test_the_log_file_holds_every_step_and_no_secret(project: Project, provider: FakeTTS) -> None:
    """JSON without token, text or signed address. Standard error stays the same."""
    there = project.folder / "batcher.log"
    ended = project.run(project.manifest(1), "--log-file", there, "--log-format", "json", "--quiet")
    assert (ended.exit_code, ended.err) == (0, "")
    text = there.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["task_id"] for line in lines if line["event"] == "saved"] == ["task_1"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"]) for line in lines)
    assert not [secret for secret in (TOKEN, "Line number", "signature") if secret in text]
    assert project.run(project.folder / "lines.csv", "--log-file", "/proc/no/log").exit_code == 2


@pytest.mark.slow
def test_a_rotated_log_file_is_begun_anew(tmp_path: Path) -> None:
    """With the next line, after it was moved away or removed."""
    path, old = tmp_path / "log", tmp_path / "log.1"
    log = LogFile(path)
    log.write("one")
    path.rename(old)
    log.write("two")
    path.unlink()
    log.write("three")
    assert (old.read_text(), path.read_text()) == ("one\n", "three\n")
    log.close()


def test_with_quiet_only_new_problems_are_reported(project: Project, provider: FakeTTS) -> None:
    """The run that meets one reports it, the next one does not."""
    provider.on_create = lambda _: refusal(422, "too_odd")
    manifest = project.manifest(1)
    command = ("run", manifest, "--api-url", provider.url, "--quiet")
    first, second = project.batcher(*command), project.batcher(*command)
    assert (first.exit_code, second.exit_code) == (3, 3)
    assert "1 item rejected by the API" in first.err
    assert second.err == ""


@pytest.mark.parametrize(("status", "why"), [(200, None), (500, "HTTP 500")])
async def test_the_answer_to_a_ping_is_not_read(status: int, why: str | None) -> None:
    """It may be endless."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 %d Said\r\ntransfer-encoding: chunked\r\n\r\n" % status)
        while True:
            await connection.send(b"5\r\nabcde\r\n")

    async with raw_server(script) as server:
        with anyio.fail_after(5):
            assert await monitoring._post(server.origin, "start", b"x", {}) == why
