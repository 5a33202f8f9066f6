"""Costs of ended tasks that triggers note on a server equal a full count, after any change and beside other runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest
from sqlalchemy import Connection

from batcher.address import Server
from batcher.ledger.lifecycle import collection
from batcher.ledger.money.prices import prices
from batcher.ledger.money.spending import spending
from batcher.ledger.storage.server_triggers import merge_costs
from tests.support import postgres
from tests.support.history import History
from tests.support.ledger_kit import AT, Book, ending, opened_book
from tests.support.summing import assert_sums

_LINE: Final = (
    "INSERT INTO costs (batch_id, model, told, untold_bytes, priced_credits, priced_bytes) VALUES (1, '', 1, 0, 1, {})"
)


@pytest.fixture
def place(ledger_url: str, tmp_path: Path) -> Iterator[Server]:
    """A ledger on a server, which is emptied afterwards."""
    yield Server(ledger_url, tmp_path)
    postgres.empty(ledger_url)


def _lines(book: Book) -> int:
    number: int = book.one("SELECT count(*) AS number FROM costs")["number"]
    return number


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_sums_are_right_after_each_step_of_a_random_history(place: Server, seed: int) -> None:
    """Batches share items, steps come in any order, and the lines are merged now and then."""
    with opened_book(place) as book:
        history = History(book, seed)
        for number in range(60):
            history.step()
            book.do(assert_sums)
            if number % 20 == 19:
                book.do(merge_costs)
                book.do(assert_sums)
        assert _lines(book) > 1


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tasks SET credits = 7.0",
        "UPDATE tasks SET ended_at = NULL",
        "DELETE FROM tasks WHERE task_id = 't1'",
        "UPDATE attempts SET batch_id = batch_id + 1",
        "UPDATE attempts SET credits = 5.0",
        "INSERT INTO events (item_key, attempt, event, state, at)"
        " SELECT item_key, attempt, 'unfunded', 'pending', 1 FROM tasks",
    ],
)
def test_a_change_of_ended_tasks_changes_their_costs(place: Server, change: str) -> None:
    """Of several at once, with and without reported credits, two of them of the same attempt."""
    with opened_book(place) as book:
        book.take_in("id,text\na,one\nb,two\nc,three\n")
        for number, credits_ in enumerate((2.0, None, 3.0), 1):
            book.do(collection.record_rendered, ending(book.submitted(f"t{number}"), credits=credits_))
        book.execute(
            "INSERT INTO tasks (account_id, task_id, item_key, attempt, accepted_at, looks, missing_looks,"
            " unusable_looks, ended_at, credits) SELECT account_id, 'again', item_key, attempt, 1, 1, 0, 0, 1, 9.0"
            " FROM tasks WHERE task_id = 't3'"
        )
        book.execute("UPDATE items SET task_id = NULL, state = 'failed'")
        before = book.do(_costs, "costs")
        book.execute(change)
        after = book.do(_costs, "costs")
        assert after == book.do(_costs, "endings")
        assert after != before


def _costs(conn: Connection, table: str) -> list[tuple[object, ...]]:
    sums = "sum(told), sum(untold_bytes), sum(priced_credits), sum(priced_bytes)"
    found = conn.exec_driver_sql(f"SELECT batch_id, {sums} FROM {table} GROUP BY batch_id ORDER BY 1")
    return [tuple(line) for line in found if any(line[1:])]


def test_runs_that_end_tasks_at_the_same_time_do_not_wait_for_each_other(place: Server) -> None:
    """Not for a merge either, which leaves what others add meanwhile."""
    with opened_book(place) as book, psycopg.connect(place.url) as other:
        book.take_in("id,text\na,one\n")
        task = book.submitted("t1")
        other.execute(_LINE.format(1))
        other.execute("DELETE FROM costs WHERE false")
        with book.engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
            collection.record_rendered(connection, ending(task, credits=2.0))
            merge_costs(connection)
        other.commit()
        assert book.do(spending).spent == 3.0
        book.do(merge_costs)
        assert (book.do(spending).spent, _lines(book)) == (3.0, 1)


def test_each_start_of_a_run_merges_the_lines(place: Server) -> None:
    with opened_book(place) as book:
        book.take_in("id,text\na,one\nb,two\n")
        for name in ("t1", "t2"):
            book.do(collection.record_rendered, ending(book.submitted(name), credits=2.0))
        assert _lines(book) == 2
        book.begin("next", at=AT + 1)
        assert _lines(book) == 1
        assert book.do(prices).by_model["*"] == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_sums_hold_more_bytes_than_an_integer(place: Server) -> None:
    """Four billion, as of ten million items."""
    with opened_book(place) as book:
        book.execute(_LINE.format(2_000_000_000))
        book.execute(_LINE.format(2_000_000_000))
        book.do(merge_costs)
        assert book.one("SELECT priced_bytes FROM costs") == {"priced_bytes": 4_000_000_000}
