"""What items cost, learned from what the account's own finished tasks say they cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Float, cast, func, select

from batcher.ledger.schema import items, tasks

_ANY: Final = "*"


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
        return Estimate(credits=round(total[0], 2), low=round(total[1], 2), high=round(total[2], 2))


def prices(conn: Connection) -> Prices:
    """What the ledger's finished tasks say."""
    each = cast(tasks.c.credits, Float) / items.c.bytes
    columns = (func.sum(tasks.c.credits), func.sum(items.c.bytes), func.min(each), func.max(each))
    said = (tasks.c.credits > 0, tasks.c.ended_at.is_not(None), items.c.bytes > 0)
    joined = tasks.join(items, items.c.key == tasks.c.item_key)
    by_model = select(items.c.model, *columns).select_from(joined).where(*said).group_by(items.c.model)
    found = {row[0] or "": _price(*row[1:]) for row in conn.execute(by_model)}
    overall = conn.execute(select(*columns).select_from(joined).where(*said)).one()
    return Prices(found | ({_ANY: _price(*overall)} if found else {}))


def _price(credits_: float, size: int, low: float, high: float) -> tuple[float, float, float]:
    return credits_ / size, low, high
