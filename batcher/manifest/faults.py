"""Faults of a manifest: collected while it is read, grouped by cause, worded for the person who fixes them.

A fault reads `file:line: column: reason`. The reason names the value, what is wrong with it and, after a colon, how to
fix it. Values are in double quotes (`literal`), names of columns and fields in backticks (`code`).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Final

from batcher.manifest.confusable import BIDI

CAUSES_SHOWN: Final = 50
"""Faults of one manifest that are listed; the rest are only counted."""
NOT_READ: Final = "(the rest of the file was not read)"
CONTROLS: Final = rf"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{BIDI}"
"""Control characters, those of text direction too, as in a set of a regular expression."""
_CONTROL: Final = re.compile(f"[{CONTROLS}]")
_SPANS_SHOWN: Final = 5
_LENGTH_SHOWN: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a row. Rows with the same `field` and `cause` are reported together.

    `column` is the header to report, where it is not the one read as `field`.
    """

    field: str | None
    cause: str
    reason: str
    column: str | None = None


class InvalidValueError(ValueError):
    """A value cannot be used; the message is the reason, `cause` groups values that are wrong in the same way."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


@dataclass(slots=True)
class Spans:
    """Rising numbers as ranges, of which the first few and the last number are stored."""

    ranges: list[list[int]] = field(default_factory=list)
    last: int | None = None

    def add(self, number: int) -> None:
        """Add a number that is not below the last."""
        self.last = number
        if self.ranges and number in (self.ranges[-1][1], self.ranges[-1][1] + 1):
            self.ranges[-1][1] = number
        elif len(self.ranges) < _SPANS_SHOWN:
            self.ranges.append([number, number])

    def named(self, word: str) -> str:
        """The numbers after their noun: `line 3`, `lines 3-4, 7 ... 99`."""
        shown = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in self.ranges)
        if self.ranges[-1][1] != self.last:
            shown += f" ... {self.last}"
        return f"{word if shown == str(self.last) else f'{word}s'} {shown}"


@dataclass(slots=True)
class _Cause:
    """Faults with the same cause: the first in full, the others by their lines."""

    line: int | None
    column: str | None
    reason: str
    more: int = 0
    spans: Spans = field(default_factory=Spans)

    def repeat(self, line: int | None) -> None:
        self.more += 1
        if line is not None:
            self.spans.add(line)

    def suffix(self, unit: str) -> str:
        if not self.more:
            return ""
        where = f": {self.spans.named(unit).removeprefix('rows ').removeprefix('row ')}" if self.spans.ranges else ""
        return f" (and {self.more:,} more {'row' if self.more == 1 else 'rows'}{where})"


class Faults:
    """The faults of one manifest. Those with the same `cause` become one line, so memory grows with causes, not rows.

    `name` begins each line, `count` is the number of faults, and `fatal` is true once one concerns the whole file, so
    that skipping rows does not help. `hints` are ways out that several faults share. `options` are those with which the
    file is probably read as it is meant: by name, their values; `speakers` are names that may become voices then.
    `unit` is what the numbers of lines count: lines, or rows of a sheet.
    """

    def __init__(self, name: str) -> None:
        self.count = 0
        self.fatal = False
        self.name = name
        self.hints: list[str] = []
        self.options: dict[str, list[str]] = {}
        self.speakers: dict[str, None] = {}
        self.unit = "line"
        self._causes: dict[str, _Cause] = {}

    def __bool__(self) -> bool:
        return self.count > 0

    def add(
        self, line: int | None, column: str | None, reason: str, *, cause: str, fatal: bool = False, hint: str = ""
    ) -> None:
        """Add a fault. The first of a `cause` is stored in full, the others by their line."""
        self.count += 1
        self.hints += [hint] if hint and hint not in self.hints else []
        self.fatal = self.fatal or fatal
        same = self._causes.get(cause)
        if same is None:
            self._causes[cause] = _Cause(line, column, reason)
        else:
            same.repeat(line)

    def suggest(self, options: str) -> None:
        """Add options, as on a command line, to those that are suggested."""
        words = shlex.split(options)
        for name, value in zip(words, [*words[1:], ""], strict=True):
            if name.startswith("--"):
                values = self.options.setdefault(name, [])
                values += [value] * (not value.startswith("--") and value not in values)

    def drop(self, cause: str) -> None:
        """Remove the faults of a `cause` that another explains."""
        dropped = self._causes.pop(cause, None)
        self.count -= 0 if dropped is None else 1 + dropped.more

    def lines(self) -> list[str]:
        """`file:line: column: reason` for each cause, by first line; after the first 50 only the number of the rest."""
        causes = sorted(self._causes.values(), key=lambda cause: cause.line or 0)
        lines = [self._format(cause) for cause in causes[:CAUSES_SHOWN]]
        if len(causes) > CAUSES_SHOWN:
            lines.append(f"... and {len(causes) - CAUSES_SHOWN:,} more")
        return lines

    def _format(self, cause: _Cause) -> str:
        position = self.name if cause.line is None else f"{self.name}:{cause.line}"
        column = "" if cause.column is None else f"{printable(cause.column)}: "
        return f"{position}: {column}{cause.reason}{cause.suffix(self.unit)}"


def printable(value: object) -> str:
    """`value` in one line of at most 40 characters, control characters escaped."""
    text = str(value)
    short = text if len(text) <= _LENGTH_SHOWN else text[: _LENGTH_SHOWN - 3] + "..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in short)


def code(name: str) -> str:
    """The name of a column or field as messages show it: in backticks."""
    return f"`{printable(name)}`"


def literal(value: object) -> str:
    """A value as messages show it: text in double quotes, the rest as in JSON; an object or a list only by its kind."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f'"{printable(value)}"'
        case dict():
            return "an object"
        case list():
            return "a list"
    return printable(value)


def without_controls(value: str) -> str:
    """The value, if it has no control characters.

    Raises:
        InvalidValueError: it has one.
    """
    if _CONTROL.search(value):
        reason = f"{literal(value)} contains a line break or another control character: remove it"
        raise InvalidValueError("control", reason)
    return value
