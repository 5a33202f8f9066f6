"""Fixtures for the tests of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from batcher.address import Server
from tests.support import postgres
from tests.support.ledger_kit import Book, book_in, opened_book


def _check_statement(_conn: object, _cursor: object, statement: str, *_: object) -> None:
    assert postgres.unnamed_subquery(statement) is None


@pytest.fixture(params=["sqlite", "postgres"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Book]:
    """A new ledger with a run under way."""
    yield from book_on(request.param, request, tmp_path)


def book_on(database_name: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Book]:
    """A new ledger on SQLite or PostgreSQL, with a run under way."""
    if database_name == "sqlite":
        with book_in(folder) as made:
            yield made
        return
    url = request.getfixturevalue("ledger_url")
    with opened_book(Server(url, folder)) as made:
        event.listen(made.engine, "before_cursor_execute", _check_statement)
        yield made
    postgres.empty(url)
