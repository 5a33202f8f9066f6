"""Downloads share their slots fairly: nothing that is wrong with one item's audio affects another."""

from __future__ import annotations

import errno
import math
import mmap
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from batcher.audio import store as audio_store
from batcher.clock import Clock, Wakeup, local
from batcher.ledger.ledger import open_ledger
from batcher.ledger.lifecycle import collection
from batcher.ledger.queries import attention
from batcher.ledger.records import OpenTask
from batcher.pipeline.context import ApiContext
from batcher.pipeline.credit_guard import Guard
from batcher.pipeline.delivery import Delivery
from batcher.pipeline.downloader import FIRST_WAIT_SECONDS, MAX_STORED_WAIT_SECONDS, TRIES, Downloader
from batcher.pipeline.slots import Slots
from batcher.pipeline.stop import Reason
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint
from batcher.provider.limits import DownloadLimits
from batcher.settings import Settings
from batcher.throttle.gate import PATIENCE_SECONDS, Throttle
from tests.support.fake_tts import TOKEN, FakeTTS, Job, Twist, audio_of, refusal
from tests.support.ledger_kit import AT, RUN, Book, book_in, ending, run_context, sheet
from tests.support.object_store import URL, Fault, ObjectStore, reached
from tests.support.raw_server import Connection, Script, raw_server
from tests.support.virtual import HastyClock

TEXTS = [f"text {number}" for number in range(8)]
WAV = audio_of("anything", "wav")
STREAMED = WAV[:4] + b"\xff\xff\xff\xff" + WAV[8:40] + b"\xff\xff\xff\xff" + WAV[44:]
"""WAV whose header was written before its length was known."""


@pytest.fixture
def book(tmp_path: Path, provider: FakeTTS) -> Iterator[Book]:
    """A ledger with eight rendered items, whose tasks the provider has."""
    with book_in(tmp_path) as made:
        made.take_in(sheet(*TEXTS))
        for number, text in enumerate(TEXTS):
            task = made.submitted(f"task_{number}")
            provider.jobs[task.task_id] = Job(task.task_id, text, "mp3", 0.0)
            made.do(collection.record_rendered, ending(task, word="completed"))
        yield made


Run = Callable[..., AbstractAsyncContextManager[Downloader]]


@pytest.fixture
def run(book: Book, provider: FakeTTS) -> Run:
    """Starts a run's downloader, which has all open tasks, unless they are still to be `added`."""

    @asynccontextmanager
    async def started(
        clock: Clock | None = None,
        limits: DownloadLimits | None = None,
        at_once: int = 2,
        place: Path | str | None = None,
        added: bool = True,
    ) -> AsyncIterator[Downloader]:
        clock, changed, out_dir = clock or HastyClock(start_at=AT), Wakeup(), place or book.path.parent / "audio"
        with open_ledger(book.path, "real") as ledger:
            endpoint = Endpoint(provider.url, TOKEN)
            async with Client(endpoint, create_connections=1, downloads=limits) as client:
                ctx = run_context(ledger, Settings(sources=(), ledger=book.path, out_dir=out_dir), clock)
                api = ApiContext(
                    client=client,
                    account_id=book.account_id,
                    guard=Guard(ledger, clock, account_id=book.account_id, run_id=RUN),
                    throttle=Throttle(clock, creates_at_once=1, polls_at_once=4, downloads_at_once=at_once),
                    slots=Slots(4, changed, ctx.tally, clock),
                    changed=changed,
                )
                downloader = Downloader(ctx, api, Delivery(ctx=ctx, named=[]))
                if added:
                    for task in book.open_tasks():
                        downloader.add(task, None)
                    downloader.no_more()
                yield downloader

    return started


def tasks_of(book: Book) -> list[OpenTask]:
    return book.open_tasks()


class Frozen(HastyClock):
    """A clock whose time of day stands still."""

    def now(self) -> float:
        return AT


