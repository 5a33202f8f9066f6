"""One run beside others on a server: what it waits for, which limits it obeys, and what it takes over."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import text

from batcher.address import Server
from batcher.clock import Clock
from batcher.errors import StorageError
from batcher.item import Event
from batcher.ledger.lifecycle import account, collection, runs
from batcher.ledger.lifecycle.account import Limits
from batcher.ledger.records import Claimed, OpenTask
from batcher.pipeline.ingest import Ingest
from batcher.pipeline.neighbours import Neighbours
from batcher.pipeline.stop import Reason
from batcher.pipeline.submitter import Submitter
from batcher.provider.limits import PATIENT_RETRY_AFTER_SECONDS
from batcher.reports.observer import LogObserver
from tests.support import postgres
from tests.support.fake_tts import Create, FakeTTS, Twist, refusal
from tests.support.ledger_kit import AT, RUN, Book, SetClock, ending, opened_book, sheet

OTHER = "run-2"
NO_LIMITS = Limits(concurrency=100)


@pytest.fixture
def book(ledger_url: str, tmp_path: Path) -> Iterator[Book]:
    """A ledger on a server, with three rows."""
    with opened_book(Server(ledger_url, tmp_path)) as made:
        made.take_in(sheet("one", "two", "three"))
        yield made
    postgres.empty(ledger_url)


class BriefClock(SetClock):
    """A clock that the test moves, and on which no pause takes time; it records them."""

    def __init__(self) -> None:
        super().__init__(Clock().now())
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.at += seconds
        await anyio.lowlevel.checkpoint()

    def limit(self, seconds: float) -> anyio.CancelScope:
        self.pauses.append(seconds)
        return anyio.move_on_after(0)


class Lines(LogObserver):
    """What is shown to the user."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str, colour: str | None = None) -> None:  # noqa: ARG002
        self.lines.append(line)

    warn = say


@pytest.fixture
def clock(book: Book, submitter: Submitter) -> BriefClock:
    """The submitter's clock; the submitter has searched all rows, and another run works beside it."""
    clock = BriefClock()
    submitter.ctx = replace(submitter.ctx, clock=clock, progress=Lines())
    submitter._searched_all = True
    book.join(OTHER)
    book.do(account.set_creating, RUN, True)
    return clock


def lines(submitter: Submitter) -> list[str]:
    assert isinstance(submitter.ctx.progress, Lines)
    return submitter.ctx.progress.lines


def is_creating(book: Book) -> bool:
    """Whether the submitter's run takes a share of the slots."""
    return bool(book.one("SELECT is_creating FROM runs WHERE id = ?", RUN)["is_creating"])


async def test_items_of_other_runs_are_waited_for_without_a_share_of_the_slots(
    book: Book, submitter: Submitter, clock: BriefClock
) -> None:
    """It says so once. When one is returned, it can be claimed at once, and the share is taken again."""
    claimed = book.claim(3, run_id=OTHER)
    assert [await submitter._wait() for _ in range(2)] == [True, True]
    assert (clock.pauses, is_creating(book)) == ([2.0, 2.0], False)
    assert lines(submitter) == ["nothing is left to create; waiting for the items of other runs"]
    book.record(book.answer(claimed[0], Event.DEFERRED, "throttled", run_id=OTHER))
    submitter._searched_all = True
    await submitter._wait()
    assert is_creating(book)
    assert [one.key for one in await submitter._claim(3)] == [claimed[0].key]
    submitter._searched_all, submitter._in_flight = True, 0
    await submitter._wait()
    assert len(lines(submitter)) == 1


@pytest.mark.parametrize("changes", [{"wait": False}])
async def test_items_of_other_runs_are_not_waited_for_with_no_wait(
    book: Book, submitter: Submitter, clock: BriefClock
) -> None:
    book.claim(3, run_id=OTHER)
    assert not await submitter._wait()


