"""Leaves out the rows that `--where` does not select: they are no rows of the batch, and nothing in them is checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from batcher.manifest.columns import Columns, normalised
from batcher.manifest.faults import Faults, literal, printable
from batcher.manifest.nested import MISSING

if TYPE_CHECKING:
    from batcher.manifest.rows import Record

_VALUES_LISTED: Final = 8
_TRUTHS: Final = ("true", "false")


@dataclass(frozen=True, slots=True)
class Condition:
    """One `COLUMN=VALUE`, or `COLUMN!=VALUE` if `negated`."""

    column: str
    value: str
    negated: bool

    def __str__(self) -> str:
        return f"{self.column}{'!' * self.negated}={self.value}"

    def names(self, cell: Any) -> bool:
        """Whether the value is the cell's: the same text, or the same number or truth value of JSON. A blank value is
        that of a missing, null or blank cell. `TRUE` is `true` in any case of letters."""
        match cell:
            case None:
                return not self.value
            case bool():
                return json.dumps(cell) == self.value.casefold()
            case int() | float():
                return json.dumps(cell) == self.value or _number(self.value) == cell
            case str():
                text = cell.strip()
                return text == self.value or (text.casefold() in _TRUTHS and text.casefold() == self.value.casefold())
        return False


def is_same_filter(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether both have the same conditions, in any order."""
    return _comparable(one) == _comparable(other)


def _comparable(where: Sequence[str]) -> set[Condition]:
    found = map(condition, where)
    return {replace(one, column=normalised(one.column), value=_same_truth(one.value)) for one in found}


def _same_truth(value: str) -> str:
    """The value; TRUE and FALSE in one case, as they match in any."""
    return value.casefold() if value.casefold() in _TRUTHS else value


def condition(text: str) -> Condition:
    """Parse `COLUMN=VALUE` or `COLUMN!=VALUE`.

    Raises:
        ValueError: the column or the `=` is missing.
    """
    column, equals, value = text.partition("=")
    negated = column.endswith("!")
    column = column.removesuffix("!").strip()
    if not equals or not column:
        raise ValueError(f"{text!r} is not COLUMN=VALUE: write for example status=final, or status!=cut")
    return Condition(column, value.strip(), negated)


@dataclass(slots=True)
class _ColumnFilter:
    """The conditions on one column, and what its cells were like. `is_found`: a record had the column."""

    column: str
    conditions: list[Condition] = field(default_factory=list)
    is_found: bool = False
    _values: dict[str, None] = field(default_factory=dict)  # some that occur, as messages show them
    _matched: set[Condition] = field(default_factory=set)

    def selects(self, cell: Any) -> bool:
        """Whether the cell meets the conditions; a missing one is blank."""
        self.is_found |= cell is not MISSING
        cell = None if cell is MISSING else cell
        if len(self._values) <= _VALUES_LISTED:
            self._values[literal("" if cell is None else cell)] = None
        matched = [one for one in self.conditions if one.names(cell)]
        self._matched.update(matched)
        if any(one.negated for one in matched):
            return False
        return bool(matched) or all(one.negated for one in self.conditions)

    def unmatched(self) -> list[Condition]:
        """The conditions whose value no cell had."""
        return [one for one in self.conditions if one not in self._matched]

    def known(self) -> str:
        """Some values of the column."""
        values = list(self._values)
        return ", ".join(values[:_VALUES_LISTED]) + ", ..." * (len(values) > _VALUES_LISTED)


class RowFilter:
    """Selects the records that meet all conditions. Of several values of one column, one must match, and each of those
    with `!=` must not.

    `left_out` counts the records that were not selected. A record whose cells are not known, because it is broken, is
    selected: its fault is reported.
    """

    def __init__(self, where: Sequence[str], columns: Columns, faults: Faults, notes: list[str]) -> None:
        self.left_out = 0
        self._columns = columns
        self._faults = faults
        self._notes = notes
        self._filters: dict[str, _ColumnFilter] = {}
        for one in map(condition, where):
            self._filters.setdefault(normalised(one.column), _ColumnFilter(one.column)).conditions.append(one)

    def selected(self, records: Iterable[Record]) -> Iterator[Record]:
        """The selected ones of all records of a manifest; afterwards, conditions that cannot be meant are faults."""
        if not self._filters:
            yield from records
            return
        any_selected = False
        for record in records:
            if self._selects(record):
                any_selected = True
                yield record
            else:
                self.left_out += 1
        if not self._faults.fatal and (any_selected or self.left_out):
            self._check(any_selected=any_selected)

    def _selects(self, record: Record) -> bool:
        if record.problems and not (record.given or record.extra):
            return True
        meets = [self._meets(record, one) for one in self._filters.values()]  # each sees every record
        return all(meets)

    def _meets(self, record: Record, one: _ColumnFilter) -> bool:
        read_as = self._columns.field_named(one.column)
        if read_as is not None and any(problem.field == read_as for problem in record.problems):
            return True
        return one.selects(self._columns.value_of(one.column, record.given, record.extra))

    def _check(self, *, any_selected: bool) -> None:
        """Report columns that do not exist, values that no row has, and conditions that no row meets together."""
        for one in self._filters.values():
            if one.is_found or self._columns.has(one.column):
                for unmatched in one.unmatched():
                    self._report_unmatched(unmatched, one.known())
            else:
                self._add(one.conditions[0], self._columns.why_missing(one.column))
        if not any_selected and not self._faults.fatal:
            reason = "no row meets all conditions of --where"
            self._faults.add(None, None, reason, cause="where", fatal=True)

    def _report_unmatched(self, one: Condition, known: str) -> None:
        is_text = self._columns.field_named(one.column) == "text"  # texts are never shown
        reason = "no row has this value" if is_text else f"no row has this value (the column has {known})"
        if one.negated:
            self._notes.append(f"--where {printable(one)}: {reason}")
        else:
            self._add(one, reason)

    def _add(self, one: Condition, reason: str) -> None:
        self._faults.add(None, None, f"--where {printable(one)}: {reason}", cause=f"where {one}", fatal=True)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
