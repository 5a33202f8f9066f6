"""From submitted to rendered: looks at each open task until it has ended.

`pacing` says when a task is looked at next, and learns from what the look shows.

No answer to a look can lead to a create. A task is gone only when the API says so repeatedly, over minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import anyio
import structlog

from batcher.clock import Clock, Wakeup
from batcher.errors import StorageError
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import collection
from batcher.ledger.records import OpenTask, TaskEnd
from batcher.pacing.due_queue import Due
from batcher.pacing.pace import Pace, Pacing
from batcher.pipeline.credit_guard import Guard
from batcher.pipeline.downloader import Downloader
from batcher.pipeline.slots import Slots
from batcher.pipeline.stop import Reason, Stop
from batcher.provider.answers import Answer, Cause, Phase, Task
from batcher.provider.client import Client
from batcher.reports.tally import Tally
from batcher.throttle.gate import Gate, Sent

log = structlog.get_logger()

MISSED_SECONDS: Final = 50.0
"""Only looks so far apart count as misses of a task: so it is gone after minutes, whatever the clock says."""
OVERDUE_POLL_SECONDS: Final = 60.0
"""So long is the wait between two looks at a task that is overdue."""


@dataclass(kw_only=True)
class _Watched:
    task: OpenTask
    pace: Pace
    accepted_at: float  # this and the next in steady seconds
    told_at: float  # when there was a word of progress last
    looks: int = 0
    missed_at: float | None = None  # when a miss was counted last, in steady seconds
    word: str | None = None
    overdue_polls: int = 0  # looks that found it overdue


@dataclass(kw_only=True)
class Poller:
    """Watches the open tasks of one account.

    `overdue` holds, by their items' keys, those that have shown no progress for far too long. Unless it is `patient`,
    it ends without them, once no others are left and each was looked at again.
    """

    ledger: Ledger
    client: Client
    guard: Guard
    gate: Gate
    slots: Slots
    downloader: Downloader
    stop: Stop
    tally: Tally
    clock: Clock
    changed: Wakeup
    pacing: Pacing
    run_id: str
    patient: bool
    overdue: dict[str, OpenTask] = field(default_factory=dict, init=False)
    _due: Due[_Watched] = field(init=False)
    _looking: int = field(default=0, init=False)  # looks that are not over,
    _asking: int = field(default=0, init=False)  # and those of them that have no answer yet
    _closing: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._due = Due(lambda watched: watched.pace.gain(self._age(watched)))

    def watch(self, task: OpenTask, *, at_once: bool = False) -> None:
        """Look at `task`, accepted just now, until it ends; `at_once` when it is older and may long have ended."""
        pace = (self.pacing.join if at_once else self.pacing.begin)(task.model, task.chars)
        age = max(0.0, self.clock.now() - task.accepted_at)
        accepted_at = self.clock.steady() - age
        watched = _Watched(task=task, pace=pace, accepted_at=accepted_at, told_at=accepted_at)
        self._schedule(watched, self.clock.chance() if at_once else pace.next_poll_seconds(age, self.clock.chance()))

    def no_more(self) -> None:
        """Nothing more will come to be watched: end when all have ended."""
        self._closing = True
        self.changed.ring()

    async def run(self) -> None:
        """Look at tasks as they become due, until `no_more` was said and none is left."""
        async with anyio.create_task_group() as looks:
            while self._due or self._looking or not self._closing:
                if self._has_only_overdue():
                    return
                if self._asking >= self.gate.size or not self._due:
                    await self.changed.wait(self.clock)
                    continue
                if (wait := self._due.wait_seconds(self.clock.steady())) > 0:
                    await self.changed.wait(self.clock, seconds=wait)
                    continue
                watched = self._due.take(self.clock.steady())
                if (early := watched.pace.early_seconds(self._age(watched))) > 0 and watched.missed_at is None:
                    self._due.add(self.clock.steady() + early, watched)
                    continue
                self._looking += 1
                self._asking += 1
                looks.start_soon(self._look, watched)

    def _age(self, watched: _Watched) -> float:
        return self.clock.steady() - watched.accepted_at

    def _schedule(self, watched: _Watched, seconds: float) -> None:
        self._due.add(self.clock.steady() + seconds, watched)
        self.changed.ring()

    def _has_only_overdue(self) -> bool:
        """Whether nothing is left to wait for but what may never end."""
        if self.patient or self._looking or not self._closing:
            return False
        return all(watched.overdue_polls > 1 for watched in self._due)

    async def _look(self, watched: _Watched) -> None:
        try:
            age, answer, sent = await self._ask(watched)
            watched.looks += 1
            self.tally.polls += 1
            with anyio.CancelScope(shield=True):
                ended = await self._judge(watched, answer, sent, age)
        except StorageError as error:
            self.stop.stop_all(Reason.TROUBLE, error.one_line())
            return
        finally:
            self._looking -= 1
            self.changed.ring()
        if ended:
            if self.overdue.pop(watched.task.key, None) is None:
                self.slots.release()
        elif watched.overdue_polls:
            self._schedule(watched, OVERDUE_POLL_SECONDS)
        else:
            wait = watched.pace.next_poll_seconds(self._age(watched), self.clock.chance())
            self._schedule(watched, wait if watched.missed_at is None else min(wait, MISSED_SECONDS))

    async def _ask(self, watched: _Watched) -> tuple[float, Answer, Sent]:
        """Read the task. Returns its age when the question left, and the answer."""
        try:
            async with self.gate.slot() as sent:
                return self._age(watched), await self.client.read(watched.task.task_id), sent
        finally:
            self._asking -= 1
            self.changed.ring()

    async def _judge(self, watched: _Watched, answer: Answer, sent: Sent, asked_age: float) -> bool:
        """Take the answer to a look that left at `asked_age` seconds for what it says.

        Returns whether the task needs no further look.
        """
        match answer.cause:
            case Cause.OK if answer.task is not None:
                self.gate.succeeded(sent)
                self._learn(watched, answer.task, asked_age)
                return await self._read(watched, answer, answer.task)
            case Cause.NOT_FOUND:
                self.gate.succeeded(sent)
                return await self._missed(watched, answer)
            case Cause.CREDENTIALS:
                self.stop.stop_all(Reason.CREDENTIALS, f"the API refused the token: {answer.explain()}")
            case Cause.THROTTLED:
                self.tally.throttled += 1
                self.gate.close(sent, answer.retry_after_seconds)
            case _:
                why = answer.transport or answer.explain()
                log.warning("poll unanswered", **self._words(watched), cause=answer.cause, why=why)
                if self.gate.failed():
                    self.stop.stop_all(Reason.TROUBLE, f"the API cannot be reached: {answer.explain()}")
        return False

    def _learn(self, watched: _Watched, task: Task, asked_age: float) -> None:
        # What a task answers is how it was at some moment between the question and the answer.
        if task.phase is Phase.RUNNING:
            watched.pace.running(asked_age)
        elif task.phase is Phase.SUCCEEDED:
            watched.pace.ended(self._age(watched), task.took_seconds)

    async def _missed(self, watched: _Watched, answer: Answer) -> bool:
        now = self.clock.steady()
        if watched.missed_at is not None and now - watched.missed_at < MISSED_SECONDS:
            return False
        watched.missed_at = now
        return await self.ledger.do(collection.record_missing, self._ending(watched, answer))

    async def _read(self, watched: _Watched, answer: Answer, task: Task) -> bool:
        ending = self._ending(watched, answer)
        if watched.missed_at is not None:
            watched.missed_at = None
            await self.ledger.do(collection.record_found, watched.task)
        if task.phase is Phase.RUNNING:
            if not task.known_word and task.word != watched.word:
                log.warning("unknown status, taken for running", **self._words(watched), status=task.word)
            self._heard(watched, task.word)
            return False
        log.info("task ended", **self._words(watched), status=task.word)
        if task.phase is Phase.SUCCEEDED:
            if await self.ledger.do(collection.record_rendered, ending):
                self.downloader.add(watched.task, task.audio_url)
        elif task.unfunded:
            self.guard.trip()
            await self.ledger.do(collection.record_unfunded, ending)
        else:
            await self.ledger.do(collection.record_failed, ending)
            if ending.error_code is None:
                await self.guard.suspect(self.client, watched.task)
        if self.guard.halts or self.guard.tripped:
            await self.guard.refresh()
        return True

    def _heard(self, watched: _Watched, word: str) -> None:
        """The task runs still. One without progress for far too long gives up its place: it must not stop the batch."""
        now = self.clock.steady()
        if watched.word not in (None, word):
            watched.told_at = now
        watched.word = word
        if watched.overdue_polls:
            watched.overdue_polls += 1
        elif now - watched.told_at > watched.pace.overdue_seconds():
            watched.overdue_polls = 1
            self.overdue[watched.task.key] = watched.task
            log.warning("task overdue", **self._words(watched), status=word)
            self.slots.release()

    def _ending(self, watched: _Watched, answer: Answer) -> TaskEnd:
        task = answer.task
        error = (task.error if task is not None else None) or answer.error
        return TaskEnd(
            task=watched.task,
            at=self.clock.now(),
            run_id=self.run_id,
            polls=watched.looks,
            word=task.word if task is not None else None,
            credits=task.credits_used if task is not None else None,
            error_code=error.code,
            error_message=error.message,
            request_id=error.request_id or answer.error.request_id,
            http_status=answer.error.http_status,
            raw=answer.raw,
        )

    def _words(self, watched: _Watched) -> dict[str, object]:
        task = watched.task
        return {"endpoint": "poll", "key": task.key, "attempt": task.attempt, "task_id": task.task_id}
