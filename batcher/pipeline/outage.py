"""Waits while an object store is out of reach; after some time, nothing more is bought that could not be stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from batcher.audio.objects import OutageError
from batcher.clock import Wakeup
from batcher.errors import StorageError
from batcher.pipeline.context import RunContext
from batcher.pipeline.stop import Reason

CREATING_SECONDS: Final = 60.0
"""How long an outage may last until nothing more is created: the URLs of audio expire."""
WAITING_SECONDS: Final = 600.0
"""How long an outage may last until the audio is left to the next run."""
_FIRST_WAIT_SECONDS: Final = 0.5
_MAX_WAIT_SECONDS: Final = 15.0
"""Waits between two attempts to store audio; they double."""


class Outage:
    """Whether the store of new audio is out of reach, and since when. `changed` rings when it no longer is."""

    def __init__(self, ctx: RunContext, changed: Wakeup) -> None:
        self._ctx = ctx
        self._changed = changed
        self._since: float | None = None  # in steady seconds

    @property
    def is_on(self) -> bool:
        """Whether the store is out of reach."""
        return self._since is not None

    async def outlast(self, deliver: Callable[[], Awaitable[None]]) -> None:
        """Call `deliver`, which is never cancelled, again and again until the store is in reach.

        Raises:
            StorageError: it is out of reach for too long.
        """
        wait = _FIRST_WAIT_SECONDS
        while True:
            try:
                with anyio.CancelScope(shield=True):
                    await deliver()
            except OutageError as error:
                self._note(error)
            else:
                self._end()
                return
            await self._ctx.clock.sleep(wait * (1 + 0.25 * self._ctx.clock.chance()))
            wait = min(2 * wait, _MAX_WAIT_SECONDS)

    def _note(self, error: OutageError) -> None:
        why, now = f"cannot write audio to {self._ctx.store.place}: {error.strerror}", self._ctx.clock.steady()
        if self._since is None:
            self._since = now
            self._ctx.progress.warn(f"{why}; downloads wait for it")
        lasted = now - self._since
        if lasted >= WAITING_SECONDS:
            raise StorageError(why, "Run it again later.") from error
        if lasted >= CREATING_SECONDS and not self._ctx.stop.creating:
            message = f"{why}. Nothing more is created, since URLs of audio expire. Run it again later."
            self._ctx.progress.warn(message)
            self._ctx.stop.stop_creating(Reason.TROUBLE, message)

    def _end(self) -> None:
        if self._since is not None:
            self._since = None
            self._ctx.progress.warn(f"{self._ctx.store.place} can be written again")
            self._changed.ring()
