"""Rows with their results, in chunks between which no transaction is open: all of a batch, or those just settled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Select, and_, func, or_, select

from batcher.item import NEEDS_ATTENTION, State
from batcher.ledger.queries.outputs import result_line, select_results
from batcher.ledger.records import Batch
from batcher.ledger.storage.filters import of_wanted
from batcher.ledger.storage.planner import without_index
from batcher.ledger.storage.schema import attempts, events, items, rows, tasks

SETTLED: Final = (State.DONE, State.ABANDONED, *NEEDS_ATTENTION)
"""States in which a run leaves an item as it is."""


own_tasks: Final = tasks.alias("own_tasks")


class Result(NamedTuple):
    """A row's line of the results files, with its batch and the credits that its item's current task has cost."""

    batch: Batch
    line: dict[str, Any]
    credits: float | None


def next_results(
    conn: Connection, batch: Batch, after: int, limit: int, *, settled: bool = False
) -> tuple[list[Result], int]:
    """The batch's next rows after row number `after`, or only the settled ones, among its next `limit` rows.

    Returns them and the number of the last row that was looked at: `after` at the end.
    """
    window = select(rows.c.number).where(of_wanted([batch]), rows.c.number > after)
    numbers = conn.execute(window.order_by(rows.c.number).limit(limit)).scalars().all()
    if not numbers:
        return [], after
    query = _select().where(of_wanted([batch]), rows.c.number > after, rows.c.number <= numbers[-1])
    if settled:
        query = query.where(or_(rows.c.skipped.is_not(None), items.c.state.in_(SETTLED)))
    found = conn.execute(query.order_by(rows.c.number))
    return [Result(batch, result_line(row, batch.name), row.credits) for row in found], numbers[-1]


def last_event(conn: Connection) -> int:
    """The number of the latest event of any item."""
    newest: int = conn.execute(select(func.coalesce(func.max(events.c.id), 0))).scalar_one()
    return newest


def settled_since(conn: Connection, chosen: Sequence[Batch], after: int, limit: int) -> tuple[list[Result], int]:
    """Rows of these batches whose items have settled in the next `limit` events after the event `after`.

    Returns them, in the order in which they settled, and the number of the last event that was looked at.
    """
    window = select(events.c.id).where(events.c.id > after).order_by(events.c.id).limit(limit)
    numbers = conn.execute(window).scalars().all()
    if not numbers:
        return [], after
    by_id = {batch.batch_id: batch for batch in chosen}
    # `concat` hides the index of the events' items: SQLite must go from the few events to their rows.
    moved = events.join(rows, and_(rows.c.item_key == events.c.item_key.concat(""), rows.c.is_current == 1))
    query = (
        _select(moved)
        .add_columns(rows.c.batch_id)
        .where(events.c.id.between(numbers[0], numbers[-1]), without_index(rows.c.batch_id).in_(by_id))
        .where(events.c.state.in_(SETTLED), items.c.state == events.c.state)
        .order_by(events.c.id, rows.c.batch_id, rows.c.number)
    )
    found = []
    for row in conn.execute(query):
        batch = by_id[row.batch_id]
        found.append(Result(batch, result_line(row, batch.name), row.credits))
    return found, numbers[-1]


def _select(start: Any = rows) -> Select[Any]:
    of_task = and_(own_tasks.c.account_id == items.c.account_id, own_tasks.c.task_id == items.c.task_id)
    of_attempt = and_(attempts.c.item_key == items.c.key, attempts.c.attempt == items.c.attempt)
    costs = (
        select(own_tasks.c.credits).where(of_task).scalar_subquery(),
        select(attempts.c.credits).where(of_attempt).scalar_subquery(),
    )
    return select_results(start).add_columns(func.coalesce(*costs).label("credits"))
