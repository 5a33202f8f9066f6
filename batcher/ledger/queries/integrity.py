"""Checks the ledger for contradictions, with one query per check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    Float,
    Integer,
    LargeBinary,
    Select,
    Text,
    and_,
    exists,
    func,
    select,
)
from sqlalchemy.exc import DatabaseError

from batcher.item import State
from batcher.ledger.storage.schema import attempts, batches, events, files, items, metadata, rows, tasks
from batcher.ledger.storage.statements import execute

_DAMAGED: Final = ("CORRUPT", "NOTADB")
"""SQLite's errors that mean damage, not that the file cannot be read at the moment."""
_EXAMPLES: Final = 3
"""Examples shown of each inconsistency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inconsistency:
    """A contradiction in the ledger: its description, the number of cases, and keys (or paths) of a few examples."""

    description: str
    number: int
    examples: list[str]


def damage(conn: Connection) -> list[str]:
    """Damage that SQLite finds in the file, and columns with values of a wrong type. A server checks both itself."""
    if conn.dialect.name == "postgresql":
        return []
    found: list[str] = []
    try:
        found += [str(line) for line in execute(conn, "PRAGMA quick_check(20)").scalars() if line != "ok"]
        orphans = execute(conn, "PRAGMA foreign_key_check").all()
        found += [f"a row of {row[0]} refers to a missing row of {row[2]}" for row in orphans[:20]]
        found += [f"a value of {name} is of the wrong kind" for name in _wrong_values(conn)]
    except DatabaseError as error:
        if getattr(error.orig, "sqlite_errorname", "").partition("_")[2].startswith(_DAMAGED):
            return [*found, str(error.orig)]
        raise
    return found


def _wrong_values(conn: Connection) -> Iterator[str]:
    """Columns and constraints, as `table.name`, with values that this program never writes.

    An SQLite column takes any type, and `quick_check` tests no constraint of a file that it may only read.
    """
    for table in metadata.sorted_tables:
        wrong = {column.name: _wrong(column) for column in table.columns}
        checks = [one for one in table.constraints if isinstance(one, CheckConstraint)]
        wrong |= {str(one.name): f"NOT ({one.sqltext})" for one in checks}
        tests = ", ".join(f"max({test})" for test in wrong.values())
        [line] = execute(conn, f"SELECT {tests} FROM {table.name}").all()  # noqa: S608
        yield from (f"{table.name}.{name}" for name, is_wrong in zip(wrong, line, strict=True) if is_wrong)


def _wrong(column: Column[Any]) -> str:
    """SQL: whether a value of this column has the wrong type."""
    name, types = column.name, next(types for kind, types in _TYPES.items() if isinstance(column.type, kind))
    wrong = f"typeof({name}) NOT IN ('null', {types})"
    if isinstance(column.type, Float):
        is_time = name == "at" or name.endswith("_at")
        return f"{wrong} OR abs({name}) > {_MAX_TIME if is_time else _MAX_NUMBER}"
    return f"{wrong} OR NOT json_valid({name})" if name in _JSON else wrong


_TYPES: Final = {Float: "'real', 'integer'", Integer: "'integer'", Text: "'text'", LargeBinary: "'blob'"}
_JSON: Final = ("params", "extra")
_MAX_TIME: Final = 250e9
"""In the year 9892; the calendar of Python ends with 9999."""
_MAX_NUMBER: Final = 1e18


def inconsistencies(conn: Connection) -> list[Inconsistency]:
    """Contradictions between the ledger's tables."""
    found = []
    for description, query in _CHECKS.items():
        examples = list(conn.execute(query.limit(_EXAMPLES)).scalars())
        if examples:
            number = conn.execute(select(func.count()).select_from(query.subquery())).scalar_one()
            found.append(
                Inconsistency(description=description, number=number, examples=[str(example) for example in examples])
            )
    return found


def _items(*where: ColumnElement[bool]) -> Select[Any]:
    return select(items.c.key).where(*where)


def _some(table: Any, *where: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists(select(1).select_from(table).where(*where))


_of_attempt = and_(attempts.c.item_key == items.c.key, attempts.c.attempt == items.c.attempt)
_of_task = and_(tasks.c.account_id == items.c.account_id, tasks.c.task_id == items.c.task_id)
_saved_file = and_(files.c.item_key == items.c.key, files.c.saved_at.is_not(None))
_last_event = select(func.max(events.c.id)).group_by(events.c.item_key)
_other_row = rows.alias("other_row")
_other_batch = batches.alias("other_batch")

_CHECKS: Final[dict[str, Select[Any]]] = {
    "items have a task that was created for another item": _items(
        _some(tasks, _of_task, tasks.c.item_key != items.c.key)
    ),
    "items have been claimed but have no recorded attempt": _items(
        items.c.state.in_((State.SUBMITTING, State.IN_DOUBT, State.SUBMITTED, State.RENDERED, State.DONE)),
        ~_some(attempts, _of_attempt),
    ),
    "items wait for an answer that is already recorded": _items(
        items.c.state == State.SUBMITTING, _some(attempts, _of_attempt, attempts.c.outcome.is_not(None))
    ),
    "attempts have no answer, but their items are not waiting for one": select(attempts.c.item_key)
    .join(items, items.c.key == attempts.c.item_key)
    .where(
        attempts.c.outcome.is_(None),
        ~and_(items.c.state == State.SUBMITTING, items.c.attempt == attempts.c.attempt),
    ),
    "attempts were accepted but have no recorded task": select(attempts.c.item_key).where(
        attempts.c.outcome == "accepted",
        ~_some(tasks, tasks.c.item_key == attempts.c.item_key, tasks.c.attempt == attempts.c.attempt),
    ),
    "attempts have a higher number than their item's latest": select(attempts.c.item_key)
    .join(items, items.c.key == attempts.c.item_key)
    .where(attempts.c.attempt > items.c.attempt),
    "items are done but have no saved file": _items(items.c.state == State.DONE, ~_some(files, _saved_file)),
    "items have a saved file but are not done": _items(items.c.state != State.DONE, _some(files, _saved_file)),
    "items are not in the state that their last event led to": select(events.c.item_key)
    .join(items, items.c.key == events.c.item_key)
    .where(events.c.id.in_(_last_event), events.c.state != items.c.state),
    "items have left `pending` but have no recorded event": _items(
        items.c.state != State.PENDING, ~_some(events, events.c.item_key == items.c.key)
    ),
    "outputs belong to more than one row": select(rows.c.output)
    .join(batches, and_(batches.c.id == rows.c.batch_id, rows.c.is_current == 1))
    .join(_other_row, and_(_other_row.c.output == rows.c.output, _other_row.c.item_key.is_not(None)))
    .join(_other_batch, and_(_other_batch.c.id == _other_row.c.batch_id, _other_row.c.is_current == 1))
    .where(_other_batch.c.out_dir == batches.c.out_dir, rows.c.item_key.is_not(None))
    .where(
        (rows.c.batch_id < _other_row.c.batch_id)
        | ((rows.c.batch_id == _other_row.c.batch_id) & (rows.c.id < _other_row.c.id))
    ),
}
"""The query of each check, by the description of what it finds; messages put the number of cases before it."""
