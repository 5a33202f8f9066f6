"""Fixtures for the tests of the ledger's file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ledger_kit import Book, book_in


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """A new ledger in a file, with a run under way."""
    with book_in(tmp_path) as made:
        yield made
