"""Two runs of one account, for the tests of what they share on a server."""

from __future__ import annotations

from typing import Final

import pytest

from batcher.ledger.lifecycle import account
from batcher.ledger.lifecycle.account import Limits
from batcher.ledger.records import OpenTask
from tests.support.ledger_kit import RUN, Book, sheet

OTHER: Final = "run-2"
TEXTS: Final = tuple(f"text number {number}" for number in range(20))


@pytest.fixture
def two(book: Book) -> Book:
    """A ledger on which two runs of one account work."""
    book.take_in(sheet(*TEXTS))
    book.join(OTHER)
    for run_id in (RUN, OTHER):
        book.do(account.set_creating, run_id, True)
    return book


def submitted(book: Book, task_id: str, limits: Limits) -> OpenTask:
    """Claim the next item within these limits and record its create as accepted."""
    (claimed,) = book.claim(limits=limits)
    book.record(book.accepted(claimed, task_id))
    (task,) = [one for one in book.open_tasks() if one.task_id == task_id]
    return task
