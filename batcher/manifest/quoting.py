"""Decides whether quotes enclose the cells of a delimited file or are part of its texts.

Two readings compete. Where quotes enclose cells, a cell may contain the delimiter and line breaks, and a quote within
it is doubled. Where they do not, every line is a row. Each record in which a cell begins with a quote is read in both
ways, and votes for the one that gives a row as wide as the others. The beginning of the file decides; where the rest
does not follow it, the reader reports errors.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Final

from batcher.manifest.stream import bounded

_VOTES: Final = 1000
"""Records that are read in both ways."""
_LINES: Final = 50_000
"""Lines that are looked at."""
_RECORD_LINES: Final = 200
"""A quoted cell that is still open after this many lines counts as never closed."""
_WIDTH_LINES: Final = 100
"""Lines without quotes whose usual number of cells is the width of a row."""
_SEPARATES_ONLY: Final = "\t|"
"""Delimiters that do not occur in prose."""

_ESCAPED_QUOTE: Final = re.compile(r'(?<!\\)((?:\\\\)*)\\"')


def encloses(lines: Iterable[str], delimiter: str) -> bool | None:
    """Whether quotes enclose cells in the file of these lines; None if no cell begins with a quote.

    Where a comma or a semicolon separates cells, quotes enclose them unless a line proves otherwise: in a file that
    means to enclose, a quote that was forgotten must not change the meaning of all others.
    """
    rest = islice(lines, _LINES)
    pending = deque(bounded(rest, _WIDTH_LINES))
    election = _Election(delimiter, _usual_width(pending, delimiter))
    within = f'{delimiter}"'
    while election.records < _VOTES and (line := pending.popleft() if pending else next(rest, "")):
        if within in line or line.startswith('"'):
            pending.extendleft(reversed(election.count(line, _taking(pending, rest))))
    return election.result()


def swallows(cells: list[str], delimiter: str, width: int) -> bool:
    """Whether a record that spans lines may contain rows, because a quote opened by mistake.

    With a tab or `|`, that is any cell with line break and delimiter. Prose contains the other delimiters: there, a
    line within the record must have as many cells as the record or the table (`width`), separated as the record's, with
    or without a space. It must also begin like the record, with or without blanks and digits, or have no delimiter in a
    number or at its end. In a table of one column, any line may be a row.
    """
    if len(cells) == 1:
        return len(re.findall(r"[^\s].*", cells[0])) > 1
    if not any(delimiter in cell and ("\n" in cell or "\r" in cell) for cell in cells):
        return False
    if delimiter in _SEPARATES_ONLY:
        return True
    first, *others = re.split(r"[\r\n]+", delimiter.join(cells))
    begin, _, rest = first.partition(delimiter)
    return any(
        line.count(delimiter) + 1 in (len(cells), width) and _may_be_row(line, delimiter, begin, rest.startswith(" "))
        for line in others
    )


def _may_be_row(line: str, delimiter: str, begin: str, spaced: bool) -> bool:
    """Whether the line resembles a row that starts with `begin`; `spaced`: a space follows the row's delimiters."""
    first, *behind = line.split(delimiter)
    if any(part.startswith(" ") is not spaced for part in behind if part):
        return False
    is_number = re.search(rf"(?<![\w-])\d{{1,3}}{delimiter}\d{{3}}(?!\w)", line) is not None
    return _is_alike(first, begin) or (all(behind) and not is_number)


def escapes_quotes(lines: Iterable[str], delimiter: str) -> bool:
    """Whether a backslash, not a second quote, escapes quotes within cells: most lines with a backslash before a quote
    are valid only that way."""
    votes = [0, 0]
    for line in islice((line for line in islice(lines, _LINES) if '\\"' in line), _VOTES):
        if _cells(line, delimiter) is None:
            votes[_cells(with_doubled(line), delimiter) is not None] += 1
    return votes[1] > votes[0]


def with_doubled(line: str) -> str:
    """The line with quotes doubled that have a backslash before them."""
    return _ESCAPED_QUOTE.sub(r'\1""', line) if "\\" in line else line


def opens_after_space(lines: Iterable[str], delimiter: str) -> bool:
    """Whether quotes enclose cells even after a space: in most lines with a quote after delimiter and space, a
    quote also ends the cell."""
    votes = [0, 0]
    within = f'{delimiter} "'
    for line in islice((line for line in islice(lines, _LINES) if within in line), _VOTES):
        votes[_cells(line, delimiter, skipinitialspace=True) is not None] += 1
    return votes[1] > votes[0]


def _cells(line: str, delimiter: str, *, skipinitialspace: bool = False) -> list[str] | None:
    """The cells of a line in which quotes enclose cells; None if it is not valid as a row."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=skipinitialspace), None)
    except csv.Error:
        return None


class _Election:
    """Counts the records for either reading."""

    def __init__(self, delimiter: str, width: int | None) -> None:
        self._delimiter = delimiter
        self._width = width
        self.records = self._enclosing = self._plain = 0

    def count(self, line: str, rest: Iterator[str]) -> list[str]:
        """Count the vote of the record that begins with this line. Returns lines that were taken from `rest` and are
        not part of it."""
        taken, broken = [line], False
        source = chain([line], _recorded(bounded(rest, _RECORD_LINES), taken))
        try:
            cells = next(csv.reader(source, delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            cells, broken = None, "expected after" in str(error) and len(taken) == 1
        width = self._width or len(cells or ())
        encloses = cells is not None and self._fits(cells) and not swallows(cells, self._delimiter, width)
        self._vote(line, encloses, broken=broken)
        self.records += 1
        return [] if encloses else taken[1:]

    def _vote(self, line: str, encloses: bool, *, broken: bool) -> None:
        is_plain, separates_only = self._is_row(line), self._delimiter in _SEPARATES_ONLY
        if is_plain and not encloses and (separates_only or broken):
            self._plain += 1
        elif encloses and (not is_plain or not separates_only or '""' in line or line.startswith('"')):
            self._enclosing += 1

    def result(self) -> bool | None:
        if not self.records:
            return None
        return self._plain <= self._enclosing

    def _is_row(self, line: str) -> bool:
        return self._fits(line.rstrip("\r\n").split(self._delimiter))

    def _fits(self, cells: list[str]) -> bool:
        width = self._width or len(cells)
        return len(cells) == width or (len(cells) > width and not any(map(str.strip, cells[width:])))


def _taking(pending: deque[str], rest: Iterator[str]) -> Iterator[str]:
    while pending:
        yield pending.popleft()
    yield from rest


def _recorded(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    for line in lines:
        taken.append(line)
        yield line


def _usual_width(lines: Iterable[str], delimiter: str) -> int | None:
    """The most frequent number of cells in lines without quotes that are not blank; None if there are none."""
    plain = (line for line in lines if '"' not in line and line.strip(f"{delimiter} \r\n"))
    widths = Counter(line.rstrip("\r\n").count(delimiter) + 1 for line in plain)
    return widths.most_common(1)[0][0] if widths else None


def _is_alike(begin: str, model: str) -> bool:
    """Whether a cell has blanks if and only if the model has, and has digits if the model has."""
    if not begin.strip() or bool(re.search(r"\s", begin.strip())) != bool(re.search(r"\s", model.strip())):
        return False
    return bool(re.search(r"\d", begin)) or not re.search(r"\d", model)
