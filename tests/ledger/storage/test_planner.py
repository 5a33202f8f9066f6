"""Queries for a few rows of a large manifest use the indexes that were made for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from batcher.ledger.imports import importer
from batcher.ledger.lifecycle import collection
from batcher.ledger.money import spending
from batcher.ledger.queries import attention, outputs
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from tests.support.ledger_kit import Book, book_in, sheet


def _edit(conn: Connection, book: Book) -> None:
    """Import the batch under another name, with other words in one row."""
    file = book.path.with_name("m.csv")
    rules = Rules(batch="other", voice="anna")
    file.write_text("id,text\nz,one\ny,another\n")
    importer.import_manifest(conn, Manifest(file, rules), rules, source="m.csv", out_dir="other", at=1.0)


USES: dict[str, Callable[[Connection, Book], object]] = {
    "rows_takes": lambda conn, _: importer.highest_takes(conn, "m"),
    "rows_unlinked": lambda conn, book: outputs.to_link(conn, book.wanted[0], 0, 10),
    "items_text": _edit,
    "items_state": lambda conn, book: collection.take_over(conn, book.account_id, book.wanted, run_id="next"),
    "items_recheck": lambda conn, book: attention.foreign_tasks(conn, book.wanted, None),
    "attempts_unclear": lambda conn, _: spending.spending(conn),
    "tasks_open": lambda conn, _: spending.spending(conn),
}


@pytest.mark.parametrize("index", list(USES))
def test_a_query_uses_its_index(tmp_path: Path, index: str) -> None:
    """SQLite plans to use the index, given the statement and the parameters as the program sends them."""
    plans: list[str] = []

    def explain(conn: Connection, _cursor: object, statement: str, values: Any, *_: object) -> None:
        if statement.lstrip().startswith("SELECT"):
            raw: Any = conn.connection.dbapi_connection
            plans.extend(row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", values))

    with book_in(tmp_path) as book:
        book.take_in(sheet("one", "two"))
        book.submitted("t1")
        event.listen(book.engine, "before_cursor_execute", explain)
        book.do(USES[index], book)
    assert any(f"INDEX {index} " in f"{step} " for step in plans), plans
