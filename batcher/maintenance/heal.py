"""Puts audio back that `verify` found wrong: from a copy on this disk, else from the provider's existing task.

Creates nothing and costs nothing. What is replaced keeps its content under another name beside it.
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
from batcher.audio.store import Store, digest, place, set_aside
from batcher.clock import Clock
from batcher.errors import BatcherError, CredentialsError
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import collection, repairs
from batcher.ledger.lifecycle.repairs import SavedFile
from batcher.ledger.queries.outputs import outputs_of
from batcher.ledger.records import FileRecord, Output
from batcher.maintenance.decisions import person
from batcher.maintenance.verify import Fault, Kind
from batcher.pipeline.connection import known_account, reach
from batcher.pipeline.delivery import sync_part
from batcher.pipeline.downloader import TooLongError, stream
from batcher.provider.answers import Answer, Cause, Phase
from batcher.provider.client import Client
from batcher.settings import Settings

_WAITS_SECONDS: Final = (0.5, 1.0, 2.0)
"""After tries to get the audio of one task; then it is left."""
_LONGEST_WAIT_SECONDS: Final = 30.0
_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What became of a fault: `how` it was mended, or why it could not be, and then the `hint` for a person.

    `passing`: another try later may do it.
    """

    fault: Fault
    healed: bool
    how: str
    hint: str = ""
    passing: bool = False


@dataclass(kw_only=True)
class Healer:
    """Mends what is wrong in one ledger's folder, as the only one that writes to it.

    `trouble` is what kept it from asking the provider at all, if anything did.
    """

    ledger: Ledger
    settings: Settings
    clock: Clock
    trouble: BatcherError | None = field(default=None, init=False)
    _mended: list[Repair] = field(default_factory=list, init=False)

    async def heal(self, faults: Sequence[Fault]) -> list[Repair]:
        """Mend what can be. Returns what became of each fault.

        Raises:
            StorageError: the ledger's disk takes nothing.
        """
        to_fetch = [fault for fault in faults if fault.output is None and not await self._try_disk(fault)]
        if to_fetch:
            await self._from_provider(to_fetch)
        bad = {one.fault.saved.key for one in self._mended if not one.healed}
        for fault in faults:
            if fault.output is not None:
                try:
                    self._mended.append(await self._link(fault, fault.output, lacking=fault.saved.key in bad))
                except OSError as error:
                    self._mended.append(_unwritten(fault, error))
        return self._mended

    async def _try_disk(self, fault: Fault) -> bool:
        try:
            return await self._from_disk(fault)
        except OSError as error:
            self._mended.append(_unwritten(fault, error))
            return True

    async def _from_disk(self, fault: Fault) -> bool:
        """Settle an item's fault without the provider. Returns whether it is settled, one way or the other."""
        if (refused := self._refused(fault, fault.saved.out_dir)) is not None:
            self._mended.append(refused)
            return True
        found = await self.ledger.do(repairs.copies, fault.saved.key)
        source = await anyio.to_thread.run_sync(self._intact, found, fault.saved.sha256)
        if source is None:
            return False
        aside = await anyio.to_thread.run_sync(_put, source, fault.path)
        for bad in self._store(fault.saved).bad(fault.saved.key):
            bad.unlink(missing_ok=True)
        self._mended.append(await self._healed(fault, f"put back from {source}{_kept(aside)}"))
        return True

    def _refused(self, fault: Fault, out_dir: str) -> Repair | None:
        """Why a fault in that output folder is nothing for the program to mend; None when it may try."""
        folder = self.settings.ledger.parent / out_dir
        if not folder.is_dir():
            how = f"there is no folder {folder}"
            hint = "Mount its disk; or make the folder, and all of its audio is put there again."
        elif not fault.ours:
            how = "what lies there was not made by this ledger, and is left alone"
            hint = "Move it away, then heal again."
        else:
            return None
        return Repair(fault=fault, healed=False, how=how, hint=hint)

    def _intact(self, places: Sequence[str], sha256: str) -> Path | None:
        paths = (self.settings.ledger.parent / found for found in places)
        return next((path for path in paths if path.is_file() and digest(path) == sha256), None)

    async def _from_provider(self, faults: list[Fault]) -> None:
        left = list(faults)
        try:
            with reach(self.settings) as (endpoint, origin):
                async with Client(endpoint, create_connections=1, fetch_connections=_AT_ONCE) as client:
                    account_id = await known_account(client, self.ledger, origin)
                    async with anyio.create_task_group() as workers:
                        for _ in range(_AT_ONCE):
                            workers.start_soon(self._work, client, account_id, left)
        except BatcherError as error:
            self.trouble = error
        if self.trouble is not None:
            why = f"its task could not be asked for: {self.trouble.message}"
            self._mended += [Repair(fault=one, healed=False, how=why, hint=self.trouble.hint) for one in left]

    async def _work(self, client: Client, account_id: int | None, left: list[Fault]) -> None:
        while left and self.trouble is None:
            fault = left.pop(0)
            if fault.saved.account_id != account_id:
                self._mended.append(_foreign(fault))
                continue
            try:
                self._mended.append(await self._download(client, fault))
            except CredentialsError as error:
                self.trouble = error
                left.append(fault)
            except OSError as error:
                self._mended.append(_unwritten(fault, error))
            finally:
                self._store(fault.saved).part(fault.saved.path).unlink(missing_ok=True)

    async def _download(self, client: Client, fault: Fault) -> Repair:
        """Fetch the audio of the item's task once more, with a fresh address for each try."""
        for wait in _WAITS_SECONDS:
            answer = await client.read(fault.saved.task_id)
            if answer.cause is Cause.CREDENTIALS:
                raise CredentialsError(f"the API refused the token: {answer.explain()}", "Set a valid one.")
            if answer.cause is Cause.NOT_FOUND:
                return _lost(fault, "the provider no longer has its task")
            task = answer.task
            if task is not None and task.phase is Phase.FAILED:
                return _lost(fault, f"the provider says of its task: {task.word}")
            if task is not None and task.audio_url is not None:
                result = await self._fetch(client, fault, task.audio_url)
            else:
                result = Repair(fault=fault, healed=False, how=_no_address(answer), passing=True)
            if not result.passing:
                return result
            await self.clock.sleep(max(wait, min(answer.retry_after_seconds or 0.0, _LONGEST_WAIT_SECONDS)))
        return replace(result, hint="Try again later.")

    async def _fetch(self, client: Client, fault: Fault, url: str) -> Repair:
        """One download: to a part, verified, durable, recorded, renamed."""
        saved, store = fault.saved, self._store(fault.saved)
        part = store.part(saved.path)
        try:
            fetched, sha256 = await stream(client, url, part, saved.chars)
        except TooLongError:
            return self._not_audio(fault, "longer than any speech of its text")
        if not fetched.ok:
            return Repair(fault=fault, healed=False, how=f"not downloaded: {fetched.reason}", passing=True)
        if (why := checks.fault(part, saved.format, saved.chars)) is not None:
            return self._not_audio(fault, why)
        return await self._keep(fault, part, sha256, fetched.bytes)

    def _not_audio(self, fault: Fault, why: str) -> Repair:
        kept = self._store(fault.saved).keep_bad(fault.saved.path)
        return _lost(fault, f"what comes is not its audio: {why}; it is kept as {kept}")

    async def _keep(self, fault: Fault, part: Path, sha256: str, size: int) -> Repair:
        saved = fault.saved
        with anyio.CancelScope(shield=True):
            seconds = await anyio.to_thread.run_sync(sync_part, part, saved.format)
            file = FileRecord(path=saved.path, sha256=sha256, bytes=size, audio_seconds=seconds)
            await self.ledger.do(repairs.record_fetched, saved.key, file, at=self.clock.now())
            aside = await anyio.to_thread.run_sync(self._store(saved).publish, saved.path)
        other = "" if sha256 == saved.sha256 else ", rendered anew by the provider"
        return await self._healed(fault, f"downloaded again{other}{_kept(aside)}")

    async def _link(self, fault: Fault, wanted: Output, *, lacking: bool) -> Repair:
        """Have the item's audio at a row's output again."""
        if (refused := self._refused(fault, wanted.out_dir)) is not None:
            return refused
        if lacking:
            return Repair(fault=fault, healed=False, how="its item's own audio is not there", hint="See that first.")
        found = await self.ledger.do(outputs_of, fault.saved.key)
        now = next(one for one in found if (one.batch_id, one.row_id) == (wanted.batch_id, wanted.row_id))
        aside = None
        if fault.kind is not Kind.MISSING:
            aside = await anyio.to_thread.run_sync(set_aside, fault.path)
        why = await anyio.to_thread.run_sync(self._store(fault.saved).link, now)
        if why is not None:
            return Repair(fault=fault, healed=False, how=why, hint="Then heal again.")
        await self.ledger.do(collection.record_links, [(now.batch_id, now.row_id, now.key, now.output)])
        return await self._healed(fault, f"linked again{_kept(aside)}")

    async def _healed(self, fault: Fault, how: str) -> Repair:
        """The file is in its place: have the item's story tell of it."""
        place = os.path.relpath(fault.path, self.settings.ledger.parent)
        detail = f"healed by {person()}: {place}, {how}"
        await self.ledger.do(repairs.record_healed, fault.saved.key, at=self.clock.now(), detail=detail)
        return Repair(fault=fault, healed=True, how=how)

    def _store(self, saved: SavedFile) -> Store:
        home = self.settings.ledger.parent
        return Store(home, home / saved.out_dir)


