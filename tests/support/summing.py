"""Compares the totals that the ledger maintains with a full count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Integer, bindparam, text

from batcher.address import Address
from batcher.ledger.ledger import open_readonly
from batcher.ledger.money.prices import Prices, prices
from batcher.ledger.money.spending import spending, to_buy
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.queries.item_counts import count
from batcher.ledger.records import Batch


def assert_added_up(ledger: Address) -> None:
    """Check that the counts, prices and spending of `status` and budgets match the items, creates and tasks."""
    with open_readonly(ledger) as conn:
        assert_sums(conn)


def assert_sums(conn: Connection) -> None:
    """The same through a connection, which is quicker when it is done again and again."""
    batches = current_batches(conn)
    for some in (batches, *([batch] for batch in batches)):
        _assert_counted(conn, some)
    known = prices(conn)
    _assert_priced(conn, known)
    for number in (None, *(batch.batch_id for batch in batches)):
        _assert_spent(conn, number, known)


def _assert_counted(conn: Connection, some: Sequence[Batch]) -> None:
    ours = ", ".join(str(batch.batch_id) for batch in some) or "0"
    found = count(conn, some)
    states: Counter[str] = Counter()
    waiting: Counter[str | None] = Counter()
    for state, model, number, size in conn.exec_driver_sql(_ITEMS.format(ours=ours)):
        states[state] += number
        waiting[model] += size * (state == "pending")
    assert Counter(found.states) == states
    assert found.items == states.total()
    bought: Counter[str | None] = Counter()
    for model, size in to_buy(conn, some):
        bought[model] += size
    assert bought == waiting
    rows = conn.exec_driver_sql(_ROWS.format(ours=ours)).one()
    assert (found.rows, found.invalid, found.empty) == tuple(rows)


def _assert_priced(conn: Connection, known: Prices) -> None:
    said = {model or "": tuple(rest) for model, *rest in conn.exec_driver_sql(_PRICES)}
    assert {model: known.by_model[model] for model in said} == {
        model: pytest.approx(price) for model, price in said.items()
    }


def _assert_spent(conn: Connection, batch: int | None, known: Prices) -> None:
    expected: dict[str, float | None] = dict.fromkeys(("spent", "in_flight", "in_doubt", "settled"), 0.0)
    for kind, model, told, size in conn.execute(_SPENT, {"batch": batch}):
        before, more = expected[kind], known.estimate([(model, size)] if size else [])
        expected[kind] = None if before is None or more is None else before + told + more.credits
    found = spending(conn, batch_id=batch)
    for kind, credits_ in expected.items():
        assert getattr(found, kind) == (None if credits_ is None else pytest.approx(credits_, abs=1e-5)), (batch, kind)


_ITEMS: Final[Any] = """
    SELECT state, model, count(*), sum(bytes) FROM items
    WHERE key IN (SELECT item_key FROM rows WHERE is_current = 1 AND batch_id IN ({ours})) GROUP BY state, model"""
_ROWS: Final = """
    SELECT count(*), count(CASE WHEN skipped = 'invalid' THEN 1 END), count(CASE WHEN skipped = 'empty' THEN 1 END)
    FROM rows WHERE is_current = 1 AND batch_id IN ({ours})"""
_PRICES: Final = """
    SELECT model, sum(credits) / sum(bytes), min(credits * 1.0 / bytes), max(credits * 1.0 / bytes)
    FROM tasks JOIN items ON key = item_key WHERE credits > 0 AND ended_at IS NOT NULL AND bytes > 0 GROUP BY model"""
_SPENT: Final = text("""
    WITH made AS (
        SELECT attempts.batch_id, attempts.outcome, items.model, items.bytes, tasks.task_id, tasks.ended_at,
            coalesce(tasks.credits, attempts.credits) AS told,
            items.state = 'in_doubt' AND items.attempt = attempts.attempt AS unsettled,
            EXISTS (SELECT 1 FROM events WHERE events.item_key = attempts.item_key
                AND events.attempt = attempts.attempt AND event = 'unfunded') AS unfunded
        FROM attempts JOIN items ON items.key = attempts.item_key
        LEFT JOIN tasks ON tasks.item_key = attempts.item_key AND tasks.attempt = attempts.attempt)
    SELECT CASE WHEN outcome = 'lost' AND task_id IS NULL THEN CASE WHEN unsettled THEN 'in_doubt' ELSE 'settled' END
                WHEN outcome IS NULL OR ended_at IS NULL THEN 'in_flight' ELSE 'spent' END AS kind,
        model, total(told), total(CASE WHEN told IS NULL THEN bytes END)
    FROM made
    WHERE (told IS NOT NULL OR (task_id IS NOT NULL OR outcome IS NULL OR outcome NOT IN ('deferred', 'rejected'))
            AND NOT unfunded)
        AND (:batch IS NULL OR batch_id = :batch)
    GROUP BY kind, model""").bindparams(bindparam("batch", type_=Integer))