def states(book: Book) -> list[str]:
    """The items' states, in the order of their texts."""
    return [row["state"] for row in book.all("SELECT state FROM items ORDER BY length(text), text")]


def bad_first(provider: FakeTTS, number: int, twist: Twist) -> list[str]:
    """Let the first tasks' audio be bad; return the list of the tasks whose audio is asked for, as it grows."""
    asked: list[str] = []

    def audio(job: Job) -> Twist | None:
        asked.append(job.id)
        return twist if int(job.id.removeprefix("task_")) < number else None

    provider.on_audio = audio
    return asked


BAD = [
    pytest.param(Twist(status=200, body=WAV), "it does not start like mp3", id="another format"),
    pytest.param(Twist(status=200, body=b"<html>" * 50), "it is a web page or an error message, not audio", id="html"),
    pytest.param(Twist(status=206, body=audio_of("half", "mp3")), "HTTP 206 from 127.0.0.1", id="half of a file"),
    pytest.param(Twist(status=403), "its URL returns HTTP 403", id="refused"),
    pytest.param(Twist(status=500), "HTTP 500 from 127.0.0.1", id="error"),
    pytest.param(Twist(), "RemoteProtocolError: Server disconnected without sending a response.", id="no answer"),
    pytest.param(
        Twist(status=302, headers={"location": "http://xn--/x"}), "the audio URL cannot be read", id="unreadable URL"
    ),
    pytest.param(Twist(status=302, headers={"location": "file:///etc/passwd"}), "is not https but file", id="file"),
    pytest.param(
        Twist(status=200, body=b"x" * 99, headers={"content-encoding": "gzip, gzip"}), "2 content codings", id="codings"
    ),
    pytest.param(refusal(429, "slow", Retry_After="5"), "HTTP 429 from 127.0.0.1", id="throttled"),
    pytest.param(refusal(503, "slow", Retry_After="31536000"), "it asks to wait until 20", id="asks for a year"),
]


@pytest.mark.parametrize(("twist", "why"), BAD)
async def test_good_audio_is_collected_before_bad_audio_is_tried_again(
    book: Book, provider: FakeTTS, run: Run, twist: Twist, why: str
) -> None:
    """Bad items hold no slot while they wait; at the end each has its reason in the ledger, and the good ones none."""
    asked = bad_first(provider, 5, twist)
    async with run(at_once=1) as downloader:
        await downloader.run()
    assert states(book) == ["rendered"] * 5 + ["done"] * 3
    assert len(dict.fromkeys(asked[:8])) == 8
    reasons = [row["error_message"] for row in book.all("SELECT error_message FROM items ORDER BY length(text), text")]
    assert all(why in reason for reason in reasons[:5])
    assert reasons[5:] == [None] * 3
    number, listed = book.do(attention.undelivered, book.wanted, 3)
    assert (number, [row_ids for row_ids, _ in listed]) == (5, [["a"], ["b"], ["c"]])
    assert downloader.ctx.stop.reasons == {
        Reason.TROUBLE: "the audio of 5 finished tasks could not be downloaded; run it again later"
    }
    assert max(asked.count(task) for task in asked) <= TRIES


@pytest.mark.parametrize(
    ("twist", "counts"),
    [
        (Twist(status=403), True),
        (Twist(status=206, body=audio_of("half", "mp3")), True),
        (Twist(status=200, body=WAV), True),
        (Twist(status=500), False),
        (Twist(), False),
        (refusal(429, "slow"), False),
    ],
)
async def test_only_answers_without_the_audio_count_towards_giving_it_up(
    book: Book, provider: FakeTTS, run: Run, twist: Twist, counts: bool
) -> None:
    """A host that is down or busy may have it tomorrow."""
    bad_first(provider, 1, twist)
    async with run() as downloader:
        await downloader.run()
    looks = book.one("SELECT unusable_looks FROM tasks WHERE task_id = 'task_0'")["unusable_looks"]
    assert looks == (TRIES if counts else 0)


