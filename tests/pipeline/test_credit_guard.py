"""What stops creating and what resumes it: credits, instability, a refused token, throttling, a wrong host."""

from __future__ import annotations

import logging
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from batcher.item import Event
from batcher.ledger.lifecycle import halts, runs
from batcher.ledger.records import Balance, Halt
from batcher.pipeline.credit_guard import SUSPECT_SECONDS, SUSPECT_THROTTLED, Guard
from batcher.pipeline.submitter import Submitter
from batcher.provider.answers import Profile
from tests.support.fake_tts import HTML_404, Create, FakeTTS, Twist, refusal
from tests.support.ledger_kit import AT, RUN, Book, SetClock

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


# --- single steps


class Watched:
    """A guard with a clock that the test moves, and the halts that it reports."""

    def __init__(self, submitter: Submitter) -> None:
        self.clock, self.reported = SetClock(), list[str]()
        ledger, account_id = submitter.ctx.ledger, submitter.api.account_id
        self.guard = Guard(ledger, self.clock, account_id=account_id, run_id=RUN, on_halt=self._report)

    async def _report(self, halt: Halt) -> None:
        self.reported.append(halt.kind)


@pytest.fixture
def watched(submitter: Submitter) -> Watched:
    return Watched(submitter)


async def test_a_halt_is_reported_once_when_it_opens(book: Book, watched: Watched) -> None:
    """Not if another run opened it, and not again while it is open."""
    book.do(halts.open_halt, book.account_id, "credits", AT, "why", RUN)
    await watched.guard.begin(Profile(), override=False)
    for _ in range(2):
        await watched.guard.refresh()
    assert watched.reported == []
    book.do(halts.open_halt, book.account_id, "unstable", AT, "why", RUN)
    for _ in range(2):
        await watched.guard.refresh()
    assert watched.reported == ["unstable"]
    book.execute("UPDATE halts SET closed_at = 1")
    await watched.guard.refresh()
    assert (watched.reported, watched.guard.halts) == (["unstable"], [])
    book.begin("run-2")
    book.do(halts.open_halt, book.account_id, "credits", AT, "why", "run-2")
    await watched.guard.refresh()
    assert (watched.reported, [halt.kind for halt in watched.guard.halts]) == (["unstable"], ["credits"])


@pytest.mark.parametrize("override", [True, False])
async def test_a_run_waits_while_another_probes_and_probes_itself_if_that_run_ends(
    book: Book, watched: Watched, override: bool
) -> None:
    """Without reason to expect that its own probe succeeds, it then creates nothing."""
    book.begin("run-2")
    book.execute("UPDATE runs SET ended_at = NULL")  # both work, as runs on a server can
    book.do(halts.open_halt, book.account_id, "credits", AT, "why", "run-2")
    (halt,) = book.do(halts.open_halts, book.account_id)
    book.do(halts.find_prober, halt, "run-2", may_probe=True)
    guard = watched.guard
    await guard.begin(Profile(), override=override)
    assert (guard.tripped, guard.probing) == (False, False)
    book.execute("UPDATE runs SET ended_at = ? WHERE id = 'run-2'", AT)
    await guard.refresh()
    assert (guard.tripped, guard.probing) == (not override, override)


async def test_creating_goes_on_while_a_permitted_probe_is_in_flight_and_ends_when_it_is_refused(
    book: Book, watched: Watched
) -> None:
    """One probe at a time: the guard holds none back, the ledger permits no second."""
    guard = watched.guard
    await guard.begin(Profile(), override=False)
    await guard.refresh()
    assert (guard.tripped, guard.probing) == (False, False)
    book.do(halts.open_halt, book.account_id, "credits", AT, "why", RUN)
    await guard.begin(Profile(), override=True)
    (claimed,) = book.claim(2)
    await guard.refresh()
    assert (guard.tripped, guard.probing) == (False, True)
    book.record(book.answer(claimed, Event.DEFERRED, "no_credits"))
    await guard.refresh()
    assert (guard.tripped, guard.probing) == (True, False)


