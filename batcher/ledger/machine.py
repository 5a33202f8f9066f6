"""The one place that writes `items.state`: where an item begins, and each step from there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, update

from batcher.item import KEY_VERSION, TARGET, Event, State, sources
from batcher.ledger.schema import events, items


def new_item(at: float) -> dict[str, Any]:
    """The columns, beside its inputs, of an item that has come into the ledger and is not bought."""
    fixed = {"key_version": KEY_VERSION, "state": State.PENDING.value, "attempt": 0, "not_before_at": 0.0}
    return fixed | {"deferrals": 0, "created_at": at, "changed_at": at}


def move(
    conn: Connection,
    event: Event,
    key: str,
    attempt: int,
    /,
    *,
    at: float,
    run_id: str | None,
    of_task: str | None = None,
    detail: str | None = None,
    **values: Any,
) -> bool:
    """Take the item along `event`, if its attempt, its state and (when given) its task still allow it.

    Returns whether it moved; the event is written in the same transaction. `values` are further columns to set.
    """
    where = [items.c.key == key, items.c.attempt == attempt, items.c.state.in_(sources(event))]
    if of_task is not None:
        where.append(items.c.task_id == of_task)
    target = TARGET[event]
    moved = conn.execute(update(items).where(*where).values(state=target, changed_at=at, **values)).rowcount == 1
    if moved:
        record = {"item_key": key, "attempt": values.get("attempt", attempt), "event": event, "state": target}
        conn.execute(insert(events).values(**record, at=at, run_id=run_id, detail=detail))
    return moved
