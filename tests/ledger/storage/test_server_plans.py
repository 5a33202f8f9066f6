"""What a run does for each item reads few rows on a server, however many the ledger has and however old the server's
statistics are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from sqlalchemy import Connection

from batcher.address import Server
from batcher.item import Event, State
from batcher.ledger.lifecycle import answers, claims, collection
from batcher.ledger.queries import attention, item_counts, settled
from batcher.ledger.records import Claimed
from tests.support import postgres
from tests.support.ledger_kit import AT, RUN, Book, opened_book, prepare

_ITEMS: Final = 20_000
_LEFT: Final = 10
"""Items that are still to be created, the last of the manifest."""
_MANY: Final = """
    INSERT INTO items (key, key_version, text_hash, text, voice, format, params, take, bytes, state, attempt,
        not_before_at, deferrals, created_at, changed_at)
    SELECT 'k' || i, 1, 'h' || i, repeat('word ', 20) || i, 'anna', 'mp3', '{}', 1, 100, 'pending', 0, 0, 0, 1, 1
    FROM generate_series(1, ?) AS i"""
_ROWS: Final = """
    INSERT INTO rows (batch_id, id, number, line, is_current, take, item_key, output, extra)
    SELECT batches.id, 'r' || i, i, i, 1, 1, 'k' || i, i || '.mp3', '{}' FROM batches, generate_series(1, ?) AS i"""
_READ: Final = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"


@pytest.fixture(scope="module")
def large(ledger_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Book]:
    """A large ledger at the end of a run: its statistics are of the time when everything was pending."""
    with opened_book(Server(ledger_url, tmp_path_factory.mktemp("large"))) as book:
        batch = book.take_in("id,text\n", batch="m")
        book.execute(_MANY, _ITEMS)
        book.execute(_ROWS, _ITEMS)
        book.execute("ANALYZE")
        book.execute(
            "UPDATE items SET state = 'abandoned' FROM rows WHERE key = item_key AND number <= ?", _ITEMS - _LEFT
        )
        book.wanted = [batch]
        yield book
    postgres.empty(ledger_url)


def _claim(conn: Connection, book: Book) -> list[Claimed]:
    how: dict[str, Any] = {"run_id": RUN, "account_id": book.account_id, "wanted": book.wanted, "limit": 1, "at": AT}
    return claims.claim(conn, prepare, cursor=(0, 0), **how)[0]


def _create(conn: Connection, book: Book) -> None:
    (claimed,) = _claim(conn, book)
    answers.record_answer(conn, book.accepted(claimed, f"task of {claimed.key}"), max_in_doubt=9)


def _lose(conn: Connection, book: Book) -> None:
    (claimed,) = _claim(conn, book)
    answers.record_answer(conn, book.answer(claimed, Event.LOST), max_in_doubt=9)


STEPS: Final[dict[str, Callable[[Connection, Book], object]]] = {
    "create": _create,
    "lose": _lose,
    "anything left": lambda conn, book: claims.has_claimable(conn, RUN, book.wanted),
    "open tasks": lambda conn, book: collection.take_over(conn, book.account_id, book.wanted, run_id="next"),
    "rechecks": lambda conn, book: claims.rechecks(conn, book.account_id, book.wanted),
    "foreign tasks": lambda conn, book: attention.foreign_tasks(conn, book.wanted, None),
    "in doubt": lambda conn, book: attention.needing_attention(conn, book.wanted, State.IN_DOUBT, 3),
    "undelivered": lambda conn, book: attention.undelivered(conn, book.wanted, 3),
    "collectable": lambda conn, _: item_counts.collectable(conn),
    "settled": lambda conn, book: settled.settled_since(conn, book.wanted, 0, 50),
    "results": lambda conn, book: settled.next_results(conn, book.wanted[0], _ITEMS // 2, 20),
}


@pytest.mark.parametrize("step", list(STEPS))
def test_a_step_of_a_run_reads_few_rows(large: Book, step: str) -> None:
    def read(conn: Connection) -> int:
        before: int = conn.exec_driver_sql(_READ).scalar_one()
        STEPS[step](conn, large)
        return int(conn.exec_driver_sql(_READ).scalar_one() - before)

    assert large.do(read) < 300
