"""Repairs audio that `verify` found faulty: from a copy, else from the provider's existing task.

Creates no task and costs nothing. A file that is replaced is set aside under another name beside it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from batcher.audio import checks
from batcher.audio.content import digest_of
from batcher.audio.store import Kind, Store
from batcher.audio.stores import Stores
from batcher.audio.verdict import End
from batcher.clock import Clock
from batcher.errors import BatcherError, CredentialsError
from batcher.files import is_url
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import collection, repairs
from batcher.ledger.lifecycle.repairs import SavedFile
from batcher.ledger.queries.outputs import outputs_of
from batcher.ledger.records import FileRecord, Output
from batcher.maintenance.decisions import person
from batcher.maintenance.verify import Fault
from batcher.pipeline.connection import known_account, reach, token_rejected
from batcher.pipeline.delivery import sync_part
from batcher.pipeline.downloader import TooLongError, stream
from batcher.provider.answers import Answer, Cause, Phase
from batcher.provider.client import Client
from batcher.settings import Settings

_WAITS_SECONDS: Final = (0.5, 1.0, 2.0)
"""Waits after the attempts to download the audio of one task; then it is given up."""
_MAX_WAIT_SECONDS: Final = 30.0
"""Bounds the wait that the API asks for between these attempts."""
_WORKERS: Final = 4
"""Concurrent downloads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """The outcome for one fault: how it was repaired, or why it was not and what to do (`hint`).

    `passing`: the reason may be temporary.
    """

    fault: Fault
    healed: bool
    how: str
    hint: str = ""
    passing: bool = False


