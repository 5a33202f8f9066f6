"""Reads the first visible sheet of an .xlsx workbook: its lines of text cells, and their records.

A cell has a value and a number format that determines how it is displayed; only the value is read.
"""

from __future__ import annotations

import datetime
import importlib.util
import io
import posixpath
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from typing import IO, TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

from batcher.errors import ManifestError
from batcher.manifest.columns import Layout
from batcher.manifest.faults import InvalidValueError, Problem, literal, printable
from batcher.manifest.header import SAMPLE_ROWS, SampleRow, find_header
from batcher.manifest.input import Input
from batcher.manifest.rows import Record
from batcher.manifest.table import add_second_table, table_record

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

ENDING: Final = ".xlsx"
_OLD: Final = b"\xd0\xcf\x11\xe0"
MAGIC: Final = (b"PK\x03\x04", _OLD)
"""First bytes of workbooks: a zip archive, or the older format, which is refused."""
_LISTING: Final = "xl/workbook.xml"
_EXACT: Final = 2**53  # spreadsheets store doubles, which hold every whole number up to this one
_MAX_CELLS: Final = 1 << 26
"""Maximum of a sheet's width times its height: calamine allocates 24 bytes for each cell, also for empty ones."""
_Position = tuple[int, int]


@dataclass(slots=True)
class Line:
    """One row of a sheet: its number as the spreadsheet shows it, and its cells as text. `wrong` (by index) holds the
    cells that cannot be used, `dates` the indices of dates and times. A cell with an error has the error as its text.
    """

    number: int
    cells: list[str]
    wrong: dict[int, InvalidValueError] = field(default_factory=dict)
    dates: set[int] = field(default_factory=set)


class Sheet:
    """The first visible sheet of a workbook."""

    def __init__(self, sheet: CalamineSheet, unread: Iterable[tuple[_Position, str]]) -> None:
        self.name = sheet.name
        self._sheet = sheet
        self._unread: dict[int, dict[int, str]] = {}
        for (row, column), error in unread:
            self._unread.setdefault(row, {})[column] = error

    def lines(self) -> Iterator[Line]:
        """Every row that is not blank."""
        height = 1 + max([(self._sheet.end or (-1, -1))[0], *self._unread])
        below = _covered(self._sheet, height)
        rows = chain(self._sheet.iter_rows(), repeat([]))  # calamine ends with the last row that has a value
        for row, values in zip(range(height), rows, strict=False):
            line = self._line(row, values)
            if line.wrong or any(map(str.strip, line.cells)):
                for left, right, upper in below.get(row, ()):
                    for column in range(left, min(right + 1, len(line.cells))):
                        line.wrong.setdefault(column, _merged(upper))
                yield line

    def _line(self, row: int, values: list[Any]) -> Line:
        left = (self._sheet.start or (0, 0))[1]
        line = Line(row + 1, [""] * left + [_text(value) for value in values])
        for column, value in enumerate(values, left):
            if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
                line.dates.add(column)
        for column, error in self._unread.get(row, {}).items():
            line.cells += [""] * (column + 1 - len(line.cells))
            line.cells[column] = error
            line.wrong[column] = _failed(error)
        return line


def records(source: Input) -> Iterator[Record]:
    """The records of the workbook's first visible sheet.

    Raises:
        ManifestError: the workbook cannot be read, or the `xlsx` extra is not installed.
    """
    sheet = first_sheet(source.name, source.tap.whole())
    source.notes.append(f"reading the first visible sheet of the workbook: {sheet.name}")
    source.faults.name = f"{source.name}[{printable(sheet.name)}]"
    lines = sheet.lines()
    first = list(islice(lines, max(SAMPLE_ROWS, source.rules.header_row or 0)))
    header = find_header(source, [SampleRow(line.number, line.number, line.cells) for line in first])
    if header is None:
        return
    above, count = header.number, 0
    for line in chain(first, lines):
        if line.number <= header.number:
            continue
        after_blank = line.number > above + 1
        if header.begins_again(line.cells, source.columns, after_blank=after_blank):
            add_second_table(source, line.number, after_blank=after_blank)
            return
        above, count = line.number, count + 1
        yield _sheet_record(count if source.rules.counted else line.number, line, header.layout)


def _sheet_record(number: int, line: Line, layout: Layout) -> Record:
    """The record of a sheet's row. A field whose cell cannot be used becomes a problem and is not given."""
    record = table_record(number, line.number, line.cells, layout, "".join(line.cells))
    for name, index in layout.fields:
        error = line.wrong.get(index)
        if error is None and name == "text" and index in line.dates:
            reason = "is a date or a time: format the cell as text and type what is to be spoken"
            error = InvalidValueError("date", f"{literal(line.cells[index])} {reason}")
        if error is not None:
            record.given.pop(name, None)
            record.problems.append(Problem(field=name, cause=error.cause, reason=str(error)))
    return record


