"""Does the ledger agree with itself? Each question is one query that finds what should not be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, select
from sqlalchemy.exc import DatabaseError

from batcher.item import State
from batcher.ledger.storage.schema import attempts, batches, events, files, items, rows, tasks

_EXAMPLES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Inconsistency:
    """Something that cannot be, how often it is, and the keys (or names) of a few examples."""

    words: str
    number: int
    examples: list[str]


def damage(conn: Connection) -> list[str]:
    """What SQLite itself finds wrong with the file; nothing when it is whole."""
    try:
        lines = [str(line) for line in conn.exec_driver_sql("PRAGMA quick_check(20)").scalars()]
        orphans = conn.exec_driver_sql("PRAGMA foreign_key_check").all()
    except DatabaseError as error:
        return [str(error.orig)]
    found = [line for line in lines if line != "ok"]
    return found + [f"a row of {row[0]} refers to one of {row[2]} that is not there" for row in orphans[:20]]


def inconsistencies(conn: Connection) -> list[Inconsistency]:
    """What contradicts something else in the ledger."""
    found = []
    for words, query in _QUESTIONS.items():
        examples = list(conn.execute(query.limit(_EXAMPLES)).scalars())
        if examples:
            number = conn.execute(select(func.count()).select_from(query.subquery())).scalar_one()
            found.append(Inconsistency(words=words, number=number, examples=[str(one) for one in examples]))
    return found


def audio_to_come(conn: Connection) -> dict[str, tuple[int, float | None]]:
    """By format: the characters of texts without audio that may get some, and bytes a character of audio so far."""
    open_ = (State.PENDING, State.SUBMITTING, State.SUBMITTED, State.RENDERED, State.IN_DOUBT)
    length = func.length(items.c.text)
    waiting = select(items.c.format, func.sum(length)).where(items.c.state.in_(open_)).group_by(items.c.format)
    made = select(items.c.format, func.sum(files.c.bytes) * 1.0 / func.sum(length))
    made = made.join(files, files.c.item_key == items.c.key).group_by(items.c.format)
    rate: dict[str, float] = dict(conn.execute(made).all())
    return {row[0]: (row[1], rate.get(row[0])) for row in conn.execute(waiting)}


def _items(*where: ColumnElement[bool]) -> Select[Any]:
    return select(items.c.key).where(*where)


def _no(table: Any, *where: ColumnElement[bool]) -> ColumnElement[bool]:
    return ~exists(select(1).select_from(table).where(*where))


_of_attempt = and_(attempts.c.item_key == items.c.key, attempts.c.attempt == items.c.attempt)
_of_task = and_(tasks.c.account_id == items.c.account_id, tasks.c.task_id == items.c.task_id)
_last_event = select(func.max(events.c.id)).group_by(events.c.item_key)
_twin = rows.alias("twin")
_its_batch = batches.alias("its_batch")

_QUESTIONS: Final[dict[str, Select[Any]]] = {
    "items have a task that was made for another item": _items(
        exists(select(1).select_from(tasks).where(_of_task, tasks.c.item_key != items.c.key))
    ),
    "items are past their create, and no attempt of it is kept": _items(
        items.c.state.in_((State.SUBMITTING, State.IN_DOUBT, State.SUBMITTED, State.RENDERED, State.DONE)),
        _no(attempts, _of_attempt),
    ),
    "items wait for an answer that is there": _items(
        items.c.state == State.SUBMITTING,
        exists(select(1).select_from(attempts).where(_of_attempt, attempts.c.outcome.is_not(None))),
    ),
    "creates have no answer, and their items do not wait for one": select(attempts.c.item_key)
    .join(items, items.c.key == attempts.c.item_key)
    .where(
        attempts.c.outcome.is_(None),
        ~and_(items.c.state == State.SUBMITTING, items.c.attempt == attempts.c.attempt),
    ),
    "creates were accepted, and no task of them is kept": select(attempts.c.item_key).where(
        attempts.c.outcome == "accepted",
        _no(tasks, tasks.c.item_key == attempts.c.item_key, tasks.c.attempt == attempts.c.attempt),
    ),
    "creates have a number beyond their item's": select(attempts.c.item_key)
    .join(items, items.c.key == attempts.c.item_key)
    .where(attempts.c.attempt > items.c.attempt),
    "items are done without a file": _items(
        items.c.state == State.DONE,
        _no(files, files.c.item_key == items.c.key, files.c.saved_at.is_not(None)),
    ),
    "files are saved, and their items are not done": _items(
        items.c.state != State.DONE,
        exists(select(1).select_from(files).where(files.c.item_key == items.c.key, files.c.saved_at.is_not(None))),
    ),
    "items are in another state than their last event led to": select(events.c.item_key)
    .join(items, items.c.key == events.c.item_key)
    .where(events.c.id.in_(_last_event), events.c.state != items.c.state),
    "items have moved, and no event of it is kept": _items(
        items.c.state != State.PENDING, _no(events, events.c.item_key == items.c.key)
    ),
    "outputs belong to more than one row": select(rows.c.output)
    .join(batches, and_(batches.c.id == rows.c.batch_id, rows.c.is_current == 1))
    .join(_twin, and_(_twin.c.output == rows.c.output, _twin.c.item_key.is_not(None)))
    .join(_its_batch, and_(_its_batch.c.id == _twin.c.batch_id, _twin.c.is_current == 1))
    .where(_its_batch.c.out_dir == batches.c.out_dir, rows.c.item_key.is_not(None))
    .where((rows.c.batch_id < _twin.c.batch_id) | ((rows.c.batch_id == _twin.c.batch_id) & (rows.c.id < _twin.c.id))),
}
"""What each query finds, in words that follow a number."""
