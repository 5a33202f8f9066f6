"""The one place that writes `items.state` and what happened: where an item begins, and each step from there."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, literal, select, update

from batcher.item import KEY_VERSION, TARGET, Event, State, sources
from batcher.ledger.storage.schema import events, items
from batcher.ledger.storage.statements import Prepared, either, every


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

    Returns whether it moved; the event is written in the same transaction. `values` are further columns to set. An
    item that is deferred is counted as such.
    """
    bound = {"_key": key, "_attempt": attempt, "changed_at": at, **values}
    if of_task is not None:
        bound["_task"] = of_task
    moved = _step(event, of_task is not None, tuple(values)).run(conn, bound).rowcount == 1
    if moved:
        record = {"item_key": key, "attempt": values.get("attempt", attempt), "event": event, "state": TARGET[event]}
        _HAPPENED.run(conn, record | {"at": at, "run_id": run_id, "detail": detail})
    return moved


def note(conn: Connection, event: Event, key: str, *, at: float, detail: str) -> None:
    """Write down that something happened once more to an item, which stays in the state that it is in."""
    told = (items.c.key, items.c.attempt, literal(event), items.c.state, literal(at), literal(detail))
    names = ["item_key", "attempt", "event", "state", "at", "detail"]
    conn.execute(insert(events).from_select(names, select(*told).where(items.c.key == key)))


_HAPPENED: Final = Prepared(
    insert(events).values(every("item_key", "attempt", "event", "state", "at", "run_id", "detail"))
)


@cache
def _step(event: Event, with_task: bool, names: tuple[str, ...]) -> Prepared:
    where = [items.c.key == bindparam("_key"), items.c.attempt == bindparam("_attempt")]
    where.append(either(items.c.state, sources(event)))
    if with_task:
        where.append(items.c.task_id == bindparam("_task"))
    values: dict[str, Any] = {**every("changed_at", *names)}
    if event is Event.DEFERRED:
        values["deferrals"] = items.c.deferrals + 1
    return Prepared(update(items).where(*where).values(state=TARGET[event], **values))
