"""Reads a manifest (CSV, JSONL or a workbook) row by row. Faults are collected on the way and no row is held in memory,
so that a file of any length can be checked to its end before anything is bought."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from batcher.errors import ManifestError
from batcher.manifest import workbook
from batcher.manifest.columns import FIELDS, Columns, Layout
from batcher.manifest.faults import Faults, InvalidValueError, Problem, literal, printable
from batcher.manifest.jsonl import parse_object
from batcher.manifest.rows import FindFormer, Record, Row, RowValidator, Rules, record_id

_HEAD_BYTES: Final = 4096
_CELL_LIMIT: Final = 1 << 26
_CSV_ENDINGS: Final = (".csv", ".tsv", ".txt")
_JSON_ENDINGS: Final = (".jsonl", ".ndjson", ".json")
_DELIMITERS: Final = ",;\t"
_NESTING: Final = 32
_BOMS: Final = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_SAVE_AS: Final = "Save the file as UTF-8, or name its encoding, for example --encoding cp1252."
_NUL: Final = "contains a NUL character: remove it"
_HALF_SURROGATE: Final = "contains a broken character (half of a surrogate pair): type it again"
_STRAY: Final = Problem(
    field=None, cause="stray", reason="a cell without a column contains a NUL or a broken character: clear it"
)


class _Tap(io.BufferedIOBase):
    """A binary stream that measures and hashes what is read of it; `head` is its beginning."""

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self.name = name
        self.head = stream.read(_HEAD_BYTES)
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._stream = stream
        self._begun = False

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._stream.read(-1 if size is None else size) if self._begun else self.head
        self._begun = True
        self.size += len(data)
        self.sha256.update(data)
        return data

    read1 = read

    def whole(self) -> bytes:
        """The whole stream; call it before any other read."""
        return self.read() + self.read()

    def drain(self) -> None:
        """Read the rest, so that hash and size cover the whole stream."""
        while self.read(1 << 20):
            pass


class _Lines:
    """The decoded lines of a stream, without a byte order mark; `seen` counts them.

    Raises, when constructed or iterated:
        ManifestError: the encoding is unknown, or the bytes are not in it.
    """

    def __init__(self, tap: _Tap, encoding: str | None) -> None:
        self.seen = 0
        self._tap = tap
        marked = next((codec for mark, codec in _BOMS.items() if tap.head.startswith(mark)), "utf-8")
        self._encoding = encoding or marked
        try:
            self._text = io.TextIOWrapper(tap, encoding=self._encoding, newline="")
        except LookupError:
            message = f"{tap.name}: {literal(self._encoding)} is not an encoding"
            raise ManifestError(message, [message], "Use for example --encoding utf-8, cp1252 or utf-16.") from None

    def first_character(self) -> str:
        """The first character of the stream's head that is not white space; "" if there is none."""
        return self._tap.head.decode(self._encoding, "replace").lstrip("\ufeff \t\r\n")[:1]

    def __iter__(self) -> Iterator[str]:
        try:
            for line in self._text:
                self.seen += 1
                yield line.removeprefix("\ufeff") if self.seen == 1 else line
        except UnicodeDecodeError as error:
            self._raise_undecodable(error)

    def _raise_undecodable(self, error: UnicodeDecodeError) -> NoReturn:
        # The decoder receives a chunk only after all lines before it were yielded.
        before = error.object[: error.start].decode(self._encoding, "replace")
        line = self.seen + 1 + len(re.findall(r"\r\n|\r|\n", before))
        offset = self._tap.size - len(error.object) + error.start
        encoding = self._encoding.upper()
        fault = f"{self._tap.name}:{line}: not valid {encoding}: {error.reason} at byte {offset:,}"
        raise ManifestError(fault, [fault], _SAVE_AS) from None


