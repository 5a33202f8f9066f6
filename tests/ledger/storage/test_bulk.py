"""The insertion of many rows leaves a ledger as it would be without the shortcuts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batcher.ledger.ledger import Connection
from batcher.ledger.storage import bulk
from tests.support.ledger_kit import Book, book_in, sheet


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with book_in(tmp_path) as made:
        yield made


def schema(book: Book) -> list[dict[str, Any]]:
    """The tables and indexes, in their order."""
    return book.all("SELECT type, name, sql FROM sqlite_master WHERE tbl_name = 'rows' ORDER BY rowid")


def names(conn: Connection) -> set[str]:
    """The indexes of `rows` now."""
    query = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'rows' AND sql IS NOT NULL"
    return {row.name for row in conn.exec_driver_sql(query)}


def inside(conn: Connection, changes: int) -> set[str]:
    """The indexes of `rows` while this number of changes is made."""
    with bulk.indexes_built_last(conn, "rows", changes):
        return names(conn)


def test_an_import_of_many_rows_leaves_the_schema_as_it_was(book: Book) -> None:
    """Its indexes are complete, and in the same order."""
    before = sorted(schema(book), key=str)
    order = [one["name"] for one in schema(book) if one["type"] == "index"]
    book.take_in("text\n" + "".join(f"sentence {row}\n" for row in range(6000)))
    assert sorted(schema(book), key=str) == before
    assert [one["name"] for one in schema(book) if one["type"] == "index"] == order
    assert book.all("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    assert book.one("SELECT count(*) AS n FROM rows INDEXED BY rows_output WHERE output > ''") == {"n": 6000}


def test_indexes_are_built_last_only_for_many_changes(book: Book) -> None:
    """At least as many as the table has rows."""
    assert book.do(inside, 4999) == book.do(names)
    assert book.do(inside, 5000) == set()
    book.take_in("text\n" + "".join(f"sentence {row}\n" for row in range(5500)))
    assert book.do(inside, 5499) == book.do(names)
    assert book.do(inside, 5500) == set()
    assert len(book.do(names)) == 5


def test_an_error_meanwhile_leaves_the_indexes(book: Book) -> None:
    """The transaction is rolled back."""
    before = schema(book)

    def fail(conn: Connection) -> None:
        with bulk.indexes_built_last(conn, "rows", 5000):
            raise LookupError

    with pytest.raises(LookupError):
        book.do(fail)
    assert schema(book) == before


def test_the_page_cache_is_small_again_after_an_import(book: Book) -> None:
    """Also after one that fails."""

    def size(conn: Connection) -> Any:
        return conn.exec_driver_sql("PRAGMA cache_size").scalar()

    def fail(conn: Connection) -> None:
        with bulk.large_cache(conn):
            assert size(conn) != before
            raise LookupError

    before = book.do(size)
    book.take_in(sheet("one", "two"))
    assert book.do(size) == before
    with pytest.raises(LookupError):
        book.do(fail)
    assert book.do(size) == before
