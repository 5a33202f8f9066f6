"""`--notify`: the run's report arrives at least once, signed, also after kills and errors in between."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.conftest import Project
from tests.support.fake_tts import NO_CREDITS, TOKEN, FakeTTS
from tests.support.monitor import Monitor, listening
from tests.support.processes import killed, struck

REMOVE: Final = "batcher.ledger.lifecycle.notices:remove"


@pytest.fixture
def receiver() -> Iterator[Monitor]:
    """A receiver that is up."""
    with listening() as monitor:
        yield monitor


def _notices(receiver: Monitor) -> list[dict[str, Any]]:
    return [json.loads(body) for body in receiver.bodies]


def test_the_end_of_a_run_posts_its_report(project: Project, provider: FakeTTS, receiver: Monitor) -> None:
    """The same object as with --json, at the URL as it is; nothing waits afterwards, and no token is sent."""
    ended = project.run(project.manifest(2), "--notify", f"{receiver.url}?key=1")
    (notice,) = _notices(receiver)
    assert (notice["event"], notice["report"]) == ("run ended", ended.report)
    assert receiver.paths == ["/check?key=1"]
    assert project.query("SELECT count(*) FROM notices") == [(0,)]
    assert TOKEN not in "".join(receiver.headers + receiver.bodies)
    assert "X-Batcher-Signature" not in receiver.headers[0]


def test_a_halt_is_posted_when_it_happens(project: Project, provider: FakeTTS, receiver: Monitor) -> None:
    """Before the open tasks are collected; then the end of the run."""
    provider.on_create = lambda create: NO_CREDITS if "3" in create.text else None
    provider.task_seconds = 0.5
    project.run(project.manifest(3), "--notify", receiver.url)
    halted, ended = _notices(receiver)
    assert (halted["event"], halted["report"]["exit_code"], halted["report"]["halt"]["kind"]) == (
        "halted",
        4,
        "credits",
    )
    assert halted["report"]["states"]["done"] < ended["report"]["states"]["done"] == 2
    assert halted["id"] != ended["id"]


def test_what_is_not_received_is_posted_by_the_next_run(project: Project, provider: FakeTTS, receiver: Monitor) -> None:
    """In order. A run without --notify posts and adds nothing."""
    receiver.status = 503
    manifest = project.manifest(1)
    first = project.run(manifest, "--notify", receiver.url)
    assert (first.exit_code, "the report was not received (HTTP 503)" in first.err) == (0, True)
    assert receiver.url not in first.err
    assert project.run(manifest).exit_code == 0
    receiver.status, receiver.bodies[:] = 200, []
    third = project.run(manifest, "--notify", receiver.url)
    assert [one["report"]["run_id"] for one in _notices(receiver)] == [
        first.report["run_id"],
        third.report["run_id"],
    ]


def test_a_secret_of_the_environment_signs_each_notice(project: Project, provider: FakeTTS, receiver: Monitor) -> None:
    """It appears nowhere itself."""
    secret = "correct horse"
    options = ["--notify", receiver.url, "--log-file", "run.log", "-v"]
    ended = project.run(project.manifest(1), *options, environment={"BATCHER_NOTIFY_SECRET": secret})
    expected = hmac.new(secret.encode(), receiver.bodies[0].encode(), hashlib.sha256).hexdigest()
    assert f"X-Batcher-Signature: sha256={expected}" in receiver.headers[0]
    written = b"".join(path.read_bytes() for path in project.folder.rglob("*") if path.is_file())
    assert secret.encode() not in written + ended.err.encode() + "".join(receiver.headers).encode()


@pytest.mark.parametrize(
    ("point", "times"),
    [
        ("before batcher.pipeline.outbox:Outbox.flush", 1),
        (f"before {REMOVE}", 2),
    ],
)
def test_a_run_that_is_killed_around_the_post_loses_no_notice(
    project: Project, provider: FakeTTS, receiver: Monitor, point: str, times: int
) -> None:
    """The next run posts it again; killed after it was received, it arrives a second time with the same id."""
    manifest = project.manifest(1)
    options = ["--api-url", provider.url, "--notify", receiver.url]
    killed(f"{point} 1", ["run", str(manifest), *options], project.folder, project.environment)
    last = project.run(manifest, "--notify", receiver.url).report["run_id"]
    found = [one for one in _notices(receiver) if one["report"]["run_id"] != last]
    assert (len(found), len({one["id"] for one in found})) == (times, 1)


def test_a_notice_that_cannot_be_removed_ends_no_run(project: Project, provider: FakeTTS, receiver: Monitor) -> None:
    """The receiver gets it again from the next run."""
    manifest = project.manifest(1)
    options = ["--api-url", provider.url, "--notify", receiver.url, "--json"]
    ended = struck(f"full {REMOVE} 1", ["run", str(manifest), *options], project.folder, project.environment)
    assert (ended.exit_code, ended.report["states"]["done"], len(receiver.bodies)) == (0, 1, 1)
    assert project.run(manifest, "--notify", receiver.url).exit_code == 0
    assert receiver.bodies[0] == receiver.bodies[1]
