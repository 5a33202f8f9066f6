"""From rendered to done: downloads the audio, verifies it, makes it durable, and links it to its rows.

If an audio URL is missing, expired, refused or wrong, the task is read again for a fresh one. Audio that cannot be
downloaded in this run stays rendered for the next.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from batcher.audio import checks
from batcher.errors import StorageError
from batcher.ledger.lifecycle import collection
from batcher.ledger.records import FileRecord, OpenTask, TaskEnd
from batcher.log import log
from batcher.pipeline.connection import token_rejected
from batcher.pipeline.context import ApiContext, RunContext
from batcher.pipeline.delivery import Delivery
from batcher.pipeline.stop import Reason
from batcher.provider.answers import Answer, Cause, Fetched, Phase

if TYPE_CHECKING:
    from batcher.provider.client import Client

_REFUSALS: Final = (400, 401, 403, 404, 410)
"""HTTP statuses that make a URL count as unusable."""
_SAMPLE_BYTES: Final = 1 << 20
"""Maximum bytes stored for inspection of audio that is too long."""
TRIES: Final = 6
"""Attempts to download the audio of one task in one run; then it is left to the next run."""


class TooLongError(Exception):
    """The audio is longer than any speech of the text."""


class _GoneError(Exception):
    """The audio has been unusable for over a day, so the item is given up."""


class Downloader:
    """Collects rendered audio into the store."""

    def __init__(self, ctx: RunContext, api: ApiContext, delivery: Delivery) -> None:
        self.ctx = ctx
        self.api = api
        self.gate = api.throttle.download
        self._delivery = delivery
        self._waiting: list[tuple[OpenTask, str | None, float | None]] = []
        self._more = anyio.Event()
        self._closing = False
        self._fetching = 0

    def add(self, task: OpenTask, url: str | None, *, expires_at: float | None = None) -> None:
        """Collect the audio of `task`; the task is read for a URL if there is none, or if it has expired by then."""
        self._waiting.append((task, url, expires_at))
        self._more.set()

    def no_more(self) -> None:
        """Accept no more tasks: finish when all audio is collected."""
        self._closing = True
        self._more.set()

    async def run(self) -> None:
        """Collect the audio of added tasks, until `no_more` was called and none is left."""
        async with anyio.create_task_group() as fetches:
            while self._waiting or not self._closing:
                if not self._waiting or self._fetching >= self.gate.size:
                    self._more = anyio.Event()
                    await self._more.wait()
                    continue
                self._fetching += 1
                fetches.start_soon(self._collect, *self._waiting.pop(0))

    async def _collect(self, task: OpenTask, url: str | None, expires_at: float | None) -> None:
        # A fresh URL is tried even if it seems to have expired: the clocks may differ.
        if expires_at is not None and expires_at <= self.ctx.clock.now():
            url = None
        try:
            file = await self._fetched(task, url)
            if file is not None:
                with anyio.CancelScope(shield=True):
                    await self._delivery.deliver(task, file)
        except _GoneError:
            pass
        except StorageError as error:
            self.ctx.stop.stop_all(Reason.TROUBLE, error.one_line())
        except OSError as error:
            # Unlike an open, a failed write does not name its file.
            where = error.filename or self.ctx.store.part(self.ctx.store.item_path(task.key, task.format))
            hint = "Free some space or fix the folder, then run it again."
            self.ctx.stop.stop_all(Reason.TROUBLE, f"cannot write audio to {where}: {error.strerror}. {hint}")

    async def _fetched(self, task: OpenTask, url: str | None) -> FileRecord | None:
        """The item's verified part file; None if it is left to the next run."""
        try:
            return await self._try_repeatedly(task, url)
        finally:
            self._fetching -= 1
            self._more.set()

    async def _try_repeatedly(self, task: OpenTask, url: str | None) -> FileRecord | None:
        wait = 0.5
        for _ in range(TRIES):
            if url is None:
                url = await self._fresh_url(task)
            if url is not None and (file := await self._fetch(task, url)) is not None:
                return file
            url = None
            await self.ctx.clock.sleep(wait * (1 + 0.25 * self.ctx.clock.chance()))
            wait *= 2
        self.ctx.stop.reasons.setdefault(Reason.TROUBLE, "the audio of finished tasks could not be downloaded")
        return None

    async def _fresh_url(self, task: OpenTask) -> str | None:
        async with self.api.throttle.poll.slot() as sent:
            answer = await self.api.client.read(task.task_id)
        self.ctx.tally.polls += 1
        found = answer.task
        if answer.cause is Cause.OK and found is not None:
            self.api.throttle.poll.succeeded(sent)
            if found.audio_url is None or found.phase is Phase.FAILED:
                await self._unusable(task, answer, f"status {found.word}, no audio URL")
            return found.audio_url if found.phase is Phase.SUCCEEDED else None
        if answer.cause is Cause.CREDENTIALS:
            self.ctx.stop.stop_all(Reason.CREDENTIALS, token_rejected(answer).one_line())
        elif answer.cause is Cause.THROTTLED:
            self.ctx.tally.throttled += 1
            self.api.throttle.poll.close(sent, answer.retry_after_seconds)
        elif answer.cause is Cause.NOT_FOUND:
            await self._unusable(task, answer, "the API does not know the task")
        return None

    async def _unusable(self, task: OpenTask, answer: Answer | None, why: str) -> None:
        _log(task).warning("no usable audio", why=why)
        error = answer.error if answer is not None else None
        ending = TaskEnd(
            task=task,
            at=self.ctx.clock.now(),
            run_id=self.ctx.run_id,
            polls=0,
            error_code="no_audio",
            error_message=why,
            request_id=error.request_id if error is not None else None,
            http_status=error.http_status if error is not None else None,
        )
        if await self.ctx.ledger.do(collection.record_unusable, ending):
            raise _GoneError

    async def _fetch(self, task: OpenTask, url: str) -> FileRecord | None:
        """Download into a part file and verify it. None if the audio is unusable."""
        path = self.ctx.store.item_path(task.key, task.format)
        part = self.ctx.store.part(path)
        try:
            async with self.gate.slot() as sent:
                fetched, sha256 = await stream(self.api.client, url, part, task.chars)
        except TooLongError:
            await self._not_audio(task, path, "longer than any speech of its text")
            return None
        finally:
            self.ctx.tally.downloads += 1
        if not fetched.ok:
            if fetched.http_status in (429, 503):
                self.gate.close(sent, fetched.retry_after_seconds)
            _log(task).warning("download failed", status=fetched.http_status, why=fetched.reason)
            if fetched.http_status in _REFUSALS:
                await self._unusable(task, None, f"its URL returns HTTP {fetched.http_status}")
            return None
        if (why := checks.fault(part, task.format, task.chars)) is not None:
            await self._not_audio(task, path, why)
            return None
        self.gate.succeeded(sent)
        return FileRecord(path=path, sha256=sha256, bytes=fetched.bytes)

    async def _not_audio(self, task: OpenTask, path: str, why: str) -> None:
        bad = self.ctx.store.keep_bad(path).relative_to(self.ctx.store.folder)
        await self._unusable(task, None, f"{why}; stored as {bad} for inspection")


def _log(task: OpenTask) -> Any:
    return log.bind(endpoint="download", key=task.key, attempt=task.attempt, task_id=task.task_id)


async def stream(client: Client, url: str, part: Path, chars: int) -> tuple[Fetched, str]:
    """Download the speech of a text of `chars` characters into `part`. Returns the result and its SHA-256.

    Raises:
        TooLongError: no speech of that text is this long; its first MiB is left in `part` for inspection.
        OSError: the disk is full or refuses writes.
    """
    seen = hashlib.sha256()
    limit = checks.most_bytes(chars)

    with part.open("wb") as file:

        def sink(chunk: bytes) -> None:
            if file.tell() + len(chunk) > limit:
                file.truncate(_SAMPLE_BYTES)
                raise TooLongError
            seen.update(chunk)
            file.write(chunk)

        fetched = await client.fetch(url, sink)
    return fetched, seen.hexdigest()
