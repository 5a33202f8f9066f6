"""Single creates and polls: what holds a create, what an answer does at once, which polls count."""

from __future__ import annotations

import math
from dataclasses import replace

import anyio
import pytest
from sqlalchemy import Connection, event

from batcher.clock import Clock
from batcher.ledger.lifecycle import collection, halts
from batcher.ledger.records import OpenTask
from batcher.pipeline.credit_guard import SUSPECT_THROTTLED
from batcher.pipeline.recheck import recheck
from batcher.pipeline.stop import Reason
from batcher.pipeline.submitter import Submitter
from batcher.provider.answers import Profile
from tests.support.fake_tts import NO_CREDITS, FakeTTS, Job, Twist, audio_of, refusal
from tests.support.ledger_kit import AT, RUN, Book, ending


@pytest.mark.parametrize("latch", ["halt", "stop", "closed gate"])
async def test_a_halt_stop_or_closed_gate_holds_a_claimed_create(
    book: Book, provider: FakeTTS, submitter: Submitter, latch: str
) -> None:
    """It is not in doubt."""
    (claimed,) = await submitter._claim(1)
    sent = submitter.gate.enter()
    if latch == "halt":
        submitter.api.guard.trip()
    elif latch == "stop":
        submitter.ctx.stop.stop_creating(Reason.ASKED, "enough")
    else:
        submitter.gate.close(submitter.gate.enter(), 60.0)
    await submitter._create(claimed, sent)
    assert (provider.creates, book.state(claimed.key)) == ([], "pending")
    assert book.one("SELECT outcome, cause FROM attempts") == {"outcome": "deferred", "cause": "held"}


@pytest.mark.parametrize(
    ("answer", "held_at"),
    [
        (NO_CREDITS, "guard"),
        (refusal(401, "bad_token"), "stop"),
        (refusal(404, "no_such_path"), "stop"),
        (refusal(429, "rate_limited"), "gate"),
    ],
    ids=["no credits", "token", "another host", "throttled"],
)
async def test_a_refusal_holds_other_creates_before_it_is_recorded(
    book: Book, provider: FakeTTS, submitter: Submitter, answer: Twist, held_at: str
) -> None:
    latches: list[dict[str, bool]] = []
    (claimed,) = await submitter._claim(1)

    @event.listens_for(submitter.ctx.ledger._engine, "commit")
    def _look(_: object) -> None:
        held = {
            "guard": submitter.api.guard.tripped,
            "stop": submitter.ctx.stop.creating,
            "gate": submitter.gate.closed,
        }
        latches.append(held)

    provider.on_create = lambda _: answer
    await submitter._create(claimed, submitter.gate.enter())
    assert [name for name, is_held in latches[0].items() if is_held] == [held_at]
    assert book.state(claimed.key) == "pending"


async def test_an_answer_that_the_ledger_refuses_stops_the_run(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """It is in the spill file, and the next create is held."""
    with book.engine.begin() as connection:
        refuse = "CREATE TRIGGER refuse BEFORE INSERT ON tasks BEGIN SELECT RAISE(ABORT, 'no'); END"
        connection.exec_driver_sql(refuse)
    claimed = await submitter._claim(2)
    for one in claimed:
        await submitter._create(one, submitter.gate.enter())
    assert [record.task_id for record in submitter.ctx.ledger.spill.records()] == ["task_1"]
    assert (len(provider.creates), submitter.ctx.stop.collecting) == (1, True)
    assert [book.state(one.key) for one in claimed] == ["submitting", "pending"]


async def test_refreshing_the_halts_does_not_reset_a_tripped_guard(submitter: Submitter) -> None:
    """What tripped it may not be recorded yet."""
    await submitter.api.guard.begin(Profile(), override=False)
    submitter.api.guard.trip()
    await submitter.api.guard.refresh()
    assert submitter.api.guard.tripped


def unfunded(book: Book) -> OpenTask:
    """An item whose task failed for lack of credits, waiting for a recheck after the halt."""
    task = book.submitted("task_1")
    assert book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    (halt,) = book.do(halts.open_halts, book.account_id)
    book.do(halts.find_prober, halt, RUN, may_probe=True)
    return task


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (refusal(404, "task_not_found"), "submitted"),
        (Twist(status=500), "pending"),
        (Twist(), "pending"),
        (refusal(401, "bad_token"), "pending"),
        (refusal(429, "rate_limited"), "pending"),
        (Twist(status=200, body={"id": "task_1", "status": "processing"}), "submitted"),
        (Twist(status=200, body={"id": "task_1", "status": "failed", "error": {"code": "broken"}}), "submitted"),
    ],
    ids=["404", "500", "dropped", "401", "429", "running", "failed"],
)
async def test_only_a_second_unfunded_poll_lets_a_task_be_created_again(
    book: Book, provider: FakeTTS, submitter: Submitter, said: Twist, state: str
) -> None:
    task = unfunded(book)
    provider.jobs["task_1"] = Job("task_1", "one", "mp3", ends_at=0.0)
    provider.on_read = lambda _: said
    await recheck(submitter.ctx, submitter.api, submitter.poller, submitter.wanted)
    assert book.state(task.key) == state
    assert task.key not in [one.key for one in book.claim_anew(3)]


