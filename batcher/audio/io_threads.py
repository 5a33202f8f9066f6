"""Blocking work on files, off the event loop's thread.

Switching threads costs more than most of this work (waiting for the interpreter, cold caches), so calls that arrive
at about the same time are batched into one switch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

import anyio
import anyio.to_thread

GATHER_SECONDS: Final = 0.05
"""Minimum time between two batches: calls that arrive meanwhile share the next. A lone call does not wait."""
_THREADS: Final = 4
REQUESTS: Final = 8
"""Requests to an object store at once."""

P = ParamSpec("P")
T = TypeVar("T")


class _Batch:
    """Calls that run one after the other in one thread, and their outcomes: a value or an error each."""

    def __init__(self) -> None:
        self.works: list[Callable[[], Any]] = []
        self.outcomes: list[tuple[Any, Exception | None]] = []
        self.done = anyio.Event()

    def run(self) -> None:
        self.outcomes = [_outcome(work) for work in self.works]


class Disk:
    """Runs blocking work in threads. A call is shielded from cancellation, so it is never interrupted halfway.

    `remote`: the work waits for a network, so each call has a thread to itself.
    """

    def __init__(self, *, remote: bool = False) -> None:
        self._remote = remote
        self._next = _Batch()
        self._started_at = -math.inf
        self._threads = anyio.CapacityLimiter(REQUESTS if remote else _THREADS)

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a thread; return its value or raise its error."""
        if self._remote:
            with anyio.CancelScope(shield=True):
                return await anyio.to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._threads)
        batch = self._next
        index = len(batch.works)
        batch.works.append(partial(work, *args, **kwargs))
        with anyio.CancelScope(shield=True):
            if index == 0:
                await self._lead(batch)
            else:
                await batch.done.wait()
        value, error = batch.outcomes[index]
        if error is not None:
            raise error
        result: T = value
        return result

    async def _lead(self, batch: _Batch) -> None:
        await anyio.sleep(max(0.0, self._started_at + GATHER_SECONDS - anyio.current_time()))
        self._next, self._started_at = _Batch(), anyio.current_time()
        try:
            await anyio.to_thread.run_sync(batch.run, limiter=self._threads)
        except RuntimeError as error:  # no thread can be started
            batch.outcomes = [(None, error)] * len(batch.works)
        finally:
            batch.done.set()


def _outcome(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001 - raised in the caller
        return None, error
