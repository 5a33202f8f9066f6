"""Evidence on a create whose answer was lost, for the user who must decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select

from batcher.ledger.money.prices import prices
from batcher.ledger.storage.filters import of_attempt
from batcher.ledger.storage.schema import accounts, attempts, balances, items, runs, tasks


def evidence(conn: Connection, keys: Sequence[str]) -> list[Row[Any]]:
    """Each item with its latest attempt: when it was sent, by which account, and the answer."""
    query = (
        select(items.c.key, items.c.state, items.c.attempt, items.c.voice, items.c.text, items.c.account_id)
        .add_columns(items.c.task_id, attempts.c.intended_at, attempts.c.answered_at, attempts.c.outcome)
        .add_columns(
            attempts.c.cause,
            attempts.c.http_status,
            attempts.c.error_code,
            attempts.c.error_message,
            attempts.c.request_id,
        )
        .add_columns(attempts.c.raw, attempts.c.account_id.label("attempt_account_id"), attempts.c.run_id)
        .add_columns(accounts.c.origin, accounts.c.user_id, items.c.model, items.c.bytes, runs.c.host, runs.c.pid)
        .outerjoin(attempts, and_(attempts.c.item_key == items.c.key, attempts.c.attempt == items.c.attempt))
        .outerjoin(accounts, accounts.c.id == attempts.c.account_id)
        .outerjoin(runs, runs.c.id == attempts.c.run_id)
    )
    return [conn.execute(query.where(items.c.key == key)).one() for key in keys]


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceEvidence:
    """The balances around a create whose answer was lost. None is unknown; times are UTC unix seconds.

    `reported` is the cost that other creates between the two balances report, `unreported` the number of those that
    report none.
    """

    before: float | None
    before_at: float | None
    after: float | None
    after_at: float | None
    reported: float
    unreported: int
    estimate: float | None  # price of the create itself

    @property
    def unexplained(self) -> float | None:
        """The fall of the balance less the reported cost of other creates."""
        if self.before is None or self.after is None:
            return None
        return round(self.before - self.after - self.reported, 6)


def balance_evidence(conn: Connection, case: Row[Any]) -> BalanceEvidence:
    """The last balance before the create was sent, the first after the wait for its answer, and the cost between."""
    before, after = _balances_around(conn, case)
    reported, unreported = _cost_of_others(conn, case, before, after)
    estimate = prices(conn).estimate([(case.model, case.bytes)])
    unit = "quota" if before is not None and before.quota is not None else "credits"
    return BalanceEvidence(
        before=getattr(before, unit, None),
        before_at=None if before is None else before.at,
        after=getattr(after, unit, None),
        after_at=None if after is None else after.at,
        reported=reported,
        unreported=unreported,
        estimate=None if estimate is None else estimate.credits,
    )


def _balances_around(conn: Connection, case: Row[Any]) -> tuple[Row[Any] | None, Row[Any] | None]:
    of_account = balances.c.account_id == case.attempt_account_id
    given_up_at = case.answered_at if case.answered_at is not None else case.intended_at
    earlier = select(balances).where(of_account, balances.c.at <= case.intended_at)
    if case.cause == "restored":  # the run that recorded the doubt is not the one that may have bought
        earlier = earlier.where(balances.c.run_id.is_distinct_from(case.run_id))
    later = select(balances).where(of_account, balances.c.at >= max(given_up_at, case.intended_at))
    before = conn.execute(earlier.order_by(balances.c.at.desc(), balances.c.id.desc()).limit(1)).first()
    after = conn.execute(later.order_by(balances.c.at, balances.c.id).limit(1)).first()
    return before, after


def _cost_of_others(
    conn: Connection, case: Row[Any], before: Row[Any] | None, after: Row[Any] | None
) -> tuple[float, int]:
    """Reported cost of the account's other creates between two balances, and the number of those without one."""
    between = [attempts.c.account_id == case.attempt_account_id, attempts.c.item_key != case.key]
    between.append(attempts.c.outcome.is_(None) | attempts.c.outcome.in_(("accepted", "lost")))
    if before is not None:
        between.append(attempts.c.intended_at >= before.at)
    if after is not None:
        between.append(attempts.c.intended_at <= after.at)
    cost = func.coalesce(tasks.c.credits, attempts.c.credits)
    totals = select(func.total(cost), func.count(), func.count(cost))
    query = totals.select_from(attempts.outerjoin(tasks, of_attempt)).where(*between)
    reported, number, priced = conn.execute(query).one()
    return reported, number - priced