@dataclass(kw_only=True)
class Healer:
    """Repairs the audio of one ledger. The caller holds the owner's lock.

    `trouble` is the error that made all downloads impossible, if any.
    """

    ledger: Ledger
    settings: Settings
    clock: Clock
    trouble: BatcherError | None = field(default=None, init=False)
    _stores: Stores = field(init=False)
    _repairs: list[Repair] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._stores = Stores(self.settings.home)

    async def heal(self, faults: Sequence[Fault]) -> list[Repair]:
        """Repair what can be repaired. Returns the outcome for each fault.

        Raises:
            StorageError: the ledger cannot be written.
        """
        to_download = [fault for fault in faults if fault.output is None and not await self._try_disk(fault)]
        if to_download:
            await self._download_all(to_download)
        unrepaired = {repair.fault.saved.key for repair in self._repairs if not repair.healed}
        for fault in faults:
            if fault.output is not None:
                try:
                    repair = await self._link(fault, fault.output, no_audio=fault.saved.key in unrepaired)
                except OSError as error:
                    repair = _unwritten(fault, error)
                self._repairs.append(repair)
        return self._repairs

    async def _try_disk(self, fault: Fault) -> bool:
        """Repair an item's file without the provider. Returns whether that settled it, for better or worse."""
        try:
            repair = self._why_not(fault, fault.saved.out_dir) or await self._copy(fault)
        except OSError as error:
            repair = _unwritten(fault, error)
        if repair is not None:
            self._repairs.append(repair)
        return repair is not None

    async def _copy(self, fault: Fault) -> Repair | None:
        """Restore an item's file from an intact copy of it. None if there is none."""
        paths = await self.ledger.do(repairs.copies, fault.saved.key)
        source = await anyio.to_thread.run_sync(self._intact, paths, fault.saved.sha256)
        if source is None:
            return None
        aside = await anyio.to_thread.run_sync(self._store(fault.saved).restore, fault.saved.path, source)
        return await self._healed(fault, f"restored from {source}{_aside_note(aside)}")

    def _why_not(self, fault: Fault, out_dir: str) -> Repair | None:
        """The outcome for a fault that must not be repaired: folder missing, or not our file. None if it may be."""
        store = self._stores.at(out_dir)
        if not store.exists():
            how = f"the folder {store.place} is missing"
            hint = "Mount its disk, or create the folder to have all of its audio restored there."
        elif not fault.ours:
            how = "the file there was not written by this ledger; skipped"
            hint = "Move it away, then run `batcher verify --heal` again."
        else:
            return None
        return Repair(fault=fault, healed=False, how=how, hint=hint)

    def _intact(self, locations: Sequence[str], sha256: str) -> str | None:
        """The first of these outputs, as the ledger has them, that has this content."""
        home = self.settings.home
        return next((one for one in locations if digest_of(home, one) == sha256), None)

    async def _download_all(self, faults: list[Fault]) -> None:
        left = list(faults)
        try:
            with reach(self.settings) as (endpoint, origin):
                async with Client(endpoint, create_connections=1, fetch_connections=_WORKERS) as client:
                    account_id = await known_account(client, self.ledger, origin)
                    async with anyio.create_task_group() as workers:
                        for _ in range(_WORKERS):
                            workers.start_soon(self._work, client, account_id, left)
        except BatcherError as error:
            self.trouble = error
        if self.trouble is not None:
            how = f"not downloaded: {self.trouble.message}"
            self._repairs += [Repair(fault=fault, healed=False, how=how, hint=self.trouble.hint) for fault in left]

    async def _work(self, client: Client, account_id: int | None, left: list[Fault]) -> None:
        while left and self.trouble is None:
            fault = left.pop(0)
            if fault.saved.account_id != account_id:
                self._repairs.append(_foreign(fault))
                continue
            try:
                self._repairs.append(await self._download(client, fault))
            except CredentialsError as error:
                self.trouble = error
                left.append(fault)
            except OSError as error:
                self._repairs.append(_unwritten(fault, error))
            finally:
                self._store(fault.saved).part(fault.saved.path).unlink(missing_ok=True)

    async def _download(self, client: Client, fault: Fault) -> Repair:
        """Download the audio of the item's task, reading the task for a fresh URL before each attempt."""
        for wait in _WAITS_SECONDS:
            answer = await client.read(fault.saved.task_id)
            if answer.cause is Cause.CREDENTIALS:
                raise token_rejected(answer)
            if answer.cause is Cause.NOT_FOUND:
                return _lost(fault, "the provider no longer has the task")
            task = answer.task
            if task is not None and task.phase is Phase.FAILED:
                return _lost(fault, f"the provider now reports the task as {task.word}")
            if task is not None and task.audio_url is not None:
                result = await self._fetch(client, fault, task.audio_url)
            else:
                result = Repair(fault=fault, healed=False, how=_no_url(answer), passing=True)
            if not result.passing:
                return result
            await self.clock.sleep(max(wait, min(answer.retry_after_seconds or 0.0, _MAX_WAIT_SECONDS)))
        return replace(result, hint="Try again later.")

    async def _fetch(self, client: Client, fault: Fault, url: str) -> Repair:
        """Download into a part file, verify it, and publish it."""
        saved, store = fault.saved, self._store(fault.saved)
        part = store.part(saved.path)
        try:
            fetched, sha256 = await stream(client, url, part, saved.chars)
        except TooLongError:
            return await self._not_audio(fault, "longer than any speech of its text")
        if not fetched.ok:
            return Repair(fault=fault, healed=False, how=f"not downloaded: {fetched.reason}", passing=True)
        verdict = await anyio.to_thread.run_sync(checks.examine, part, saved.format, saved.chars)
        if verdict.fault is not None:
            return await self._not_audio(fault, verdict.fault)
        if not fetched.is_whole and verdict.end is not End.WHOLE and sha256 != saved.sha256:
            how = "not downloaded: neither HTTP nor the file shows that it is complete"
            return Repair(fault=fault, healed=False, how=how, passing=True)
        return await self._publish(fault, part, sha256, fetched.bytes)

    async def _not_audio(self, fault: Fault, why: str) -> Repair:
        store = self._store(fault.saved)
        path = store.shown(await anyio.to_thread.run_sync(store.keep_bad, fault.saved.path))
        return _lost(fault, f"the download is not its audio: {why}; stored as {path} for inspection")

    async def _publish(self, fault: Fault, part: Path, sha256: str, size: int) -> Repair:
        """Sync the part, record it, and move it to its path."""
        saved = fault.saved
        with anyio.CancelScope(shield=True):
            seconds = await anyio.to_thread.run_sync(sync_part, part, saved.format)
            file = FileRecord(path=saved.path, sha256=sha256, bytes=size, audio_seconds=seconds)
            await self.ledger.do(repairs.record_fetched, saved.key, file, at=self.clock.now())
            aside = await anyio.to_thread.run_sync(self._store(saved).publish, saved.path)
        changed = "" if sha256 == saved.sha256 else " with other content than the first time"
        return await self._healed(fault, f"downloaded again{changed}{_aside_note(aside)}")

    async def _link(self, fault: Fault, wanted: Output, *, no_audio: bool) -> Repair:
        """Link the item's audio to a row's output again. `no_audio`: the item's own file could not be repaired."""
        if (refusal := self._why_not(fault, wanted.out_dir)) is not None:
            return refusal
        if no_audio:
            how, hint = "the item's own file is not repaired", "Repair that first."
            return Repair(fault=fault, healed=False, how=how, hint=hint)
        outputs = await self.ledger.do(outputs_of, fault.saved.key)
        output = next(one for one in outputs if (one.batch_id, one.row_id) == (wanted.batch_id, wanted.row_id))
        store, aside = self._stores.at(output.out_dir), None
        if fault.kind is not Kind.MISSING:
            aside = await anyio.to_thread.run_sync(store.set_aside, wanted.output)
        why = await anyio.to_thread.run_sync(store.link, output)
        if why is not None:
            hint = "Fix that, then run `batcher verify --heal` again."
            return Repair(fault=fault, healed=False, how=why, hint=hint)
        link = (output.batch_id, output.row_id, output.key, output.output)
        await self.ledger.do(collection.record_links, [link], at=self.clock.now())
        return await self._healed(fault, f"linked again{_aside_note(aside)}")

    async def _healed(self, fault: Fault, how: str) -> Repair:
        """Add the repair to the item's history."""
        path = fault.path if is_url(fault.path) else os.path.relpath(fault.path, self.settings.home)
        detail = f"healed by {person()}: {path}, {how}"
        await self.ledger.do(repairs.record_healed, fault.saved.key, at=self.clock.now(), detail=detail)
        return Repair(fault=fault, healed=True, how=how)

    def _store(self, saved: SavedFile) -> Store:
        return self._stores.at(saved.out_dir)


