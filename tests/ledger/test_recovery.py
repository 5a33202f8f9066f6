"""What runs on this host left for a ledger on a server. `test_ledger` has the recovery from errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from batcher.address import Server, intents_file, spill_file
from batcher.ledger.ledger import Ledger
from batcher.ledger.records import Claimed
from batcher.ledger.recovery import recover
from batcher.ledger.storage.intents import IntentsFile
from batcher.ledger.storage.spill import Spill
from tests.support.ledger_kit import AT, NEVER, RUN, Book, sheet

pytestmark = pytest.mark.parametrize("book", ["postgres"], indirect=True)
OTHER = "run-2"


@contextmanager
def working(book: Book, run_id: str) -> Iterator[None]:
    """Hold a session of this run with the server."""
    assert isinstance(book.address, Server)
    with psycopg.connect(book.address.url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 7001))", (run_id,))
        yield


def spill_of(ledger: Ledger, run_id: str) -> Spill:
    return Spill(spill_file(ledger.address, ledger.ledger_id, run_id))


def leave_intents(ledger: Ledger, run_id: str, *keys: str) -> IntentsFile:
    """The intents file of a run that was about to create these items."""
    assert isinstance(ledger.address, Server)
    left = IntentsFile(intents_file(ledger.address, ledger.ledger_id, run_id))
    left.append([Claimed(key=key, attempt=1, format="mp3", chars=3, body=b"{}") for key in keys])
    left.close()
    return left


async def recovered(ledger: Ledger) -> int:
    return await recover(ledger, run_id=OTHER, at=AT, max_in_doubt=NEVER)


async def test_the_files_of_a_working_run_are_left_to_it(book: Book) -> None:
    """Once its session has ended, the next run records what is in them and removes them."""
    book.take_in(sheet("one", "two"))
    (claimed,) = book.claim()
    with book.ledger(OTHER) as ledger:
        spill, intents = spill_of(ledger, RUN), leave_intents(ledger, RUN, claimed.key, "k" * 64)
        spill.append(book.accepted(claimed, "t1"))
        spill.close()
        with working(book, RUN):
            assert await recovered(ledger) == 0
            assert (spill.path.exists(), intents.path.exists()) == (True, True)
        assert book.state(claimed.key) == "submitting"
        assert await recovered(ledger) == 1
        assert (spill.path.exists(), intents.path.exists()) == (False, False)
        assert book.state(claimed.key) == "submitted"
        assert [row["item_key"] for row in book.all("SELECT item_key FROM recalled")] == ["k" * 64]


async def test_what_a_process_without_its_session_still_writes_is_left_to_it(book: Book) -> None:
    """Its file is removed after it has ended, once what it holds is recorded."""
    book.take_in(sheet("one"))
    (claimed,) = book.claim()
    with book.ledger(OTHER) as ledger:
        spill = spill_of(ledger, RUN)
        spill.append(book.accepted(claimed, "t1"))
        assert await recovered(ledger) == 0
        assert (book.state(claimed.key), len(spill.records())) == ("submitting", 1)
        spill.close()
        assert await recovered(ledger) == 0
        assert (book.state(claimed.key), spill.path.exists()) == ("submitted", False)


async def test_every_file_that_was_left_counts(book: Book) -> None:
    """But not the run's own, which says what it is about to create; nor a working run's."""
    with book.ledger(OTHER) as ledger, working(book, "run-5"):
        for run_id in ("run-3", OTHER, "run-4", "run-5"):
            leave_intents(ledger, run_id, f"{run_id} a", f"{run_id} b")
        assert await recovered(ledger) == 4
        keys = [row["item_key"] for row in book.all("SELECT item_key FROM recalled ORDER BY 1")]
        assert keys == ["run-3 a", "run-3 b", "run-4 a", "run-4 b"]
        assert ledger.intents is not None
        assert len(ledger.intents.read()) == 2
