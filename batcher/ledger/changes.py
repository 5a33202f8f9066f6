"""What a manifest that is being imported changes, held against what the ledger has paid for.

Works on the staged rows, before they are merged, so that a person can be asked first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, FromClause, Row, and_, exists, func, or_, select

from batcher.item import State
from batcher.ledger.schema import batches, items, rows

MAYBE_PAID: Final = (State.SUBMITTING, State.IN_DOUBT, State.SUBMITTED, State.RENDERED, State.DONE)
"""States of items that cost something, or may have."""
_FIELDS: Final = ("text", "voice", "model", "format", "params", "take")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A row that would now be bought although audio for it, or for its text, may be paid for.

    `fields` are what differs; `by_default` says that a default or the configuration changed, not the row.
    """

    row_id: str
    line: int
    fields: tuple[str, ...]
    by_default: bool
    old: str  # the value before of the first field that differs, and after; never a text
    new: str


def rebuys(conn: Connection, staged: FromClause, batch: str, *, same_file: bool) -> Iterator[Change]:
    """Staged rows that stand for an item still to be bought while a paid one stood in their place.

    In their place means: the row of the same id in the batch; or, for an id that is new, any item with the same text
    that no staged row stands for any more. With `same_file`, the manifest reads as before, so that whatever changed
    was configured. A row that only asks for another take is no such row.
    """
    new_item, old_item, old_row = items.alias("new_item"), items.alias("old_item"), rows.alias("old_row")
    batch_id = select(batches.c.id).where(batches.c.name == batch).scalar_subquery()
    still_wanted = exists().where(staged.c.item_key == old_item.c.key)
    by_id = old_item.c.key == old_row.c.item_key
    by_text = and_(old_row.c.id.is_(None), old_item.c.text_hash == staged.c.text_hash, ~still_wanted)
    query = (
        select(staged, *(old_item.c[name].label(f"old_{name}") for name in (*_FIELDS, "text_hash")))
        .outerjoin(new_item, new_item.c.key == staged.c.item_key)
        .outerjoin(old_row, and_(old_row.c.batch_id == batch_id, old_row.c.id == staged.c.id))
        .join(old_item, or_(by_id, by_text))
        .where(staged.c.item_key.is_not(None), old_item.c.key != staged.c.item_key)
        .where(or_(new_item.c.key.is_(None), new_item.c.state == State.PENDING))
        .where(old_item.c.state.in_(MAYBE_PAID))
        .order_by(staged.c.number)
    )
    last = None
    for row in conn.execute(query):
        if row.number != last and (change := _change(row, same_file=same_file)) is not None:
            last = row.number
            yield change


def paid_rows(conn: Connection, batch: str) -> int:
    """How many rows of the batch, as it was last read, have an item that may be paid for."""
    query = (
        select(func.count())
        .select_from(rows)
        .join(batches, and_(batches.c.id == rows.c.batch_id, batches.c.version == rows.c.version))
        .join(items, items.c.key == rows.c.item_key)
        .where(batches.c.name == batch, items.c.state.in_(MAYBE_PAID))
    )
    return conn.execute(query).scalar_one()


def _change(row: Row[Any], *, same_file: bool) -> Change | None:
    fields = tuple(name for name in _FIELDS if getattr(row, name) != getattr(row, f"old_{name}"))
    if not fields or fields == ("take",):
        return None
    defaulted: Sequence[str] = row.defaulted.split(",")
    shown = next((name for name in fields if name != "text"), None)
    return Change(
        row_id=row.id,
        line=row.line,
        fields=fields,
        by_default=same_file or any(name in defaulted for name in fields),
        old=_shown(getattr(row, f"old_{shown}")) if shown else "",
        new=_shown(getattr(row, shown)) if shown else "",
    )


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