class Manifest:
    """One manifest: a file, or standard input (`path` None), which holds JSONL or a workbook.

    `columns_sent` (header to field) and `columns_carried` are complete after the first row of a table or the last of
    JSONL. `sheet` is the name of the workbook's sheet, once reading has begun. `digest` (SHA-256 of the bytes, hex) and
    `size` (bytes) are set once `rows` is exhausted.
    """

    def __init__(self, path: Path | None, rules: Rules, *, stdin: BinaryIO | None = None) -> None:
        self.name = "<stdin>" if path is None else str(path)
        self.faults = Faults(self.name)
        self.digest: str | None = None
        self.size = 0
        self.sheet: str | None = None
        self._path = path
        self._stdin = stdin
        self._encoding = rules.encoding
        self._columns = Columns(rules.columns, self.faults)
        self._validator = RowValidator(rules, self._columns, self.faults)
        self._has_text = True

    @property
    def columns_sent(self) -> dict[str, str]:
        """The columns that are fields: header to field."""
        return dict(self._columns.sent)

    @property
    def columns_carried(self) -> list[str]:
        """The columns that are only copied to the results."""
        return list(self._columns.carried)

    @property
    def stripped(self) -> int:
        """Rows from whose texts markup was removed, so far."""
        return self._validator.stripped

    def rows(self, find_former: FindFormer = lambda _: None) -> Iterator[Row]:
        """Yield the rows that can be staged, in order; call it once. Everything wrong is added to `faults`.

        `find_former` finds what the ledger has for a row's id.

        Raises:
            ManifestError: the file cannot be read: it is missing, or its encoding or its header is unusable.
        """
        for record in self._records():
            row = self._validator.row(record, find_former, has_text=self._has_text)
            if row is not None:
                yield row

    def _records(self) -> Iterator[Record]:
        try:
            with (
                nullcontext(self._stdin or sys.stdin.buffer) if self._path is None else self._path.open("rb") as stream
            ):
                tap = _Tap(self.name, stream)
                if workbook.is_workbook(tap.head, self._path.suffix.lower() if self._path is not None else ""):
                    yield from self._sheet_records(tap)
                else:
                    lines = _Lines(tap, self._encoding)
                    yield from self._csv_records(lines) if self._is_csv(lines) else self._json_records(lines)
                tap.drain()
                self.digest, self.size = tap.sha256.hexdigest(), tap.size
        except OSError as error:
            message = f"{self.name}: cannot be read: {error.strerror or error}"
            raise ManifestError(message, [message]) from error

    def _is_csv(self, lines: _Lines) -> bool:
        ending = ".jsonl" if self._path is None else self._path.suffix.lower()
        if ending in _CSV_ENDINGS or ending in _JSON_ENDINGS:
            return ending in _CSV_ENDINGS
        return lines.first_character() != "{"

    def _csv_records(self, lines: _Lines) -> Iterator[Record]:
        source = iter(lines)
        first = next((line for line in source if line.strip(_DELIMITERS + '" \r\n')), None)
        if first is None:
            self._empty()
            return
        csv.field_size_limit(max(csv.field_size_limit(), _CELL_LIMIT))
        begins = lines.seen
        reader = csv.reader(chain([first], source), delimiter=_delimiter(first), strict=True)
        layout = self._layout(self._header(reader, begins), begins)
        number = 0
        while True:
            begins = lines.seen + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                number += 1
                if self._add_csv_fault(error, begins, lines.seen):
                    continue
                return
            if cells is None:
                return
            content = "".join(cells)
            if content and not content.isspace():
                number += 1
                yield _table_record(number, begins, cells, layout, content)

    def _sheet_records(self, tap: _Tap) -> Iterator[Record]:
        if self._encoding is not None:
            message = f"{self.name}: --encoding does not apply to a workbook"
            hint = "Remove --encoding, and its setting in batcher.toml and the environment."
            raise ManifestError(message, [message], hint)
        sheet = workbook.first_sheet(self.name, tap.whole())
        self.sheet = sheet.name
        self.faults.name = f"{self.name}[{printable(sheet.name)}]"
        lines = sheet.lines()
        first = next(lines, None)
        if first is None:
            self._empty()
            return
        layout = self._layout(first.cells, first.number)
        for number, line in enumerate(lines, 1):
            yield _sheet_record(number, line, layout)

    def _empty(self) -> None:
        self.faults.add(None, None, "empty: the first line must name the columns", cause="empty", fatal=True)

    def _layout(self, headers: list[str], line: int) -> Layout:
        layout = self._columns.read_header(headers, line)
        self._has_text = any(field == "text" for field, _ in layout.fields)
        return layout

    def _header(self, reader: Iterator[list[str]], line: int) -> list[str]:
        try:
            headers = next(reader)
        except csv.Error as error:
            message, hint = f"{self.name}:{line}: the header is not valid CSV: {error}", ""
        else:
            if "\0" not in "".join(headers):
                return headers
            message, hint = f"{self.name}:{line}: the header contains NUL bytes: the file may be UTF-16", _SAVE_AS
        raise ManifestError(message, [message], hint)

    def _add_csv_fault(self, error: csv.Error, began: int, seen: int) -> bool:
        """Add a fault for a record that is not valid CSV; return whether the next record can be read. The fault is
        fatal: the following text may be inside a cell."""
        can_continue = False
        if "end of data" in str(error):
            reason = "a quote is opened and never closed: close it (the rest of the file was not read)"
        elif "limit" in str(error):
            size = f"a cell has more than {_CELL_LIMIT:,} characters"
            reason = f"{size}, or a quote is never closed: close it (the rest of the file was not read)"
        else:
            at = f" in line {seen}" if seen != began else ""
            reason = f"a quote within a quoted cell{at}: write it twice, or remove the quotes around the cell"
            can_continue = True
        self.faults.add(began, None, reason, cause=f"csv, can continue: {can_continue}", fatal=True)
        return can_continue

    def _json_records(self, lines: _Lines) -> Iterator[Record]:
        number = 0
        for line in lines:
            if line.isspace():
                continue
            number += 1
            record = Record(number, lines.seen)
            try:
                values = parse_object(line)
            except InvalidValueError as error:
                record.problems.append(Problem(field=None, cause=error.cause, reason=str(error)))
            else:
                record.problems = _unstorable(values)
                if not record.problems:
                    record.given, record.extra, record.problems = self._columns.split(values)
            yield record
        if number:
            self._columns.check_file(None)


