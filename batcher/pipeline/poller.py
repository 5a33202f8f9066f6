"""From submitted to rendered: polls each open task until it ends.

`pacing` decides when a task is polled next, and learns from the answers. No answer to a poll can lead to a create.
A task is gone only when the API repeatedly reports it as unknown, over minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import anyio

from batcher.errors import StorageError
from batcher.formatting import rounded
from batcher.ledger.lifecycle import collection
from batcher.ledger.records import OpenTask, TaskEnd
from batcher.pacing.due_queue import Due
from batcher.pacing.load import Load
from batcher.pacing.pace import Pace, Pacing
from batcher.pipeline.connection import token_rejected, unreachable
from batcher.pipeline.context import ApiContext, RunContext
from batcher.pipeline.downloader import Downloader
from batcher.pipeline.refusal import refused
from batcher.pipeline.stop import Reason
from batcher.provider.answers import Answer, Cause, Phase, Task
from batcher.throttle.gate import Sent

MISSED_SECONDS: Final = 50.0
"""Time in seconds between two polls that count as separate misses of a task, so that it is gone after minutes."""
OVERDUE_POLL_SECONDS: Final = 60.0
"""Time in seconds between two polls of an overdue task."""
MAX_ASKED_SECONDS: Final = 60.0
"""Bounds the wait, in seconds, that the answer about a running task may ask for before its next poll."""


@dataclass(kw_only=True)
class _Watched:
    task: OpenTask
    pace: Pace
    accepted_at: float  # this and the next in steady seconds
    progress_at: float  # when its status last changed
    holds_slot: bool = True
    polls: int = 0
    missed_at: float | None = None  # when a miss was last counted, in steady seconds
    word: str | None = None
    overdue_polls: int = 0  # polls since it became overdue


class Poller:
    """Polls the open tasks of one account until they end.

    `overdue` holds, by their items' keys, the tasks that have shown no progress for far too long. Without
    `--max-runtime`, the poller ends without them once no other task is left and each was polled again.
    """

    def __init__(self, ctx: RunContext, api: ApiContext, downloader: Downloader, pacing: Pacing) -> None:
        self.ctx = ctx
        self.api = api
        self.gate = api.throttle.poll
        self.downloader = downloader
        self.pacing = pacing
        self.overdue: dict[str, OpenTask] = {}
        self._due: Due[_Watched] = Due(lambda watched: watched.pace.gain(self._age(watched)))
        self._polling = 0  # polls that are not recorded yet,
        self._asking = 0  # and those of them that have no answer yet
        self._closing = False
        self.has_ended = False  # watches no further task

    def watch(self, task: OpenTask, *, at_once: bool = False) -> None:
        """Poll `task` until it ends; `at_once` if it comes from an earlier run and may have ended long ago."""
        pace = (self.pacing.join if at_once else self.pacing.begin)(task.model, task.chars)
        age = max(0.0, self.ctx.clock.now() - task.accepted_at)
        accepted_at = self.ctx.clock.steady() - age
        watched = _Watched(task=task, pace=pace, accepted_at=accepted_at, progress_at=accepted_at)
        chance = self.ctx.clock.chance()
        self._schedule(watched, chance if at_once else pace.next_poll_seconds(age, chance, self._load))

    def no_more(self) -> None:
        """Accept no more tasks: finish when all have ended."""
        self._closing = True
        self.api.changed.ring()

    async def run(self) -> None:
        """Poll tasks as they become due, until `no_more` was called and none is left."""
        try:
            await self._poll_due()
        finally:
            self.has_ended = True

    async def _poll_due(self) -> None:
        async with anyio.create_task_group() as polls:
            while self._due or self._polling or not self._closing:
                if self._has_only_overdue():
                    return
                if self._asking >= self.gate.size or not self._due:
                    await self.api.changed.wait(self.ctx.clock)
                    continue
                if (wait := self._due.wait_seconds(self.ctx.clock.steady())) > 0:
                    await self.api.changed.wait(self.ctx.clock, seconds=wait)
                    continue
                watched = self._due.take(self.ctx.clock.steady())
                if (
                    early := watched.pace.early_seconds(self._age(watched), self._load)
                ) > 0 and watched.missed_at is None:
                    self._due.add(self.ctx.clock.steady() + early, watched)
                    continue
                self._polling += 1
                self._asking += 1
                polls.start_soon(self._poll, watched)

    @property
    def _load(self) -> Load:
        """What the open tasks share, for planning the poll of one that is neither due nor being polled."""
        return Load(
            open_tasks=1 + len(self._due) + self._polling,
            polls_per_second=self.gate.per_second,
            items_wait=not self._closing and self.api.slots.scarce,
        )

    def _age(self, watched: _Watched) -> float:
        return self.ctx.clock.steady() - watched.accepted_at

    def _schedule(self, watched: _Watched, seconds: float) -> None:
        self._due.add(self.ctx.clock.steady() + seconds, watched)
        self.api.changed.ring()

    def _has_only_overdue(self) -> bool:
        """Whether only overdue tasks are left, which may never end."""
        if self.ctx.settings.max_runtime_seconds is not None or self._polling or not self._closing:
            return False
        return all(watched.overdue_polls > 1 for watched in self._due)

    async def _poll(self, watched: _Watched) -> None:
        try:
            age, answer, sent = await self._ask(watched)
            watched.polls += 1
            self.ctx.tally.polls += 1
            with anyio.CancelScope(shield=True):
                ended = await self._react(watched, answer, sent, age)
        except StorageError as error:
            self.ctx.stop.stop_all(Reason.TROUBLE, error.one_line())
            return
        finally:
            self._polling -= 1
            self.api.changed.ring()
        if ended:
            self.overdue.pop(watched.task.key, None)
            self._free_slot(watched)
        elif watched.overdue_polls:
            self._schedule(watched, OVERDUE_POLL_SECONDS)
        else:
            wait = watched.pace.next_poll_seconds(self._age(watched), self.ctx.clock.chance(), self._load)
            wait = wait if watched.missed_at is None else min(wait, MISSED_SECONDS)
            self._schedule(watched, max(wait, _asked_seconds(answer)))

    async def _ask(self, watched: _Watched) -> tuple[float, Answer, Sent]:
        """Read the task. Returns its age in seconds when the request left, the answer, and the gate's receipt."""
        try:
            async with self.gate.slot() as sent:
                return self._age(watched), await self.api.client.read(watched.task.task_id), sent
        finally:
            self._asking -= 1
            self.api.changed.ring()

    async def _react(self, watched: _Watched, answer: Answer, sent: Sent, asked_age: float) -> bool:
        """Act on the answer to a poll that left when the task was `asked_age` seconds old.

        Returns whether the task needs no further poll.
        """
        word = None if answer.task is None else answer.task.word
        self._log(watched).debug(
            "poll", cause=answer.cause, status=word, seconds=round(asked_age, 3), polls=watched.polls
        )
        match answer.cause:
            case Cause.OK if answer.task is not None:
                self.gate.succeeded(sent)
                self._learn(watched, answer.task, asked_age)
                return await self._read(watched, answer, answer.task)
            case Cause.NOT_FOUND:
                self.gate.succeeded(sent)
                return await self._note_missing(watched, answer)
            case Cause.CREDENTIALS:
                self.ctx.stop.stop_all(Reason.CREDENTIALS, token_rejected(answer).one_line())
            case Cause.THROTTLED:
                stop = self.ctx.stop.stop_all
                refused(self.ctx, self.gate, sent, answer.retry_after_seconds, what="polling", stop=stop)
            case _:
                self._log(watched).warning("poll unanswered", cause=answer.cause, why=answer.explain())
                if self.gate.failed():
                    self.ctx.stop.stop_all(Reason.TROUBLE, unreachable(answer))
        return False

    def _learn(self, watched: _Watched, task: Task, asked_age: float) -> None:
        # The status was true at some moment between the request and its answer: take the safe end of that span.
        if task.phase is Phase.RUNNING:
            watched.pace.running(asked_age)
        elif task.phase is Phase.SUCCEEDED:
            watched.pace.ended(self._age(watched), task.took_seconds)

    async def _note_missing(self, watched: _Watched, answer: Answer) -> bool:
        now = self.ctx.clock.steady()
        if watched.missed_at is not None and now - watched.missed_at < MISSED_SECONDS:
            return False
        watched.missed_at = now
        return await self.ctx.ledger.do(collection.record_missing, self._task_end(watched, answer))

    async def _read(self, watched: _Watched, answer: Answer, task: Task) -> bool:
        ending = self._task_end(watched, answer)
        if watched.missed_at is not None:
            watched.missed_at = None
            await self.ctx.ledger.do(collection.record_found, watched.task)
        if task.phase is Phase.RUNNING:
            if not task.known_word and task.word != watched.word:
                self._log(watched).warning("unknown status, taken for running", status=task.word)
            await self._note_running(watched, task.word)
            return False
        self._log_end(watched, ending, task.phase)
        self.ctx.tally.charged(ending.credits)
        if task.phase is Phase.SUCCEEDED:
            if not self.api.guard.halts:
                self._free_slot(watched)  # already now, so that the next claim shares the commit that records this end
            if await self.ctx.ledger.do(collection.record_rendered, ending):
                self.downloader.add(watched.task, task.audio_url, expires_at=task.audio_expires_at)
        elif task.unfunded:
            self.api.guard.trip()
            await self.ctx.ledger.do(collection.record_unfunded, ending)
        else:
            await self.ctx.ledger.do(collection.record_failed, ending)
            self.ctx.tally.ended += watched.task.wanted
            if ending.error_code is None:
                await self.api.guard.suspect(self.api.client, watched.task)
        if self.api.guard.halts or self.api.guard.tripped:
            await self.api.guard.refresh()
        return True

    async def _note_running(self, watched: _Watched, word: str) -> None:
        """Record that the task is still running. After far too long without progress it gives up its slot."""
        now = self.ctx.clock.steady()
        if watched.word not in (None, word):
            watched.progress_at = now
        watched.word = word
        if watched.overdue_polls:
            watched.overdue_polls += 1
        elif now - watched.progress_at > watched.pace.overdue_seconds():
            watched.overdue_polls = 1
            self.overdue[watched.task.key] = watched.task
            self._log(watched).warning("task overdue", status=word)
            self._free_slot(watched)
            await self.ctx.ledger.do(collection.record_overdue, watched.task, at=self.ctx.clock.now())

    def _free_slot(self, watched: _Watched) -> None:
        """Free the slot of a task that has ended or is overdue; once."""
        if watched.holds_slot:
            watched.holds_slot = False
            self.api.slots.release()

    def _task_end(self, watched: _Watched, answer: Answer) -> TaskEnd:
        task = answer.task
        error = (task.error if task is not None else None) or answer.error
        return TaskEnd(
            task=watched.task,
            at=self.ctx.clock.now(),
            run_id=self.ctx.run_id,
            polls=watched.polls,
            word=task.word if task is not None else None,
            credits=task.credits_used if task is not None else None,
            ignored=",".join(answer.ignored) or None,
            error_code=error.code,
            error_message=error.message,
            request_id=error.request_id,
            http_status=answer.error.http_status,
            raw=answer.raw,
        )

    def _log(self, watched: _Watched) -> Any:
        task = watched.task
        return self.ctx.items.of(task.key, task.attempt, task.task_id, endpoint="poll")

    def _log_end(self, watched: _Watched, ending: TaskEnd, phase: Phase) -> None:
        facts: dict[str, Any] = {"status": ending.word, "seconds": round(self._age(watched), 3), "polls": watched.polls}
        facts |= {"credits": rounded(ending.credits), "code": ending.error_code, "request_id": ending.request_id}
        logged = self._log(watched)
        (logged.info if phase is Phase.SUCCEEDED else logged.warning)("task ended", **facts)


def _asked_seconds(answer: Answer) -> float:
    """Seconds that the answer about a running task asks to wait before the next poll; 0 if it does not."""
    asked = answer.retry_after_seconds if answer.cause is Cause.OK else None
    return min(asked or 0.0, MAX_ASKED_SECONDS)
