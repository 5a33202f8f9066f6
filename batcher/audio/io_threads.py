"""Blocking work on files, off the event loop's thread.

Going to another thread and back costs more than most of such work: each side waits for the interpreter and finds its
caches cold. So what is asked for at about the same time goes there together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

import anyio
import anyio.to_thread

GATHER_SECONDS: Final = 0.02
"""Between two goes: what comes meanwhile shares the next. Work that comes alone does not wait."""
_THREADS: Final = 4

P = ParamSpec("P")
T = TypeVar("T")


class _Batch:
    """Work that is done in one go, one after the other, and what came of each: a value or an error."""

    def __init__(self) -> None:
        self.works: list[Callable[[], Any]] = []
        self.outcomes: list[tuple[Any, Exception | None]] = []
        self.done = anyio.Event()

    def run(self) -> None:
        self.outcomes = [_outcome(work) for work in self.works]


class Disk:
    """Where blocking work is done. A call cannot be cut in two: it is shielded from cancellation."""

    def __init__(self) -> None:
        self._next = _Batch()
        self._went_at = -math.inf
        self._threads = anyio.CapacityLimiter(_THREADS)

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns, or raise what it raises."""
        batch = self._next
        place = len(batch.works)
        batch.works.append(partial(work, *args, **kwargs))
        with anyio.CancelScope(shield=True):
            if place == 0:
                await self._lead(batch)
            else:
                await batch.done.wait()
        value, error = batch.outcomes[place]
        if error is not None:
            raise error
        result: T = value
        return result

    async def _lead(self, batch: _Batch) -> None:
        await anyio.sleep(max(0.0, self._went_at + GATHER_SECONDS - anyio.current_time()))
        self._next, self._went_at = _Batch(), anyio.current_time()
        try:
            await anyio.to_thread.run_sync(batch.run, limiter=self._threads)
        except RuntimeError as error:  # no thread is to be had
            batch.outcomes = [(None, error)] * len(batch.works)
        finally:
            batch.done.set()


def _outcome(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001 - handed to whoever asked
        return None, error