@pytest.mark.parametrize(
    ("read", "noticed"),
    [
        ([Profile(quota=100.0), None, Profile(quota=99.0)], None),
        ([Profile(quota=104.0)], "credits=4.0"),
        ([Profile(quota=104.0), Profile(quota=104.0)], "credits=4.0"),
        ([Profile(), Profile(credits=99.0), Profile(), Profile(credits=101.0)], "credits=2.0"),
        ([Profile(credits=500.0, quota=99.0)], None),
        ([Profile(), Profile(credits=3.0, quota=104.0)], "credits=4.0"),
    ],
)
async def test_each_balance_is_recorded_and_a_top_up_is_noticed_once(
    book: Book, watched: Watched, caplog: pytest.LogCaptureFixture, read: list[Profile | None], noticed: str | None
) -> None:
    """A rise since the last reading, also of an earlier run; of the quota, where the API reports one."""
    caplog.set_level(logging.INFO, logger="batcher")
    book.do(runs.note_balance, RUN, book.account_id, Balance(credits=7.0, quota=100.0), at=AT)
    book.begin("run-2", credits_=None)
    watched.guard._run_id = "run-2"
    assert read[0] is not None
    await watched.guard.begin(read[0], override=False)
    for profile in read[1:]:
        await watched.guard.note(profile)
    lines = [record.getMessage() for record in caplog.records if "top-up noticed" in record.getMessage()]
    assert [line.rpartition(" ")[2] for line in lines] == ([noticed] if noticed else [])
    known = [(profile.credits, profile.quota) for profile in read[1:] if profile is not None and profile.balance]
    rows = book.all("SELECT credits, quota FROM balances WHERE run_id = 'run-2' ORDER BY id")
    assert [(row["credits"], row["quota"]) for row in rows] == known


async def test_tasks_that_fail_without_a_code_have_the_balance_read_every_ten_seconds(
    book: Book, provider: FakeTTS, submitter: Submitter, watched: Watched
) -> None:
    """Until the balance is too low. A balance that cannot be read never halts the account."""
    guard, task = watched.guard, book.submitted("t1")
    provider.credits = 0
    provider.hidden = ("credits", "api_quota_remaining")
    for seconds, read in ((0.0, 1), (SUSPECT_SECONDS - 1.0, 1), (1.0, 2), (1.0, 2)):
        watched.clock.at += seconds
        await guard.suspect(submitter.api.client, task)
        assert provider.profiles == read
    assert not guard.tripped
    provider.hidden = ()
    watched.clock.at += SUSPECT_SECONDS
    await guard.suspect(submitter.api.client, task)
    assert guard.tripped
    (halt,) = book.all("SELECT from_task, detail FROM halts")
    assert halt["from_task"] == 1
    assert book.one("SELECT credits FROM balances ORDER BY id DESC LIMIT 1") == {"credits": 0.0}
    assert halt["detail"].startswith("a task failed without an error code, and the balance is 0")


@pytest.mark.parametrize("answer", [None, Twist(status=500)], ids=["no balance", "no profile"])
async def test_an_unknown_balance_halts_nothing(
    book: Book, provider: FakeTTS, submitter: Submitter, watched: Watched, answer: Twist | None
) -> None:
    """Nor is it recorded in an open halt, which needs a known one to measure a rise from."""
    (claimed,) = book.claim()
    provider.hidden = ("credits", "api_quota_remaining")
    provider.on_profile = lambda _: answer
    client = submitter.api.client
    for _ in range(SUSPECT_THROTTLED - 1):
        await watched.guard.throttled(client, claimed.key)
    assert provider.profiles == 0
    await watched.guard.throttled(client, claimed.key)
    assert (provider.profiles, watched.guard.tripped, book.all("SELECT * FROM halts")) == (1, False, [])
    for kind in ("credits", "unstable"):
        book.do(halts.open_halt, book.account_id, kind, AT, "why", RUN)
    await watched.guard.begin(Profile(), override=False)
    await watched.guard.settle((await client.profile()).profile)
    assert book.all("SELECT kind FROM halts WHERE balance_at IS NOT NULL") == []
    await watched.guard.settle(Profile(credits=5.0))
    assert {halt.kind: halt.credits for halt in watched.guard.halts} == {"credits": 5.0, "unstable": None}
    assert book.one("SELECT credits FROM balances ORDER BY id DESC LIMIT 1") == {"credits": 5.0}


@pytest.mark.parametrize(
    ("kinds", "known", "override", "reads"),
    [
        (["credits"], False, False, 1),
        (["credits", "unstable"], False, False, 1),
        (["credits"], True, False, 0),
        (["unstable"], False, False, 0),
        (["credits"], False, True, 0),
    ],
    ids=["credits", "both", "known", "unstable", "may probe"],
)
async def test_at_its_end_a_run_without_credits_records_the_balance_to_measure_a_top_up_from(
    book: Book,
    provider: FakeTTS,
    submitter: Submitter,
    watched: Watched,
    kinds: Any,
    known: bool,
    override: bool,
    reads: int,
) -> None:
    """Read once, and only if a halt needs it."""
    await watched.guard.begin(Profile(), override=False)
    for kind in kinds:
        book.do(halts.open_halt, book.account_id, kind, AT, "why", RUN)
    if known:
        book.do(halts.set_balance, book.account_id, 0.5, None, AT)
    if override:
        await watched.guard.begin(Profile(), override=True)
    provider.credits = 2
    for _ in range(2):
        await watched.guard.record_balance(submitter.api.client)
    assert provider.profiles == reads
    stored = book.all("SELECT credits FROM halts WHERE balance_at IS NOT NULL")
    assert stored == [{"credits": 0.5}] * known + [{"credits": 2.0}] * reads
