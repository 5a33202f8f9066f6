"""What a manifest that is being imported changes, held against what the ledger has paid for.

Works on the staged rows, before they are merged, so that a person can be asked first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, FromClause, Row, Select, and_, exists, func, or_, select, text

from batcher.errors import ManifestError
from batcher.formatting import amount
from batcher.item import State
from batcher.ledger.imports.staging import UNCHANGED, Staging, staged
from batcher.ledger.money.prices import prices
from batcher.ledger.storage.planner import NOT_PENDING
from batcher.ledger.storage.schema import batches, items, recalled, rows

MAYBE_PAID: Final = (State.SUBMITTING, State.IN_DOUBT, State.SUBMITTED, State.RENDERED, State.DONE)
"""States of items that cost something, or may have."""
EDITS_AT_LEAST: Final = 20
EDITS_SHARE: Final = 0.1
"""So many edited rows, and such a share of the paid ones, pass for a day's corrections."""
_SHOWN: Final = 5
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
    model: str | None
    bytes: int

    def why(self) -> str:
        """What changed, in words."""
        what = " and ".join(self.fields)
        values = f" from {self.old} to {self.new}" if self.old != self.new else ""
        return (
            f"row {self.row_id}: {'a default or setting' if self.by_default else 'the row'} changed its {what}{values}"
        )


def rebuys(conn: Connection, staging: Staging, *, same_file: bool) -> Iterator[Change]:
    """Staged rows that stand for an item still to be bought while a paid one stood in their place.

    In their place means: the row of the same id in the batch; or, for an id that is new, any item with the same text
    that no row of the manifest stands for any more. With `same_file`, the manifest reads as before, so that whatever
    changed was configured. A row that only asks for another take is no such row.
    """
    if conn.execute(select(items.c.key).where(items.c.state.in_(MAYBE_PAID)).limit(1)).first() is None:
        return
    other, new_item = staged.alias("other"), staging.items.alias("new_item")
    known = and_(_old_row.c.batch_id == staging.batch_id, _old_row.c.id == staged.c.id)
    by_id = _bought_anew(new_item).join(_old_row, known).join(_old_item, _old_item.c.key == _old_row.c.item_key)
    still_there = or_(
        exists().where(other.c.item_key == _old_item.c.key),
        exists().where(rows.c.item_key == _old_item.c.key, text(UNCHANGED)),
    )
    by_text = (
        _bought_anew(new_item)
        .outerjoin(_old_row, known)
        .join(_old_item, and_(_old_item.c.text_hash == new_item.c.text_hash, NOT_PENDING.of(_old_item)))
        .where(_old_row.c.id.is_(None), ~still_there)
    )
    for query in (by_id, by_text):
        last = None
        for row in conn.execute(_replacing(query), staging.parameters):
            if row.number != last and (change := _change(row, same_file=same_file)) is not None:
                last = row.number
                yield change


_old_item, _old_row = items.alias("old_item"), rows.alias("old_row")


def _both_items(new_item: FromClause) -> list[ColumnElement[Any]]:
    """What the row asks for, and as `old_…` what it is held against."""
    old = (_old_item.c[name].label(f"old_{name}") for name in _FIELDS)
    return [*(new_item.c[name] for name in (*_FIELDS, "bytes")), *old]


def _bought_anew(new_item: FromClause) -> Select[Any]:
    """Staged rows whose item waits to be created, as all do that are new to the ledger."""
    query = select(staged.c.number, staged.c.line, staged.c.id, staged.c.defaulted, *_both_items(new_item))
    pending = and_(new_item.c.key == staged.c.item_key, new_item.c.state == State.PENDING)
    return query.select_from(staged).join(new_item, pending)


def _replacing(query: Select[Any]) -> Select[Any]:
    """Only where something else, that may be paid for, stood in the row's place."""
    other_item = (staged.c.item_key.is_not(None), _old_item.c.key != staged.c.item_key)
    return query.where(*other_item, _old_item.c.state.in_(MAYBE_PAID)).order_by(staged.c.number)


