"""A read-only connection sees one state of the ledger, has temporary tables, and cannot change anything else."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table
from sqlalchemy.exc import DBAPIError

from batcher.errors import BatcherError
from batcher.ledger.ledger import open_readonly
from batcher.ledger.storage.statements import execute
from batcher.ledger.storage.temporary import number_rows, writable
from tests.support.ledger_kit import Book, sheet

NUMBERS = Table("numbers", MetaData(), Column("n", Integer), prefixes=["TEMPORARY"])


def _fill(conn: Connection) -> None:
    NUMBERS.create(conn)
    number_rows(conn, NUMBERS)
    execute(conn, "INSERT INTO numbers (n) VALUES (?)", [(7,), (8,)])


def _total(conn: Connection) -> int:
    return int(execute(conn, "SELECT sum(n + rowid) FROM numbers").scalar_one())


def _fail(conn: Connection) -> None:
    with writable(conn):
        execute(conn, "INSERT INTO numbers (n) VALUES (1)")
        raise ZeroDivisionError


def test_temporary_tables_can_be_written_where_that_is_allowed(book: Book) -> None:
    """Also after an error of ours, which a plan catches to go on with the next manifest."""
    with open_readonly(book.address) as conn:
        with writable(conn):
            _fill(conn)
        with pytest.raises(ZeroDivisionError):
            _fail(conn)
        assert _total(conn) == 22
        with pytest.raises(DBAPIError):
            NUMBERS.drop(conn)


@pytest.mark.parametrize("allowed", [False, True])
def test_the_ledger_stays_as_it_is(book: Book, allowed: bool) -> None:
    """Whether the write is refused or, where temporary tables may be written, undone."""
    book.take_in(sheet("one"))
    before = book.dump()
    try:
        with open_readonly(book.address) as conn:
            if allowed:
                with writable(conn):
                    execute(conn, "UPDATE items SET text = 'other'")
            else:
                execute(conn, "UPDATE items SET text = 'other'")
    except (BatcherError, DBAPIError):
        pass
    else:
        assert allowed
    assert book.dump() == before


def test_a_reader_does_not_see_what_is_written_meanwhile(book: Book) -> None:
    with open_readonly(book.address) as conn:
        assert execute(conn, "SELECT count(*) FROM items").scalar_one() == 0
        book.take_in(sheet("one"))
        assert execute(conn, "SELECT count(*) FROM items").scalar_one() == 0
    with open_readonly(book.address) as conn:
        assert execute(conn, "SELECT count(*) FROM items").scalar_one() == 1


def test_texts_are_compared_by_their_characters_on_a_server(book: Book) -> None:
    """Whatever language the database was created for: orders and ranges are those of a ledger in a file."""
    if book.engine.dialect.name == "sqlite":
        return
    found = book.all(
        "SELECT attrelid::regclass::text AS name, attname, collname FROM pg_attribute"
        " JOIN pg_collation ON pg_collation.oid = attcollation JOIN pg_class ON pg_class.oid = attrelid"
        " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND attnum > 0"
        " AND attrelid::regclass::text <> 'alembic_version'"
    )
    assert {row["collname"] for row in found} == {"C"}
