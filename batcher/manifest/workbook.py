"""Reads a sheet of a workbook (.xlsx, .xls or .ods): its lines of text cells, and their records.

A cell has a value and a number format that determines how it is displayed; only the value is read.
"""

from __future__ import annotations

import datetime
import io
import shlex
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, Final

from batcher.errors import ManifestError
from batcher.manifest import limits, ods, xls, xlsx
from batcher.manifest.archive import check
from batcher.manifest.columns import Layout
from batcher.manifest.faults import InvalidValueError, Problem, code, literal, printable
from batcher.manifest.header import SAMPLE_ROWS, SampleRow, find_header
from batcher.manifest.input import Input
from batcher.manifest.rows import Record
from batcher.manifest.suggestions import prose_column
from batcher.manifest.table import is_second_table, table_record

if TYPE_CHECKING:
    from python_calamine import CalamineSheet

MAGIC: Final = (b"PK\x03\x04", *xls.MAGIC)
"""First bytes of workbooks: a zip archive, or an .xls workbook."""
_SHEETS_LISTED: Final = 12
_EXACT: Final = 2**53  # spreadsheets store doubles, which hold every whole number up to this one
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
    """A sheet of a workbook. `unread` are the cells that calamine leaves out, with their errors."""

    def __init__(
        self, sheet: CalamineSheet, unread: Iterable[tuple[_Position, str]], merged: Iterable[ods.Area]
    ) -> None:
        self.name = sheet.name
        self._sheet = sheet
        self._merged = merged
        self._unread: dict[int, dict[int, str]] = {}
        for (row, column), error in unread:
            self._unread.setdefault(row, {})[column] = error

    def lines(self) -> Iterator[Line]:
        """Every row that is not blank."""
        height = 1 + max([(self._sheet.end or (-1, -1))[0], *self._unread])
        below = _covered(self._merged, height)
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
    """The records of the chosen sheet: that of `--sheet`, or the first visible one.

    Raises:
        ManifestError: the workbook cannot be read, or lacks the chosen sheet.
    """
    with _readable(source):
        if source.size() > limits.MAX_WORKBOOK_FILE_BYTES:
            raise limits.TooLargeError(f"the file has more than {limits.MAX_WORKBOOK_FILE_BYTES >> 20} MiB")
        book = Book(source.tap.whole())
    chosen = _chosen(source, book)
    with _readable(source):
        sheet = book.sheet(chosen)
    if source.rules.sheet is None:
        source.notes.append(f"reading the first visible sheet of the workbook: {sheet.name}")
    source.faults.unit = "row"
    source.faults.name = f"{source.name}[{printable(sheet.name)}]"
    lines = sheet.lines()
    first = list(islice(lines, max(SAMPLE_ROWS, source.rules.header_row or 0)))
    header = find_header(source, _sample(first), elsewhere=partial(_elsewhere, source, book, sheet))
    if header is None:
        return
    above, count = header.number, 0
    for line in chain(first, lines):
        if line.number <= header.number:
            continue
        if is_second_table(source, header, line.number, line.cells, after_blank=line.number > above + 1):
            return
        above = line.number
        if line.cells == header.cells and source.rules.single_table:
            continue
        count += 1
        yield _sheet_record(count if source.rules.counted else line.number, line, header.layout)


def _sample(lines: Iterable[Line]) -> list[SampleRow]:
    return [SampleRow(line.number, line.number, line.cells) for line in lines]


def _chosen(source: Input, book: Book) -> str:
    """The name of the sheet to read.

    Raises:
        ManifestError: there is none, or none of that name.
    """
    wanted = source.rules.sheet
    if wanted is None:
        if not book.names:
            raise _unreadable(source.name, "it has no sheet of cells")
        if not book.visible:
            raise _unreadable(source.name, "all of its sheets are hidden")
        return book.visible[0]
    alike = [name for name in book.names if name.strip().casefold() == wanted.strip().casefold()]
    found = wanted if wanted in book.names else next(iter(alike), None)
    if found is None:
        message = f"{source.name}: the workbook has no sheet {literal(wanted)}"
        listed = ", ".join(map(printable, book.names[:_SHEETS_LISTED]))
        raise ManifestError(message, [message], f"It has {listed}.")
    return found


