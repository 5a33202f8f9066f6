"""From pending to submitted: claims what there is room for, sends each create once, and records what came back.

The order is the promise: a create leaves only after its intent is durable; its answer is recorded before anything
else is done with it; nothing that stops a run comes between an answer and its record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from batcher.clock import Clock, Wakeup
from batcher.errors import StorageError
from batcher.item import Event
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import claims
from batcher.ledger.money.spending import Budget
from batcher.ledger.records import AnswerRecord, Batch, Claimed, OpenTask
from batcher.pipeline.credit_guard import Guard
from batcher.pipeline.poller import Poller
from batcher.pipeline.slots import Slots
from batcher.pipeline.stop import Reason, Stop
from batcher.provider.answers import Answer, Cause
from batcher.provider.client import Client
from batcher.reports.tally import Tally
from batcher.throttle.gate import Gate, Sent

log = structlog.get_logger()

_IDLE_SECONDS: Final = 1.0


@dataclass(kw_only=True)
class Submitter:
    """Creates tasks for the wanted items of one run."""

    ledger: Ledger
    client: Client
    guard: Guard
    gate: Gate
    slots: Slots
    poller: Poller
    stop: Stop
    tally: Tally
    clock: Clock
    changed: Wakeup
    run_id: str
    account_id: int
    wanted: Sequence[Batch]
    max_items: int | None
    max_in_doubt: int
    budget: Budget | None
    wait: bool
    _cursor: claims.Cursor = field(default=(0, 0), init=False)
    _cursor_was_first: bool = field(default=True, init=False)
    _in_flight: int = field(default=0, init=False)
    _claimed: int = field(default=0, init=False)
    _balance_check_due: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Create until nothing waits to be created or creating has stopped; returns when every create has landed."""
        async with anyio.create_task_group() as creates:
            with self.stop.scope("creating"):
                try:
                    await self._recheck()
                    while await self._step(creates):
                        pass
                except StorageError as error:
                    self.stop.stop_all(Reason.TROUBLE, error.one_line())

    async def _step(self, creates: TaskGroup) -> bool:
        """Claim and send what there is room for. Returns whether there may be more to do."""
        await self.gate.turn()  # before the claim: a create that is claimed and held back costs two commits
        if self.guard.tripped or self._items_spent():
            return False
        if await self._note_balance():
            return True
        room = min(self.slots.free, self.gate.room, self._items_left())
        if room <= 0:
            await self.changed.wait(self.clock)
            return True
        claimed = await self._claim(room)
        for one in claimed:
            creates.start_soon(self._create, one, self.gate.enter())
        if claimed:
            return True
        return await self._wait_for_more()

    async def _claim(self, room: int) -> list[Claimed]:
        self._cursor_was_first = self._cursor == (0, 0)
        claimed, self._cursor = await self.ledger.do(
            claims.claim,
            Client.prepare,
            run_id=self.run_id,
            account_id=self.account_id,
            wanted=self.wanted,
            cursor=self._cursor,
            limit=room,
            at=self.clock.now(),
            budget=self.budget,
        )
        self.slots.take(len(claimed))
        self._in_flight += len(claimed)
        self._claimed += len(claimed)
        return claimed

    async def _wait_for_more(self) -> bool:
        """Nothing was claimed: wait for what may change that. Returns False when nothing can."""
        ring = self.changed.next()
        whole, self._cursor = self._cursor_was_first, (0, 0)
        if not whole or self._is_blind():
            return True  # what was put back before the cursor, or the balance, has not been looked at again
        short = self.budget.blocked if self.budget is not None else {}
        affordable = [batch for batch in self.wanted if batch.batch_id not in short]
        due_at = await self.ledger.do(claims.next_due_at, self.run_id, affordable)
        landed = self._in_flight == 0
        if short and due_at is None:
            if landed and self.slots.all_free:
                self.stop.stop_creating(Reason.ASKED, "; ".join(dict.fromkeys(short.values())))
                return False
            await self.changed.wait(self.clock, ring=ring)  # what is open may turn out cheaper, or say its price
            return True
        unseen_probe = self.guard.probing and (self.slots.all_free or not self.wait)  # nobody here will see it end
        if landed and (due_at is None or unseen_probe):
            return False
        if due_at is None or self._in_flight or self.guard.probing:
            await self.changed.wait(self.clock, ring=ring)
        elif due_at > self.clock.now():
            await self.changed.wait(self.clock, seconds=due_at - self.clock.now(), ring=ring)
        else:
            await self.guard.refresh()
            await self.clock.sleep(_IDLE_SECONDS)
        return True

    async def _note_balance(self) -> bool:
        """Read the balance where that says what a create cost: after a lost answer, and while no price is known.

        Returns whether it was read.
        """
        blind = self._is_blind()
        if not (blind or self._balance_check_due):
            return False
        self._balance_check_due = False
        if self.budget is not None:
            self.budget.unpriced = self.budget.unpriced and not blind
        await self.guard.note((await self.client.profile()).profile)
        return True

    def _is_blind(self) -> bool:
        """Whether all that was created has ended, and the balance was not asked yet what it cost."""
        return self.budget is not None and self.budget.unpriced and self.slots.all_free and not self._in_flight

    def _items_left(self) -> int:
        return self.gate.size if self.max_items is None else self.max_items - self._claimed

    def _items_spent(self) -> bool:
        if self._items_left() > 0 or self._in_flight:
            return False
        if self.max_items is not None and self._claimed >= self.max_items:
            self.stop.stop_creating(Reason.ASKED, f"--max-items {self.max_items} reached")
            return True
        return False

    async def _create(self, claimed: Claimed, sent: Sent) -> None:
        with anyio.CancelScope(shield=True):
            answer = await self.client.create(claimed.body, hold=self._hold)
            self.gate.leave(sent)
            self._react(answer, sent)
            event = await self._record(claimed, answer)
            self._balance_check_due |= event is Event.LOST and not self.stop.interrupted
            if answer.cause in (Cause.NO_CREDITS, Cause.UNCLEAR) or self.guard.halts:
                await self._refresh_guard()
            self._landed(event)
            if event is Event.ACCEPTED and answer.task is not None:
                self._accepted(claimed, answer.task.id)

    async def _refresh_guard(self) -> None:
        try:
            await self.guard.refresh()
        except StorageError as error:
            self.stop.stop_all(Reason.TROUBLE, error.one_line())

    def _hold(self) -> bool:
        """Asked in the last moment before a create leaves."""
        return self.guard.tripped or self.stop.creating or self.gate.closed

    def _react(self, answer: Answer, sent: Sent) -> None:
        """Set the latches that the answer calls for, before it is even recorded."""
        self.tally.creates += answer.cause not in (Cause.HELD, Cause.UNSENT)
        if answer.quota_remaining is not None:
            self.tally.credits = answer.quota_remaining
        match answer.cause:
            case Cause.OK | Cause.INVALID:
                self.gate.succeeded(sent)
            case Cause.NO_CREDITS:
                self.guard.trip()
            case Cause.THROTTLED:
                self.tally.throttled += 1
                self.gate.close(sent, answer.retry_after_seconds)
            case Cause.CREDENTIALS:
                self.stop.stop_all(Reason.CREDENTIALS, f"the API refused the token: {answer.explain()}")
            case Cause.WRONG_HOST:
                message = f"something other than the API answers at its address: {answer.explain()}"
                self.stop.stop_creating(Reason.TROUBLE, message)
            case Cause.UNSENT | Cause.UNCLEAR:
                if self.gate.failed():
                    self.stop.stop_creating(Reason.TROUBLE, f"the API cannot be reached: {answer.explain()}")

    async def _record(self, claimed: Claimed, answer: Answer) -> Event | None:
        record = self._to_record(claimed, answer)
        words = {"key": claimed.key, "attempt": claimed.attempt, "task_id": record.task_id, "cause": record.cause}
        words |= {"status": record.http_status, "code": record.error_code, "request_id": record.request_id}
        try:
            event: Event = await self.ledger.record(record, max_in_doubt=self.max_in_doubt)
        except StorageError as error:
            # The last resort when not even the spill file took it: a person can adopt what the log names.
            log.error("answer not in the ledger", endpoint="create", **words, why=error.message)
            self.stop.stop_all(Reason.TROUBLE, error.one_line())
            return None
        log.log(20 if event is Event.ACCEPTED else 30, "create", outcome=event, endpoint="create", **words)
        return event

    def _to_record(self, claimed: Claimed, answer: Answer) -> AnswerRecord:
        later = (
            self.clock.now() + self.gate.closed_seconds
            if answer.cause is Cause.THROTTLED and answer.retry_after_seconds
            else 0.0
        )
        return AnswerRecord(
            key=claimed.key,
            attempt=claimed.attempt,
            run_id=self.run_id,
            account_id=self.account_id,
            at=self.clock.now(),
            event=answer.event,
            # That we broke it off ourselves says nothing about the API.
            cause="interrupted" if self.stop.interrupted and answer.cause is Cause.UNCLEAR else answer.cause,
            task_id=answer.task.id if answer.task is not None else None,
            http_status=answer.error.http_status,
            error_code=answer.error.code,
            error_message=answer.error.message or answer.transport,
            request_id=answer.error.request_id,
            credits=answer.credits_used,
            not_before_at=later,
            raw=answer.raw,
        )

    def _landed(self, event: Event | None) -> None:
        self._in_flight -= 1
        self.tally.answered(event)
        if event is Event.DEFERRED:
            self._claimed -= 1
        if event is not Event.ACCEPTED or not self.wait:
            self.slots.release()
        self.changed.ring()

    def _accepted(self, claimed: Claimed, task_id: str) -> None:
        if self.wait:
            self.poller.watch(
                OpenTask(
                    key=claimed.key,
                    attempt=claimed.attempt,
                    account_id=self.account_id,
                    task_id=task_id,
                    format=claimed.format,
                    chars=claimed.chars,
                    model=claimed.model,
                    accepted_at=self.clock.now(),
                )
            )

    async def _recheck(self) -> None:
        """Read tasks that failed for lack of credits once more: only if they still say so are their items created."""
        if self.guard.tripped:
            return
        for task in await self.ledger.do(claims.rechecks, self.account_id, self.wanted):
            answer = await self.client.read(task.task_id)
            self.tally.polls += 1
            if answer.cause is Cause.OK and answer.task is not None and answer.task.unfunded:
                await self.ledger.do(claims.recheck_confirmed, task, run_id=self.run_id)
            elif answer.cause in (Cause.OK, Cause.NOT_FOUND):
                said = answer.task.word if answer.task is not None else answer.cause
                at = self.clock.now()
                await self.ledger.do(claims.readopt, task, at=at, run_id=self.run_id, detail=f"read again: {said}")
                self.slots.take()
                self.poller.watch(task, at_once=True)
            elif answer.cause is Cause.CREDENTIALS:
                self.stop.stop_all(Reason.CREDENTIALS, f"the API refused the token: {answer.explain()}")