def _aside_note(aside: str | None) -> str:
    return "" if aside is None else f"; the file that was there is now {aside}"


def _unwritten(fault: Fault, error: OSError) -> Repair:
    how = f"cannot write {error.filename or fault.path}: {error.strerror}"
    hint = "Free some space or fix the folder, then run `batcher verify --heal` again."
    return Repair(fault=fault, healed=False, how=how, hint=hint, passing=True)


def _foreign(fault: Fault) -> Repair:
    saved = fault.saved
    return Repair(
        fault=fault,
        healed=False,
        how=f"its task belongs to the account {saved.user_id} at {saved.origin}",
        hint="Run `batcher verify --heal` with a token of that account, and its --api-url.",
    )


def _lost(fault: Fault, why: str) -> Repair:
    saved = fault.saved
    hint = (
        f"Put a backup of the file at {fault.path} (SHA-256 {saved.sha256[:16]}…), "
        f"or run `batcher retake {saved.key[:16]}`: the next run then creates and pays for a new take."
    )
    return Repair(fault=fault, healed=False, how=f"cannot be repaired: {why}", hint=hint)


def _no_url(answer: Answer) -> str:
    if answer.task is None:
        return f"cannot read its task: {answer.explain()}"
    return f"its task has no audio URL (status {answer.task.word})"
