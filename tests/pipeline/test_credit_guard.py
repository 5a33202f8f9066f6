"""What stops creating and what resumes it: credits, instability, a refused token, throttling, a wrong host."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fake_tts import HTML_404, Create, FakeTTS, Twist, refusal

if TYPE_CHECKING:
    from tests.conftest import Project

UNFUNDED = {
    "status": "failed",
    "audioUrl": None,
    "creditsUsed": 0,
    "error": {"code": "insufficient_credits", "message": "the balance ran out while rendering"},
}


def assert_alone(probe: Create, others: list[Create]) -> None:
    """Check that the probe was answered before any other create arrived."""
    assert others
    assert probe.answered_at is not None
    assert min(create.arrived_at for create in others) > probe.answered_at


def test_the_first_402_stops_creating_until_a_top_up(project: Project, provider: FakeTTS) -> None:
    """In later runs too. Open tasks are collected; after the top-up, one probe goes first."""
    rows = project.rows(20)
    manifest = project.manifest(rows)
    provider.credits, provider.create_seconds = 6, 0.1
    ended = project.run(manifest, "--concurrency", "4")
    refused_at = min(create.answered_at or 0 for create in provider.creates if create.status == 402)
    assert (ended.exit_code, ended.report["outcome"], ended.report["halt"]["kind"]) == (4, "halted", "credits")
    assert ended.report["states"]["done"] == len(provider.jobs) == 6
    # With four at once, the three others may have been in flight when the answer came.
    assert len([create for create in provider.creates if create.arrived_at > refused_at]) <= 3
    creates = len(provider.creates)
    assert project.run(manifest).exit_code == 4
    assert len(provider.creates) == creates
    provider.credits, provider.create_seconds = 50, 0.3
    ended = project.run(manifest, "--concurrency", "20")
    assert (ended.exit_code, ended.report["halt"]) == (0, None)
    assert_alone(provider.creates[creates], provider.creates[creates + 1 :])
    assert {len(task_ids) for task_ids in provider.paid.values()} == {1}
    project.assert_whole(rows)


def test_a_halt_survives_a_kill(project: Project, provider: FakeTTS) -> None:
    """The next run sends no create."""
    manifest = project.manifest(10)
    provider.credits, provider.task_seconds = 2, 60.0
    run = project.start_run(manifest, "--concurrency", "4")
    provider.until(lambda: any(create.status == 402 for create in provider.creates))
    run.until(lambda: project.query("SELECT 1 FROM halts") and not project.query(_UNANSWERED))
    run.send(signal.SIGKILL)
    run.end()
    creates = len(provider.creates)
    for job in provider.jobs.values():
        job.ends_at = 0.0
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["states"]["done"], ended.report["states"]["in_doubt"]) == (4, 2, 0)
    assert len(provider.creates) == creates


_UNANSWERED = "SELECT 1 FROM attempts WHERE answered_at IS NULL"


@pytest.mark.parametrize(
    "answer", [refusal(429, "insufficient_quota"), refusal(401, "credits-exhausted"), refusal(500, "quota_exceeded")]
)
def test_a_credits_code_halts_with_any_http_status(project: Project, provider: FakeTTS, answer: Twist) -> None:
    provider.on_create = lambda _: answer
    ended = project.run(project.manifest(8), "--concurrency", "2")
    assert (ended.exit_code, ended.report["halt"]["kind"]) == (4, "credits")
    assert ended.report["states"]["pending"] == 8
    assert len(provider.creates) <= 2


def test_override_halt_sends_one_probe_without_a_top_up(project: Project, provider: FakeTTS) -> None:
    """No environment variable sets the option."""
    manifest = project.manifest(5)
    provider.credits = 0
    assert project.run(manifest, "--concurrency", "1").exit_code == 4
    assert project.run(manifest, environment={"BATCHER_OVERRIDE_HALT": "1"}).exit_code == 4
    assert len(provider.creates) == 1
    assert project.run(manifest, "--override-halt").exit_code == 4
    assert len(provider.creates) == 2
    provider.credits = 5
    provider.hidden = ("credits", "api_quota_remaining")
    assert project.run(manifest, "--override-halt").exit_code == 0
    assert len(provider.creates) == 7


def test_an_unreadable_balance_stays_halted(project: Project, provider: FakeTTS) -> None:
    """A missing number does not count as zero."""
    manifest = project.manifest(3)
    provider.credits = 0
    assert project.run(manifest).exit_code == 4
    creates = len(provider.creates)
    provider.credits, provider.hidden = 100, ("credits", "api_quota_remaining")
    assert project.run(manifest).exit_code == 4
    provider.hidden = ("credits",)
    assert len(provider.creates) == creates
    assert project.run(manifest).exit_code == 0


def _halted_by_a_task(project: Project, provider: FakeTTS) -> Any:
    """Run two rows whose accepted tasks fail for lack of credits; return the manifest."""
    provider.credits = 2
    provider.ending = lambda _: UNFUNDED
    manifest = project.manifest(2)
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["halt"]["kind"], ended.report["states"]["pending"]) == (4, "credits", 2)
    assert project.run(manifest).exit_code == 4
    assert len(provider.creates) == 2
    return manifest


def test_an_unfunded_task_is_read_again_after_a_top_up_before_a_new_create(project: Project, provider: FakeTTS) -> None:
    manifest = _halted_by_a_task(project, provider)
    reads = {job.id: job.reads for job in provider.jobs.values()}
    seen: list[dict[str, int]] = []
    provider.on_create = lambda _: seen.append({task_id: provider.jobs[task_id].reads for task_id in reads})
    provider.ending = lambda job: UNFUNDED if job.id in reads else {}
    provider.credits = 100
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["halt"], ended.report["states"]["done"]) == (0, None, 2)
    assert seen[0] == {task_id: number + 1 for task_id, number in reads.items()}
    assert len(provider.creates) == 4
    project.assert_whole(project.rows(2))


def test_an_unfunded_task_that_completed_after_all_is_collected(project: Project, provider: FakeTTS) -> None:
    """It is not bought again."""
    manifest = _halted_by_a_task(project, provider)
    provider.ending = lambda _: {}
    provider.credits = 100
    assert project.run(manifest).exit_code == 0
    assert len(provider.creates) == 2
    project.assert_whole(project.rows(2))


def test_a_charged_or_other_failure_is_never_created_again(project: Project, provider: FakeTTS) -> None:
    """However often one runs."""
    charged: dict[str, Any] = UNFUNDED | {"creditsUsed": 1}
    broken: dict[str, Any] = UNFUNDED | {"error": {"code": "voice_broken", "message": "insufficient credits"}}
    provider.ending = lambda job: charged if job.text == project.rows(1)[0]["text"] else broken
    manifest = project.manifest(2)
    for _ in range(2):
        ended = project.run(manifest)
        assert (ended.exit_code, ended.report["states"]["failed"]) == (3, 2)
    assert len(provider.creates) == 2


@pytest.mark.slow
def test_an_unstable_api_halts_the_account(project: Project, provider: FakeTTS) -> None:
    """Ten runs leave no more doubts than the limit and one wave."""
    provider.on_create = lambda _: Twist(status=500, body={"code": "internal", "message": "sorry"})
    manifest = project.manifest(40)
    for _ in range(10):
        ended = project.run(manifest, "--concurrency", "4", "--max-in-doubt", "3")
        assert (ended.exit_code, ended.report["outcome"], ended.report["halt"]["kind"]) == (8, "trouble", "unstable")
        assert 3 < ended.report["states"]["in_doubt"] <= 3 + 4
    assert len(provider.creates) <= 3 + 4


def test_a_refused_token_exits_5_before_any_create(project: Project, provider: FakeTTS) -> None:
    provider.token = "another"
    ended = project.run(project.manifest(3))
    assert (ended.exit_code, ended.report["outcome"], provider.creates) == (5, "credentials", [])


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_refused_at_a_create_stops_the_run(project: Project, provider: FakeTTS, status: int) -> None:
    """The refused creates wait for a valid token."""
    provider.on_create = lambda create: refusal(status, "no_such_token") if create.number > 2 else None
    ended = project.run(project.manifest(9), "--concurrency", "2")
    assert ended.exit_code == 5
    assert ended.report["states"]["in_doubt"] == ended.report["states"]["rejected"] == 0
    assert len(provider.creates) <= 2 + 2


def test_a_token_refused_at_a_poll_stops_polling(project: Project, provider: FakeTTS) -> None:
    """With a valid token everything is collected at no further cost."""
    rows = project.rows(4)
    manifest = project.manifest(rows)
    provider.on_read = lambda _: refusal(401, "revoked")
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["states"]["submitted"]) == (5, 4)
    provider.on_read = lambda _: None
    assert project.run(manifest).exit_code == 0
    assert len(provider.creates) == 4
    project.assert_whole(rows)


def test_nothing_is_bought_on_an_account_without_an_id(project: Project, provider: FakeTTS) -> None:
    provider.hidden = ("user_id",)
    ended = project.run(project.manifest(2))
    assert (ended.exit_code, provider.creates) == (5, [])


@pytest.mark.parametrize(
    "answer",
    [
        HTML_404,
        Twist(status=403, body=b"<html>blocked</html>"),
        Twist(status=302, headers={"location": "/api/open/v1/speech/tts/jobs"}),
        refusal(404, "no_such_route"),
    ],
    ids=["html 404", "html 403", "redirect", "json 404"],
)
def test_a_proxy_or_wrong_host_stops_creating_without_doubts(
    project: Project, provider: FakeTTS, answer: Twist
) -> None:
    provider.on_create = lambda _: answer
    ended = project.run(project.manifest(9), "--concurrency", "2")
    assert (ended.exit_code, ended.report["outcome"]) == (8, "trouble")
    assert ended.report["states"]["pending"] == 9
    assert len(provider.creates) <= 2


def test_an_unreachable_api_exits_8_without_doubts(project: Project, provider: FakeTTS) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        provider.url = f"http://127.0.0.1:{nobody.getsockname()[1]}/api/open/v1"
        ended = project.run(project.manifest(2))
    assert (ended.exit_code, ended.report["outcome"]) == (8, "trouble")
    assert ended.report["states"]["pending"] == 2


def test_no_create_arrives_before_retry_after(project: Project, provider: FakeTTS) -> None:
    """All rows are bought once in the end."""
    provider.on_create = lambda create: refusal(429, "slow_down", Retry_After="2") if create.number == 3 else None
    rows = project.rows(8)
    ended = project.run(project.manifest(rows), "--concurrency", "2")
    assert ended.exit_code == 0
    assert ended.report["requests"]["throttled"] == 1
    told_at = provider.creates[2].answered_at
    assert told_at is not None
    # With two at once, the other create may have been in flight.
    assert len([create for create in provider.creates if told_at < create.arrived_at < told_at + 2.0]) <= 1
    assert not [create for create in provider.creates if told_at + 0.2 < create.arrived_at < told_at + 2.0]
    assert {len(task_ids) for task_ids in provider.paid.values()} == {1}
    project.assert_whole(rows)


def test_a_rejected_row_is_sent_again_only_after_an_edit(project: Project, provider: FakeTTS) -> None:
    """Its neighbours are bought."""
    refused = project.rows(1)[0]["text"]
    provider.on_create = lambda create: refusal(422, "bad_voice") if create.text == refused else None
    for _ in range(2):
        ended = project.run(project.manifest(3))
        assert (ended.exit_code, ended.report["states"]["rejected"], ended.report["states"]["done"]) == (3, 1, 2)
    assert len(provider.creates) == 3
    error = project.results()[0]["error"]
    assert (error["code"], error["http_status"], error["request_id"]) == ("bad_voice", 422, "req_0123")
    fixed = [project.rows(1)[0] | {"voice": "berta"}, *project.rows(2, first=2)]
    provider.on_create = lambda _: None
    assert project.run(project.manifest(fixed)).exit_code == 0
    assert [create.body["voiceId"] for create in provider.creates[3:]] == ["berta"]
