"""The poller: what each answer to a poll leaves behind, and which tasks it waits for."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import anyio
import pytest

from batcher.ledger.lifecycle import halts
from batcher.pipeline.poller import MISSED_SECONDS, OVERDUE_POLL_SECONDS, _Watched
from batcher.pipeline.stop import Reason
from batcher.pipeline.submitter import Submitter
from batcher.throttle.gate import Gate
from tests.support.fake_tts import FakeTTS, Job, Twist, refusal
from tests.support.ledger_kit import AT, RUN, Book, SetClock


@pytest.fixture
def clock(submitter: Submitter) -> SetClock:
    """The poller's clock."""
    clock = SetClock()
    submitter.poller.ctx = replace(submitter.poller.ctx, clock=clock)
    return clock


def watch(book: Book, provider: FakeTTS, submitter: Submitter, answer: Twist | dict[str, Any]) -> _Watched:
    """Have the poller watch an accepted task, polls of which are answered so, and take it for its first poll."""
    twist = Twist(status=200, body={"id": "task_1"} | answer) if isinstance(answer, dict) else answer
    provider.jobs["task_1"] = Job("task_1", "one", "mp3", ends_at=math.inf)
    provider.on_read = lambda _: twist
    submitter.api.slots.take(1)
    submitter.poller.watch(book.submitted("task_1"), at_once=True)
    return submitter.poller._due.take(math.inf)


async def poll(submitter: Submitter, watched: _Watched) -> None:
    """Poll the task once, as `run` does."""
    poller = submitter.poller
    poller._polling = poller._asking = 1
    await poller._poll(watched)
    assert (poller._polling, poller._asking) == (0, 0)


def failed(code: str | None, **more: Any) -> dict[str, Any]:
    return {"status": "failed", "error": {"code": code, "message": "sorry"}} | more


COMPLETED = {"status": "completed", "audioUrl": "https://api.test/a.mp3", "creditsUsed": 2}
RUNNING = Twist(status=200, body={"id": "task_1", "status": "processing"})


@pytest.mark.parametrize(
    ("answer", "state", "ended", "slowed", "reasons"),
    [
        (COMPLETED, "rendered", True, False, []),
        (failed("bad_voice"), "failed", True, False, []),
        (failed("insufficient_credits", creditsUsed=0), "pending", True, False, []),
        ({"status": "processing"}, "submitted", False, False, []),
        ({"status": "dreaming"}, "submitted", False, False, []),
        (refusal(404, "task_not_found"), "submitted", False, False, []),
        (refusal(401, "bad_token"), "submitted", False, False, [Reason.CREDENTIALS]),
        (refusal(429, "rate_limited"), "submitted", False, True, []),
        (Twist(status=500), "submitted", False, True, []),
        (Twist(), "submitted", False, True, []),
    ],
    ids=["completed", "failed", "unfunded", "running", "unknown", "404", "401", "429", "500", "dropped"],
)
async def test_a_task_is_polled_until_it_ends(
    book: Book,
    provider: FakeTTS,
    submitter: Submitter,
    answer: Any,
    state: str,
    ended: bool,
    slowed: bool,
    reasons: list[Reason],
) -> None:
    """Until then it keeps its slot. An API in trouble is asked less often."""
    watched = watch(book, provider, submitter, answer)
    await poll(submitter, watched)
    poller = submitter.poller
    assert book.state(watched.task.key) == state
    assert (len(poller._due), submitter.ctx.tally.open) == ((0, 0) if ended else (1, 1))
    assert (list(poller.ctx.stop.reasons), poller.ctx.stop.collecting) == (reasons, bool(reasons))
    assert (submitter.ctx.tally.polls, submitter.ctx.tally.ended) == (1, int(state == "failed"))
    assert poller.gate.closed == slowed
    assert submitter.api.guard.tripped == bool(submitter.api.guard.halts) == (state == "pending")


