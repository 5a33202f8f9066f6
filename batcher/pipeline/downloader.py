"""From rendered to done: fetches the audio, verifies it, makes it durable, and links it to its rows.

An address that has expired, is refused, missing or wrong is answered by reading the task again: that gives a fresh
one. What cannot be had in this run stays rendered for the next.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import structlog

from batcher.audio import checks
from batcher.audio.store import Store
from batcher.clock import Clock
from batcher.errors import StorageError
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import collection
from batcher.ledger.records import FileRecord, OpenTask, TaskEnd
from batcher.pipeline.delivery import Delivery
from batcher.pipeline.stop import Reason, Stop
from batcher.provider.answers import Answer, Cause, Fetched, Phase
from batcher.provider.client import Client
from batcher.reports.tally import Tally
from batcher.throttle.gate import Gate

log = structlog.get_logger()

_REFUSALS: Final = (400, 401, 403, 404, 410)
_LOOKED_AT_BYTES: Final = 1 << 20
TRIES: Final = 6
"""Reads of one task for a usable address in one run; then it is left to the next."""


class TooLongError(Exception):
    """What comes is longer than any speech of the text."""


class _GoneError(Exception):
    """The audio has been unusable for so long that the item is given up."""


@dataclass(kw_only=True)
class Downloader:
    """Collects rendered audio into the store."""

    ledger: Ledger
    client: Client
    gate: Gate
    poll_gate: Gate
    store: Store
    delivery: Delivery
    stop: Stop
    tally: Tally
    clock: Clock
    run_id: str
    _waiting: list[tuple[OpenTask, str | None]] = field(default_factory=list, init=False)
    _more: anyio.Event = field(default_factory=anyio.Event, init=False)
    _closing: bool = field(default=False, init=False)
    _fetching: int = field(default=0, init=False)

    def add(self, task: OpenTask, url: str | None) -> None:
        """Collect the audio of `task`; without an address, the task is read for one."""
        self._waiting.append((task, url))
        self._more.set()

    def no_more(self) -> None:
        """Nothing more will come: end when all is collected."""
        self._closing = True
        self._more.set()

    async def run(self) -> None:
        """Collect what was added, until `no_more` was said and nothing is left."""
        async with anyio.create_task_group() as fetches:
            while self._waiting or not self._closing:
                if not self._waiting or self._fetching >= self.gate.size:
                    self._more = anyio.Event()
                    await self._more.wait()
                    continue
                self._fetching += 1
                fetches.start_soon(self._collect, *self._waiting.pop(0))

    async def _collect(self, task: OpenTask, url: str | None) -> None:
        try:
            file = await self._fetched(task, url)
            if file is not None:
                with anyio.CancelScope(shield=True):
                    await self.delivery.keep(task, file)
        except _GoneError:
            pass
        except StorageError as error:
            self.stop.stop_all(Reason.TROUBLE, error.one_line())
        except OSError as error:
            # A write does not say where, unlike an open.
            where = error.filename or self.store.part(self.store.item_path(task.key, task.format))
            hint = "Free some space or mend the folder, then run again."
            self.stop.stop_all(Reason.TROUBLE, f"cannot write audio to {where}: {error.strerror}. {hint}")

    async def _fetched(self, task: OpenTask, url: str | None) -> FileRecord | None:
        """The item's part, whole and verified; None when that is left to the next run."""
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
            await self.clock.sleep(wait * (1 + 0.25 * self.clock.chance()))
            wait *= 2
        self.stop.reasons.setdefault(Reason.TROUBLE, "the audio of finished tasks could not be fetched")
        return None

    async def _fresh_url(self, task: OpenTask) -> str | None:
        async with self.poll_gate.slot() as sent:
            answer = await self.client.read(task.task_id)
        self.tally.polls += 1
        found = answer.task
        if answer.cause is Cause.OK and found is not None:
            self.poll_gate.succeeded(sent)
            if found.audio_url is None or found.phase is Phase.FAILED:
                await self._unusable(task, answer, f"status {found.word}, no audio address")
            return found.audio_url if found.phase is Phase.SUCCEEDED else None
        if answer.cause is Cause.CREDENTIALS:
            self.stop.stop_all(Reason.CREDENTIALS, f"the API refused the token: {answer.explain()}")
        elif answer.cause is Cause.THROTTLED:
            self.tally.throttled += 1
            self.poll_gate.close(sent, answer.retry_after_seconds)
        elif answer.cause is Cause.NOT_FOUND:
            await self._unusable(task, answer, "the API does not know the task")
        return None

    async def _unusable(self, task: OpenTask, answer: Answer | None, why: str) -> None:
        self._log(task, "no usable audio", why=why)
        error = answer.error if answer is not None else None
        ending = TaskEnd(
            task=task,
            at=self.clock.now(),
            run_id=self.run_id,
            polls=0,
            error_code="no_audio",
            error_message=why,
            request_id=error.request_id if error is not None else None,
            http_status=error.http_status if error is not None else None,
        )
        if await self.ledger.do(collection.record_unusable, ending):
            raise _GoneError

    async def _fetch(self, task: OpenTask, url: str) -> FileRecord | None:
        """One download, to a part that is verified; None when it is no good."""
        path = self.store.item_path(task.key, task.format)
        part = self.store.part(path)
        try:
            async with self.gate.slot() as sent:
                fetched, sha256 = await stream(self.client, url, part, task.chars)
        except TooLongError:
            await self._not_audio(task, path, "longer than any speech of its text")
            return None
        finally:
            self.tally.downloads += 1
        if not fetched.ok:
            if fetched.http_status in (429, 503):
                self.gate.close(sent, fetched.retry_after_seconds)
            self._log(task, "download failed", status=fetched.http_status, why=fetched.reason)
            if fetched.http_status in _REFUSALS:
                await self._unusable(task, None, f"its address answers HTTP {fetched.http_status}")
            return None
        if (why := checks.fault(part, task.format, task.chars)) is not None:
            await self._not_audio(task, path, why)
            return None
        self.gate.succeeded(sent)
        return FileRecord(path=path, sha256=sha256, bytes=fetched.bytes)

    async def _not_audio(self, task: OpenTask, path: str, why: str) -> None:
        bad = self.store.keep_bad(path).relative_to(self.store.folder)
        await self._unusable(task, None, f"{why}; what came is kept as {bad}")

    def _log(self, task: OpenTask, what: str, **words: object) -> None:
        names = {"endpoint": "download", "key": task.key, "attempt": task.attempt, "task_id": task.task_id}
        log.warning(what, **names, **words)


async def stream(client: Client, url: str, part: Path, chars: int) -> tuple[Fetched, str]:
    """Fetch into `part` what should be speech of `chars` characters. Returns what came of it, and its SHA-256.

    Raises:
        TooLongError: no speech of that text is so long; its first MiB is left in `part`, to be looked at.
        OSError: the disk does not take it.
    """
    seen = hashlib.sha256()
    limit = checks.most_bytes(chars)

    with part.open("wb") as file:

        def sink(chunk: bytes) -> None:
            if file.tell() + len(chunk) > limit:
                file.truncate(_LOOKED_AT_BYTES)
                raise TooLongError
            seen.update(chunk)
            file.write(chunk)

        fetched = await client.fetch(url, sink)
    return fetched, seen.hexdigest()
