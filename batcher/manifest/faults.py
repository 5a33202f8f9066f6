"""What is wrong with a manifest, gathered while it is read and worded for the person who has to mend it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

CAUSES_SHOWN: Final = 50
_SPANS_SHOWN: Final = 5
_QUOTED_LENGTH: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong with one row; rows with the same field and cause are reported together.

    `column` is where it stands, when that is not what the field is called in the file.
    """

    field: str | None
    cause: str
    reason: str
    column: str | None = None


class WrongError(ValueError):
    """A value can't be used; the message says why, `cause` is what such values have in common."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


@dataclass(slots=True)
class _Cause:
    """One kind of fault: its first place in full, the further ones as spans of lines."""

    line: int | None
    column: str | None
    reason: str
    more: int = 0
    spans: list[list[int]] = field(default_factory=list)
    last: int | None = None

    def another(self, line: int | None) -> None:
        self.more += 1
        if line is None:
            return
        self.last = line
        if self.spans and line == self.spans[-1][1] + 1:
            self.spans[-1][1] = line
        elif len(self.spans) < _SPANS_SHOWN:
            self.spans.append([line, line])

    def suffix(self) -> str:
        if not self.more:
            return ""
        places = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in self.spans)
        if self.spans and self.spans[-1][1] != self.last:
            places += f" ... {self.last}"
        one_line = len(self.spans) == 1 and self.spans[0][0] == self.spans[0][1] == self.last
        where = f": {'line' if one_line else 'lines'} {places}" if places else ""
        return f" (and {self.more:,} more {'row' if self.more == 1 else 'rows'}{where})"


class Faults:
    """The faults of one manifest. Those with the same `cause` become one line, so memory grows with causes, not rows.

    `name` is what the places are in, `count` how many are at fault. `fatal` is true once a fault was added that no
    skipping of rows can mend.
    """

    def __init__(self, name: str) -> None:
        self.count = 0
        self.fatal = False
        self.name = name
        self._causes: dict[str, _Cause] = {}

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, line: int | None, column: str | None, reason: str, *, cause: str, fatal: bool = False) -> None:
        """Notes a fault. Only the first of a `cause` is worded; of the others the line is kept."""
        self.count += 1
        self.fatal = self.fatal or fatal
        known = self._causes.get(cause)
        if known is None:
            self._causes[cause] = _Cause(line, column, reason)
        else:
            known.another(line)

    def lines(self) -> list[str]:
        """`file:line: column: reason`, one for each cause, by first line; after the first 50 only their number."""
        causes = sorted(self._causes.values(), key=lambda cause: cause.line or 0)
        lines = [self._worded(cause) for cause in causes[:CAUSES_SHOWN]]
        if len(causes) > CAUSES_SHOWN:
            lines.append(f"... and {len(causes) - CAUSES_SHOWN:,} more")
        return lines

    def _worded(self, cause: _Cause) -> str:
        place = self.name if cause.line is None else f"{self.name}:{cause.line}"
        column = "" if cause.column is None else f"{printable(cause.column)}: "
        return f"{place}: {column}{cause.reason}{cause.suffix()}"


def printable(value: object) -> str:
    """`value` as at most 40 characters of one line that no terminal misreads."""
    text = str(value)
    short = text if len(text) <= _QUOTED_LENGTH else text[: _QUOTED_LENGTH - 3] + "..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in short)


def quoted(value: object) -> str:
    """The same in back quotes, to name a value or a header within a sentence."""
    return f"`{printable(value)}`"


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "a string"
        case dict():
            return "an object"
        case list():
            return "a list"
        case _:
            return "a number"