@pytest.mark.parametrize("ignored", ["speed", None])
async def test_the_end_of_a_task_is_recorded_as_reported(
    book: Book, provider: FakeTTS, submitter: Submitter, clock: SetClock, ignored: str | None
) -> None:
    headers = {"x-request-id": "req_9"} | ({"x-openapi-ignored-parameters": ignored} if ignored else {})
    body = {"id": "task_1"} | failed("bad_voice", creditsUsed=1.5)
    watched = watch(book, provider, submitter, Twist(status=200, body=body, headers=headers))
    clock.at += 7.0
    await poll(submitter, watched)
    task = book.one("SELECT word, credits, ignored, looks, ended_at, raw FROM tasks")
    assert b"bad_voice" in task.pop("raw")
    assert task == {"word": "failed", "credits": 1.5, "ignored": ignored, "looks": 1, "ended_at": AT + 7.0}
    item = book.item(watched.task.key)
    error = [item[f"error_{name}"] for name in ("code", "message", "request_id", "http_status")]
    assert error == ["bad_voice", "sorry", "req_9", 200]
    event = book.one("SELECT run_id, at FROM events ORDER BY id DESC LIMIT 1")
    assert event == {"run_id": RUN, "at": AT + 7.0}


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[tuple[int, dict[str, Any]]]:
    """The level and the facts of each line about the event."""
    lines: list[Any] = [record for record in caplog.records if getattr(record, "event", None) == event]
    return [(line.levelno, line.facts) for line in lines]


@pytest.mark.parametrize(
    ("answer", "status", "level", "more"),
    [
        (COMPLETED, "completed", logging.INFO, {"credits": 2.0}),
        (failed("bad_voice", creditsUsed=1.23456), "failed", logging.WARNING, {"credits": 1.23, "code": "bad_voice"}),
    ],
    ids=["completed", "failed"],
)
async def test_the_log_has_the_facts_of_each_poll_and_of_the_tasks_end(
    book: Book,
    provider: FakeTTS,
    submitter: Submitter,
    clock: SetClock,
    caplog: pytest.LogCaptureFixture,
    answer: dict[str, Any],
    status: str,
    level: int,
    more: dict[str, Any],
) -> None:
    """As the help describes them; unknown ones are left out."""
    caplog.set_level(logging.DEBUG, logger="batcher")
    twist = Twist(status=200, body={"id": "task_1"} | answer, headers={"x-request-id": "req_9"})
    watched = watch(book, provider, submitter, RUNNING)
    clock.at += 0.12349
    await poll(submitter, watched)
    provider.on_read = lambda _: twist
    clock.at += 7.0
    await poll(submitter, watched)
    about = {"key": watched.task.key, "attempt": 1, "task_id": "task_1", "endpoint": "poll"}
    assert logged(caplog, "poll") == [
        (logging.DEBUG, about | {"cause": "ok", "status": "processing", "seconds": 0.123, "polls": 1}),
        (logging.DEBUG, about | {"cause": "ok", "status": status, "seconds": 7.123, "polls": 2}),
    ]
    end = {"status": status, "seconds": 7.123, "polls": 2, "request_id": "req_9"} | more
    assert logged(caplog, "task ended") == [(level, about | end)]


@pytest.mark.parametrize(
    ("answer", "why"),
    [(refusal(500, "broken"), "HTTP 500 broken: this is broken; request req_0123"), (Twist(), "isconnected")],
    ids=["500", "dropped"],
)
async def test_the_log_says_why_a_poll_has_no_usable_answer(
    book: Book, provider: FakeTTS, submitter: Submitter, caplog: pytest.LogCaptureFixture, answer: Twist, why: str
) -> None:
    await poll(submitter, watch(book, provider, submitter, answer))
    ((level, facts),) = logged(caplog, "poll unanswered")
    assert (level, facts["cause"], facts["task_id"]) == (logging.WARNING, "unclear", "task_1")
    assert why in facts["why"]


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        (["queued", "processing"], []),
        (["queued", "dreaming", "dreaming"], ["dreaming"]),
        (["dreaming", "musing", "processing", "dreaming"], ["dreaming", "musing", "dreaming"]),
    ],
)
async def test_an_unknown_status_is_logged_once_until_it_changes(
    book: Book,
    provider: FakeTTS,
    submitter: Submitter,
    caplog: pytest.LogCaptureFixture,
    words: list[str],
    unknown: list[str],
) -> None:
    watched = watch(book, provider, submitter, {})
    for word in words:
        provider.on_read = lambda _, word=word: Twist(status=200, body={"id": "task_1", "status": word})  # type: ignore[misc]
        await poll(submitter, watched)
    found = logged(caplog, "unknown status, taken for running")
    assert [(level, facts["status"]) for level, facts in found] == [(logging.WARNING, word) for word in unknown]


