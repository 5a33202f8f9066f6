"""Which tests of the pipeline run on a server as well; and a submitter, for tests of single steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from batcher.clock import Clock, Wakeup
from batcher.pacing.pace import Pacing
from batcher.pipeline.context import ApiContext
from batcher.pipeline.credit_guard import Guard
from batcher.pipeline.delivery import Delivery
from batcher.pipeline.downloader import Downloader
from batcher.pipeline.poller import Poller
from batcher.pipeline.slots import Slots
from batcher.pipeline.submitter import Submitter
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint
from batcher.settings import Settings
from batcher.throttle.gate import Throttle
from tests.support.fake_tts import TOKEN, FakeTTS
from tests.support.ledger_kit import RUN, Book, book_in, run_context, sheet
from tests.support.postgres import use_both_databases

_ON_BOTH: Final = (
    "test_doubtful_texts",
    "test_plan",
    "test_purchase_check",
    "test_rebuys",
    "test_sample",
    "test_selection",
    "test_where",
)
"""Modules whose tests run with a ledger on a server, too, except those marked `file_ledger`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the tests their second database."""
    if metafunc.module.__name__.rpartition(".")[2] in _ON_BOTH:
        use_both_databases(metafunc)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """A ledger with three rows."""
    with book_in(tmp_path) as made:
        made.take_in(sheet("one", "two", "three"))
        yield made


@pytest.fixture
def changes() -> dict[str, Any]:
    """Settings of the submitter's run that are not the default."""
    return {}


async def nothing() -> bool:
    """No other run has left anything."""
    return False


@pytest.fixture
async def submitter(book: Book, provider: FakeTTS, changes: dict[str, Any]) -> AsyncIterator[Submitter]:
    """A submitter with four slots, and all that a run gives it, at rest."""
    clock, changed, out_dir = Clock(), Wakeup(), book.folder / "audio"
    with book.ledger() as ledger:
        async with Client(Endpoint(provider.url, TOKEN), create_connections=4) as client:
            ctx = run_context(ledger, Settings(sources=(), ledger=book.address, out_dir=out_dir, **changes), clock)
            api = ApiContext(
                client=client,
                account_id=book.account_id,
                guard=Guard(ledger, clock, account_id=book.account_id, run_id=RUN),
                throttle=Throttle(clock, creates_at_once=4, polls_at_once=4, downloads_at_once=4),
                slots=Slots(4, changed, ctx.tally, clock),
                changed=changed,
            )
            delivery = Delivery(ctx=ctx, named=[])
            poller = Poller(ctx, api, Downloader(ctx, api, delivery), Pacing())
            yield Submitter(ctx, api, poller, book.wanted, take_over=nothing)