def changed_rows(conn: Connection, staging: Staging) -> dict[str, list[str]]:
    """Rows that the batch had with other inputs: which fields differ, and the ids of all such rows, by field."""
    new_item = staging.items.alias("new_item")
    query = (
        select(staged.c.id, *_both_items(new_item))
        .select_from(staged)
        .join(_old_row, and_(_old_row.c.batch_id == staging.batch_id, _old_row.c.id == staged.c.id))
        .join(_old_item, _old_item.c.key == _old_row.c.item_key)
        .join(new_item, new_item.c.key == staged.c.item_key)
        .where(_old_item.c.key != staged.c.item_key)
        .order_by(staged.c.number)
    )
    found: dict[str, list[str]] = {}
    for row in conn.execute(query):
        for name in _differing(row):
            found.setdefault(name, []).append(row.id)
    return found


def refuse_rebuys(conn: Connection, staging: Staging, name: str, batch: str, *, same_file: bool) -> None:
    """Let a few edited rows pass, and nothing that a changed default or setting would have bought again.

    Raises:
        ManifestError: more than that would be bought again.
    """
    _refuse_untold(conn, staging, name, batch)
    found = _Rebuys()
    for change in rebuys(conn, staging, same_file=same_file):
        found.add(change)
    if not found.number or not (found.defaulted or found.number > max(EDITS_AT_LEAST, _share(conn, staging, batch))):
        return
    cost = prices(conn).estimate(found.bytes.items())
    about = "an unknown number of" if cost is None else f"about {amount(cost.credits)}"
    raise ManifestError(
        f"{name}: {found.number} rows whose audio may be paid for would be bought again; nothing was created",
        [f"{name}:{change.line}: {change.why()}" for change in found.defaulted or found.first],
        f"It would cost {about} credits. Put the old value back, or pass --rebuy if it is wanted.",
    )


class _Rebuys:
    """How many there are, their bytes by model, and the first of them: memory does not grow with them."""

    def __init__(self) -> None:
        self.number = 0
        self.bytes: dict[str | None, int] = {}
        self.first: list[Change] = []
        self.defaulted: list[Change] = []

    def add(self, change: Change) -> None:
        self.number += 1
        self.bytes[change.model] = self.bytes.get(change.model, 0) + change.bytes
        for shown in (self.first, self.defaulted) if change.by_default else (self.first,):
            if len(shown) < _SHOWN:
                shown.append(change)


def _share(conn: Connection, staging: Staging, batch: str) -> float:
    """As many edited rows as pass, by the number of the batch's rows that are paid for."""
    return EDITS_SHARE * (_paid_rows(conn, batch) or staging.last)


def _refuse_untold(conn: Connection, staging: Staging, name: str, batch: str) -> None:
    """While a ledger is being restored, no row passes for which results files tell of audio with other inputs.

    What those inputs were only their key says, so that an edit cannot be told from a default that was forgotten.
    """
    same_row = and_(recalled.c.batch == batch, recalled.c.row_id == staged.c.id)
    elsewhere, asked = staged.alias("elsewhere"), staging.items
    query = (
        select(staged.c.id, staged.c.line)
        .select_from(staged)
        .join(recalled, same_row)
        .join(asked, asked.c.key == staged.c.item_key)
        .where(recalled.c.item_key != staged.c.item_key, asked.c.state == State.PENDING)
        .where(~exists().where(elsewhere.c.item_key == recalled.c.item_key))
        .order_by(staged.c.number)
    )
    found = conn.execute(query).all()
    if not found:
        return
    raise ManifestError(
        f"{name}: {len(found)} rows whose audio may be paid for would be bought again; nothing was created",
        [f"{name}:{row.line}: row {row.id}: results files tell of it with other inputs" for row in found[:_SHOWN]],
        "Give the --voice, --model and --format that they were bought with, or pass --rebuy if it is wanted.",
    )


def _paid_rows(conn: Connection, batch: str) -> int:
    """How many rows of the batch, as it was last read, have an item that may be paid for."""
    query = (
        select(func.count())
        .select_from(rows)
        .join(batches, and_(batches.c.id == rows.c.batch_id, rows.c.is_current == 1))
        .join(items, items.c.key == rows.c.item_key)
        .where(batches.c.name == batch, items.c.state.in_(MAYBE_PAID))
    )
    return conn.execute(query).scalar_one()


def _change(row: Row[Any], *, same_file: bool) -> Change | None:
    fields = _differing(row)
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
        model=row.model,
        bytes=row.bytes,
    )


def _differing(row: Row[Any]) -> tuple[str, ...]:
    return tuple(name for name in _FIELDS if getattr(row, name) != getattr(row, f"old_{name}"))


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