def first_sheet(name: str, content: bytes) -> Sheet:
    """The sheet to read of the workbook called `name`.

    Raises:
        ManifestError: the workbook cannot be read, or the `xlsx` extra is not installed.
    """
    if importlib.util.find_spec("python_calamine") is None:
        message = f"{name}: reading {ENDING} files needs the xlsx extra, which is not installed"
        raise ManifestError(message, [message], "pip install 'tts-batcher[xlsx]'")
    from python_calamine import CalamineWorkbook

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            book = CalamineWorkbook.from_filelike(io.BytesIO(content))
            index = _visible(book)
            with archive.open(_part(archive, book.sheet_names[index])) as part:
                unread = list(_unread(part))  # first: it rejects what would exhaust calamine's memory
            return Sheet(book.get_sheet_by_index(index), unread)
    except Exception as error:  # noqa: BLE001 - damaged archives raise a dozen kinds of errors
        why = "it has a password or an older format" if content.startswith(_OLD) else f"it is damaged: {error}"
        message = f"{name}: cannot be read as {ENDING}: {why}"
        raise ManifestError(message, [message], f"Save it again as {ENDING} without a password, or as CSV.") from None


def _visible(book: CalamineWorkbook) -> int:
    """The index of the first worksheet that is not hidden.

    Raises:
        ValueError: there is none.
    """
    kinds = (
        (str(one.visible).endswith(".Visible"), str(one.typ).endswith(".WorkSheet")) for one in book.sheets_metadata
    )
    for index, kind in enumerate(kinds):
        if all(kind):
            return index
    raise ValueError("all of its sheets are hidden")


def _part(archive: zipfile.ZipFile, sheet: str) -> str:
    """The archive's path of a sheet's cells.

    Raises:
        KeyError, StopIteration: the archive does not name it.
    """
    folder, name = posixpath.split(_LISTING)
    listing = ElementTree.fromstring(archive.read(_LISTING))  # noqa: S314
    found = next(one.attrib for one in listing.iter() if _tag(one) == "sheet" and one.get("name") == sheet)
    number = next(value for key, value in found.items() if key.endswith("}id"))
    links = ElementTree.fromstring(archive.read(f"{folder}/_rels/{name}.rels"))  # noqa: S314
    target = next(one.attrib["Target"] for one in links if one.get("Id") == number)
    return posixpath.normpath(posixpath.join(folder, target)) if not target.startswith("/") else target.lstrip("/")


def _unread(part: IO[bytes]) -> Iterator[tuple[_Position, str]]:
    """The cells that calamine reads as blank though they are not: errors, and formulas without a result.

    Yields position (from 0) and error; the error is "" for a formula that was never calculated.

    Raises:
        ValueError: the sheet is too large for memory.
    """
    row = column = width = -1
    rows: ElementTree.Element | None = None
    for event, one in ElementTree.iterparse(part, ("start", "end")):  # noqa: S314
        match event, _tag(one):
            case "start", "sheetData":
                rows = one
            case "start", "row":
                row, column = int(one.get("r", row + 2)) - 1, -1
            case "start", "c":
                column = _column(one.get("r", "")) if one.get("r") else column + 1
            case "end", "c":
                inner = {_tag(child): child.text or "" for child in one}
                width = max(width, column + 1 if inner else 0)
                if inner and (row + 1) * width > _MAX_CELLS:
                    size = f"{row + 1:,} rows by {width:,} columns"
                    raise ValueError(f"its sheet has {size}: delete the cell far away from the others")
                if one.get("t") == "e" or ("f" in inner and one.get("t") != "str" and not inner.get("v")):
                    yield (row, column), inner.get("v", "")
            case "end", "row" if rows is not None:
                rows.clear()


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _column(reference: str) -> int:
    """The column, from 0, of a cell such as `AB12`."""
    number = 0
    for letter in re.match("[A-Z]*", reference)[0]:  # type: ignore[index]
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


def _covered(sheet: CalamineSheet, height: int) -> dict[int, list[tuple[int, int, int]]]:
    """Merged cells below the first row of their area, by row up to `height`: first and last column, and that first row
    (from 1)."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    for (top, left), (bottom, right) in sheet.merged_cell_ranges or ():
        for row in range(top + 1, min(bottom + 1, height)):
            found.setdefault(row, []).append((left, right, top + 1))
    return found


def _text(value: Any) -> str:
    """A cell's value as text; whole numbers have no decimal point."""
    match value:
        case bool():
            return str(value).upper()
        case float() if value.is_integer() and abs(value) <= _EXACT:
            return str(int(value))
        case float():
            return format(value, ".15g")  # as many digits as spreadsheets show
        case datetime.datetime():
            return value.isoformat(" ")
        case datetime.date() | datetime.time():
            return value.isoformat()
    return str(value)


def _failed(error: str) -> InvalidValueError:
    if not error:
        reason = "the formula was never calculated: open the file in a spreadsheet program and save it"
        return InvalidValueError("formula", reason)
    return InvalidValueError("error", f"the cell contains the error {printable(error)}: fix its formula")


def _merged(upper: int) -> InvalidValueError:
    return InvalidValueError("merged", f"the cell is merged with row {upper}: unmerge it and fill in each row")
