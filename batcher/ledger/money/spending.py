"""Credits: what was spent, what is on its way, what is still needed, and what a batch's budget leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, case, exists, func, literal, or_, select

from batcher.formatting import amount
from batcher.item import OPEN, Event, State
from batcher.ledger.money.prices import Prices, prices
from batcher.ledger.records import Batch
from batcher.ledger.storage import cached_facts
from batcher.ledger.storage.filters import numbers_of, of_attempt, of_wanted
from batcher.ledger.storage.planner import OPEN_TASK, UNCLEAR
from batcher.ledger.storage.schema import attempts, events, items, rows, tasks

UNPRICED_AT_MOST: Final = 5
"""Creates that may end in a task or a doubt without a word of what they cost, nor a fall of the balance, before a
budget stops a batch."""
_RECOUNT_SHARE: Final = 8
"""What is left is counted anew after each further eighth of a batch's creates: what they cost may have changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Credits of creates, told or else estimated; None where that cannot be said.

    `spent` on tasks that ended, `in_flight` on open ones, `in_doubt` on creates whose answer was lost.
    """

    spent: float | None
    in_flight: float | None
    in_doubt: float | None

    @property
    def total(self) -> float | None:
        """All three: what a budget counts as spent."""
        parts = (self.spent, self.in_flight, self.in_doubt)
        known = [part for part in parts if part is not None]
        return round(sum(known), 6) if len(known) == len(parts) else None


def spending(conn: Connection, *, batch_id: int | None = None, known: Prices | None = None) -> Spending:
    """What the creates of the batch (of all) cost, over all runs; what no task told is estimated."""
    known = known or prices(conn)
    found: dict[str, float | None] = dict.fromkeys(("spent", "in_flight", "in_doubt"), 0.0)
    for kind, model, told, size in (*_ended(conn, batch_id), *_unended(conn, batch_id)):
        more = known.of([(model, size)] if size else [])
        so_far = found[kind]
        found[kind] = None if more is None or so_far is None else round(so_far + told + more.credits, 6)
    return Spending(**found)


_Cost = tuple[str, str | None, float, int]
"""Which part of the spending, a model, what was told, and the bytes of texts of which nothing is told."""


def _ended(conn: Connection, batch_id: int | None) -> Iterator[_Cost]:
    for line in cached_facts.costs_of_ended(conn, batch_id):
        yield "spent", line["model"], line["told"], line["untold_bytes"]


def _unended(conn: Connection, batch_id: int | None) -> Iterator[_Cost]:
    """Creates whose task has not ended, then those without any: each found by an index that holds no others."""
    of_item = items.c.key == attempts.c.item_key
    with_task = tasks.join(attempts, of_attempt).join(items, of_item)
    without = (UNCLEAR.of(attempts), ~exists().where(of_attempt))
    in_doubt = case((attempts.c.outcome == "lost", "in_doubt"), else_="in_flight")
    parts: tuple[tuple[Any, Any, ColumnElement[float | None], Any], ...] = (
        (literal("in_flight"), with_task, func.coalesce(tasks.c.credits, attempts.c.credits), (OPEN_TASK.of(tasks),)),
        (in_doubt, attempts.join(items, of_item), attempts.c.credits, without),
    )
    for kind, source, told, where in parts:
        size = func.total(case((told.is_(None), items.c.bytes)))
        query = select(kind, items.c.model, func.total(told), size).select_from(source).where(*where, _may_cost(told))
        if batch_id is not None:
            query = query.where(attempts.c.batch_id == batch_id)
        yield from map(tuple, conn.execute(query.group_by(kind, items.c.model)))


def _may_cost(told: ColumnElement[float | None]) -> ColumnElement[bool]:
    """Attempts that cost something or may have: not those that definitely made no task, or an unfunded one."""
    unfunded = exists().where(
        events.c.item_key == attempts.c.item_key,
        events.c.attempt == attempts.c.attempt,
        events.c.event == Event.UNFUNDED,
    )
    nothing_made = attempts.c.outcome.in_(("deferred", "rejected"))
    return or_(told.is_not(None), and_(attempts.c.outcome.is_(None) | ~nothing_made, ~unfunded))


class Budget:
    """What each batch may cost over all its runs: `most` credits, told or estimated, open and doubtful ones included.

    While no price is known, a batch has one create at a time.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        self.short: dict[int, str] = {}
        """Batches whose next item may not be created now, and why."""
        self.blind = False
        """Whether something was created whose price nobody knows: worth a look at the balance when it has ended."""
        self._left: dict[int, float] = {}
        self._recount_below: dict[int, float] = {}
        self._trusted: dict[int, int] = {}  # creates until the next count
        self._known = Prices({})

    def affords(self, conn: Connection, batch_id: int, model: str | None, size: int) -> bool:
        """Whether the batch may have this item created now; if so it is taken for created."""
        if batch_id not in self._left:
            self._count(conn, batch_id)
        price = self._known.of([(model, size)])
        if price is None:
            return self._alone(conn, batch_id)
        # Estimates err, so what is left is counted anew each time that half of it has been given away, and before the
        # prices that it was counted with are those of too few.
        self._trusted[batch_id] -= 1
        if self._trusted[batch_id] < 0 or self._left[batch_id] - price.credits < self._recount_below[batch_id]:
            self._count(conn, batch_id)
            price = self._known.of([(model, size)]) or price
        if price.credits > self._left[batch_id]:
            self._refuse(batch_id, price.credits)
            return False
        self.short.pop(batch_id, None)
        self._left[batch_id] -= price.credits
        return True

    def _refuse(self, batch_id: int, needed: float) -> None:
        spent = self.most - self._left[batch_id]
        self.short[batch_id] = (
            f"--max-credits {amount(self.most)} reached: about {amount(spent)} spent, in flight and in doubt included, "
            f"and the next item needs about {amount(needed)}"
        )

    def _count(self, conn: Connection, batch_id: int) -> None:
        self._known = prices(conn)
        total = spending(conn, batch_id=batch_id, known=self._known).total
        self._left[batch_id] = self.most - (total or 0.0)
        self._recount_below[batch_id] = self._left[batch_id] / 2
        number = select(func.count()).select_from(attempts).where(attempts.c.batch_id == batch_id)
        self._trusted[batch_id] = conn.execute(number).scalar_one() // _RECOUNT_SHARE

    def _alone(self, conn: Connection, batch_id: int) -> bool:
        """With no price known, whether nothing of the batch is open, and not too much has ended without a price."""
        del self._left[batch_id]  # to be counted anew
        of_batch = select(func.count()).select_from(attempts.join(items, items.c.key == attempts.c.item_key))
        latest = (attempts.c.batch_id == batch_id, attempts.c.attempt == items.c.attempt)
        # A task may have ended in this very commit: then the balance still has to be looked at.
        if self.blind or conn.execute(of_batch.where(*latest, items.c.state.in_(OPEN))).scalar_one():
            self.short[batch_id] = "--max-credits: no price is known before the first task has ended"
            return False
        ended = select(func.count()).select_from(attempts.outerjoin(tasks, of_attempt))
        in_doubt = and_(attempts.c.outcome == "lost", tasks.c.task_id.is_(None))
        here = (attempts.c.batch_id == batch_id, attempts.c.cause.is_distinct_from("restored"))
        number = conn.execute(ended.where(*here, or_(tasks.c.ended_at.is_not(None), in_doubt))).scalar_one()
        if number >= UNPRICED_AT_MOST:
            self.short[batch_id] = (
                f"--max-credits cannot be kept: after {number} creates neither they nor the balance say what one costs"
            )
            return False
        self.blind = True
        self.short.pop(batch_id, None)
        return True