async def test_a_long_wait_that_the_api_asks_for_is_shown(
    book: Book, provider: FakeTTS, submitter: Submitter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="batcher")
    await poll(submitter, watch(book, provider, submitter, refusal(429, "rate_limited", Retry_After="60")))
    assert "(Retry-After); polling waits" in caplog.text


@pytest.mark.parametrize("halted", [False, True])
async def test_audio_of_a_completed_task_is_downloaded(
    book: Book, provider: FakeTTS, submitter: Submitter, halted: bool
) -> None:
    """And it closes the halt whose probe it was."""
    watched = watch(book, provider, submitter, COMPLETED)
    if halted:
        book.do(halts.open_halt, book.account_id, "credits", AT, "why", RUN, from_task=True)
        book.execute("UPDATE halts SET probe_run_id = ?, probe_key = ?", RUN, watched.task.key)
        await submitter.api.guard.refresh()
        assert submitter.api.guard.probing
    submitter.ctx.tally.credits = 10.0
    await poll(submitter, watched)
    assert submitter.ctx.tally.credits == 8.0
    ((_, _, queued),) = submitter.poller.downloader._queue
    assert (queued.task, queued.url) == (watched.task, "https://api.test/a.mp3")
    assert (submitter.api.guard.halts, submitter.ctx.tally.open) == ([], 0)


async def test_a_task_without_progress_gives_up_its_slot_once(
    book: Book, provider: FakeTTS, submitter: Submitter, clock: SetClock
) -> None:
    """A new status is progress. It is polled every minute from then on, and the poller ends without it."""
    watched = watch(book, provider, submitter, {"status": "processing"})
    poller = submitter.poller
    await poll(submitter, watched)
    clock.at += watched.pace.overdue_seconds() * 0.9
    provider.on_read = lambda _: Twist(status=200, body={"id": "task_1", "status": "queued"})
    await poll(submitter, watched)
    clock.at += watched.pace.overdue_seconds() * 0.9
    await poll(submitter, watched)
    assert (poller.overdue, submitter.ctx.tally.open) == ({}, 1)
    clock.at += watched.pace.overdue_seconds() * 0.2
    overdue_at = clock.at
    poller.no_more()
    for polls in (1, 2, 3):
        poller._due._heap.clear()
        await poll(submitter, watched)
        ((due, _, _),) = poller._due._heap
        assert due == clock.at + OVERDUE_POLL_SECONDS
        assert (list(poller.overdue), watched.overdue_polls) == ([watched.task.key], polls)
        assert (submitter.ctx.tally.open, poller._has_only_overdue()) == (0, polls > 1)
        assert book.one("SELECT overdue_at FROM tasks") == {"overdue_at": overdue_at}
    submitter.api.slots.take(1)  # of another task
    provider.on_read = lambda _: Twist(status=200, body={"id": "task_1"} | COMPLETED)
    await poll(submitter, watched)
    assert (poller.overdue, submitter.ctx.tally.open) == ({}, 1)