@pytest.mark.parametrize("changes", [{"max_credits": 4.5}])
async def test_the_budget_that_other_runs_items_may_leave_is_waited_for(
    book: Book, submitter: Submitter, clock: BriefClock
) -> None:
    """For two seconds at a time, with a share of the slots."""
    book.do(collection.record_rendered, ending(book.submitted("t1"), credits=2.0))
    (theirs,) = book.claim(run_id=OTHER)
    assert await submitter._claim(3) == []
    submitter._searched_all = True
    assert await submitter._wait()
    assert (clock.pauses, submitter.ctx.stop.reasons, is_creating(book)) == ([2.0], {}, True)
    book.record(book.answer(theirs, Event.DEFERRED, "throttled", run_id=OTHER))
    assert [one.key for one in await submitter._claim(3)] == [theirs.key]


@pytest.mark.parametrize("changes", [{"concurrency": 2}])
async def test_a_slot_that_another_run_has_is_waited_for_briefly(
    book: Book, submitter: Submitter, clock: BriefClock
) -> None:
    claimed = book.claim(2, run_id=OTHER)
    assert await submitter._claim(3) == []

    async def free_one() -> None:
        await anyio.sleep(0.02)
        rejected = book.answer(claimed[0], Event.REJECTED, "invalid", run_id=OTHER)
        await submitter.ctx.ledger.record(rejected, max_in_doubt=9)  # whose connection the wait uses meanwhile

    with anyio.fail_after(5.0):
        async with anyio.create_task_group() as others:
            others.start_soon(free_one)
            assert await submitter._wait()
    assert (set(clock.pauses), is_creating(book), lines(submitter)) == ({0.5}, True, [])
    assert len(await submitter._claim(3)) == 1


@pytest.mark.parametrize("changes", [{"concurrency": 2}])
async def test_a_change_in_this_run_ends_the_wait_for_a_slot(
    book: Book, submitter: Submitter, clock: BriefClock
) -> None:
    """The end of its own task may permit a create before the others leave a slot."""
    book.claim(2, run_id=OTHER)
    with anyio.fail_after(5.0):
        async with anyio.create_task_group() as others:
            others.start_soon(submitter._wait_for_slots, submitter.api.changed.next())
            await anyio.sleep(0.02)
            submitter.api.changed.ring()


@pytest.mark.parametrize(("asked", "pause"), [(1.0, 1.0), (30.0, 2.0)])
async def test_a_wait_that_the_api_asked_of_another_run_is_kept(
    book: Book, submitter: Submitter, clock: BriefClock, asked: float, pause: float
) -> None:
    """It is looked at again every two seconds."""
    book.do(account.note_closed, book.account_id, asked)
    assert await submitter._claim(3) == []
    assert await submitter._wait()
    (found,) = clock.pauses
    assert pause - 0.5 < found <= pause


@pytest.mark.parametrize("changes", [{"max_items": 2}])
async def test_creating_ends_once_all_runs_together_have_created_max_items(
    book: Book, submitter: Submitter, clock: BriefClock
) -> None:
    book.claim(2, run_id=OTHER)
    assert not await submitter._wait()
    stop = submitter.ctx.stop
    assert (stop.reasons, stop.collecting) == ({Reason.ASKED: "--max-items 2 reached"}, False)


async def test_creating_ends_when_another_run_has_imported_another_version(
    book: Book, provider: FakeTTS, submitter: Submitter, clock: BriefClock
) -> None:
    """None of its rows is created, and a message names the manifest to run again."""
    book.take_in(sheet("edited", "two", "three"))
    await submitter.run()
    stop, why = submitter.ctx.stop, "another run has imported another version of m; run it again"
    assert (stop.reasons, stop.collecting, provider.creates) == ({Reason.ASKED: why}, False, [])


