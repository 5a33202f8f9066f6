"""The only module that writes `items.state`: an item's first state, and each transition with its event."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, literal, select, update

from batcher.item import KEY_VERSION, TARGET, Event, State, sources
from batcher.ledger.storage.schema import events, items
from batcher.ledger.storage.statements import Prepared, either, every

NO_ERROR: Final[dict[str, Any]] = {
    "error_code": None,
    "error_message": None,
    "error_request_id": None,
    "error_http_status": None,
}
"""Columns of an item that clear its recorded error."""


def new_item(at: float) -> dict[str, Any]:
    """The columns of a new item, except its inputs: it is pending, without attempts."""
    return {
        "key_version": KEY_VERSION,
        "state": State.PENDING.value,
        "attempt": 0,
        "not_before_at": 0.0,
        "deferrals": 0,
        "created_at": at,
        "changed_at": at,
    }


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
    values: Mapping[str, Any] | None = None,
) -> bool:
    """Apply `event` to the item if its attempt, its state and (if given) its task still allow it.

    Records the event in the same transaction, and increments the item's deferrals if it is `deferred`. `values` are
    further columns to set. Returns whether the item moved.
    """
    columns = dict(values or {})
    parameters = {"_key": key, "_attempt": attempt, "changed_at": at} | columns
    if of_task is not None:
        parameters["_task"] = of_task
    moved = _transition(event, of_task is not None, tuple(columns)).run(conn, parameters).rowcount == 1
    if moved:
        recorded = {
            "item_key": key,
            "attempt": columns.get("attempt", attempt),
            "event": event,
            "state": TARGET[event],
            "at": at,
            "run_id": run_id,
            "detail": detail,
        }
        _INSERT_EVENT.run(conn, recorded)
    return moved


def add_event(conn: Connection, event: Event, key: str, *, at: float, detail: str) -> None:
    """Record an event of an item that stays in its state."""
    names = ["item_key", "attempt", "event", "state", "at", "detail"]
    values = select(items.c.key, items.c.attempt, literal(event), items.c.state, literal(at), literal(detail))
    conn.execute(insert(events).from_select(names, values.where(items.c.key == key)))


_INSERT_EVENT: Final = Prepared(
    insert(events).values(every("item_key", "attempt", "event", "state", "at", "run_id", "detail"))
)


@cache
def _transition(event: Event, with_task: bool, names: tuple[str, ...]) -> Prepared:
    where = [items.c.key == bindparam("_key"), items.c.attempt == bindparam("_attempt")]
    where.append(either(items.c.state, sources(event)))
    if with_task:
        where.append(items.c.task_id == bindparam("_task"))
    values: dict[str, Any] = every("changed_at", *names)
    if event is Event.DEFERRED:
        values["deferrals"] = items.c.deferrals + 1
    return Prepared(update(items).where(*where).values(state=TARGET[event]).values(values))
