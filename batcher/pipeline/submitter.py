"""From pending to submitted: claims items while slots are free, sends each create once, records its answer.

The order keeps the promise. A create leaves only after its intent is durable; its answer is recorded before anything
else happens with it; nothing that stops a run comes between an answer and its record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from batcher.clock import local
from batcher.errors import StorageError
from batcher.formatting import rounded
from batcher.item import Event
from batcher.ledger.ledger import Connection
from batcher.ledger.lifecycle import account, claims
from batcher.ledger.lifecycle.account import Limits, Room
from batcher.ledger.money.spending import Budget
from batcher.ledger.records import AnswerRecord, Batch, Claimed, OpenTask
from batcher.pipeline.connection import token_rejected, unreachable
from batcher.pipeline.context import ApiContext, RunContext
from batcher.pipeline.poller import Poller
from batcher.pipeline.recheck import recheck
from batcher.pipeline.refusal import refused, too_long
from batcher.pipeline.stop import Reason
from batcher.pipeline.waiting import Situation, Wait, why_waiting
from batcher.provider.answers import Answer, Cause
from batcher.throttle.gate import Sent

_BLOCKED_SECONDS: Final = 1.0
"""Pause before the halts are checked again when an item is due and the ledger permits no claim."""
_CROWDED_SECONDS: Final = 0.5
"""Longest pause before the next claim while other runs have all slots."""
_OTHERS_SECONDS: Final = 2.0
"""Longest pause before the next claim while other runs have all items."""


class Submitter:
    """Creates tasks for the wanted items of one run; with `only_chosen`, for rows in the ledger's table `chosen`."""

    def __init__(
        self,
        ctx: RunContext,
        api: ApiContext,
        poller: Poller,
        wanted: Sequence[Batch],
        *,
        take_over: Callable[[], Awaitable[bool]],
        only_chosen: bool = False,
    ) -> None:
        self.ctx = ctx
        self.api = api
        self.gate = api.throttle.create
        self.poller = poller
        self.wanted = wanted
        self._take_over = take_over
        self._limits = Limits(
            concurrency=ctx.settings.concurrency,
            counts_open=ctx.settings.wait,
            create_rate=ctx.settings.create_rate,
            max_items=ctx.settings.max_items,
        )
        self._only_chosen = only_chosen
        most = ctx.settings.max_credits
        self._budget = None if most is None else Budget(most, ctx.run_id)
        self._cursor: claims.Cursor = (0, 0)
        self._searched_all = False  # whether the last claim began at the first row
        self._in_flight = 0  # creates claimed and not recorded yet
        self._claimed = 0  # items claimed by this run, without those that were returned
        self._creating = True  # takes a share of the slots
        self._is_waiting = False  # for the items of other runs
        self._replaced: list[str] = []  # batches of which another run has imported another version
        self._balance_due = False  # a create was lost: the balance now shows what it cost

    async def run(self) -> None:
        """Create until no item is left or creating has stopped; returns when every create is recorded."""
        async with anyio.create_task_group() as creates:
            with self.ctx.stop.scope("creating"), self.ctx.stop.on_storage_error():
                await self.ctx.ledger.do(account.set_creating, self.ctx.run_id, True)
                await recheck(self.ctx, self.api, self.poller, self.wanted)
                while await self._step(creates):
                    pass
            with self.ctx.stop.on_storage_error():  # whyever it creates nothing more, others may use its slots
                await self.ctx.ledger.do(account.set_creating, self.ctx.run_id, False)

    async def _step(self, creates: TaskGroup) -> bool:
        """Claim and send as many items as the limits allow. Returns whether there may be more to do."""
        await self.gate.turn()  # before the claim: a create that is claimed and then delayed costs two commits
        if self.api.guard.tripped or self._items_spent():
            return False
        if await self._read_balance():
            return True
        room = min(self.api.slots.free, self.gate.room, self._items_left())
        if room <= 0:
            await self.api.changed.wait(self.ctx.clock)
            return True
        claimed = await self._claim(room)
        for one in claimed:
            creates.start_soon(self._create, one, self.gate.enter())
        return bool(claimed) or await self._wait()

    async def _claim(self, room: int) -> list[Claimed]:
        self._searched_all = self._cursor == (0, 0)
        claimed, self._cursor = await self.ctx.ledger.do(
            self._claim_named,
            self.api.client.prepare,
            run_id=self.ctx.run_id,
            account_id=self.api.account_id,
            wanted=self.wanted,
            cursor=self._cursor,
            limit=room,
            at=self.ctx.clock.now(),
            limits=self._limits,
            budget=self._budget,
            only_chosen=self._only_chosen,
        )
        self.api.slots.take(len(claimed))
        self._in_flight += len(claimed)
        self._claimed += len(claimed)
        with self.ctx.stop.on_storage_error():  # so that none of them leaves
            await self.ctx.ledger.note_intents(claimed)
        return claimed

    def _claim_named(self, conn: Connection, *arguments: Any, **how: Any) -> tuple[list[Claimed], claims.Cursor]:
        """Claim items, and read their rows for the log."""
        claimed, cursor = claims.claim(conn, *arguments, **how)
        self.ctx.items.read(conn, [one.key for one in claimed])
        return claimed, cursor

    async def _wait(self) -> bool:
        """Wait until an item may have become claimable. Returns False if none can."""
        changed = self.api.changed.next()
        found = await self._situation()
        self._cursor = (0, 0)
        why = why_waiting(found)
        await self._share(creating=why is not Wait.OTHERS)
        end = self._end(why, found)
        if end is not None:
            self.ctx.stop.stop_creating(*end)
            return False
        match why:
            case Wait.NOTHING_LEFT if self.ctx.ledger.is_shared and found.waits_for_tasks:
                # Tasks of runs that have ended meanwhile. Another run may have taken them over since the look.
                return await self._take_over() or await self.ctx.ledger.do(self._others_work)
            case Wait.NOTHING_LEFT | Wait.UNSEEN_PROBE:
                return False
            case Wait.BUDGET | Wait.ANSWERS | Wait.PROBE:
                await self.api.changed.wait(self.ctx.clock, ring=changed)
            case Wait.TURN:
                await self.ctx.clock.sleep(min(found.turn_seconds, _OTHERS_SECONDS))
            case Wait.OTHERS | Wait.BUDGET_IN_USE:
                await self.api.changed.wait(self.ctx.clock, ring=changed, seconds=_OTHERS_SECONDS)
            case Wait.SLOTS:
                await self._wait_for_slots(changed)
            case Wait.BLOCKED:
                await self.api.guard.refresh()
                await self.ctx.clock.sleep(_BLOCKED_SECONDS)
        return True  # after SEARCH_AGAIN and BALANCE at once: the next step does both

    def _end(self, why: Wait, found: Situation) -> tuple[Reason, str] | None:
        """Why creating ends although items may be left, if it does."""
        match why:
            case Wait.NOTHING_LEFT if self._replaced:
                names = ", ".join(self._replaced)
                return Reason.ASKED, f"another run has imported another version of {names}; run it again"
            case Wait.BUDGET_SPENT:
                return Reason.ASKED, "; ".join(dict.fromkeys(self._over_budget.values()))
            case Wait.ITEMS_SPENT:
                return Reason.ASKED, f"--max-items {self.ctx.settings.max_items} reached"
            case Wait.CLOSED:
                return Reason.TROUBLE, too_long(local(self.ctx.clock.now() + found.closed_seconds))
        return None

    async def _wait_for_slots(self, changed: anyio.Event) -> None:
        """Wait until other runs leave slots or something changes here. Looking takes no lock that others wait for."""
        left = none = Room(creates=0)
        while left == none and not changed.is_set():
            await self.api.changed.wait(self.ctx.clock, ring=changed, seconds=_CROWDED_SECONDS)
            left = await self.ctx.ledger.do(account.room, self.ctx.run_id, self.api.account_id, 1, self._limits)

    async def _share(self, *, creating: bool) -> None:
        """Take a share of the account's slots only while there is something to create."""
        if creating != self._creating:
            self._creating = creating
            await self.ctx.ledger.do(account.set_creating, self.ctx.run_id, creating)
        if not creating and not self._is_waiting:
            self._is_waiting = True
            self.ctx.progress.say("nothing is left to create; waiting for the items of other runs")

    async def _situation(self) -> Situation:
        searched_all, price_unknown, over_budget = self._searched_all, self._price_unknown(), self._over_budget
        # Before the ledger is read: a task that ends meanwhile must be waited for, and then looked at.
        in_flight, has_open_tasks = self._in_flight > 0, not self.api.slots.all_free
        affordable = [batch for batch in self.wanted if batch.batch_id not in over_budget]
        pending, left, others_work = False, Room(creates=0), False
        if searched_all and not price_unknown:
            pending, left, others_work = await self.ctx.ledger.do(self._look, affordable)
        return Situation(
            searched_all=searched_all,
            price_unknown=price_unknown,
            over_budget=bool(over_budget),
            in_flight=in_flight,
            has_open_tasks=has_open_tasks,
            waits_for_tasks=self.ctx.settings.wait,
            probing=self.api.guard.probing,
            pending=pending,
            others_work=others_work,
            items_spent=left.spent,
            turn_seconds=left.wait_seconds,
            closed_seconds=left.closed_seconds,
            crowded=left.creates == 0,
        )

    def _look(self, conn: Connection, affordable: Sequence[Batch]) -> tuple[bool, Room, bool]:
        """Whether an item is pending, whether the limits of all runs permit to create it, and whether others work."""
        run_id = self.ctx.run_id
        self._replaced = [batch.name for batch in self.wanted if not claims.is_current(conn, batch)]
        pending = claims.has_claimable(conn, run_id, affordable, only_chosen=self._only_chosen)
        left = account.room(conn, run_id, self.api.account_id, 1, self._limits)
        return pending, left, self._others_work(conn)

    def _others_work(self, conn: Connection) -> bool:
        at = self.ctx.clock.now()
        return claims.held_by_others(conn, self.ctx.run_id, self.wanted, at=at, only_chosen=self._only_chosen)

    @property
    def _over_budget(self) -> dict[int, str]:
        """The batches that cannot afford their next item, each with the reason."""
        return {} if self._budget is None else self._budget.blocked

    async def _read_balance(self) -> bool:
        """Read the balance where it shows what a create cost: after a lost answer, and while no price is known.

        Returns whether it was read.
        """
        price_unknown = self._price_unknown()
        if not (price_unknown or self._balance_due):
            return False
        self._balance_due = False
        if self._budget is not None:
            self._budget.unpriced = self._budget.unpriced and not price_unknown
        await self.api.guard.note((await self.api.client.profile()).profile)
        return True

    def _price_unknown(self) -> bool:
        """Whether everything created has ended and the balance has not been read since."""
        return self._budget is not None and self._budget.unpriced and self.api.slots.all_free and not self._in_flight

    def _items_left(self) -> int:
        most = self.ctx.settings.max_items
        return self.gate.size if most is None else most - self._claimed

    def _items_spent(self) -> bool:
        most = self.ctx.settings.max_items
        if most is None or self._claimed < most or self._in_flight:
            return False
        self.ctx.stop.stop_creating(Reason.ASKED, f"--max-items {most} reached")
        return True

    async def _create(self, claimed: Claimed, sent: Sent) -> None:
        with anyio.CancelScope(shield=True):
            answer = await self.api.client.create(claimed.body, hold=self._hold)
            self.gate.leave(sent)
            self._react(answer, sent)
            event = await self._record(claimed, answer, self.ctx.clock.steady() - sent.at)
            self._balance_due |= event is Event.LOST and not self.ctx.stop.interrupted
            await self._heed(claimed, answer)
            self._landed(event)
            if event is Event.ACCEPTED and answer.task is not None:
                self._accepted(claimed, answer.task.id)

    async def _heed(self, claimed: Claimed, answer: Answer) -> None:
        """Do what the answer means for further creates of the account, in other runs, too."""
        with self.ctx.stop.on_storage_error():
            if answer.cause is Cause.THROTTLED:
                await self.api.guard.throttled(self.api.client, claimed.key)
                asked = answer.retry_after_seconds or 0.0
                await self.ctx.ledger.do(account.note_closed, self.api.account_id, asked)
            if answer.cause in (Cause.NO_CREDITS, Cause.UNCLEAR) or self.api.guard.halts:
                await self.api.guard.refresh()

    def _hold(self) -> bool:
        """Whether a create must not leave after all: checked at the last moment before it is sent."""
        return self.api.guard.tripped or self.ctx.stop.creating or self.gate.closed or not self.ctx.ledger.is_held

    def _react(self, answer: Answer, sent: Sent) -> None:
        """Set the latches that the answer requires, before it is recorded."""
        self.ctx.tally.creates += answer.cause not in (Cause.HELD, Cause.UNSENT)
        if answer.quota_remaining is not None:
            self.ctx.tally.balance_reported(answer.quota_remaining)
        match answer.cause:
            case Cause.OK | Cause.INVALID:
                self.gate.succeeded(sent)
                self.api.guard.answered()
            case Cause.NO_CREDITS:
                self.api.guard.trip()
            case Cause.THROTTLED:
                stop = self.ctx.stop.stop_creating
                refused(self.ctx, self.gate, sent, answer.retry_after_seconds, what="creating", stop=stop)
            case Cause.CREDENTIALS:
                self.ctx.stop.stop_all(Reason.CREDENTIALS, token_rejected(answer).one_line())
            case Cause.WRONG_HOST:
                message = f"something other than the API answered: {answer.explain()}"
                self.ctx.stop.stop_creating(Reason.TROUBLE, message)
            case Cause.UNSENT | Cause.UNCLEAR:
                if self.gate.failed():
                    self.ctx.stop.stop_creating(Reason.TROUBLE, unreachable(answer))

    async def _record(self, claimed: Claimed, answer: Answer, seconds: float) -> Event | None:
        record = self._to_record(claimed, answer)
        answered = self.ctx.items.of(
            claimed.key,
            claimed.attempt,
            record.task_id,
            endpoint="create",
            seconds=round(seconds, 3),
            chars=claimed.chars,
            credits=rounded(record.credits),
            cause=record.cause,
            status=record.http_status,
            code=record.error_code,
            request_id=record.request_id,
        )
        try:
            event: Event = await self.ctx.ledger.record(record, max_in_doubt=self.ctx.settings.max_in_doubt)
        except StorageError as error:
            # Not even the spill file could store it: the log is the last record from which the task can be adopted.
            answered.error("answer not in the ledger", why=error.message)
            self.ctx.stop.stop_all(Reason.TROUBLE, error.one_line())
            return None
        if answer.cause is Cause.HELD:
            answered.debug("create", outcome=event)
        else:
            (answered.info if event is Event.ACCEPTED else answered.warning)("create", outcome=event)
        return event

    def _to_record(self, claimed: Claimed, answer: Answer) -> AnswerRecord:
        return AnswerRecord(
            key=claimed.key,
            attempt=claimed.attempt,
            run_id=self.ctx.run_id,
            account_id=self.api.account_id,
            at=self.ctx.clock.now(),
            event=answer.event,
            # A request that we aborted ourselves is no evidence about the API.
            cause="interrupted" if self.ctx.stop.interrupted and answer.cause is Cause.UNCLEAR else answer.cause,
            task_id=answer.task.id if answer.task is not None else None,
            http_status=answer.error.http_status,
            error_code=answer.error.code,
            error_message=answer.error.message or answer.transport,
            request_id=answer.error.request_id,
            credits=answer.credits_used,
            ignored=",".join(answer.ignored) or None,
            raw=answer.raw,
        )

    def _landed(self, event: Event | None) -> None:
        self._in_flight -= 1
        self.ctx.tally.answered(event)
        if event is Event.DEFERRED:
            self._claimed -= 1
        if event is not Event.ACCEPTED or not self.ctx.settings.wait:
            self.api.slots.release()
        self.api.changed.ring()

    def _accepted(self, claimed: Claimed, task_id: str) -> None:
        if self.ctx.settings.wait:
            self.poller.watch(
                OpenTask(
                    key=claimed.key,
                    attempt=claimed.attempt,
                    account_id=self.api.account_id,
                    task_id=task_id,
                    format=claimed.format,
                    chars=claimed.chars,
                    model=claimed.model,
                    accepted_at=self.ctx.clock.now(),
                )
            )
