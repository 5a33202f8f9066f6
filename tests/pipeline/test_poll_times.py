"""The poller: when it polls, in which order, and what it learns from the answers. On a clock that the tests move."""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import event

from batcher.clock import Clock
from batcher.pacing.load import Load
from batcher.pacing.pace import FIRST_SECONDS, LONGEST_SECONDS, OVERDUE_SECONDS, Pacing
from batcher.pipeline.poller import MISSED_SECONDS, Poller
from batcher.pipeline.submitter import Submitter
from batcher.throttle.gate import Gate
from tests.support.fake_tts import FakeTTS, Job, Twist, refusal
from tests.support.ledger_kit import AT, Book

RUNNING = Twist(status=200, body={"status": "processing"})
COMPLETED = Twist(status=200, body={"status": "completed", "audioUrl": "https://api.test/a.mp3"})
FAILED = Twist(status=200, body={"status": "failed", "error": {"code": "bad_voice"}})
MISSING = refusal(404, "task_not_found")
LUCK = 0.5
"""Every random number."""


class SteppedClock(Clock):
    """A clock that stands until it is moved, and then wakes those whose time has come. Its steady time begins at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._limits: list[tuple[float, anyio.CancelScope]] = []

    def now(self) -> float:
        return AT + self.seconds

    def steady(self) -> float:
        return self.seconds

    def chance(self) -> float:
        return LUCK

    def limit(self, seconds: float) -> anyio.CancelScope:
        scope = anyio.CancelScope()
        if seconds <= 0.0:
            scope.cancel()
        self._limits.append((self.seconds + seconds, scope))
        return scope

    def next_before(self, seconds: float) -> float:
        """When the next limit ends, but at most `seconds`."""
        return min((ends for ends, _ in self._limits if self.seconds < ends < seconds), default=seconds)

    def move(self, seconds: float) -> None:
        """Set the time, and end the limits that it reaches."""
        self.seconds = seconds
        for ends, scope in self._limits:
            if ends <= seconds:
                scope.cancel()
        self._limits = [(ends, scope) for ends, scope in self._limits if ends > seconds]


class Scene:
    """A poller at work, and the polls that have reached the provider: the task, and the seconds since the beginning."""

    def __init__(self, book: Book, provider: FakeTTS, submitter: Submitter) -> None:
        self.book, self.provider, self.submitter = book, provider, submitter
        self.clock = SteppedClock()
        self.poller: Poller = submitter.poller
        self.poller.ctx = replace(self.poller.ctx, clock=self.clock)
        self.poller.gate = Gate(Clock(), 4, learned={"per_second": {"value": 1000.0}})
        submitter.api.slots._full_at = -math.inf  # some have been free for long
        self.sent: list[tuple[str, float]] = []
        self.running = anyio.CancelScope()
        self._answers: dict[str, list[Twist]] = {}
        provider.on_read = self._answer

    async def run(self) -> None:
        """Let the poller work."""
        with self.running:
            await self.poller.run()

    def watch(self, name: str, *answers: Twist, at_once: bool = False, age: float = 0.0) -> None:
        """Have a task of this age polled; the last of the answers is given for ever."""
        self._answers[name] = list(answers)
        self.provider.jobs[name] = Job(name, name, "mp3", ends_at=math.inf)
        self.submitter.api.slots.take(1)
        task = replace(self.book.submitted(name), accepted_at=self.clock.now() - age)
        self.poller.watch(task, at_once=at_once) if at_once else self.poller.watch(task)

    def _answer(self, job: Job) -> Twist:
        self.sent.append((job.id, self.clock.seconds))
        answers = self._answers[job.id]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return replace(answer, body={"id": job.id} | answer.body) if isinstance(answer.body, dict) else answer

    async def until(self, seconds: float) -> list[float]:
        """Let time pass, with an answer to each poll at once. Returns the times of all polls so far."""
        await self.rest()
        while self.clock.seconds < seconds:
            self.clock.move(self.clock.next_before(seconds))
            await self.rest()
        return [at for _, at in self.sent]

    async def rest(self) -> None:
        """Wait until no poll is under way and the poller waits."""
        idle = 0
        with anyio.fail_after(30.0):
            while idle < 20:
                await anyio.lowlevel.checkpoint()
                idle = 0 if self.poller._polling else idle + 1

    async def leap(self, seconds: float) -> None:
        """Set the time, and let the poller act without waiting for answers."""
        self.clock.move(seconds)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()


@pytest.fixture
async def scene(book: Book, provider: FakeTTS, submitter: Submitter) -> AsyncIterator[Scene]:
    """A poller at work."""
    made = Scene(book, provider, submitter)
    async with anyio.create_task_group() as stages:
        stages.start_soon(made.run)
        yield made
        stages.cancel_scope.cancel()


async def until_true(holds: Callable[[], bool]) -> None:
    """Wait, half a minute at most."""
    with anyio.fail_after(30.0):
        while not holds():  # noqa: ASYNC110
            await anyio.sleep(0.001)


def taught(seconds: float, pacing: Pacing | None = None) -> Pacing:
    """Pacing that has learned the durations of many tasks of about this many seconds."""
    pacing = pacing or Pacing()
    for number in range(40):
        took = seconds * (0.9 + 0.005 * number)
        pacing.begin(None, 3).ended(2 * took, (took, took))
    return pacing


@pytest.mark.parametrize(("at_once", "seconds"), [(False, FIRST_SECONDS), (True, LUCK)])
async def test_a_new_task_is_polled_soon_and_those_of_an_earlier_run_spread_over_a_second(
    scene: Scene, at_once: bool, seconds: float
) -> None:
    """At exactly that time, and not again once it has ended."""
    scene.watch("task_1", COMPLETED, at_once=at_once)
    assert await scene.until(500.0) == [seconds]


@pytest.mark.parametrize("age", [-5.0, 0.0, 2.0])
async def test_the_wait_for_the_first_poll_depends_on_the_tasks_age(scene: Scene, age: float) -> None:
    """A task that is accepted in the future, by a clock that was set back since, counts as new."""
    scene.watch("task_1", COMPLETED, age=age)
    expected = Pacing().begin(None, 3).next_poll_seconds(max(0.0, age), LUCK, Load(1))
    assert await scene.until(500.0) == [pytest.approx(expected)]


async def test_polls_of_a_task_become_rarer_as_it_gets_older(scene: Scene) -> None:
    """While nothing is known, each comes after a like share of its age."""
    scene.watch("task_1", *[RUNNING] * 8, COMPLETED)
    sent = await scene.until(500.0)
    assert len(sent) == 9
    assert all(1.1 < after / before < 1.25 for before, after in pairwise(sent))


@pytest.mark.parametrize("seconds", [0.8, 10.0])
async def test_a_due_poll_waits_for_the_time_that_other_tasks_have_taught_meanwhile(
    scene: Scene, seconds: float
) -> None:
    """It is sent then, once."""
    scene.watch("task_1", COMPLETED)
    taught(seconds, scene.poller.pacing)
    expected = taught(seconds).begin(None, 3).next_poll_seconds(0.0, LUCK, Load(1))
    assert await scene.until(100.0) == [pytest.approx(expected)]
    assert expected > FIRST_SECONDS


@pytest.mark.parametrize("pacing", [Pacing(), taught(3600.0)], ids=["unknown", "an hour"])
async def test_a_missing_task_is_polled_again_within_a_minute_until_it_is_gone(scene: Scene, pacing: Pacing) -> None:
    """Even if tasks take much longer; sooner if a poll is due anyway."""
    scene.poller.pacing = pacing
    scene.watch("task_1", MISSING, at_once=True)
    sent = await scene.until(500.0)
    gaps = [after - before for before, after in pairwise(sent)]
    assert max(gaps) <= 60.0
    assert (gaps[0] < 1.0) == (not pacing.to_json())
    assert 120.0 < sent[-1] < 300.0
    assert scene.book.one("SELECT state FROM items WHERE state != 'pending'") == {"state": "gone"}


async def test_a_task_that_is_found_again_is_polled_as_rarely_as_others(scene: Scene) -> None:
    """And a further miss is its first."""
    scene.poller.pacing = taught(3600.0)
    scene.watch("task_1", MISSING, RUNNING, MISSING, at_once=True)
    sent = await scene.until(MISSED_SECONDS + LONGEST_SECONDS + 1.0)
    assert sent == [LUCK, LUCK + MISSED_SECONDS, LUCK + MISSED_SECONDS + LONGEST_SECONDS]
    assert scene.book.one("SELECT missing_looks FROM tasks") == {"missing_looks": 1}


async def test_a_new_task_is_polled_in_time_while_the_poller_waits_for_another(scene: Scene) -> None:
    """Which is not polled before its time."""
    scene.watch("task_1", COMPLETED, at_once=True)
    await scene.until(0.1)
    scene.watch("task_2", COMPLETED)
    await scene.until(10.0)
    assert scene.sent == [("task_2", 0.1 + FIRST_SECONDS), ("task_1", LUCK)]


async def test_while_no_poll_may_leave_due_tasks_wait_and_the_likeliest_to_have_ended_goes_first(scene: Scene) -> None:
    """Not the one that has been due for longest."""
    scene.poller.gate = Gate(Clock(), 1)
    scene.poller.pacing = taught(20.0)
    answers, usual = threading.Event(), scene.provider.on_read
    scene.provider.on_read = lambda job: usual(job) if answers.wait(5.0) else None
    for seconds, name, age in ((0.0, "task_1", 0.0), (0.1, "task_2", 0.0), (0.2, "task_3", 100.0)):
        await scene.leap(seconds)
        scene.watch(name, COMPLETED, at_once=True, age=age)
    for seconds in (LUCK, 0.65, 1.0):
        await scene.leap(seconds)
    answers.set()
    await scene.rest()
    assert [name for name, _ in scene.sent] == ["task_1", "task_3", "task_2"]


async def test_the_next_poll_leaves_while_an_answer_is_still_being_recorded(scene: Scene) -> None:
    """A slow disk does not delay polls."""
    scene.poller.gate = Gate(Clock(), 1)
    scene.watch("task_1", FAILED, at_once=True)
    scene.watch("task_2", FAILED, at_once=True)
    disk = threading.Event()
    event.listen(scene.submitter.ctx.ledger._engine, "commit", lambda _: disk.wait(5.0))
    await scene.leap(LUCK)
    await until_true(lambda: len(scene.sent) == 2)
    assert scene.book.one("SELECT count(*) AS ended FROM tasks WHERE word = 'failed'") == {"ended": 0}
    disk.set()
    await scene.rest()


async def test_an_answer_that_has_arrived_has_all_its_consequences_even_if_the_run_is_cancelled(scene: Scene) -> None:
    """Here the next run is halted: the task failed without an error code, and the balance is 0."""
    asked, may_answer = threading.Event(), threading.Event()

    def hesitate(_: int) -> None:
        asked.set()
        may_answer.wait(5.0)

    scene.provider.credits, scene.provider.on_profile = 0.0, hesitate
    scene.watch("task_1", Twist(status=200, body={"status": "failed"}), at_once=True)
    await scene.leap(LUCK)
    await until_true(asked.is_set)
    scene.running.cancel()
    await anyio.lowlevel.checkpoint()
    may_answer.set()
    await until_true(lambda: scene.poller.has_ended)
    assert [row["kind"] for row in scene.book.all("SELECT kind FROM halts")] == ["credits"]
    assert scene.poller.ctx.tally.open == 0


async def test_the_poller_ends_with_the_last_task(scene: Scene) -> None:
    """Once no more are announced; a task that is still running is polled again."""
    names = ["task_1", "task_2", "task_3"]
    for name in names:
        scene.watch(name, RUNNING, COMPLETED, at_once=True)
    scene.poller.no_more()
    await scene.until(LUCK)
    assert not scene.poller.has_ended
    await scene.until(500.0)
    assert scene.poller.has_ended
    assert (scene.poller.ctx.tally.open, sorted(name for name, _ in scene.sent)) == (0, sorted(names * 2))


async def test_the_poller_ends_once_only_a_stuck_task_is_left(scene: Scene) -> None:
    """After ten minutes without progress and one more poll. Until then, few polls were needed."""
    scene.watch("task_1", RUNNING)
    scene.poller.no_more()
    sent = await scene.until(2000.0)
    assert scene.poller.has_ended
    assert OVERDUE_SECONDS < sent[-2] == sent[-1] - 60.0
    assert len(sent) < 60


# --- the load


@pytest.mark.parametrize(
    ("others", "free", "closing", "load"),
    [
        (0, 1, False, Load(1)),
        (1, 2, False, Load(2)),
        (2, 1, False, Load(3)),
        (2, 1, True, Load(3)),
        (2, 0, True, Load(3)),
        (2, 0, False, Load(3, math.inf, items_wait=True)),
    ],
    ids=["alone", "of two", "of three", "last items", "last items, no slot free", "items wait"],
)
async def test_a_task_is_polled_the_more_closely_the_fewer_are_open_and_if_items_wait_for_its_slot(
    scene: Scene, others: int, free: int, closing: bool, load: Load
) -> None:
    """Those that are being polled are open, too."""
    answers, usual = threading.Event(), scene.provider.on_read
    scene.provider.on_read = lambda job: usual(job) if answers.wait(5.0) else None
    scene.poller.pacing = taught(100.0)
    for number in range(others):
        scene.watch(f"other_{number}", RUNNING, at_once=True, age=200.0)
    await scene.leap(LUCK)
    scene.submitter.api.slots.resize(others + 1 + free)
    if closing:
        scene.poller.no_more()
    scene.watch("task_1", COMPLETED)
    answers.set()
    await scene.until(100.0)
    wait = taught(100.0).begin(None, 3).next_poll_seconds(0.0, LUCK, load)
    assert dict(scene.sent)["task_1"] == pytest.approx(LUCK + wait)


# --- what is learned


async def test_a_duration_is_known_to_lie_between_the_last_two_polls(scene: Scene) -> None:
    """Requests take time: from when the one that found it running left to when the other was answered."""
    scene.watch("task_1", RUNNING, COMPLETED)
    usual = scene.provider.on_read

    def slowly(job: Job) -> Twist | None:
        answer = usual(job)
        scene.clock.seconds += 2.0
        return answer

    scene.provider.on_read = slowly
    low, high = await scene.until(500.0)
    assert scene.poller.pacing.to_json() == [{"model": None, "tasks": [[3, low, pytest.approx(high + 2.0, 1e-3)]]}]


async def test_a_tasks_own_times_narrow_its_duration_down(scene: Scene) -> None:
    times = {"createdAt": AT + 0.1, "completedAt": AT + 0.35}
    assert isinstance(COMPLETED.body, dict)
    scene.watch("task_1", RUNNING, replace(COMPLETED, body=COMPLETED.body | times))
    await scene.until(500.0)
    ((_, low, high),) = scene.poller.pacing.to_json()[0]["tasks"]
    assert FIRST_SECONDS == low < high == pytest.approx(0.251)


@pytest.mark.parametrize("answers", [[RUNNING, FAILED], [MISSING], [RUNNING, COMPLETED]])
async def test_tasks_that_fail_are_gone_or_began_in_an_earlier_run_teach_no_duration(
    scene: Scene, answers: list[Twist]
) -> None:
    scene.watch("task_1", *answers, at_once=answers[-1] is COMPLETED)
    await scene.until(500.0)
    assert (scene.poller.pacing.to_json(), scene.poller.ctx.tally.open) == ([], 0)
