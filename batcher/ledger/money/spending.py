"""Credits: spent, in flight, still needed, and left of a batch's budget."""

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
from batcher.ledger.storage.chosen import chosen, of_chosen, row_chosen
from batcher.ledger.storage.filters import numbers_of, of_attempt, of_wanted
from batcher.ledger.storage.planner import OPEN_TASK, UNCLEAR
from batcher.ledger.storage.schema import attempts, events, items, rows, tasks
from batcher.ledger.storage.sharing import is_shared

_MAX_UNPRICED: Final = 5
"""A budget stops a batch after this many creates if neither a reported cost nor the balance shows a price."""
_RECOUNT_SHARE: Final = 8
"""The budget is recounted after each further 1/N of a batch's creates, since prices may have changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Credits of creates, as reported or else estimated; None if unknown.

    `spent` on ended tasks, `in_flight` on open ones, `in_doubt` on creates whose answer was lost. `settled` are creates
    that were in doubt until a person gave them up or had their items bought again: they may have cost something.
    """

    spent: float | None
    in_flight: float | None
    in_doubt: float | None
    settled: float | None

    @property
    def total(self) -> float | None:
        """The sum of all parts, which a budget counts as spent; None if one is unknown."""
        parts = (self.spent, self.in_flight, self.in_doubt, self.settled)
        known = [part for part in parts if part is not None]
        return round(sum(known), 6) if len(known) == len(parts) else None


_PARTS: Final = ("spent", "in_flight", "in_doubt", "settled")


def spending(conn: Connection, *, batch_id: int | None = None, known: Prices | None = None) -> Spending:
    """Cost of the creates of the batch (of all batches) over all runs; estimated where no task reported it."""
    known = known or prices(conn)
    found: dict[str, float | None] = dict.fromkeys(_PARTS, 0.0)
    for part, model, reported, unpriced_bytes in (*_ended(conn, batch_id), *_unended(conn, batch_id)):
        estimate = known.estimate([(model, unpriced_bytes)] if unpriced_bytes else [])
        so_far = found[part]
        found[part] = None if estimate is None or so_far is None else round(so_far + reported + estimate.credits, 6)
    return Spending(**found)


_Cost = tuple[str, str | None, float, int]
"""Part of the spending, model, reported credits, and the bytes of texts whose cost is not reported."""


def _ended(conn: Connection, batch_id: int | None) -> Iterator[_Cost]:
    for line in cached_facts.costs_of_ended(conn, batch_id):
        yield "spent", line["model"], line["told"], line["untold_bytes"]


def _unended(conn: Connection, batch_id: int | None) -> Iterator[_Cost]:
    """Creates whose task has not ended, then those without a task: each query has a partial index."""
    of_item = items.c.key == attempts.c.item_key
    with_task = tasks.join(attempts, of_attempt).join(items, of_item)
    without_task = (UNCLEAR.of(attempts), ~exists().where(of_attempt))
    unsettled = and_(items.c.state == State.IN_DOUBT, items.c.attempt == attempts.c.attempt)
    lost = attempts.c.outcome == "lost"
    by_outcome = case((and_(lost, unsettled), "in_doubt"), (lost, "settled"), else_="in_flight")
    queries: tuple[tuple[Any, Any, ColumnElement[float | None], Any], ...] = (
        (literal("in_flight"), with_task, func.coalesce(tasks.c.credits, attempts.c.credits), (OPEN_TASK.of(tasks),)),
        (by_outcome, attempts.join(items, of_item), attempts.c.credits, without_task),
    )
    for part, source, cost, where in queries:
        unpriced_bytes = func.total(case((cost.is_(None), items.c.bytes)))
        query = select(part, items.c.model, func.total(cost), unpriced_bytes).select_from(source)
        query = query.where(*where, _may_cost(cost))
        if batch_id is not None:
            query = query.where(attempts.c.batch_id == batch_id)
        yield from map(tuple, conn.execute(query.group_by(part, items.c.model)))


