"""Ends a run early: on signals and at `--max-runtime`. Both set latches; requests in flight are completed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

import anyio
from anyio.abc import TaskGroup, TaskStatus

from batcher.formatting import counted
from batcher.pipeline.context import RunContext
from batcher.pipeline.stop import CANCELLED, Reason

DRAIN_SECONDS: Final = 30.0
"""How long open tasks are collected after the first signal; the next run collects the rest at no cost."""
_DRAIN_SHARE: Final = 0.2
"""Share of `--max-runtime` that is reserved for collecting,"""
_DRAIN_MOST_SECONDS: Final = 120.0
"""up to this time."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def handle_signals(
    ctx: RunContext, abort_creates: Callable[[], None], group: TaskGroup, *, task_status: TaskStatus[None]
) -> None:
    """Stop creating at the first signal and collecting a while later; at the second, only record what has arrived."""
    # A closed terminal ends a run like any other signal, unless nohup has it ignored.
    handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    with anyio.open_signal_receiver(*handled) as signals:
        task_status.started()
        async for _ in signals:
            if ctx.stop.signalled:
                ctx.stop.interrupt()
                abort_creates()
                continue
            ctx.stop.signalled = True
            if ctx.stop.asking:
                ctx.stop.cancel()
                ctx.stop.stop_all(Reason.ASKED, CANCELLED)
                continue
            message = "stopped by a signal; run it again to continue"
            ctx.stop.stop_creating(Reason.ASKED, message)
            group.start_soon(_stop_all_after, ctx, DRAIN_SECONDS, message)
            ctx.progress.say(
                f"stopping: creating nothing more, collecting {counted(ctx.tally.open, 'open task')} for up to "
                f"{DRAIN_SECONDS:.0f} s (press Ctrl-C again to end at once)"
            )


def block_signals() -> None:
    """Ignore further signals: only the report remains to be printed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


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