@pytest.mark.parametrize("left", [True, False])
async def test_a_run_with_nothing_to_create_takes_over_what_ended_runs_have_left(
    book: Book, submitter: Submitter, clock: BriefClock, left: bool
) -> None:
    """Then there may be more to do, and otherwise creating ends."""

    async def take_over() -> bool:
        return left

    for one in book.claim(3, run_id=OTHER):
        book.record(book.answer(one, Event.REJECTED, "invalid", run_id=OTHER))
    submitter._take_over = take_over
    assert await submitter._wait() == left


async def test_tasks_that_a_third_run_takes_over_first_are_waited_for(
    book: Book, submitter: Submitter, clock: BriefClock
) -> None:
    """Between this run's look, when theirs has just ended, and its own attempt. It must not end with open items."""
    third = "run-3"
    book.join(third)
    for number, one in enumerate(book.claim(3, run_id=OTHER)):
        book.record(book.accepted(one, f"t{number}", run_id=OTHER))
    book.do(lambda conn: runs.end_run(conn, OTHER, ended_at=AT))

    async def too_late() -> bool:
        return not book.do(collection.take_over, book.account_id, book.wanted, run_id=third)

    submitter._take_over = too_late
    assert await submitter._wait()
    assert await submitter._wait()
    assert lines(submitter) == ["nothing is left to create; waiting for the items of other runs"]


