"""Prices, learned from the costs that finished tasks report; if none does, from how far balances fell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, select

from batcher.ledger.storage import cached_facts
from batcher.ledger.storage.schema import attempts, balances, items

_ANY_MODEL: Final = "*"
_DIGITS: Final = 9
"""Decimal places of estimates: an item may cost a small fraction of a credit."""
_RUNS: Final = 20
"""Number of latest runs whose balances are compared if no task reports its cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Estimated credits, with the range between the lowest and the highest known price."""

    credits: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Prices:
    """Credits per UTF-8 byte of text, by model: mean (total cost / total bytes), lowest and highest."""

    by_model: dict[str, tuple[float, float, float]]

    def estimate(self, sizes: Iterable[tuple[str | None, int]]) -> Estimate | None:
        """The estimated price of texts, given their models and sizes in bytes. None while no price is known.

        A model without finished tasks is estimated at the mean of all models.
        """
        total = [0.0, 0.0, 0.0]
        for model, size in sizes:
            price = self.by_model.get(model or "") or self.by_model.get(_ANY_MODEL)
            if price is None:
                return None
            total = [sum_ + size * per_byte for sum_, per_byte in zip(total, price, strict=True)]
        credits_, low, high = (round(sum_, _DIGITS) for sum_ in total)
        return Estimate(credits=credits_, low=low, high=high)


def prices(conn: Connection) -> Prices:
    """Prices from the costs that finished tasks report; if none does, from the fall of balances over whole runs."""
    reported = [line for line in cached_facts.costs_of_ended(conn) if line["priced_bytes"]]
    if reported:
        models = {line["model"] for line in reported}
        by_model = {model: _mean_price([line for line in reported if line["model"] == model]) for model in models}
        return Prices(by_model | {_ANY_MODEL: _mean_price(reported)})
    measured = cached_facts.get_or_compute(conn, "measured", "balances", lambda: _measure(conn) or ())
    return Prices({_ANY_MODEL: (measured[0], measured[1], measured[2])} if measured else {})


def _mean_price(costs: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    credits_, size = (sum(line[name] for line in costs) for name in ("priced_credits", "priced_bytes"))
    return credits_ / size, min(line["low"] for line in costs), max(line["high"] for line in costs)


def _measure(conn: Connection) -> tuple[float, float, float] | None:
    """The fall of the balance between a run's first and last reading, per byte of the texts accepted by then.

    Other purchases with the account are included, so the estimate errs on the high side.
    """
    readings = select(balances.c.run_id, func.min(balances.c.id).label("first"), func.max(balances.c.id).label("last"))
    readings = readings.where(balances.c.run_id.is_not(None)).group_by(balances.c.run_id)
    first, last, run = balances.alias("first"), balances.alias("last"), readings.subquery()
    accepted = attempts.join(items, items.c.key == attempts.c.item_key).join(run, run.c.run_id == attempts.c.run_id)
    query = (
        select(first.c.credits, last.c.credits, first.c.quota, last.c.quota, func.sum(items.c.bytes))
        .select_from(accepted.join(first, first.c.id == run.c.first).join(last, last.c.id == run.c.last))
        .where(attempts.c.outcome == "accepted", attempts.c.answered_at <= last.c.at)
        .group_by(first.c.id, last.c.id)
        .order_by(first.c.id.desc())
        .limit(_RUNS)
    )
    falls = [(fall, row[4]) for row in conn.execute(query) if (fall := _fall(*row[:4])) > 0 and row[4]]
    if not falls:
        return None
    per_byte = [fall / size for fall, size in falls]
    return sum(fall for fall, _ in falls) / sum(size for _, size in falls), min(per_byte), max(per_byte)


def _fall(
    credits_before: float | None, credits_after: float | None, quota_before: float | None, quota_after: float | None
) -> float:
    """The fall of the quota, or of the credits if the quota is unknown."""
    if quota_before is not None and quota_after is not None:
        return quota_before - quota_after
    if credits_before is not None and credits_after is not None:
        return credits_before - credits_after
    return 0.0