@pytest.mark.parametrize(
    ("status", "bad", "closes"), [(503, {6}, False), (503, {2, 6}, False), (503, {5, 6}, True), (429, {6}, True)]
)
async def test_a_503_between_good_downloads_slows_no_other(
    book: Book, provider: FakeTTS, run: Run, status: int, bad: set[int], closes: bool
) -> None:
    """It is the trouble of one file; several in a row, or a 429, speak of a limit."""
    downloads: list[str] = []

    def audio(job: Job) -> Twist | None:
        downloads.append(job.id)
        return refusal(status, "slow") if len(downloads) in bad else None

    provider.on_audio = audio
    async with run(at_once=1) as downloader:
        await downloader.run()
    assert states(book) == ["done"] * 8
    assert math.isfinite(downloader.gate._closure.since_at) == closes


@pytest.mark.parametrize("kind", ["poll", "download"])
async def test_the_first_success_after_several_429s_ends_the_caution_that_they_caused(
    book: Book, provider: FakeTTS, run: Run, kind: str
) -> None:
    """Until then, one request at a time leaves."""
    refused: list[str] = []

    def thrice(job: Job) -> Twist | None:
        refused.append(job.id)
        return refusal(429, "slow") if len(refused) <= 3 else None

    if kind == "poll":
        provider.on_read = thrice
    else:
        provider.on_audio = thrice
    async with run(at_once=1) as downloader:
        await downloader.run()
    assert states(book) == ["done"] * 8
    gate = downloader.api.throttle.poll if kind == "poll" else downloader.gate
    assert (math.isfinite(gate._closure.since_at), gate._closure.probing) == (True, False)


async def test_the_next_run_begins_with_what_was_never_tried(book: Book, provider: FakeTTS, run: Run) -> None:
    """Even if the run before ended during its first downloads; then with the one that failed longest ago."""
    asked = bad_first(provider, 0, Twist())
    tasks = tasks_of(book)
    late, early, cancelled = tasks[0], tasks[1], tasks[2]
    for task, at in ((late, AT + 50.0), (early, AT - 50.0)):
        book.do(collection.record_undelivered, ending(task, error_message="x"), next_try_at=at, unusable=False)
    book.do(collection.record_tried, cancelled, at=AT - 10.0)

    async with run(Frozen(), at_once=1) as downloader:
        await downloader.run()
    assert states(book) == ["done"] * 8
    order = list(dict.fromkeys(asked))
    assert set(order[:5]) == {task.task_id for task in tasks[3:]}
    assert order[5:] == [early.task_id, cancelled.task_id, late.task_id]
    assert book.all("SELECT error_message FROM items WHERE error_message IS NOT NULL") == []


async def test_a_stored_time_never_binds_the_next_run(book: Book, provider: FakeTTS, run: Run) -> None:
    """A clock that was set back, or a server that asked for a year."""
    (task, *_) = tasks_of(book)
    book.do(collection.record_undelivered, ending(task), next_try_at=AT + 3e9, unusable=False)
    async with run() as downloader:
        assert downloader._queue[-1][0] - downloader.ctx.clock.steady() <= MAX_STORED_WAIT_SECONDS
        await downloader.run()
    assert states(book) == ["done"] * 8


