"""What is known of a create whose answer was lost: for the person who has to decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select

from batcher.ledger.money.prices import prices
from batcher.ledger.storage.filters import of_attempt
from batcher.ledger.storage.schema import accounts, attempts, balances, items, tasks


def evidence(conn: Connection, keys: Sequence[str]) -> list[Row[Any]]:
    """Each item with its latest attempt: when it was sent, by which account, what came back."""
    query = (
        select(items.c.key, items.c.state, items.c.attempt, items.c.voice, items.c.text, items.c.account_id)
        .add_columns(items.c.task_id, attempts.c.intended_at, attempts.c.answered_at, attempts.c.cause)
        .add_columns(attempts.c.http_status, attempts.c.error_code, attempts.c.error_message, attempts.c.request_id)
        .add_columns(attempts.c.raw, attempts.c.account_id.label("attempt_account_id"), attempts.c.run_id)
        .add_columns(accounts.c.origin, accounts.c.user_id, items.c.model, items.c.bytes)
        .outerjoin(attempts, and_(attempts.c.item_key == items.c.key, attempts.c.attempt == items.c.attempt))
        .outerjoin(accounts, accounts.c.id == attempts.c.account_id)
    )
    found = (conn.execute(query.where(items.c.key == key)).one() for key in keys)
    return list(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceEvidence:
    """The money around a create whose answer was lost. None stands for unknown; times are UTC unix seconds.

    `told` is what other creates between the two balances say they cost, `untold` how many of them say nothing.
    """

    before: float | None
    before_at: float | None
    after: float | None
    after_at: float | None
    told: float
    untold: int
    estimate: float | None  # of what the create itself costs

    @property
    def unexplained(self) -> float | None:
        """How far the balance fell beyond what other creates say they cost."""
        if self.before is None or self.after is None:
            return None
        return round(self.before - self.after - self.told, 6)


def balance_evidence(conn: Connection, case: Row[Any]) -> BalanceEvidence:
    """The last balance before the create was sent, the first after its answer was given up, and what came between."""
    ours = balances.c.account_id == case.attempt_account_id
    given_up_at = case.answered_at if case.answered_at is not None else case.intended_at
    earlier = select(balances).where(ours, balances.c.at <= case.intended_at)
    if case.cause == "restored":  # the run that wrote the doubt down is not the one that may have bought
        earlier = earlier.where(balances.c.run_id.is_distinct_from(case.run_id))
    later = select(balances).where(ours, balances.c.at >= max(given_up_at, case.intended_at))
    before = conn.execute(earlier.order_by(balances.c.at.desc()).limit(1)).first()
    after = conn.execute(later.order_by(balances.c.at).limit(1)).first()
    between = [attempts.c.account_id == case.attempt_account_id, attempts.c.item_key != case.key]
    between.append(attempts.c.outcome.is_(None) | attempts.c.outcome.in_(("accepted", "lost")))
    if before is not None:
        between.append(attempts.c.intended_at >= before.at)
    if after is not None:
        between.append(attempts.c.intended_at <= after.at)
    cost = func.coalesce(tasks.c.credits, attempts.c.credits)
    joined = attempts.outerjoin(tasks, of_attempt)
    told, number, priced = conn.execute(
        select(func.total(cost), func.count(), func.count(cost)).select_from(joined).where(*between)
    ).one()
    mine = prices(conn).of([(case.model, case.bytes)])
    known = "credits" if before is not None and before.credits is not None else "quota"
    return BalanceEvidence(
        before=getattr(before, known, None),
        before_at=None if before is None else before.at,
        after=getattr(after, known, None),
        after_at=None if after is None else after.at,
        told=told,
        untold=number - priced,
        estimate=None if mine is None else mine.credits,
    )
