"""What items cost, learned from what finished tasks say they cost; where none says, from how far balances fell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, select

from batcher.ledger.storage import cached_facts
from batcher.ledger.storage.schema import attempts, balances, items

_ANY: Final = "*"
_DIGITS: Final = 9
"""An item may cost a small part of a credit; what is rounded away would never be counted."""
_RUNS: Final = 20
"""Balances of so many latest runs are looked at where tasks do not say what they cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Credits that something may cost, with the range that its tasks' own prices span."""

    credits: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Prices:
    """Credits per UTF-8 byte of text by model: mean (of totals: long texts weigh more), lowest and highest."""

    by_model: dict[str, tuple[float, float, float]]

    def of(self, sizes: Iterable[tuple[str | None, int]]) -> Estimate | None:
        """The estimate for texts of these models and sizes in bytes; None while no task has said a price.

        A model without tasks of its own is taken for the mean of all.
        """
        total = [0.0, 0.0, 0.0]
        for model, size in sizes:
            price = self.by_model.get(model or "") or self.by_model.get(_ANY)
            if price is None:
                return None
            total = [sum_ + size * one for sum_, one in zip(total, price, strict=True)]
        credits_, low, high = (round(sum_, _DIGITS) for sum_ in total)
        return Estimate(credits=credits_, low=low, high=high)


def prices(conn: Connection) -> Prices:
    """What the ledger's finished tasks say; where none says anything, what balances fell by over whole runs."""
    said = [line for line in cached_facts.costs_of_ended(conn) if line["priced_bytes"]]
    if said:
        models = {line["model"] for line in said}
        by_model = {model: _price_of([line for line in said if line["model"] == model]) for model in models}
        return Prices(by_model | {_ANY: _price_of(said)})
    measured = cached_facts.get_or_compute(conn, "measured", "balances", lambda: _measured(conn) or ())
    return Prices({_ANY: (measured[0], measured[1], measured[2])} if measured else {})


def _price_of(said: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    credits_, size = (sum(line[name] for line in said) for name in ("priced_credits", "priced_bytes"))
    return _price(credits_, size, min(line["low"] for line in said), max(line["high"] for line in said))


def _measured(conn: Connection) -> tuple[float, float, float] | None:
    """How far the balance fell from a run's first look at it to its last, spread over the texts accepted by then.

    What else was bought with the account meanwhile is in it: an estimate that errs on the dear side.
    """
    looks = select(balances.c.run_id, func.min(balances.c.id).label("first"), func.max(balances.c.id).label("last"))
    looks = looks.where(balances.c.run_id.is_not(None)).group_by(balances.c.run_id)
    first, last, run = balances.alias("first"), balances.alias("last"), looks.subquery()
    accepted = attempts.join(items, items.c.key == attempts.c.item_key).join(run, run.c.run_id == attempts.c.run_id)
    query = (
        select(first.c.credits, last.c.credits, first.c.quota, last.c.quota, func.sum(items.c.bytes))
        .select_from(accepted.join(first, first.c.id == run.c.first).join(last, last.c.id == run.c.last))
        .where(attempts.c.outcome == "accepted", attempts.c.answered_at <= last.c.at)
        .group_by(run.c.run_id)
        .order_by(run.c.first.desc())
        .limit(_RUNS)
    )
    known = [(fall, row[4]) for row in conn.execute(query) if (fall := _fall(*row[:4])) > 0 and row[4]]
    if not known:
        return None
    each = [fall / size for fall, size in known]
    return _price(sum(fall for fall, _ in known), sum(size for _, size in known), min(each), max(each))


def _fall(*looks: float | None) -> float:
    """From the first to the second of the credits, or of the quota where credits are not told."""
    credits_before, credits_after, quota_before, quota_after = looks
    if credits_before is not None and credits_after is not None:
        return credits_before - credits_after
    if quota_before is not None and quota_after is not None:
        return quota_before - quota_after
    return 0.0


def _price(credits_: float, size: int, low: float, high: float) -> tuple[float, float, float]:
    return credits_ / size, low, high
