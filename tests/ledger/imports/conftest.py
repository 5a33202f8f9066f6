"""Fixtures for the tests of imports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledger.conftest import book_on
from tests.support.ledger_kit import Book


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Book]:
    """A new ledger with a run under way."""
    yield from book_on(request.param, request, tmp_path)