@pytest.mark.parametrize("changes", [{}, {"max_runtime_seconds": 60.0}])
async def test_the_poller_ends_without_overdue_tasks_unless_the_run_has_a_time_limit(
    book: Book, provider: FakeTTS, submitter: Submitter, changes: dict[str, Any]
) -> None:
    """Not while more tasks may come, or another is polled or not overdue."""
    watched = watch(book, provider, submitter, {"status": "processing"})
    poller = submitter.poller
    poller._due.add(math.inf, watched)
    watched.overdue_polls = 2
    found = []
    for closing, polling, polls in ((False, 0, 2), (True, 1, 2), (True, 0, 1), (True, 0, 2)):
        poller._closing, poller._polling, watched.overdue_polls = closing, polling, polls
        found.append(poller._has_only_overdue())
    watched.overdue_polls = 2
    poller._due.add(math.inf, replace(watched, overdue_polls=0))
    found.append(poller._has_only_overdue())
    assert found == [False, False, False, not changes, False]


async def test_a_missing_task_is_polled_again_soon_and_counted_when_time_has_passed(
    book: Book, provider: FakeTTS, submitter: Submitter, clock: SetClock
) -> None:
    """Gone only after four misses over minutes."""
    watched = watch(book, provider, submitter, refusal(404, "task_not_found"))
    counted = []
    for seconds in (0.0, MISSED_SECONDS - 1.0, 1.0, MISSED_SECONDS, 2 * MISSED_SECONDS):
        clock.at += seconds
        submitter.poller._due._heap.clear()
        await poll(submitter, watched)
        counted.append(book.one("SELECT missing_looks FROM tasks")["missing_looks"])
        assert submitter.ctx.tally.open == (counted[-1] < 4)
        assert all(due <= clock.at + MISSED_SECONDS for due, _, _ in submitter.poller._due._heap)
    assert counted == [1, 1, 2, 3, 4]
    assert (book.state(watched.task.key), len(submitter.poller._due)) == ("gone", 0)


async def test_a_ledger_that_cannot_be_written_stops_polling(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """The task is read again by the next run."""
    watched = watch(book, provider, submitter, COMPLETED)
    await submitter.ctx.ledger.do(lambda conn: conn.exec_driver_sql("PRAGMA query_only = ON"))
    await poll(submitter, watched)
    assert (list(submitter.ctx.stop.reasons), submitter.ctx.stop.collecting) == ([Reason.TROUBLE], True)
    assert (book.state(watched.task.key), len(submitter.poller.downloader._queue)) == ("submitted", 0)


@pytest.mark.parametrize(
    ("between", "stops"),
    [(Twist(status=500), True), (RUNNING, False), (refusal(404, "task_not_found"), False)],
    ids=["500", "running", "404"],
)
async def test_the_run_stops_once_polls_have_failed_for_long(
    book: Book, provider: FakeTTS, submitter: Submitter, between: Twist, stops: bool
) -> None:
    """Without an answer between."""
    watched = watch(book, provider, submitter, Twist(status=500))
    clock = SetClock()
    submitter.poller.gate = Gate(clock, 4)
    for answer in (Twist(status=500), between, Twist(status=500)):
        clock.at += 3600.0
        submitter.poller._due._heap.clear()
        provider.on_read = lambda _, answer=answer: answer  # type: ignore[misc]
        await poll(submitter, watched)
    stop = submitter.ctx.stop
    assert (list(stop.reasons), stop.collecting) == (([Reason.TROUBLE], True) if stops else ([], False))


async def test_the_poller_waits_for_tasks_until_no_more_come(submitter: Submitter) -> None:
    async with anyio.create_task_group() as stages:
        stages.start_soon(submitter.poller.run)
        await anyio.sleep(0.02)
        assert not submitter.poller.has_ended
        with anyio.fail_after(30.0):
            submitter.poller.no_more()
            while not submitter.poller.has_ended:  # noqa: ASYNC110
                await anyio.sleep(0.001)


async def test_a_tasks_age_counts_from_its_acceptance_in_an_earlier_run(
    book: Book, submitter: Submitter, clock: SetClock
) -> None:
    clock.at += 100.0
    submitter.poller.watch(book.submitted("task_1"), at_once=True)
    (watched,) = submitter.poller._due
    assert submitter.poller._age(watched) == 100.0
