"""From rendered to done: downloads the audio, verifies it, makes it durable, and links it to its rows.

If an audio URL is missing, expired, refused or wrong, the task is read again for a fresh one. An item whose download
failed waits behind those that were never tried, in the next run too, and holds no slot meanwhile. Audio that cannot be
downloaded in this run stays rendered for the next. While an object store is out of reach, nothing more is downloaded.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import TaskGroup

from batcher import files
from batcher.audio import checks
from batcher.audio.objects import OutageError
from batcher.audio.verdict import End
from batcher.clock import Wakeup, local
from batcher.errors import StorageError
from batcher.formatting import counted
from batcher.ledger.lifecycle import collection
from batcher.ledger.records import FileRecord, OpenTask, TaskEnd
from batcher.pipeline.connection import token_rejected
from batcher.pipeline.context import ApiContext, RunContext
from batcher.pipeline.delivery import Delivery
from batcher.pipeline.outage import Outage
from batcher.pipeline.refusal import refused
from batcher.pipeline.stop import Reason
from batcher.provider.answers import ApiError, Cause, Fetched, Phase
from batcher.provider.limits import PATIENT_RETRY_AFTER_SECONDS
from batcher.throttle.gate import PATIENCE_SECONDS, Gate, Sent

if TYPE_CHECKING:
    from batcher.provider.client import Client

_REFUSALS: Final = (400, 401, 403, 404, 410)
"""HTTP statuses that make a URL count as unusable."""
_SAMPLE_BYTES: Final = 1 << 20
"""Maximum bytes stored for inspection of audio that is too long."""
TRIES: Final = 6
"""Attempts to download the audio of one task in one run; then it is left to the next run."""
FIRST_WAIT_SECONDS: Final = 0.5
"""Wait after the first failed attempt; it doubles with each."""
MAX_STORED_WAIT_SECONDS: Final = 60.0
"""Longest wait for a next attempt that an earlier run has stored."""


class TooLongError(Exception):
    """The audio is longer than any speech of the text."""


class _FailedError(Exception):
    """An attempt failed.

    `unusable`: the API returned no audio, or something else, which is `stored` for inspection. `asked_seconds`: wait at
    least this long. `is_last`: leave the rest to the next run.
    """

    def __init__(
        self,
        why: str,
        *,
        unusable: bool = False,
        stored: str | None = None,
        error: ApiError | None = None,
        asked_seconds: float = 0.0,
        is_last: bool = False,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.unusable = unusable
        self.stored = stored
        self.error = error or ApiError()
        self.asked_seconds = asked_seconds
        self.is_last = is_last


@dataclass(kw_only=True, eq=False)
class _Wanted:
    """Audio to be collected. `url` is from the latest poll of its task, None once it was used."""

    task: OpenTask
    url: str | None
    expires_at: float | None
    failures: int = 0  # in this run
    unproven: str | None = None  # SHA-256 of a download that may be incomplete


class Downloader:
    """Collects rendered audio into the store."""

    def __init__(self, ctx: RunContext, api: ApiContext, delivery: Delivery) -> None:
        self.ctx = ctx
        self.api = api
        self._delivery = delivery
        self._queue: list[tuple[float, int, _Wanted]] = []  # by due time in steady seconds
        self._order = itertools.count()
        self._changed = Wakeup()
        self._closing = False
        self._fetching = 0  # slots taken
        self._unfinished = 0  # items that may be queued again
        self._left = 0  # items left to the next run
        self._refused: tuple[float, float] | None = None  # first and last time, in steady seconds; None after a success
        self._outage = Outage(ctx, self._changed)

    @property
    def gate(self) -> Gate:
        """The limits on downloads."""
        return self.api.throttle.download

    def add(self, task: OpenTask, url: str | None, *, expires_at: float | None = None) -> None:
        """Collect the audio of `task`; the task is read for a URL if there is none, or if it has expired by then."""
        self.ctx.tally.to_download += 1
        self._enqueue(_Wanted(task=task, url=url, expires_at=expires_at), self._stored_wait(task))

    def no_more(self) -> None:
        """Accept no more tasks: finish when all audio is collected."""
        self._closing = True
        self._changed.ring()

    async def run(self) -> None:
        """Collect the audio of added tasks, until `no_more` was called and none is left."""
        try:
            async with anyio.create_task_group() as fetches:
                while self._queue or self._unfinished or not self._closing:
                    await self._step(fetches)
        finally:
            if self._left:
                what = counted(self._left, "finished task")
                message = f"the audio of {what} could not be downloaded; run it again later"
                self.ctx.stop.reasons.setdefault(Reason.TROUBLE, message)

    async def _step(self, fetches: TaskGroup) -> None:
        """Start the next download that is due, or wait for one."""
        if not self._queue or self._fetching >= self.gate.size or self._outage.is_on:
            await self._changed.wait(self.ctx.clock)
        elif (wait := self._queue[0][0] - self.ctx.clock.steady()) > 0:
            await self._changed.wait(self.ctx.clock, seconds=wait)
        else:
            self._fetching += 1
            self._unfinished += 1
            fetches.start_soon(self._collect, heapq.heappop(self._queue)[2])

    def _enqueue(self, wanted: _Wanted, wait: float) -> None:
        heapq.heappush(self._queue, (self.ctx.clock.steady() + wait, next(self._order), wanted))
        self._changed.ring()

    def _stored_wait(self, task: OpenTask) -> float:
        """Seconds until the next attempt is due; the longer ago, the sooner. An item that was never tried is first."""
        if not task.next_try_at:
            return -math.inf
        return min(task.next_try_at - self.ctx.clock.now(), MAX_STORED_WAIT_SECONDS)

    async def _collect(self, wanted: _Wanted) -> None:
        """Make one attempt: deliver the audio, or note why that failed and when to try again."""
        try:
            try:
                file = await self._attempt(wanted)
            except _FailedError as failure:
                await self._note_failure(wanted, failure)
            else:
                await self._outage.outlast(partial(self._delivery.deliver, wanted.task, file))
        except StorageError as error:
            self.ctx.stop.stop_all(Reason.TROUBLE, error.one_line())
        except OSError as error:
            # Unlike an open, a failed write does not name its file.
            where = error.filename or self.ctx.store.part(self._path(wanted.task))
            remedy = "Check your credentials" if files.is_url(str(where)) else "Free some space or fix the folder"
            hint = f"{remedy}, then run it again."
            self.ctx.stop.stop_all(Reason.TROUBLE, f"cannot write audio to {where}: {error.strerror}. {hint}")
        finally:
            self._unfinished -= 1
            self._changed.ring()

    async def _attempt(self, wanted: _Wanted) -> FileRecord:
        """The item's verified part file.

        Raises:
            _FailedError: there is none. Errors of one item's URL, answer or file end only that attempt.
            StorageError: the ledger cannot be written.
            OSError: the audio cannot be written.
        """
        try:
            return await self._verified(wanted, *await self._downloaded(wanted))
        except (_FailedError, StorageError, OSError):
            raise
        except Exception as error:
            self._log(wanted.task).error("unexpected error in a download", kind=type(error).__name__)
            raise _FailedError(f"unexpected {type(error).__name__}") from error

    def _log(self, task: OpenTask) -> Any:
        return self.ctx.items.of(task.key, task.attempt, task.task_id, endpoint="download")

    async def _downloaded(self, wanted: _Wanted) -> tuple[Fetched, str]:
        """Download into the part file, while holding a slot. Returns the result and the SHA-256."""
        try:
            async with self.gate.slot() as sent:
                # The slot comes first: a URL may be valid for only seconds.
                url, wanted.url = self._unexpired(wanted), None
                if url is not None:
                    fetched, sha256 = await self._stream(wanted.task, url)
                if url is None or fetched.http_status in _REFUSALS:
                    fetched, sha256 = await self._stream(wanted.task, await self._fresh_url(wanted.task))
                if fetched.ok:
                    self.gate.succeeded(sent)
                    self._refused = None
                    return fetched, sha256
                if fetched.http_status in (429, 503):
                    self._note_refusal(sent, fetched.http_status)
        except anyio.get_cancelled_exc_class():
            await self._note_tried(wanted.task)
            raise
        finally:
            self._fetching -= 1
            self._changed.ring()
        raise self._failure(fetched)

    def _note_refusal(self, sent: Sent, status: int) -> None:
        """Pause all downloads, only briefly: other audio may be elsewhere. Drop what waits if that does not help.

        By then each attempt takes a minute. The next run begins with what was never tried.

        A 503 between successes is the trouble of one file. As a limit it would set the rate to that at which tasks
        happen to end, and the downloads after it would pile up.
        """
        is_single = status == 503 and self._refused is None
        if not is_single:
            self.gate.close(sent)
        now = self.ctx.clock.steady()
        first, last = self._refused or (now, now)
        # After a longer time, nothing was asked for meanwhile.
        self._refused = (first if now - last <= PATIENCE_SECONDS else now, now)
        if self._is_refused_for_good():
            self._left += len(self._queue)
            self._queue.clear()

    def _is_refused_for_good(self) -> bool:
        return self._refused is not None and self._refused[1] - self._refused[0] >= PATIENCE_SECONDS

    def _unexpired(self, wanted: _Wanted) -> str | None:
        # A fresh URL is tried even if it seems to have expired: the clocks may differ.
        has_expired = wanted.expires_at is not None and wanted.expires_at <= self.ctx.clock.now()
        return None if has_expired else wanted.url

    def _failure(self, fetched: Fetched) -> _FailedError:
        error = ApiError(http_status=fetched.http_status)
        if fetched.http_status in _REFUSALS:
            return _FailedError(f"its URL returns HTTP {fetched.http_status}", unusable=True, error=error)
        asked, why = fetched.retry_after_seconds or 0.0, fetched.reason or "no answer"
        if 200 < (fetched.http_status or 0) < 300:  # something other than the whole file
            return _FailedError(why, unusable=True, error=error)
        if asked > PATIENT_RETRY_AFTER_SECONDS:
            why = f"{why}; it asks to wait until {local(self.ctx.clock.now() + asked)}"
            return _FailedError(why, error=error, is_last=True)
        is_last = fetched.is_late or self._is_refused_for_good()
        return _FailedError(why, error=error, asked_seconds=asked, is_last=is_last)

    async def _note_failure(self, wanted: _Wanted, failure: _FailedError) -> None:
        task, now = wanted.task, self.ctx.clock.now()
        stored = f"; stored as {failure.stored} for inspection" if failure.stored is not None else ""
        self._log(task).warning("download failed", status=failure.error.http_status, why=f"{failure.why}{stored}")
        wait = FIRST_WAIT_SECONDS * 2**wanted.failures * (1 + 0.25 * self.ctx.clock.chance())
        wait = max(wait, failure.asked_seconds)
        ending = TaskEnd(
            task=task,
            at=now,
            run_id=self.ctx.run_id,
            polls=0,
            error_code="no_audio",
            error_message=failure.why,
            request_id=failure.error.request_id,
            http_status=failure.error.http_status,
        )
        is_gone = await self.ctx.ledger.do(
            collection.record_undelivered, ending, next_try_at=now + wait, unusable=failure.unusable
        )
        wanted.failures += 1
        if not is_gone and wanted.failures < TRIES and not failure.is_last:
            self._enqueue(wanted, wait)
        else:
            self._left += not is_gone
            self.ctx.tally.to_download -= is_gone
            self.ctx.tally.ended += is_gone and task.wanted

    async def _note_tried(self, task: OpenTask) -> None:
        with anyio.CancelScope(shield=True):
            await self.ctx.ledger.do(collection.record_tried, task, at=self.ctx.clock.now())

    async def _fresh_url(self, task: OpenTask) -> str:
        """Read the task for a URL.

        Raises:
            _FailedError: the API returns none.
        """
        poll = self.api.throttle.poll
        async with poll.slot() as sent:
            answer = await self.api.client.read(task.task_id)
        self.ctx.tally.polls += 1
        found = answer.task
        if answer.cause is Cause.OK and found is not None:
            poll.succeeded(sent)
            if found.phase is Phase.SUCCEEDED and found.audio_url is not None:
                return found.audio_url
            is_running = found.phase is Phase.RUNNING and found.audio_url is not None
            why = f"status {found.word}" if found.audio_url is not None else f"status {found.word}, no audio URL"
            raise _FailedError(why, unusable=not is_running, error=answer.error)
        if answer.cause is Cause.CREDENTIALS:
            self.ctx.stop.stop_all(Reason.CREDENTIALS, token_rejected(answer).one_line())
        elif answer.cause is Cause.THROTTLED:
            stop = self.ctx.stop.stop_all
            refused(self.ctx, poll, sent, answer.retry_after_seconds, what="polling", stop=stop)
        elif answer.cause is Cause.NOT_FOUND:
            raise _FailedError("the API does not know the task", unusable=True, error=answer.error)
        raise _FailedError(f"cannot read its task: {answer.explain()}", error=answer.error)

    async def _stream(self, task: OpenTask, url: str) -> tuple[Fetched, str]:
        try:
            return await stream(self.api.client, url, self.ctx.store.part(self._path(task)), task.chars)
        except TooLongError:
            raise await self._not_audio(task, "longer than any speech of its text") from None
        finally:
            self.ctx.tally.downloads += 1

    async def _verified(self, wanted: _Wanted, fetched: Fetched, sha256: str) -> FileRecord:
        """Check the downloaded part.

        Raises:
            _FailedError: it is not the audio, or may not be all of it.
        """
        task, path = wanted.task, self._path(wanted.task)
        examine = self._delivery.linker.disk.do
        verdict = await examine(checks.examine, self.ctx.store.part(path), task.format, task.chars)
        if verdict.fault is not None:
            raise await self._not_audio(task, verdict.fault)
        if not fetched.is_whole and verdict.end is End.CUT:
            raise await self._not_audio(task, f"it was cut off: {verdict.end.value}")
        if not fetched.is_whole and verdict.end is End.OPEN and wanted.unproven != sha256:
            wanted.unproven = sha256
            raise _FailedError("neither HTTP nor the format shows that it is complete; downloading again to compare")
        return FileRecord(path=path, sha256=sha256, bytes=fetched.bytes)

    async def _not_audio(self, task: OpenTask, why: str) -> _FailedError:
        try:
            bad = await self._delivery.linker.disk.do(self.ctx.store.keep_bad, self._path(task))
        except OutageError:
            bad = None
        return _FailedError(why, unusable=True, stored=bad)

    def _path(self, task: OpenTask) -> str:
        return self.ctx.store.item_path(task.key, task.format)


async def stream(client: Client, url: str, part: Path, chars: int) -> tuple[Fetched, str]:
    """Download the speech of a text of `chars` characters into `part`. Returns the result and its SHA-256.

    Raises:
        TooLongError: no speech of that text is this long; its first MiB is left in `part` for inspection.
        OSError: the disk is full or refuses writes.
    """
    seen = hashlib.sha256()
    limit = checks.most_bytes(chars)

    with os.fdopen(files.create(part), "wb") as file:

        def sink(chunk: bytes) -> None:
            if file.tell() + len(chunk) > limit:
                file.truncate(_SAMPLE_BYTES)
                raise TooLongError
            seen.update(chunk)
            file.write(chunk)

        fetched = await client.fetch(url, sink, chars=chars)
    return fetched, seen.hexdigest()
