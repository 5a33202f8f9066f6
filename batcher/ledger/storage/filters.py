"""Conditions that queries share: which rows belong to which batches, which tasks to which attempts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    and_,
    false,
    or_,
)

from batcher.ledger.records import Batch
from batcher.ledger.storage.planner import without_index
from batcher.ledger.storage.schema import attempts, rows, tasks

of_attempt: Final = and_(tasks.c.item_key == attempts.c.item_key, tasks.c.attempt == attempts.c.attempt)
"""Joins attempts with the tasks that they made."""


def numbers_of(wanted: Sequence[Batch]) -> str:
    """What names these batches, whatever their order, in the name of standing facts."""
    return " ".join(map(str, sorted(batch.batch_id for batch in wanted)))


def of_wanted(wanted: Sequence[Batch], *, by_item: bool = False) -> ColumnElement[bool]:
    """The rows of these batches, as they read now; none when there are no batches.

    With `by_item`, SQLite is to go to them from their items; left to itself it may go through a million rows for the
    few of one item. (It uses no index for a column that something is added to.)
    """
    return or_(false(), *(of_batch(batch.batch_id, by_item=by_item) for batch in wanted))


def of_batch(batch_id: int | BindParameter[int], *, by_item: bool = False) -> ColumnElement[bool]:
    """The rows of this batch, as it reads now; `by_item` as above."""
    if by_item:
        return and_(without_index(rows.c.batch_id) == batch_id, without_index(rows.c.is_current) == 1)
    return and_(rows.c.batch_id == batch_id, rows.c.is_current == 1)
