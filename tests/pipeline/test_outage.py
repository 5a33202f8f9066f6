"""A run waits for an object store that is out of reach, and for how long. Time is virtual."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from batcher.audio.objects import OutageError
from batcher.clock import Clock, Wakeup
from batcher.errors import StorageError
from batcher.ledger.ledger import open_ledger
from batcher.pipeline.context import RunContext
from batcher.pipeline.outage import CREATING_SECONDS, WAITING_SECONDS, Outage
from batcher.settings import Settings
from tests.support.ledger_kit import book_in, run_context

PLACE = "s3://bucket/book"


class Hasty(Clock):
    """A clock that advances only by its sleeps, which take no time."""

    seconds = 0.0

    def steady(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[RunContext]:
    with book_in(tmp_path) as book, open_ledger(book.path, "real") as ledger:
        yield run_context(ledger, Settings(sources=(), ledger=book.path, out_dir=PLACE), Hasty())


class Store:
    """An object store that is out of reach for so many seconds from the first attempt on."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock = clock
        self.until = clock.steady() + seconds
        self.attempts = 0

    async def deliver(self) -> None:
        self.attempts += 1
        if self.clock.steady() < self.until:
            raise OutageError(errno.EIO, "connection refused", f"{PLACE}/a.mp3")


@pytest.mark.parametrize(
    ("seconds", "creates"), [(0, True), (CREATING_SECONDS / 2, True), (2 * CREATING_SECONDS, False)]
)
async def test_audio_waits_until_the_store_is_in_reach(ctx: RunContext, seconds: float, creates: bool) -> None:
    """If that takes long, nothing more is created meanwhile: URLs of audio expire."""
    outage, store = Outage(ctx, Wakeup()), Store(ctx.clock, seconds)
    await outage.outlast(store.deliver)
    assert not outage.is_on
    assert ctx.stop.creating is not creates
    assert not ctx.stop.collecting
    assert store.attempts <= 7 + seconds / 15


async def test_after_a_long_outage_the_audio_is_left_to_the_next_run(ctx: RunContext) -> None:
    outage, store = Outage(ctx, Wakeup()), Store(ctx.clock, 1e9)
    with pytest.raises(StorageError, match=f"cannot write audio to {PLACE}: connection refused"):
        await outage.outlast(store.deliver)
    assert WAITING_SECONDS <= ctx.clock.steady() < WAITING_SECONDS + 30
    assert outage.is_on


async def test_other_errors_are_not_waited_for(ctx: RunContext) -> None:
    async def deliver() -> None:
        raise PermissionError(errno.EACCES, "AccessDenied", PLACE)

    with pytest.raises(PermissionError):
        await Outage(ctx, Wakeup()).outlast(deliver)
    assert ctx.clock.steady() == 0.0
