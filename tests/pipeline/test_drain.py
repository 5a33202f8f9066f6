"""How a run ends early: open tasks are collected for a while, and the rest is left to the next run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from batcher.ledger.ledger import open_ledger
from batcher.pipeline.context import RunContext
from batcher.pipeline.drain import DRAIN_SECONDS, limit_runtime, obey
from batcher.pipeline.stop import Reason, StopRequests
from batcher.settings import Settings
from tests.support.ledger_kit import Book, run_context
from tests.support.virtual import VirtualClock, run_virtually

Latches = tuple[bool, bool, bool]
"""Whether creating and collecting have stopped, and whether the run is interrupted."""


def in_a_run(book: Book, work: Callable[[RunContext], Awaitable[None]], **changes: Any) -> RunContext:
    """Do the work in virtual time with the context of a run."""
    with open_ledger(book.path, "real") as ledger:
        settings = Settings(sources=(), ledger=book.path, out_dir=Path("audio"), **changes)
        ctx = run_context(ledger, settings, VirtualClock())
        run_virtually(work, ctx)
    return ctx


async def latches_at(ctx: RunContext, *times: float) -> list[Latches]:
    """The latches at these times, in seconds after the run's start."""
    found = []
    for at in times:
        await anyio.sleep(at - ctx.clock.steady())
        found.append((ctx.stop.creating, ctx.stop.collecting, ctx.stop.interrupted))
    return found


OPEN, DRAINING, ENDED = (False, False, False), (True, False, False), (True, True, False)


@pytest.mark.parametrize(("limit", "drains_at"), [(100.0, 80.0), (3600.0, 3480.0)])
def test_a_limited_run_reserves_time_for_its_open_tasks(book: Book, limit: float, drains_at: float) -> None:
    """A fifth of the limit, and two minutes at most."""

    async def work(ctx: RunContext) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(limit_runtime, ctx)
            found = await latches_at(ctx, drains_at - 1, drains_at + 1, limit - 1, limit + 1)
        assert found == [OPEN, DRAINING, DRAINING, ENDED]

    ctx = in_a_run(book, work, max_runtime_seconds=limit)
    assert ctx.stop.reasons == {Reason.ASKED: "--max-runtime reached"}


def test_a_run_without_a_limit_goes_on(book: Book) -> None:
    assert in_a_run(book, limit_runtime).stop.reasons == {}


@pytest.mark.parametrize("requested", [1, 2])
def test_a_request_lets_a_run_drain_and_a_second_ends_it(book: Book, requested: int) -> None:
    """Only the second aborts creates in flight, which puts them in doubt."""
    aborted: list[float] = []

    async def work(ctx: RunContext) -> None:
        requests = StopRequests()
        async with anyio.create_task_group() as group:
            group.start_soon(obey, ctx, requests, lambda: aborted.append(ctx.clock.steady()), group)
            assert await latches_at(ctx, 5.0) == [OPEN]
            requests.request()
            assert await latches_at(ctx, 6.0, DRAIN_SECONDS + 4) == [DRAINING, DRAINING]
            if requested == 2:
                requests.request()
                assert await latches_at(ctx, DRAIN_SECONDS + 4.5) == [(True, True, True)]
            assert await latches_at(ctx, DRAIN_SECONDS + 6) == [(True, True, requested == 2)]
            group.cancel_scope.cancel()
        assert ctx.stop.reasons == {Reason.ASKED: requests.message}

    in_a_run(book, work)
    assert len(aborted) == requested - 1


def test_a_request_instead_of_an_answer_creates_nothing(book: Book) -> None:
    async def work(ctx: RunContext) -> None:
        requests = StopRequests()
        ctx.stop.asking = True
        requests.request()
        async with anyio.create_task_group() as group:
            await obey(ctx, requests, lambda: pytest.fail("nothing was in flight"), group)
        assert await latches_at(ctx, 1.0) == [(True, True, True)]

    assert in_a_run(book, work).stop.cancelled
