"""A run whose account's slots are all taken by other runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import psycopg
import pytest

from batcher.address import Server
from batcher.clock import Clock
from batcher.ledger.lifecycle import account
from batcher.ledger.lifecycle.account import Limits
from batcher.ledger.storage import database
from batcher.pipeline.submitter import Submitter
from tests.support import postgres
from tests.support.ledger_kit import RUN, Book, opened_book, sheet


@pytest.fixture
def book(postgres_url: str, tmp_path: Path) -> Iterator[Book]:
    """A ledger on a server, on which another run has all four slots."""
    with postgres.database_of(postgres_url) as url:
        place = Server(url, tmp_path)
        database.create(place, "real")
        with opened_book(place) as made:
            made.take_in(sheet("one", "two", "three", "four", "five"))
            made.join("other")
            made.claim(4, run_id="other", limits=Limits(concurrency=4))
            made.do(account.set_creating, RUN, True)
            yield made


class Looking(Clock):
    """Waits for hardly any time, and counts how often."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0
        self.often = anyio.Event()

    def limit(self, seconds: float) -> anyio.CancelScope:
        """A limit that is reached soon."""
        self.waits += 1
        if self.waits == 5:
            self.often.set()
        return super().limit(min(seconds, 0.005))


@pytest.mark.parametrize("changes", [{"concurrency": 4}])
async def test_it_looks_for_slots_without_the_lock_for_which_claims_wait(book: Book, submitter: Submitter) -> None:
    """A hundred runs that took it twice a second would leave the others no time to claim."""
    clock = Looking()
    submitter.ctx = replace(submitter.ctx, clock=clock)
    url = book.address.url if isinstance(book.address, Server) else ""
    with psycopg.connect(url) as other, anyio.fail_after(10.0):
        other.execute("SELECT id FROM accounts FOR UPDATE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(submitter._wait_for_slots, submitter.api.changed.next())
            await clock.often.wait()
            other.execute("UPDATE items SET state = 'failed' WHERE state = 'submitting'")
            other.commit()
    assert book.do(account.room, RUN, book.account_id, 1, submitter._limits).creates == 1