def _elsewhere(source: Input, book: Book, sheet: Sheet, certain: bool) -> str | None:
    """What to do if this sheet, which is read, has no column for the text: the visible sheet that has one; or else
    (not `certain`) one whose cells look like texts, or the names of all others."""
    others = [name for name in book.visible if name != sheet.name][:_SHEETS_LISTED]
    if not others or source.rules.sheet is not None or prose_column(_first_rows(sheet)):
        return None
    samples: dict[str, list[list[str]]] = {}
    for name in others:
        with suppress(Exception):  # damage elsewhere is no error of the sheet that is read
            samples[name] = _first_rows(book.sheet(name))
    if certain:
        named = (name for name, rows in samples.items() if any(map(source.columns.names_text, rows)))
        return next((f"sheet {literal(name)} has one: pass --sheet {shlex.quote(name)}" for name in named), None)
    for name, rows in samples.items():
        if (header := prose_column(rows)) is not None:
            options = f"--sheet {shlex.quote(name)} --column {shlex.quote(f'text={header}')}"
            return f"column {code(header)} of sheet {literal(name)} may be it: pass {options}"
    listed = ", ".join(map(printable, others))
    return (
        "name the column of the texts with --column text=HEADER, or another sheet with --sheet NAME"
        f" (the others are {listed})"
    )


def _first_rows(sheet: Sheet) -> list[list[str]]:
    return [line.cells for line in islice(sheet.lines(), SAMPLE_ROWS)]


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


class Book:
    """An opened workbook: the names of its worksheets, and of those that are visible.

    Raises:
        TooLargeError: it is too large for memory.
        ValueError and others: it is damaged.
    """

    def __init__(self, content: bytes) -> None:
        from python_calamine import CalamineWorkbook

        archive = zipfile.ZipFile(io.BytesIO(content)) if content.startswith(MAGIC[0]) else None
        if archive is not None:
            check(archive)
        self._xlsx = archive if archive is not None and xlsx.LISTING in archive.namelist() else None
        self._ods = ods.tables(archive) if archive is not None and ods.is_ods(archive) else {}
        self._xls = xls.Workbook(content) if content.startswith(xls.MAGIC) else None
        if self._xls is not None:
            content = self._xls.container()
        self._book = CalamineWorkbook.from_filelike(io.BytesIO(content))
        kinds = [one for one in self._book.sheets_metadata if str(one.typ).endswith(".WorkSheet")]
        self.names = [one.name for one in kinds]
        self.visible = [one.name for one in kinds if str(one.visible).endswith(".Visible")]

    def sheet(self, name: str) -> Sheet:
        """The sheet of this name."""
        from python_calamine import CalamineWorkbook

        if self._xlsx is not None:
            unread = xlsx.unread(self._xlsx, name)  # first: it rejects what would exhaust calamine's memory
            sheet = self._book.get_sheet_by_name(name)
            return Sheet(sheet, unread, sheet.merged_cell_ranges or ())
        if self._xls is not None:
            number = {one.name: number for number, one in enumerate(self._book.sheets_metadata)}[name]
            content = io.BytesIO(self._xls.container(number))
            return Sheet(CalamineWorkbook.from_filelike(content).get_sheet_by_name(name), (), ())
        table = self._ods.get(name, ods.Table())
        return Sheet(self._book.get_sheet_by_name(name), table.errors, table.merged)


@contextmanager
def _readable(source: Input) -> Iterator[None]:
    """Turns every error of a damaged or too large workbook into one for people."""
    try:
        yield
    except limits.TooLargeError as error:
        raise _unreadable(source.name, f"it is too large: {error}") from None
    except xls.UnsupportedError as error:
        raise _unreadable(source.name, str(error)) from None
    except Exception as error:  # noqa: BLE001 - damaged archives raise a dozen kinds of errors
        raise _unreadable(source.name, f"it is damaged: {error}") from None


def _unreadable(name: str, why: str) -> ManifestError:
    message = f"{name}: cannot be read as a workbook: {why}"
    return ManifestError(message, [message], "Save it again as .xlsx without a password, or as CSV.")


def _covered(merged: Iterable[ods.Area], height: int) -> dict[int, list[tuple[int, int, int]]]:
    """Merged cells below the first row of their area, by row up to `height`: first and last column, and that first row
    (from 1)."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    for (top, left), (bottom, right) in merged:
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