def _may_cost(cost: ColumnElement[float | None]) -> ColumnElement[bool]:
    """Attempts that cost something or may have: excludes those whose task was unfunded."""
    unfunded = exists().where(
        events.c.item_key == attempts.c.item_key,
        events.c.attempt == attempts.c.attempt,
        events.c.event == Event.UNFUNDED,
    )
    return or_(cost.is_not(None), ~unfunded)


class Budget:
    """Limits each batch to `max_credits` over all its runs, reported or estimated; in flight and in doubt count too.

    While no price is known, a batch has one create at a time. `run_id` is the run that it limits; what other runs claim
    at the same time counts at once.
    """

    def __init__(self, max_credits: float, run_id: str) -> None:
        self.max_credits = max_credits
        self._run_id = run_id
        self._seen_event: int | None = None  # the last one when the claims of other runs were counted
        self.blocked: dict[int, str] = {}
        """Reason why the next item may not be created now, by batch number."""
        self.unpriced = False
        """Whether something was created at an unknown price: read the balance after it has ended."""
        self._left: dict[int, float] = {}
        self._recount_below: dict[int, float] = {}
        self._creates_to_recount: dict[int, int] = {}
        self._prices = Prices({})

    def affords(self, conn: Connection, batch_id: int, model: str | None, size: int) -> bool:
        """Whether the batch may create this item now; if so, the item counts as created."""
        if is_shared(conn):
            self._count_others(conn)
        if batch_id not in self._left:
            self._count(conn, batch_id)
        price = self._prices.estimate([(model, size)])
        if price is None:
            return self._affords_unpriced(conn, batch_id)
        # Estimates err: recount when half of the rest is spent, and earlier while prices are based on few tasks.
        self._creates_to_recount[batch_id] -= 1
        left = self._left[batch_id] - price.credits
        if self._creates_to_recount[batch_id] < 0 or left < self._recount_below[batch_id]:
            self._count(conn, batch_id)
            price = self._prices.estimate([(model, size)]) or price
        if price.credits > self._left[batch_id]:
            self._block(batch_id, price.credits)
            return False
        self.blocked.pop(batch_id, None)
        self._left[batch_id] -= price.credits
        return True

    def _block(self, batch_id: int, needed: float) -> None:
        spent = self.max_credits - self._left[batch_id]
        self.blocked[batch_id] = (
            f"--max-credits {amount(self.max_credits)} reached: about {amount(spent)} spent, including in flight and "
            f"in doubt, and the next item needs about {amount(needed)}"
        )

    def _count(self, conn: Connection, batch_id: int) -> None:
        self._prices = prices(conn)
        total = spending(conn, batch_id=batch_id, known=self._prices).total
        self._left[batch_id] = self.max_credits - (total or 0.0)
        self._recount_below[batch_id] = self._left[batch_id] / 2
        number = select(func.count()).select_from(attempts).where(attempts.c.batch_id == batch_id)
        self._creates_to_recount[batch_id] = conn.execute(number).scalar_one() // _RECOUNT_SHARE

    def _count_others(self, conn: Connection) -> None:
        """Subtract what other runs have claimed since the last call, as estimated."""
        before, self._seen_event = self._seen_event, conn.execute(select(func.max(events.c.id))).scalar()
        if before is None:
            return
        claimed = (events.c.id > before, events.c.event == Event.CLAIM, events.c.run_id != self._run_id)
        same = and_(attempts.c.item_key == events.c.item_key, attempts.c.attempt == events.c.attempt)
        query = select(attempts.c.batch_id, items.c.model, func.sum(items.c.bytes)).select_from(events)
        query = query.join(attempts, same).join(items, items.c.key == events.c.item_key).where(*claimed)
        for batch_id, model, size in conn.execute(query.group_by(attempts.c.batch_id, items.c.model)):
            price = self._prices.estimate([(model, size)])
            if batch_id in self._left:
                self._left[batch_id] -= 0.0 if price is None else price.credits

    def _affords_unpriced(self, conn: Connection, batch_id: int) -> bool:
        """With no price known: whether none of the batch's items is open, and few creates have ended unpriced."""
        del self._left[batch_id]  # recount it
        # A task may have ended in this very commit: then the balance must be read first.
        if self.unpriced or _open_items(conn, batch_id):
            self.blocked[batch_id] = "--max-credits: no price is known until the first task has ended"
            return False
        number = _ended_creates(conn, batch_id)
        if number >= _MAX_UNPRICED:
            self.blocked[batch_id] = (
                f"--max-credits cannot be enforced: after {number} creates, neither their tasks nor the balance show a "
                "price"
            )
            return False
        self.unpriced = True
        self.blocked.pop(batch_id, None)
        return True


