"""Top-ups, recognised by balances that rose."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Row

from batcher.ledger.money.prices import prices
from batcher.ledger.storage.statements import execute


def topped_up(
    conn: Connection, *, run_id: str | None = None, since: float | None = None, until: float | None = None
) -> float:
    """About how many credits were added to the account that was read last; with `run_id`, during that run, or between
    two times.

    Each rise from one reading of the balance to the next counts, together with the reported cost of the tasks created
    in between. A rise that may be a refund for tasks that were open does not.
    """
    rises = execute(conn, _RISES, {"run": run_id, "since": since, "until": until}).all()
    added = [rise.credits + _cost_between(conn, rise) for rise in rises if not _may_be_refund(conn, rise)]
    return float(round(sum(added), 6))


def _cost_between(conn: Connection, rise: Row[Any]) -> float:
    cost: float = execute(conn, _COST, dict(rise._mapping)).scalar_one()
    return cost


def _may_be_refund(conn: Connection, rise: Row[Any]) -> bool:
    """Whether the tasks that were open at the first reading may have cost as much as the balance rose."""
    open_then = [(row[0], row[1]) for row in execute(conn, _OPEN, dict(rise._mapping))]
    estimate = prices(conn).estimate(open_then)
    return estimate is not None and rise.credits <= estimate.credits


_RISES: Final = """
    SELECT account_id AS account, before, at, rise AS credits FROM (
        SELECT *, lag(at) OVER readings AS before,
            coalesce(quota - lag(quota) OVER readings, credits - lag(credits) OVER readings) AS rise
        FROM balances WHERE account_id = (SELECT account_id FROM balances ORDER BY id DESC LIMIT 1)
            AND (CAST(:run AS text) IS NULL OR run_id = :run)
            AND at BETWEEN coalesce(:since, at) AND coalesce(:until, at)
        WINDOW readings AS (ORDER BY id))
    WHERE rise > 0"""
_COST: Final = """
    SELECT total(coalesce(tasks.credits, attempts.credits)) FROM attempts
    LEFT JOIN tasks ON tasks.item_key = attempts.item_key AND tasks.attempt = attempts.attempt
    WHERE attempts.account_id = :account AND attempts.intended_at > :before AND attempts.intended_at <= :at"""
_OPEN: Final = """
    SELECT items.model, items.bytes FROM tasks
    JOIN attempts ON attempts.item_key = tasks.item_key AND attempts.attempt = tasks.attempt
    JOIN items ON items.key = tasks.item_key
    WHERE attempts.account_id = :account AND tasks.accepted_at <= :before
        AND (tasks.ended_at IS NULL OR tasks.ended_at > :before)"""
