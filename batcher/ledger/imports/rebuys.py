"""Finds staged rows that would buy paid audio again, before they are merged, so that the user must agree first."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, FromClause, Row, Select, and_, exists, func, or_, select, text

from batcher.errors import ManifestError, Suggestion
from batcher.formatting import amount, counted
from batcher.item import MAYBE_PAID, State
from batcher.ledger.imports.staging import UNCHANGED, Staging, staged
from batcher.ledger.money.prices import prices
from batcher.ledger.storage.planner import NOT_PENDING, once_known
from batcher.ledger.storage.schema import batches, items, recalled, rows
from batcher.ledger.storage.statements import stream
from batcher.manifest.columns import normalised
from batcher.manifest.faults import printable
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules

_MAX_EDITS: Final = 20
_MAX_EDITS_SHARE: Final = 0.1
"""Up to this many edited rows, or this share of the paid rows, count as ordinary corrections."""
_MAX_SHOWN: Final = 5
"""Rows listed in an error."""
_FIELDS: Final = ("text", "voice", "model", "format", "params", "take")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A row that would be bought although audio for it, or for its text, may be paid for."""

    row_id: str
    line: int
    fields: tuple[str, ...]  # that differ
    by_default: bool  # a default or setting changed, not the row
    old: str  # value of the first field that differs, except the text, which is never shown
    new: str
    model: str | None
    bytes: int

    def why(self) -> str:
        """What changed, for an error message."""
        what = " and ".join(self.fields)
        values = f" from {self.old} to {self.new}" if self.old != self.new else ""
        cause = "a default or setting" if self.by_default else "the row"
        return f"row {self.row_id}: {cause} changed its {what}{values}"


_old_item, _old_row = items.alias("old_item"), rows.alias("old_row")


def rebuys(conn: Connection, staging: Staging, *, same_file: bool) -> Iterator[Change]:
    """Staged rows that use an unpaid item instead of one that may be paid for.

    That is the item of the batch's row with the same id; or, for a new id, any item with the same text that no row of
    the manifest uses any more. With `same_file` the manifest has not changed, so the settings have. Rows that only
    request another take are left out.
    """
    if conn.execute(select(items.c.key).where(items.c.state.in_(MAYBE_PAID)).limit(1)).first() is None:
        return
    other, new_item = staged.alias("other"), staging.items.alias("new_item")
    same_row = _has_same_id(staging)
    by_id = _to_buy(new_item).join(_old_row, same_row).join(_old_item, _old_item.c.key == _old_row.c.item_key)
    still_used = or_(
        exists().where(other.c.item_key == _old_item.c.key),
        exists().where(rows.c.item_key == _old_item.c.key, text(UNCHANGED)),
    )
    by_text = (
        _to_buy(new_item)
        .outerjoin(_old_row, same_row)
        .join(_old_item, and_(_old_item.c.text_hash == new_item.c.text_hash, NOT_PENDING.of(_old_item)))
        .where(_old_row.c.id.is_(None), ~still_used)
    )
    for query in (by_id, by_text):
        last = None
        for row in stream(conn, _replacing(query), staging.parameters):
            if row.number != last and (change := _change(row, same_file=same_file)) is not None:
                last = row.number
                yield change


def _has_same_id(staging: Staging) -> ColumnElement[bool]:
    """Joins the batch's row with the id of the staged one."""
    return and_(_old_row.c.batch_id == once_known(staging.batch_id, staged.c.number), _old_row.c.id == staged.c.id)


def _both_items(new_item: FromClause) -> list[ColumnElement[Any]]:
    """Columns of the requested item and, as `old_…`, of the item that it replaces."""
    old = (_old_item.c[name].label(f"old_{name}") for name in _FIELDS)
    return [*(new_item.c[name] for name in (*_FIELDS, "bytes")), *old]


def _to_buy(new_item: FromClause) -> Select[Any]:
    """Staged rows whose item is pending."""
    query = select(staged.c.number, staged.c.line, staged.c.id, staged.c.defaulted, *_both_items(new_item))
    pending = and_(new_item.c.key == staged.c.item_key, new_item.c.state == State.PENDING)
    return query.select_from(staged).join(new_item, pending)


def _replacing(query: Select[Any]) -> Select[Any]:
    """Only rows that replace an item which may be paid for."""
    return query.where(_old_item.c.state.in_(MAYBE_PAID)).order_by(staged.c.number)


def changed_rows(conn: Connection, staging: Staging) -> dict[str, list[str]]:
    """Rows that the batch has with other inputs: by field that differs, the ids of the rows."""
    new_item = staging.items.alias("new_item")
    query = (
        select(staged.c.id, *_both_items(new_item))
        .select_from(staged)
        .join(_old_row, _has_same_id(staging))
        .join(_old_item, _old_item.c.key == _old_row.c.item_key)
        .join(new_item, new_item.c.key == staged.c.item_key)
        .where(_old_item.c.key != staged.c.item_key)
        .order_by(staged.c.number)
    )
    found: dict[str, list[str]] = {}
    for row in stream(conn, query):
        for name in _differing(row):
            found.setdefault(name, []).append(row.id)
    return found