def _put(source: Path, target: Path) -> Path | None:
    """Have the content of `source` at `target`. Returns where what was there is now, None if nothing was."""
    aside = set_aside(target) if target.exists() else None
    place(source, target)
    return aside


def _kept(aside: Path | None) -> str:
    return "" if aside is None else f"; what was there is now {aside}"


def _unwritten(fault: Fault, error: OSError) -> Repair:
    where = error.filename or fault.path
    hint = "Free some space or mend the folder, then heal again."
    return Repair(fault=fault, healed=False, how=f"{where}: {error.strerror}", hint=hint, passing=True)


def _foreign(fault: Fault) -> Repair:
    saved = fault.saved
    return Repair(
        fault=fault,
        healed=False,
        how=f"its task belongs to the account {saved.user_id} at {saved.origin}",
        hint="Heal with a token of that account, and its --api-url.",
    )


def _lost(fault: Fault, why: str) -> Repair:
    saved = fault.saved
    hint = (
        f"Put a copy from your backups at {fault.path} (SHA-256 {saved.sha256[:16]}…), "
        f"or `batcher retake {saved.key[:16]}` has another output created, and charged."
    )
    return Repair(fault=fault, healed=False, how=f"no longer possible: {why}", hint=hint)


def _no_address(answer: Answer) -> str:
    if answer.task is None:
        return f"its task could not be read: {answer.explain()}"
    return f"its task has no audio address now (it says: {answer.task.word})"
