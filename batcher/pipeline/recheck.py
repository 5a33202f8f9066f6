"""Reads tasks that failed for lack of credits once more, before their items may be created again."""

from __future__ import annotations

from collections.abc import Sequence

from batcher.ledger.lifecycle import claims
from batcher.ledger.records import Batch, OpenTask
from batcher.pipeline.connection import token_rejected
from batcher.pipeline.context import ApiContext, RunContext
from batcher.pipeline.poller import Poller
from batcher.pipeline.stop import Reason
from batcher.provider.answers import Cause


async def recheck(ctx: RunContext, api: ApiContext, poller: Poller, wanted: Sequence[Batch]) -> None:
    """Poll such tasks of wanted items. Items whose tasks still fail may be created; other tasks are collected."""
    if api.guard.tripped:
        return
    tasks = await ctx.ledger.do(claims.rechecks, api.account_id, wanted)
    await ctx.ledger.do(ctx.items.read, [task.key for task in tasks])
    for task in tasks:
        answer = await api.client.read(task.task_id)
        ctx.tally.polls += 1
        if answer.cause is Cause.OK and answer.task is not None and answer.task.unfunded:
            await ctx.ledger.do(claims.recheck_confirmed, task, run_id=ctx.run_id)
        elif answer.cause in (Cause.OK, Cause.NOT_FOUND):
            await _readopt(ctx, api, poller, task, answer.task.word if answer.task is not None else answer.cause)
        elif answer.cause is Cause.CREDENTIALS:
            ctx.stop.stop_all(Reason.CREDENTIALS, token_rejected(answer).one_line())


async def _readopt(ctx: RunContext, api: ApiContext, poller: Poller, task: OpenTask, status: str | None) -> None:
    """Collect the task after all, unless another run has created its item again meanwhile."""
    detail = f"read again: {status}"
    at = ctx.clock.now()
    if await ctx.ledger.do(claims.readopt, task, at=at, run_id=ctx.run_id, detail=detail):
        api.slots.take()
        poller.watch(task, at_once=True)
