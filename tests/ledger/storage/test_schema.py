"""Constraints of the schema, tested with hand-written SQL."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from tests.support.ledger_kit import Book, sheet


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE items SET state = 'paid'",
        "UPDATE items SET state = 'submitted'",
        "UPDATE items SET state = 'rendered'",
        "UPDATE items SET state = 'done'",
        "UPDATE items SET state = 'submitting'",
        "UPDATE items SET take = 0",
        "UPDATE items SET text = NULL",
        "UPDATE items SET account_id = 1, task_id = 'nobody''s'",
        "UPDATE rows SET skipped = 'invalid'",
        "UPDATE rows SET item_key = NULL",
        "UPDATE rows SET item_key = NULL, skipped = 'bored'",
        "UPDATE rows SET item_key = 'unknown'",
        "INSERT INTO attempts (item_key, attempt, run_id, account_id, intended_at, outcome) "
        "SELECT key, 1, 'run-1', 1, 0, 'lost' FROM items",
        "INSERT INTO attempts (item_key, attempt, run_id, account_id, intended_at, answered_at, outcome) "
        "SELECT key, 1, 'run-1', 1, 0, 1, 'perhaps' FROM items",
        "INSERT INTO attempts (item_key, attempt, run_id, account_id, intended_at) "
        "SELECT key, 1, 'no run', 1, 0 FROM items",
        "INSERT INTO tasks (account_id, task_id, item_key, attempt, accepted_at, looks, missing_looks, unusable_looks) "
        "SELECT 1, 't', key, 7, 0, 0, 0, 0 FROM items",
        "INSERT INTO events (item_key, attempt, event, state, at) SELECT key, 1, 'paid', 'done', 0 FROM items",
        "INSERT INTO files (item_key, out_dir, path, sha256, bytes, recorded_at) "
        "SELECT key, '', '', '', 0, 0 FROM items",
        "INSERT INTO halts (account_id, kind, since_at, detail, run_id, from_task, probes, probe_after_at) "
        "VALUES (1, 'mood', 0, '', 'run-1', 0, 0, 0)",
        "INSERT INTO halts (account_id, kind, since_at, detail, run_id, from_task, probes, probe_after_at) "
        "VALUES (1, 'credits', 0, '', 'run-1', 0, 0, 0), (1, 'credits', 0, '', 'run-1', 0, 0, 0)",
    ],
)
def test_the_schema_refuses_invalid_rows(book: Book, statement: str) -> None:
    book.take_in(sheet("one"))

    def by_hand(conn: Connection) -> None:
        conn.exec_driver_sql(statement)

    with pytest.raises(IntegrityError):
        book.do(by_hand)


def test_no_two_items_share_a_task_of_one_account(book: Book) -> None:
    book.take_in(sheet("one", "two"))
    task = book.submitted("t1")

    def by_hand(conn: Connection) -> None:
        conn.exec_driver_sql("UPDATE items SET account_id = 1, task_id = 't1' WHERE key <> ?", (task.key,))

    with pytest.raises(IntegrityError, match="UNIQUE"):
        book.do(by_hand)
