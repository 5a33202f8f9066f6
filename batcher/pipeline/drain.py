"""Ends a run early: on request and at `--max-runtime`. Both set latches; requests in flight are completed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyio.abc import TaskGroup

from batcher.formatting import counted
from batcher.pipeline.context import RunContext
from batcher.pipeline.stop import Reason, StopRequests

DRAIN_SECONDS: Final = 30.0
"""How long open tasks are collected after the first request; the next run collects the rest at no cost."""
_DRAIN_SHARE: Final = 0.2
"""Share of `--max-runtime` that is reserved for collecting,"""
_DRAIN_MOST_SECONDS: Final = 120.0
"""up to this time."""


async def obey(ctx: RunContext, requests: StopRequests, abort_creates: Callable[[], None], group: TaskGroup) -> None:
    """Stop creating at the first request and collecting a while later; at the second, only record what has arrived."""
    await requests.reach(1)
    ctx.stop.requested = True
    if ctx.stop.asking:
        ctx.stop.cancel()
        ctx.stop.interrupt()
        return
    ctx.stop.stop_creating(Reason.ASKED, requests.message)
    group.start_soon(_stop_all_after, ctx, DRAIN_SECONDS, requests.message)
    ctx.progress.say(
        f"stopping: creating nothing more, collecting {counted(ctx.tally.open, 'open task')} for up to "
        f"{DRAIN_SECONDS:.0f} s{requests.way_out}"
    )
    await requests.reach(2)
    ctx.stop.interrupt()
    abort_creates()


async def limit_runtime(ctx: RunContext) -> None:
    """Stop creating early enough that open tasks are collected before `--max-runtime` ends."""
    limit = ctx.settings.max_runtime_seconds
    if limit is None:
        return
    message = "--max-runtime reached"
    reserve = min(_DRAIN_SHARE * limit, _DRAIN_MOST_SECONDS)
    await ctx.clock.sleep(limit - reserve)
    ctx.stop.stop_creating(Reason.ASKED, message)
    await _stop_all_after(ctx, reserve, message)


async def _stop_all_after(ctx: RunContext, seconds: float, message: str) -> None:
    await ctx.clock.sleep(seconds)
    ctx.stop.stop_all(Reason.ASKED, message)