def estimated_need(conn: Connection, wanted: Sequence[Batch]) -> float | None:
    """Credits that the wanted items still to be created may cost; None while no price is known."""
    estimate = prices(conn).of(to_buy(conn, wanted))
    return None if estimate is None else estimate.credits


def to_buy(conn: Connection, wanted: Sequence[Batch]) -> list[tuple[str | None, int]]:
    """Models, and the bytes of texts of each, perhaps in parts, of the wanted items that are still to be created."""
    found = cached_facts.items_by_state(conn, wanted)
    return [(line["model"], line["bytes"]) for line in found if line["state"] == State.PENDING and line["number"]]


def sizes_to_buy(conn: Connection, wanted: Sequence[Batch]) -> Iterator[tuple[str | None, int]]:
    """Model and bytes of each wanted item that is still to be created, in the order in which a run would."""
    first = select(rows.c.item_key, func.min(rows.c.batch_id), func.min(rows.c.number).label("number"))
    ours = first.where(of_wanted(wanted), rows.c.item_key.is_not(None)).group_by(rows.c.item_key).subquery()
    query = select(items.c.model, items.c.bytes).join(ours, ours.c.item_key == items.c.key)
    for row in conn.execute(query.where(items.c.state == State.PENDING).order_by(ours.c[1], ours.c.number)):
        yield row[0], row[1]


def next_need(conn: Connection, wanted: Sequence[Batch]) -> float | None:
    """Credits that the item to be created next may cost; None when there is none, or no price is known."""
    find = lambda: next(([model, size] for model, size in sizes_to_buy(conn, wanted)), [])  # noqa: E731
    first = cached_facts.get_or_compute(conn, f"next to buy {numbers_of(wanted)}", "rows", find)
    estimate = prices(conn).of([(first[0], first[1])]) if first else None
    return None if estimate is None else estimate.credits


def spent_in_run(conn: Connection, run_id: str) -> tuple[float | None, bool]:
    """Credits that the run's accepted creates say they cost, and whether every one of them says so."""
    query = (
        select(func.count(), func.count(tasks.c.credits), func.sum(tasks.c.credits))
        .select_from(tasks.join(attempts, of_attempt))
        .where(attempts.c.run_id == run_id, attempts.c.outcome == "accepted")
    )
    number, known, total = conn.execute(query).one()
    return total, number == known


def reported_spending(conn: Connection) -> Any:
    """Credits that all tasks of the ledger say they cost; None when none says anything."""
    said = [line["credits"] for line in cached_facts.costs_of_ended(conn)]
    said.append(conn.execute(select(func.sum(tasks.c.credits)).where(OPEN_TASK.of(tasks))).scalar())
    known = [credits_ for credits_ in said if credits_ is not None]
    return sum(known) if known else None
