"""Rows that have settled are found in a few steps, however many rows the batch has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from batcher.item import Event
from batcher.ledger.queries.settled import last_event, next_results, settled_since
from tests.support.ledger_kit import NEVER, book_in, sheet


def _steps(conn: Connection, verb: Any, *arguments: Any, **how: Any) -> int:
    """Hundreds of steps of SQLite's machine that the query takes."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    raw: Any = conn.connection.driver_connection
    raw.set_progress_handler(step, 100)
    verb(conn, *arguments, **how)
    raw.set_progress_handler(None, 0)
    return steps


def test_the_steps_for_rows_that_settle_do_not_grow_with_the_batch(tmp_path: Path) -> None:
    def steps(rows: int) -> tuple[int, int]:
        folder = tmp_path / str(rows)
        folder.mkdir()
        with book_in(folder) as book:
            book.take_in("id,text\n" + "".join(f"r{row},line {row}\n" for row in range(rows)))
            before = book.do(last_event)
            for claimed in book.claim(3):
                book.record(book.answer(claimed, Event.REJECTED, "invalid"), max_in_doubt=NEVER)
            (found, _) = book.do(settled_since, book.wanted, before, 500)
            assert [one.line["id"] for one in found] == ["r0", "r1", "r2"]
            return (
                book.do(_steps, settled_since, book.wanted, before, 500),
                book.do(_steps, next_results, book.wanted[0], rows // 2, 20, settled=True),
            )

    few, many = steps(100), steps(3000)
    assert many[0] <= few[0] + 5
    assert many[1] <= few[1] + 5


def test_rows_come_in_chunks_each_once(tmp_path: Path) -> None:
    with book_in(tmp_path) as book:
        batch = book.take_in(sheet("one", "two", "three", "two"))
        (claimed,) = book.claim()
        book.record(book.accepted(claimed, "task_1", credits=7.0))
        found, after = book.do(next_results, batch, 0, 3)
        assert [(one.line["id"], one.credits) for one in found] == [("a", 7.0), ("b", None), ("c", None)]
        more, last = book.do(next_results, batch, after, 3)
        assert [one.line["id"] for one in more] == ["d"]
        assert book.do(next_results, batch, last, 3) == ([], last)
        assert book.do(next_results, batch, 0, 3, settled=True)[0] == []