def input_columns(path: Path, encoding: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each record's number and all its columns, unchanged and in the file's order; no columns for a broken record.

    Raises:
        ManifestError: the file cannot be read.
    """
    unmapped = dict.fromkeys(FIELDS, "")  # without fields, every column is carried
    rules = Rules(batch="", columns=unmapped, encoding=encoding)
    return ((record.number, record.extra) for record in Manifest(path, rules)._records())


def explicit_takes(path: Path, rules: Rules) -> Iterator[tuple[str, Any]]:
    """Id and take, unchanged, of the rows that set their take.

    Raises:
        ManifestError: the file cannot be read.
    """
    for record in Manifest(path, rules)._records():
        if "take" in record.given:
            yield str(record.given.get("id", record_id(record.number))), record.given["take"]


def _delimiter(header: str) -> str:
    """The delimiter that occurs most often outside quotes; a comma if there is none."""
    return max(_DELIMITERS, key=re.sub(r'"[^"]*("|$)', "", header).count)


def _sheet_record(number: int, line: workbook.Line, layout: Layout) -> Record:
    """The record of a sheet's row. A field whose cell cannot be used becomes a problem and is not given."""
    record = _table_record(number, line.number, line.cells, layout, "".join(line.cells))
    for field, index in layout.fields:
        error = line.wrong.get(index)
        if error is None and field == "text" and index in line.dates:
            reason = "is a date or a time: format the cell as text and type what is to be spoken"
            error = InvalidValueError("date", f"{literal(line.cells[index])} {reason}")
        if error is not None:
            record.given.pop(field, None)
            record.problems.append(Problem(field=field, cause=error.cause, reason=str(error)))
    return record


def _table_record(number: int, line: int, cells: list[str], layout: Layout, content: str) -> Record:
    record = Record(number, line)
    width = layout.width
    if len(cells) < width:
        cells += [""] * (width - len(cells))
    if "\0" in content or (not content.isascii() and _SURROGATE.search(content)):
        named = layout.fields + layout.carried
        record.problems = _unstorable({name: cells[index] for name, index in named}) or [_STRAY]
        return record
    if len(cells) > width and any(cell.strip() for cell in cells[width:]):
        reason = (
            f"{len(cells)} cells, but the header has {width} columns: quote cells that contain the delimiter,"
            " or name the extra columns"
        )
        record.problems.append(Problem(field=None, cause="surplus", reason=reason))
        return record  # its cells may be in the wrong columns
    for field, index in layout.fields:
        cell = cells[index].strip()
        if cell:
            record.given[field] = cell
    record.extra = {header: cells[index] for header, index in layout.carried}
    for index in layout.unnamed:
        if cells[index].strip():
            where = f"in column {index + 1}, which has no name"
            reason = f"{literal(cells[index])} is {where}: name the column or clear the cell"
            record.problems.append(Problem(field=None, cause=f"unnamed {index}", reason=reason))
    return record


def _unstorable(values: dict[str, Any]) -> list[Problem]:
    """A problem for each value that no database or request can hold. The rest of that row is not read."""
    problems = []
    for name, value in values.items():
        if reason := _why_unstorable(name, 0) or _why_unstorable(value, _NESTING):
            problems.append(Problem(field=name, cause=reason, reason=reason))
    return problems


def _why_unstorable(value: Any, levels: int) -> str:
    if isinstance(value, str):
        if "\0" in value:
            return _NUL
        return "" if value.isascii() or not _SURROGATE.search(value) else _HALF_SURROGATE
    if not isinstance(value, (dict, list)):
        return ""
    if not levels:
        return f"is nested more than {_NESTING} levels deep: flatten it"
    inner = chain(value, value.values()) if isinstance(value, dict) else value
    return next((reason for item in inner if (reason := _why_unstorable(item, levels - 1))), "")