def _open_items(conn: Connection, batch_id: int) -> int:
    """Number of the batch's items with an open create."""
    query = select(func.count()).select_from(attempts.join(items, items.c.key == attempts.c.item_key))
    latest = (attempts.c.batch_id == batch_id, attempts.c.attempt == items.c.attempt)
    return conn.execute(query.where(*latest, items.c.state.in_(OPEN))).scalar_one()


def _ended_creates(conn: Connection, batch_id: int) -> int:
    """Number of the batch's creates whose task has ended, or whose answer was lost."""
    query = select(func.count()).select_from(attempts.outerjoin(tasks, of_attempt))
    of_batch = (attempts.c.batch_id == batch_id, attempts.c.cause.is_distinct_from("restored"))
    in_doubt = and_(attempts.c.outcome == "lost", tasks.c.task_id.is_(None))
    return conn.execute(query.where(*of_batch, or_(tasks.c.ended_at.is_not(None), in_doubt))).scalar_one()


def estimated_need(conn: Connection, wanted: Sequence[Batch]) -> float | None:
    """Estimated credits for the wanted items that are still to be created; None while no price is known."""
    estimate = prices(conn).estimate(to_buy(conn, wanted))
    return None if estimate is None else estimate.credits


def to_buy(conn: Connection, wanted: Sequence[Batch]) -> list[tuple[str | None, int]]:
    """Models and bytes of the wanted items that are still to be created; a model may occur several times."""
    found = cached_facts.items_by_state(conn, wanted, State.PENDING)
    return [(line["model"], line["bytes"]) for line in found if line["number"]]


def sizes_to_buy(
    conn: Connection, wanted: Sequence[Batch], *, only_chosen: bool = False
) -> Iterator[tuple[str | None, int]]:
    """Model and bytes of each wanted item that is still to be created, in the order in which a run creates them; with
    `only_chosen`, of those of rows in the table `chosen`."""
    first = select(rows.c.item_key, func.min(rows.c.batch_id), func.min(rows.c.number).label("number"))
    if only_chosen:
        first = first.select_from(chosen).join(rows, row_chosen).where(of_chosen(wanted))
    else:
        first = first.where(of_wanted(wanted))
    first = first.where(rows.c.item_key.is_not(None)).group_by(rows.c.item_key)
    first_row = first.subquery()
    query = select(items.c.model, items.c.bytes).join(first_row, first_row.c.item_key == items.c.key)
    for row in conn.execute(query.where(items.c.state == State.PENDING).order_by(first_row.c[1], first_row.c.number)):
        yield row[0], row[1]


def next_need(conn: Connection, wanted: Sequence[Batch], *, only_chosen: bool = False) -> float | None:
    """Estimated credits for the item to be created next; None if there is none, or no price is known.

    With `only_chosen`, for the next of rows in the table `chosen`.
    """

    def find() -> list[Any]:
        return next(([model, size] for model, size in sizes_to_buy(conn, wanted, only_chosen=only_chosen)), [])

    name = f"next to buy {numbers_of(wanted)}"
    first = find() if only_chosen else cached_facts.get_or_compute(conn, name, "rows", find)
    estimate = prices(conn).estimate([(first[0], first[1])]) if first else None
    return None if estimate is None else estimate.credits


def spent_in_run(conn: Connection, run_id: str) -> tuple[float | None, bool]:
    """Credits that the run's accepted creates report, and whether every one of them reports its cost."""
    query = (
        select(func.count(), func.count(tasks.c.credits), func.sum(tasks.c.credits))
        .select_from(tasks.join(attempts, of_attempt))
        .where(attempts.c.run_id == run_id, attempts.c.outcome == "accepted")
    )
    number, known, total = conn.execute(query).one()
    return total, number == known