async def test_a_run_takes_a_share_of_the_slots_only_while_it_creates(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    shares: list[bool] = []

    def look(_: Create) -> Twist | None:
        shares.append(is_creating(book))
        return None

    provider.on_create = look
    await submitter.run()
    assert (shares, is_creating(book)) == ([True] * 3, False)


@pytest.mark.parametrize("asked", ["20", "0", "", "5000"])
async def test_a_wait_that_the_api_asks_for_is_recorded_for_the_other_runs(
    book: Book, provider: FakeTTS, submitter: Submitter, asked: str
) -> None:
    """Even if it is too long for this run. One that is not, and not short either, is shown."""
    submitter.ctx = replace(submitter.ctx, progress=Lines())
    provider.on_create = lambda _: refusal(429, "rate_limited", retry_after=asked)
    (claimed,) = await submitter._claim(1)
    await submitter._create(claimed, submitter.gate.enter())
    found, seconds = book.do(account.room, OTHER, book.account_id, 1, NO_LIMITS), float(asked or 0.0)
    assert (found.creates == 0) == (seconds > 0)
    assert seconds - 2.0 < found.closed_seconds <= seconds
    assert [line.endswith("; creating waits") for line in lines(submitter)] == [True] * (asked == "20")


async def test_creating_ends_if_the_api_asked_another_run_for_a_long_wait(
    book: Book, submitter: Submitter, clock: BriefClock
) -> None:
    """It is the API's trouble; the message has the time until which to wait. Open tasks are still collected."""
    book.do(account.note_closed, book.account_id, PATIENT_RETRY_AFTER_SECONDS + 60.0)
    assert not await submitter._wait()
    stop = submitter.ctx.stop
    assert (list(stop.reasons), stop.collecting) == ([Reason.TROUBLE], False)
    shown = datetime.strptime(stop.reasons[Reason.TROUBLE].partition(" until ")[2][:25], "%Y-%m-%d %H:%M:%S %z")
    assert -10.0 < shown.timestamp() - (clock.now() + PATIENT_RETRY_AFTER_SECONDS + 60.0) < 10.0


@pytest.mark.parametrize("is_held", [True, False])
async def test_no_create_leaves_once_the_server_may_hold_the_run_for_dead(
    book: Book, provider: FakeTTS, submitter: Submitter, is_held: bool
) -> None:
    """Another run may have put it in doubt by then."""
    (claimed,) = await submitter._claim(1)
    if not is_held:
        submitter.ctx.ledger._confirmed_at = -math.inf
    await submitter._create(claimed, submitter.gate.enter())
    assert len(provider.creates) == int(is_held)
    assert book.state(claimed.key) == ("submitted" if is_held else "pending")


async def test_this_hosts_disk_has_each_intent_before_its_create_leaves(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """The server may lose its last commits."""
    intents, found = submitter.ctx.ledger.intents, []
    assert intents is not None

    def look(_: Create) -> Twist | None:
        claimed = {row["item_key"] for row in book.all("SELECT item_key FROM attempts")}
        found.append(claimed <= {intent.key for intent in intents.read()})
        return None

    provider.on_create = look
    await submitter.run()
    assert found == [True] * 3


async def test_no_create_leaves_whose_intent_this_host_cannot_write(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """As when its disk is full, which ends the run. The item is as before."""
    assert submitter.ctx.ledger.intents is not None
    submitter.ctx.ledger.intents.path.mkdir()
    (claimed,) = await submitter._claim(1)
    await submitter._create(claimed, submitter.gate.enter())
    stop = submitter.ctx.stop
    assert (list(stop.reasons), stop.collecting, provider.creates) == ([Reason.TROUBLE], True, [])
    assert book.state(claimed.key) == "pending"


@pytest.mark.parametrize("changes", [{"concurrency": 1, "wait": False}, {"concurrency": 1}])
async def test_tasks_that_nobody_collects_take_no_slots_of_the_account(book: Book, submitter: Submitter) -> None:
    (claimed,) = await submitter._claim(1)
    await submitter._create(claimed, submitter.gate.enter())
    assert len(await submitter._claim(1)) == int(not submitter.ctx.settings.wait)


@pytest.mark.parametrize("changes", [{"create_rate": 1.0}])
async def test_the_create_rate_of_a_run_holds_for_the_others(book: Book, submitter: Submitter) -> None:
    book.join(OTHER)
    assert len(await submitter._claim(3)) == 1
    assert book.claim_anew(3, run_id=OTHER) != []  # which itself has no limit
    assert book.claim(1, run_id=OTHER, limits=replace(NO_LIMITS, create_rate=1.0)) == []


@pytest.fixture
async def neighbours(book: Book, submitter: Submitter) -> Neighbours:
    """The neighbours of the submitter's run, at rest, on a clock of their own."""
    ctx = replace(submitter.ctx, clock=BriefClock(), progress=Lines())
    ingest = Ingest(ctx)
    ingest.named = book.wanted
    poller = submitter.poller

    async def save_learned() -> None:
        lines_of(made).append("saved")

    made = Neighbours(
        ctx=ctx,
        api=submitter.api,
        ingest=ingest,
        poller=poller,
        downloader=poller.downloader,
        save_learned=save_learned,
    )
    book.join(OTHER)
    return made


def lines_of(neighbours: Neighbours) -> list[str]:
    assert isinstance(neighbours.ctx.progress, Lines)
    return neighbours.ctx.progress.lines


def left_by_other(book: Book) -> tuple[OpenTask, OpenTask, Claimed]:
    """A task that was rendered, one that is open, and a create without an answer, all of the other run."""
    claimed = book.claim(3, run_id=OTHER)
    for number, one in enumerate(claimed[:2]):
        book.record(book.accepted(one, f"t{number}", run_id=OTHER))
    rendered, opened = sorted(book.open_tasks(), key=lambda task: task.task_id)
    book.do(collection.record_rendered, ending(rendered, run_id=OTHER))
    return rendered, opened, claimed[2]


def release(book: Book, run_id: str) -> None:
    """End the session of a run, as its death does."""
    with book.engine.begin() as conn:
        conn.execute(text("SELECT pg_advisory_unlock(hashtextextended(:run, 7001))"), {"run": run_id})


@pytest.mark.parametrize("changes", [{}, {"wait": False}, {"only": ("z",)}], ids=["all", "no wait", "only"])
async def test_tasks_of_an_ended_run_are_continued_each_where_it_was(book: Book, neighbours: Neighbours) -> None:
    """The open one takes a slot and is polled; of the other, the audio is downloaded. With --no-wait, neither.

    Both are collected even if their rows are not chosen; then they do not count among those of this run.
    """
    book.do(neighbours.ingest.selection.choose, book.wanted)
    rendered, opened, _ = left_by_other(book)
    assert not await neighbours.take_over()
    book.do(lambda conn: runs.end_run(conn, OTHER, ended_at=AT))
    settings = neighbours.ctx.settings
    assert await neighbours.take_over() == settings.wait
    if not settings.wait:
        assert (neighbours.ctx.tally.open, list(neighbours.poller._due)) == (0, [])
        return
    (watched,), ((_, _, queued),) = neighbours.poller._due, neighbours.downloader._queue
    assert (watched.task.task_id, queued.task.task_id, queued.url) == (opened.task_id, rendered.task_id, None)
    assert (watched.task.wanted, queued.task.wanted) == ((not settings.only,) * 2)
    assert neighbours.ctx.tally.open == 1
    assert not await neighbours.take_over()


@pytest.mark.parametrize("has_ended", [False, True])
async def test_a_run_that_died_is_noticed_and_its_tasks_are_taken_over(
    book: Book, neighbours: Neighbours, has_ended: bool
) -> None:
    """Its create without an answer is in doubt. Once the poller has ended, the tasks are for a later run."""
    _, opened, unanswered = left_by_other(book)
    if has_ended:
        neighbours.poller.has_ended = True
    await neighbours._look()
    assert (lines_of(neighbours), neighbours.ctx.tally.total) == (["saved"], 3)
    release(book, OTHER)
    await neighbours._look()
    vanished, doubts, saved = lines_of(neighbours)[1:]
    assert vanished.endswith("has ended without a record of it; its tasks are taken over")
    assert doubts.startswith("1 create request of an earlier run had no answer when it ended")
    assert saved == "saved"
    assert book.state(unanswered.key) == "in_doubt"
    watched = [one.task.task_id for one in neighbours.poller._due]
    assert watched == ([] if has_ended else [opened.task_id])


async def test_the_slots_are_shared_anew_when_a_run_joins_or_ends(book: Book, neighbours: Neighbours) -> None:
    slots, concurrency, found = neighbours.api.slots, neighbours.ctx.settings.concurrency, []
    for run_id, creates in ((RUN, True), (OTHER, True), (OTHER, False)):
        book.do(account.set_creating, run_id, creates)
        await neighbours._share_slots()
        found.append(slots.free)
    assert found == [concurrency, math.ceil(concurrency / 2), concurrency]


async def test_the_other_runs_are_looked_at_soon_and_then_every_few_seconds(
    book: Book, neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share of the slots every two seconds."""
    clock, looks, shares = neighbours.ctx.clock, [], []
    begun = clock.steady()

    async def look() -> None:
        looks.append(clock.steady() - begun)

    async def share() -> None:
        shares.append(clock.steady() - begun)
        if len(shares) == 8:
            raise StorageError("the disk is full")

    monkeypatch.setattr(neighbours, "_look", look)
    monkeypatch.setattr(neighbours, "_share_slots", share)
    await neighbours.watch()
    assert [round(at) for at in shares] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert [round(at) for at in looks] == [2, 8, 14]
    stop = neighbours.ctx.stop
    assert (list(stop.reasons), stop.collecting) == ([Reason.TROUBLE], True)


async def test_counting_what_the_others_have_done_takes_a_small_share_of_the_time(
    book: Book, neighbours: Neighbours
) -> None:
    """If it takes two seconds, it is done again after a hundred."""
    clock, tally = neighbours.ctx.clock, neighbours.ctx.tally
    assert isinstance(clock, BriefClock)
    count = neighbours.ingest.selection.count

    def slow(*arguments: object) -> object:
        clock.at += 2.0
        return count(*arguments)  # type: ignore[arg-type]

    neighbours.ingest.selection.count = slow  # type: ignore[assignment, method-assign]
    found = []
    for seconds in (0.0, 99.0, 1.0):
        clock.at += seconds
        tally.total = 0
        await neighbours._count()
        found.append(tally.total)
    assert found == [3, 0, 3]