def refuse_rebuys(
    conn: Connection,
    staging: Staging,
    manifest: Manifest,
    rules: Rules,
    last_columns: Mapping[str, str],
    *,
    same_file: bool,
) -> None:
    """Refuse an import that would buy again more than a few edited rows, or anything because a default changed.

    `last_columns` is the column mapping of the last import. With `same_file` the manifest has not changed.

    Raises:
        ManifestError: it would.
    """
    name = manifest.name
    _refuse_mismatched_restored_rows(conn, staging, name, rules.batch)
    before, now = (columns.get("text") or "text" for columns in (last_columns, rules.columns))
    other_text = normalised(before) != normalised(now)
    found = _Rebuys()
    for change in rebuys(conn, staging, same_file=same_file or other_text):
        found.add(change)
    if not found.by_default and (not found.number or found.number <= _max_edits(conn, staging, rules.batch)):
        return
    cost = prices(conn).estimate(found.bytes.items())
    price = "an unknown number of" if cost is None else f"about {amount(cost.credits)}"
    raise ManifestError(
        _message(name, found.number),
        [f"{name}:{change.line}: {change.why()}" for change in found.by_default or found.first],
        f"Buying them again would cost {price} credits: restore the old value, or pass --rebuy. See "
        "`batcher help guarantees`.",
        suggestion=_second_language(manifest, rules) if other_text else None,
    )


def _second_language(manifest: Manifest, rules: Rules) -> Suggestion | None:
    """The texts of another column are probably a translation: give it a batch and files of its own."""
    column = rules.columns.get("text", "")
    name = re.sub(r"[^\w-]+", "-", column.rpartition(".")[2]).strip("-")
    if not name or name == rules.batch:
        return None
    options = {"--batch": [name], "--filename": [f"{name}/{rules.filename}"]}
    if "output" in manifest.columns_sent.values():  # it would name the same files
        options["--column"] = [f"{field}={header}" for field, header in {**rules.columns, "output": ""}.items()]
    return Suggestion(f"If the column {printable(column)} has the texts in another language:", options)


def _message(name: str, number: int) -> str:
    return f"{name}: {counted(number, 'row')} that may be paid for already would be bought again; nothing was created"


class _Rebuys:
    """Number and bytes of the changes, and the first few of them, so that memory does not grow with their number."""

    def __init__(self) -> None:
        self.number = 0
        self.bytes: dict[str | None, int] = {}  # by model
        self.first: list[Change] = []
        self.by_default: list[Change] = []

    def add(self, change: Change) -> None:
        self.number += 1
        self.bytes[change.model] = self.bytes.get(change.model, 0) + change.bytes
        for shown in (self.first, self.by_default) if change.by_default else (self.first,):
            if len(shown) < _MAX_SHOWN:
                shown.append(change)


def _max_edits(conn: Connection, staging: Staging, batch: str) -> float:
    return max(_MAX_EDITS, _MAX_EDITS_SHARE * (_paid_rows(conn, batch) or staging.rows))


def _refuse_mismatched_restored_rows(conn: Connection, staging: Staging, name: str, batch: str) -> None:
    """While a ledger is being restored, refuse any row that results files list with other inputs.

    Results files contain only a key of those inputs, which does not show whether the row or a default changed.
    """
    same_row = and_(recalled.c.batch == batch, recalled.c.row_id == staged.c.id)
    elsewhere, requested = staged.alias("elsewhere"), staging.items
    query = (
        select(staged.c.id, staged.c.line)
        .select_from(staged)
        .join(recalled, same_row)
        .join(requested, requested.c.key == staged.c.item_key)
        .where(requested.c.state == State.PENDING)
        .where(~exists().where(elsewhere.c.item_key == recalled.c.item_key))
        .order_by(staged.c.number)
    )
    found = conn.execute(query).all()
    if not found:
        return
    raise ManifestError(
        _message(name, len(found)),
        [f"{name}:{row.line}: row {row.id}: results files list it with other inputs" for row in found[:_MAX_SHOWN]],
        "Pass the --voice, --model and --format that they were bought with, or --rebuy to buy them again.",
    )


def _paid_rows(conn: Connection, batch: str) -> int:
    """Number of current rows of the batch whose item may be paid for."""
    query = (
        select(func.count())
        .select_from(rows)
        .join(batches, and_(batches.c.id == rows.c.batch_id, rows.c.is_current == 1))
        .join(items, items.c.key == rows.c.item_key)
        .where(batches.c.name == batch, items.c.state.in_(MAYBE_PAID))
    )
    return conn.execute(query).scalar_one()


def _change(row: Row[Any], *, same_file: bool) -> Change | None:
    fields = tuple(name for name in _differing(row) if name != "take")
    if not fields:
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
