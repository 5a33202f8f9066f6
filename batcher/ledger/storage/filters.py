"""Conditions that queries share: rows of batches, tasks of attempts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import BindParameter, ColumnElement, and_, false, literal_column, or_, select

from batcher.item import State
from batcher.ledger.records import Batch
from batcher.ledger.storage.planner import without_index
from batcher.ledger.storage.schema import attempts, items, rows, runs, tasks

of_attempt: Final = and_(tasks.c.item_key == attempts.c.item_key, tasks.c.attempt == attempts.c.attempt)
"""Joins attempts with their tasks."""

WORKING: Final = select(runs.c.id).where(runs.c.ended_at.is_(None))
"""The runs whose end is not recorded."""

IS_FREE: Final = or_(items.c.run_id.is_(None), items.c.run_id.not_in(WORKING))
"""Items that no working run creates or collects."""


def numbers_of(wanted: Sequence[Batch]) -> str:
    """The batches in the name of a cached fact, regardless of their order."""
    return " ".join(map(str, sorted(batch.batch_id for batch in wanted)))


def of_wanted(wanted: Sequence[Batch], *, by_item: bool = False) -> ColumnElement[bool]:
    """The current rows of these batches; none if there are no batches.

    `by_item` makes SQLite go from items to their rows, for few items of a large batch: see `without_index`.
    """
    return or_(false(), *(of_batch(batch.batch_id, by_item=by_item) for batch in wanted))


def of_batch(batch_id: int | BindParameter[int], *, by_item: bool = False) -> ColumnElement[bool]:
    """The current rows of this batch; `by_item` as in `of_wanted`."""
    if by_item:
        return and_(without_index(rows.c.batch_id) == batch_id, without_index(rows.c.is_current) == 1)
    return and_(rows.c.batch_id == batch_id, rows.c.is_current == 1)


def is_few(state: State, limit: int) -> ColumnElement[bool]:
    """Items in this state, of which there are fewer than `limit`.

    The limit makes PostgreSQL go from these items to their rows even if its statistics are older than most changes.
    """
    few = items.alias("few")
    return items.c.key.in_(select(few.c.key).where(few.c.state == state).limit(literal_column(str(limit))))