async def test_a_run_that_is_stopped_notes_the_downloads_under_way(
    book: Book, provider: FakeTTS, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """So four endless downloads do not begin every run of a limited time. That is no error."""
    asked = bad_first(provider, 2, Twist(status=200, body=b"x", headers={"content-length": "9999"}))
    async with raw_server(_dripping) as endless:
        provider.ending = lambda job: (
            {"audioUrl": f"{endless.origin}/{job.id}"} if job.id in ("task_0", "task_1") else {}
        )
        async with run() as downloader:
            await run_until(downloader, lambda: endless.connections == 2)
        assert asked == []
        tried = book.all("SELECT task_id FROM items WHERE not_before_at > 0 ORDER BY task_id")
        assert [row["task_id"] for row in tried] == ["task_0", "task_1"]
        assert "error" not in caplog.text
        async with run() as downloader:
            await run_until(downloader, lambda: states(book).count("done") == 6)


async def run_until(downloader: Downloader, holds: Callable[[], bool]) -> None:
    """Run until the condition holds, and then stop as `--max-runtime` does."""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(downloader.run)
            while not holds():  # noqa: ASYNC110 - what it waits for is in the ledger
                await anyio.sleep(0.02)
            group.cancel_scope.cancel()


async def _dripping(connection: Connection) -> None:
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n")
    while True:
        await connection.send(b"x" * 100)
        await anyio.sleep(0.01)


async def test_a_late_download_is_left_to_the_next_run(book: Book, provider: FakeTTS, run: Run) -> None:
    """A second attempt would take as long; a slow one may have met a short trouble and is tried again."""
    async with raw_server(_dripping) as endless:
        provider.ending = lambda job: {"audioUrl": f"{endless.origin}/{job.id}"} if job.id == "task_5" else {}
        late = DownloadLimits(seconds=0.2, seconds_per_character=0.0, window_seconds=9.0)
        async with run(limits=late) as downloader:
            await downloader.run()
        assert endless.connections == 1
        slow = DownloadLimits(window_seconds=0.05, bytes_per_second=1e6)
        async with run(limits=slow) as downloader:
            await downloader.run()
        assert endless.connections == 1 + TRIES
    assert states(book).count("done") == 7
    reason = book.one("SELECT error_message FROM items WHERE state = 'rendered'")["error_message"]
    assert reason.startswith("slower than 1,000,000 bytes a second")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_an_expired_url_is_replaced_at_once(
    book: Book, provider: FakeTTS, run: Run, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """It is no failure: nothing waits, and nothing counts towards giving the audio up."""
    provider.on_audio = lambda job: Twist(status=status) if job.reads == 0 else None
    async with run() as downloader:
        for due, order, wanted in downloader._queue:
            wanted.url = f"{provider._audio_origin}/{wanted.task.task_id}.mp3?old"
            assert (due, order >= 0) == (float("-inf"), True)
        await downloader.run()
    assert states(book) == ["done"] * 8
    assert book.one("SELECT max(unusable_looks) AS most FROM tasks") == {"most": 0}
    assert {job.downloads for job in provider.jobs.values()} == {2}
    assert "download failed" not in caplog.text


async def test_an_unexpected_error_ends_only_its_own_attempt(
    book: Book, provider: FakeTTS, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = mmap.mmap, iter(range(999))

    def fail_once(*args: Any, **options: Any) -> mmap.mmap:
        if next(calls) == 0:
            raise ValueError("made up")
        return real(*args, **options)

    monkeypatch.setattr(mmap, "mmap", fail_once)
    async with run() as downloader:
        await downloader.run()
    assert states(book) == ["done"] * 8
    assert sum(job.downloads for job in provider.jobs.values()) == 9


async def test_rejected_audio_is_readable_only_by_its_owner(book: Book, provider: FakeTTS, run: Run) -> None:
    bad_first(provider, 1, Twist(status=200, body=b"<html>" * 50))
    async with run() as downloader:
        await downloader.run()
        store = downloader.ctx.store
        (bad,) = [path for task in tasks_of(book) for path in store.bad(task.key)]
    assert stat.S_IMODE(Path(bad).stat().st_mode) == 0o600


def delimited_by_its_end(*bodies: bytes) -> Script:
    """Answer with these bodies in turn, each of which ends where its connection does; the last one repeats."""
    left = list(bodies)

    async def script(connection: Connection) -> None:
        await connection.request()
        body = left.pop(0) if len(left) > 1 else left[0]
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)

    return script


MP3 = audio_of("text 0", "mp3")


@pytest.mark.parametrize(
    ("audio_format", "bodies", "downloads", "why"),
    [
        ("mp3", [MP3], 1, None),
        ("mp3", [MP3[:-1], MP3], 2, None),
        ("mp3", [MP3[:-1]], TRIES, "it was cut off: its last frame is not complete"),
        ("wav", [WAV], 1, None),
        ("wav", [WAV[:-1]], TRIES, "it was cut off: "),
        ("wav", [STREAMED], 2, None),
        ("wav", [STREAMED[:-4], STREAMED], 3, None),
        ("pcm", [WAV[44:]], 2, None),
    ],
)
async def test_audio_that_http_does_not_delimit_is_verified_by_its_frames_or_by_a_second_download(
    book: Book, provider: FakeTTS, run: Run, audio_format: str, bodies: list[bytes], downloads: int, why: str | None
) -> None:
    task = replace(tasks_of(book)[0], format=audio_format)
    async with raw_server(delimited_by_its_end(*bodies)) as audio:
        provider.ending = lambda _: {"audioUrl": f"{audio.origin}/x"}
        async with run() as downloader:
            downloader._queue.clear()
            downloader.add(task, None)
            await downloader.run()
        assert audio.connections == downloads
    item = book.item(task.key)
    assert item["state"] == ("done" if why is None else "rendered")
    assert (item["error_message"] or "").startswith(why or "")


async def test_a_host_that_refuses_everything_does_not_hold_a_run_for_each_file(
    book: Book, provider: FakeTTS, run: Run
) -> None:
    """What it has not asked for by then is left to the next run, which begins with that."""
    more = [f"more {number}" for number in range(20)]
    book.take_in(sheet(*TEXTS, *more))
    for number, text in enumerate(more, len(TEXTS)):
        task = book.submitted(f"task_{number}")
        provider.jobs[task.task_id] = Job(task.task_id, text, "mp3", 0.0)
        book.do(collection.record_rendered, ending(task, word="completed"))
    asked = bad_first(provider, len(TEXTS) + len(more), refusal(429, "slow"))
    clock = HastyClock(start_at=AT)
    begun = clock.steady()
    async with run(clock) as downloader:
        await downloader.run()
    assert clock.steady() - begun < 4 * PATIENCE_SECONDS
    first = set(asked)
    assert len(first) < len(TEXTS) + len(more)
    (why,) = downloader.ctx.stop.reasons.values()
    assert why == "the audio of 28 finished tasks could not be downloaded; run it again later"
    asked.clear()
    async with run(HastyClock(start_at=AT)) as downloader:
        await downloader.run()
    assert asked[0] not in first


async def test_audio_is_collected_as_tasks_end_until_there_are_no_more(book: Book, provider: FakeTTS, run: Run) -> None:
    """The downloader waits for more when it has none, and ends as soon as it knows that none will come."""
    tasks = tasks_of(book)
    async with run(added=False) as downloader:
        with anyio.fail_after(5.0):
            async with anyio.create_task_group() as group:
                group.start_soon(downloader.run)
                for number, task in enumerate(tasks[:2], 1):
                    await anyio.wait_all_tasks_blocked()
                    downloader.add(task, None)
                    while downloader.ctx.tally.done < number:  # noqa: ASYNC110 - several events change it
                        await anyio.sleep(0.005)
                await anyio.wait_all_tasks_blocked()
                downloader.no_more()
    assert states(book) == ["done"] * 2 + ["rendered"] * 6


async def test_what_is_downloaded_is_counted(book: Book, provider: FakeTTS, run: Run) -> None:
    """Each request, and what is still to be downloaded."""
    asked = bad_first(provider, 1, Twist(status=500))
    async with run() as downloader:
        tally = downloader.ctx.tally
        assert tally.to_download == 8
        await downloader.run()
    assert (tally.done, tally.to_download, tally.ended) == (7, 1, 0)
    assert tally.requests() == {"create": 0, "poll": len(asked), "download": len(asked), "throttled": 0}


def task_said(**fields: Any) -> Twist:
    """An answer to a read of the first task."""
    return Twist(status=200, body={"id": "task_0"} | fields)


@pytest.mark.parametrize(
    ("said", "why", "unusable"),
    [
        (task_said(status="completed"), "status completed, no audio URL", True),
        (task_said(status="processing"), "status processing, no audio URL", True),
        (task_said(status="processing", audioUrl="https://127.0.0.1/x"), "status processing", False),
        (task_said(status="failed", audioUrl="https://127.0.0.1/x"), "status failed", True),
        (refusal(404, "task_not_found"), "the API does not know the task", True),
        (Twist(status=500), "cannot read its task: ", False),
        (refusal(429, "slow", Retry_After="5"), "cannot read its task: ", False),
    ],
)
async def test_a_task_without_audio_is_read_again_a_few_times(
    book: Book, provider: FakeTTS, run: Run, said: Twist, why: str, unusable: bool
) -> None:
    """The ledger has the reason. Only a definite answer counts towards giving the audio up."""
    provider.on_read = lambda job: said if job.id == "task_0" else None
    async with run() as downloader:
        await downloader.run()
    first, job = book.item(tasks_of(book)[0].key), provider.jobs["task_0"]
    assert (states(book), job.reads, job.downloads) == (["rendered"] + ["done"] * 7, TRIES, 0)
    assert first["error_message"] == why or (why.endswith(": ") and first["error_message"].startswith(why))
    assert (first["error_code"], first["error_http_status"]) == ("no_audio", said.status)
    assert book.one("SELECT unusable_looks AS n FROM tasks WHERE task_id = 'task_0'") == {"n": TRIES * unusable}
    assert list(downloader.ctx.stop.reasons) == [Reason.TROUBLE]
    assert not downloader.ctx.stop.collecting


@pytest.mark.parametrize(
    ("said", "reason", "why"),
    [
        (refusal(401, "revoked"), Reason.CREDENTIALS, "401"),
        (refusal(429, "slow", Retry_After="901"), Reason.TROUBLE, "the API asks to wait until "),
    ],
)
async def test_a_read_that_is_refused_for_its_token_or_for_long_stops_the_run(
    book: Book, provider: FakeTTS, run: Run, said: Twist, reason: Reason, why: str
) -> None:
    """The audio stays for the next run."""
    provider.on_read = lambda _: said
    async with run() as downloader:
        await run_until(downloader, lambda: downloader.ctx.stop.collecting)
    assert why in downloader.ctx.stop.reasons[reason]
    assert states(book) == ["rendered"] * 8
    assert book.one("SELECT max(unusable_looks) AS most FROM tasks") == {"most": 0}


@pytest.mark.parametrize(
    ("expires_at", "reads"),
    [(None, 0), (AT + 1.0, 0), (AT, 1), (AT - 1.0, 1)],
    ids=["never", "later", "now", "expired"],
)
async def test_an_audio_url_is_used_until_it_expires(
    book: Book, provider: FakeTTS, run: Run, expires_at: float | None, reads: int
) -> None:
    """Then the task is read for another."""
    task = tasks_of(book)[0]
    async with run(Frozen(start_at=AT)) as downloader:
        downloader._queue.clear()
        downloader.add(task, f"{provider._audio_origin}/{task.task_id}.mp3?old", expires_at=expires_at)
        await downloader.run()
    job = provider.jobs[task.task_id]
    assert (book.state(task.key), job.reads, job.downloads) == ("done", reads, 1)


@pytest.mark.parametrize("wanted", [True, False])
async def test_audio_that_was_unusable_for_long_is_given_up(
    book: Book, provider: FakeTTS, run: Run, wanted: bool
) -> None:
    """Its item is gone. It counts as ended if a row of the run needs it, and no later run will download it."""
    book.execute("UPDATE tasks SET unusable_looks = 99, unusable_since_at = 1.0 WHERE task_id = 'task_0'")
    bad_first(provider, 1, Twist(status=403))
    task = replace(tasks_of(book)[0], wanted=wanted)
    async with run() as downloader:
        downloader._queue.clear()
        downloader.ctx.tally.to_download = 0
        downloader.add(task, None)
        await downloader.run()
    tally = downloader.ctx.tally
    assert (book.state(task.key), tally.to_download, tally.ended) == ("gone", 0, int(wanted))
    assert downloader.ctx.stop.reasons == {}


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize(("seconds", "asked"), [(901, 1), (900, TRIES)])
async def test_a_wait_that_is_too_long_for_a_run_leaves_the_audio_to_the_next(
    book: Book, provider: FakeTTS, run: Run, status: int, seconds: int, asked: int
) -> None:
    """A shorter one is kept."""
    bad = bad_first(provider, 1, refusal(status, "slow", Retry_After=str(seconds)))
    clock = Frozen(50.0)
    async with run(clock) as downloader:
        await downloader.run()
    assert bad.count("task_0") == asked
    assert clock.steady() >= (asked - 1) * seconds
    left = book.one("SELECT not_before_at, error_message FROM items WHERE state = 'rendered'")
    if asked == 1:
        assert left["not_before_at"] > AT
        assert left["error_message"].endswith(f"; it asks to wait until {local(AT + seconds)}")
    else:
        assert left["not_before_at"] >= AT + seconds


async def test_the_wait_after_a_failed_download_doubles(
    book: Book, provider: FakeTTS, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is up to a quarter longer, so that not all come at once. The ledger has it, and the run keeps it."""
    monkeypatch.setattr("batcher.pipeline.downloader.TRIES", 4)
    due: list[float] = []
    asked: list[float] = []
    async with run(Frozen(0.05), added=False) as downloader:

        def audio(_: Job) -> Twist:
            due.append(book.one("SELECT not_before_at FROM items WHERE task_id = 'task_0'")["not_before_at"])
            asked.append(downloader.ctx.clock.steady())
            return Twist(status=500)

        provider.on_audio = audio
        downloader.add(tasks_of(book)[0], None)
        downloader.no_more()
        await downloader.run()
    waits = [at - AT for at in due[1:]]
    assert len(waits) == 3
    for number, wait in enumerate(waits):
        least = FIRST_WAIT_SECONDS * 2**number
        assert least <= wait + 1e-6 <= 1.25 * least + 1e-5
        assert asked[number + 1] - asked[number] >= wait - 1e-6


@pytest.mark.parametrize(("spare", "state"), [(0, "done"), (-1, "rendered")])
async def test_audio_longer_than_any_speech_of_its_text_is_cut_off_and_set_aside(
    book: Book, provider: FakeTTS, run: Run, monkeypatch: pytest.MonkeyPatch, spare: int, state: str
) -> None:
    """Its beginning is left for inspection, and it counts towards giving the audio up."""
    body = MP3 * (400_000 // len(MP3))
    provider.on_audio = lambda _: Twist(status=200, body=body)
    monkeypatch.setattr("batcher.audio.checks._MAX_BYTES", len(body) + spare)
    monkeypatch.setattr("batcher.audio.checks._MAX_BYTES_PER_CHARACTER", 0)
    monkeypatch.setattr("batcher.pipeline.downloader._SAMPLE_BYTES", 10)
    task = tasks_of(book)[0]
    async with run(added=False) as downloader:
        downloader.add(task, None)
        downloader.no_more()
        await downloader.run()
    assert book.state(task.key) == state
    bad = [Path(path).read_bytes() for path in downloader.ctx.store.bad(task.key)]
    assert bad == [body[:10]] * (state == "rendered")
    if bad:
        assert book.item(task.key)["error_message"] == "longer than any speech of its text"
        assert book.one("SELECT max(unusable_looks) AS most FROM tasks") == {"most": TRIES}


async def test_audio_that_http_shows_to_be_whole_is_accepted_as_the_api_made_it(
    book: Book, provider: FakeTTS, run: Run
) -> None:
    """Even if its last frame is not complete: another download would be the same."""
    provider.on_audio = lambda _: Twist(status=200, body=MP3[:-1])
    async with run() as downloader:
        await downloader.run()
    assert states(book) == ["done"] * 8
    assert {job.downloads for job in provider.jobs.values()} == {1}


async def test_a_full_disk_stops_the_run(
    book: Book, provider: FakeTTS, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the file that could not be written, and what to do."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with run() as downloader:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            await run_until(downloader, lambda: downloader.ctx.stop.collecting)
    assert states(book).count("rendered") >= 7
    why = downloader.ctx.stop.reasons[Reason.TROUBLE]
    assert why.startswith(f"cannot write audio to {downloader.ctx.store.place}/.items/")
    assert why.endswith(".part: No space left on device. Free some space or fix the folder, then run it again.")


async def test_a_folder_that_cannot_be_written_is_named(book: Book, provider: FakeTTS, run: Run) -> None:
    async with run() as downloader:
        store = downloader.ctx.store
        Path(store.shown(".items")).parent.mkdir()
        Path(store.shown(".items")).write_text("a file")
        await run_until(downloader, lambda: downloader.ctx.stop.collecting)
    why = downloader.ctx.stop.reasons[Reason.TROUBLE]
    assert why.startswith(f"cannot write audio to {store.shown('.items')}/")
    assert ".part" not in why


async def test_a_ledger_that_cannot_be_written_stops_the_run(book: Book, provider: FakeTTS, run: Run) -> None:
    """What was downloaded is not lost: the next run downloads it again."""
    async with run() as downloader:
        await downloader.ctx.ledger.do(lambda conn: conn.exec_driver_sql("PRAGMA query_only = ON"))
        await run_until(downloader, lambda: downloader.ctx.stop.collecting)
    assert Reason.TROUBLE in downloader.ctx.stop.reasons
    assert states(book) == ["rendered"] * 8
    async with run() as downloader:
        await downloader.run()
    assert states(book) == ["done"] * 8


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with reached(tmp_path / "store", monkeypatch) as store:
        yield store


async def test_an_object_store_that_denies_access_stops_the_run(
    book: Book, provider: FakeTTS, run: Run, bucket: ObjectStore
) -> None:
    bucket.faults = lambda method, _: Fault.DENIED if method == "PUT" else None
    async with run(place=URL) as downloader:
        await run_until(downloader, lambda: downloader.ctx.stop.collecting)
    why = downloader.ctx.stop.reasons[Reason.TROUBLE]
    assert why.startswith(f"cannot write audio to {URL}/.items/")
    assert why.endswith("Check your credentials, then run it again.")


async def test_bad_audio_that_cannot_be_set_aside_is_a_failure_like_others(
    book: Book, provider: FakeTTS, run: Run, bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The object store is out of reach for it; the run goes on."""
    monkeypatch.setattr("batcher.audio.objects.RETRIES", 0)
    bucket.faults = lambda method, key: Fault.DOWN if method == "PUT" and key.endswith(audio_store.BAD) else None
    bad_first(provider, 1, Twist(status=200, body=b"<html>" * 50))
    async with run(place=URL) as downloader:
        await downloader.run()
    assert states(book) == ["rendered"] + ["done"] * 7
    assert book.item(tasks_of(book)[0].key)["error_message"] == "it is a web page or an error message, not audio"
    assert not downloader.ctx.stop.collecting
    assert book.one("SELECT max(unusable_looks) AS most FROM tasks") == {"most": TRIES}


async def test_nothing_more_is_downloaded_while_the_object_store_is_out_of_reach(
    book: Book, provider: FakeTTS, run: Run
) -> None:
    """Afterwards all is collected."""
    asked = bad_first(provider, 0, Twist())
    async with run() as downloader:
        downloader._outage._since = 0.0
        async with anyio.create_task_group() as group:
            group.start_soon(downloader.run)
            await anyio.wait_all_tasks_blocked()
            assert (asked, provider.jobs["task_0"].reads) == ([], 0)
            downloader._outage._end()
    assert states(book) == ["done"] * 8