async def test_an_unfunded_task_holds_creates_before_it_is_recorded(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    task = book.submitted("task_1")
    provider.jobs["task_1"] = Job("task_1", "one", "mp3", ends_at=0.0)
    provider.ending = lambda _: {"status": "failed", "error": {"code": "insufficient_credits"}, "creditsUsed": 0}
    tripped: list[bool] = []
    event.listen(submitter.ctx.ledger._engine, "commit", lambda _: tripped.append(submitter.api.guard.tripped))
    submitter.poller.watch(task, at_once=True)
    (watched,) = submitter.poller._due
    await submitter.poller._poll(watched)
    assert (tripped[0], book.state(task.key)) == (True, "pending")


async def test_a_failure_without_a_code_and_without_credits_holds_creates(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """At once, before it is recorded."""
    task = book.submitted("task_1")
    provider.jobs["task_1"] = Job("task_1", "one", "mp3", ends_at=0.0)
    provider.ending = lambda _: {"status": "failed"}
    provider.credits = 0
    submitter.poller.watch(task, at_once=True)
    (watched,) = submitter.poller._due
    await submitter.poller._poll(watched)
    assert submitter._hold()


async def test_the_end_of_a_task_shares_its_commit_with_the_claim_for_its_slot(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    task = book.submitted("task_1")
    provider.jobs["task_1"] = Job("task_1", "one", "mp3", ends_at=0.0)
    submitter.ctx.ledger.group_commits = True
    submitter.api.slots.take(4)  # all that there are
    submitter.poller.watch(task, at_once=True)
    (watched,) = submitter.poller._due
    commits: list[list[str]] = []

    @event.listens_for(submitter.ctx.ledger._engine, "commit")
    def _look(conn: Connection) -> None:
        commits.append(list(conn.exec_driver_sql("SELECT event FROM events ORDER BY rowid").scalars()))

    async with anyio.create_task_group() as stages:
        stages.start_soon(submitter.poller._poll, watched)
        await submitter._step(stages)  # waits for a slot
        await submitter._step(stages)
    assert commits[0][-2:] == ["rendered", "claim"]
    assert len(provider.creates) == 1


class LeapingClock(Clock):
    """A clock whose time of day leaps forward by an hour each time it is read."""

    def __init__(self) -> None:
        self._hours = 0

    def now(self) -> float:
        self._hours += 1
        return AT + 3600.0 * self._hours


async def test_quick_missing_polls_in_a_row_count_as_one(book: Book, provider: FakeTTS, submitter: Submitter) -> None:
    """A leap of the clock between them does not make the task gone."""
    task = book.submitted("task_1")
    submitter.poller.ctx = replace(submitter.poller.ctx, clock=LeapingClock())
    submitter.poller.watch(task, at_once=True)
    (watched,) = submitter.poller._due
    for _ in range(6):
        await submitter.poller._poll(watched)
    assert book.one("SELECT missing_looks FROM tasks") == {"missing_looks": 1}
    assert book.state(task.key) == "submitted"


async def test_a_task_found_again_has_no_missing_polls(book: Book, provider: FakeTTS, submitter: Submitter) -> None:
    task = book.submitted("task_1")
    submitter.poller.watch(task, at_once=True)
    (watched,) = submitter.poller._due
    counted = []
    for known in (False, True):
        provider.jobs = {"task_1": Job("task_1", "one", "mp3", ends_at=math.inf)} if known else {}
        await submitter.poller._poll(watched)
        counted.append(book.one("SELECT missing_looks FROM tasks")["missing_looks"])
    assert counted == [1, 0]


async def test_audio_shorter_than_announced_is_not_accepted(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """It breaks off between two frames, so the audio itself is valid."""
    downloader, text = submitter.poller.downloader, "a long story, " * 200
    task = replace(book.submitted("task_1"), chars=len(text))
    provider.jobs["task_1"] = Job("task_1", text, "mp3", ends_at=0.0)
    whole = audio_of(text, "mp3")
    headers = {"content-type": "audio/mpeg", "content-length": str(len(whole))}
    bodies = iter((whole[:-417], whole))  # without its last frame, and with it
    provider.on_audio = lambda _: Twist(status=200, body=next(bodies), headers=headers)
    book.do(collection.record_rendered, ending(task, word="completed"))
    downloader.add(task, None)
    downloader.no_more()
    await downloader.run()
    assert book.state(task.key) == "done"
    assert provider.jobs["task_1"].downloads == 2


@pytest.mark.parametrize(("balance", "halted"), [(0.0, True), (100.0, False)])
async def test_endless_throttling_halts_only_if_the_balance_is_empty(
    book: Book, provider: FakeTTS, submitter: Submitter, balance: float, halted: bool
) -> None:
    """The API may answer 429 instead of 402. The create itself is deferred, as after any 429."""
    provider.credits = balance
    provider.on_create = lambda _: refusal(429, "rate_limited")
    (claimed,) = await submitter._claim(1)
    for _ in range(SUSPECT_THROTTLED - 1):
        await submitter.api.guard.throttled(submitter.api.client, claimed.key)
    await submitter._create(claimed, submitter.gate.enter())
    assert (len(provider.creates), provider.profiles, book.state(claimed.key)) == (1, 1, "pending")
    assert submitter.api.guard.tripped == halted
    found = book.all("SELECT from_task, detail FROM halts WHERE kind = 'credits'")
    detail = "12 creates in a row were refused (HTTP 429), and the balance is 0"
    # An accepted create ends it: no task has failed.
    assert found == [{"from_task": 0, "detail": detail}] * halted


async def test_a_success_ends_a_series_of_throttled_creates(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """The balance is read for a series without one, and only once."""
    guard, client = submitter.api.guard, submitter.api.client
    (claimed,) = await submitter._claim(1)
    for _ in range(SUSPECT_THROTTLED - 1):
        await guard.throttled(client, claimed.key)
    guard.answered()
    for read in (0, 1, 1):
        for _ in range(SUSPECT_THROTTLED - 1 - read):
            await guard.throttled(client, claimed.key)
        assert provider.profiles == read
        await guard.throttled(client, claimed.key)
    assert provider.profiles == 1
    assert not guard.tripped


@pytest.mark.parametrize(("asked", "least"), [("3", 3.0), ("7200", 60.0), ("soon", 0.0), ("", 0.0)])
async def test_retry_after_on_a_good_poll_delays_only_that_tasks_next_poll(
    book: Book, provider: FakeTTS, submitter: Submitter, asked: str, least: float
) -> None:
    """Its bound is a minute; the gate stays open."""
    tasks = [book.submitted(f"task_{number}") for number in (1, 2)]
    headers = {"retry-after": asked} if asked else {}
    running = {"id": "task_1", "status": "processing"}
    provider.jobs = {task.task_id: Job(task.task_id, "x", "mp3", math.inf) for task in tasks}
    provider.on_read = lambda _: Twist(status=200, body=running, headers=headers)
    poller = submitter.poller
    poller.watch(tasks[0])
    watched = poller._due.take(math.inf)
    poller.watch(tasks[1])
    now = submitter.ctx.clock.steady()
    poller._polling = poller._asking = 1
    await poller._poll(watched)
    waits = {one.task.task_id: due - now for due, _, one in poller._due._heap}
    assert waits["task_1"] >= least
    assert waits["task_1"] < least + 2.0
    assert waits["task_2"] < 2.0
    assert not submitter.gate.closed


async def test_a_url_that_has_expired_while_it_waited_is_replaced(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """A fresh one is tried even if it seems expired."""
    task = book.submitted("task_1")
    provider.jobs = {"task_1": Job("task_1", "one", "mp3", 0.0)}
    book.do(collection.record_rendered, ending(task, word="completed"))
    provider.ending = lambda _: {"expiresAt": 1}
    downloader = submitter.poller.downloader
    downloader.add(task, f"{provider.url}/expired.mp3", expires_at=submitter.ctx.clock.now() - 1.0)
    downloader.no_more()
    await downloader.run()
    assert book.state(task.key) == "done"
    assert provider.jobs["task_1"].reads == 1
