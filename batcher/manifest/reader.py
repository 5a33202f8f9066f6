"""Reads a manifest, CSV, JSONL or a workbook, row by row. Everything wrong with it is gathered on the way and no row is
kept, so that a file of any length can be checked to its end before the first row costs anything."""

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
from batcher.manifest.faults import Faults, Problem, WrongError, printable, quoted
from batcher.manifest.jsonl import object_of
from batcher.manifest.rows import Record, Row, RowValidator, Rules, record_id

_HEAD_BYTES: Final = 4096
_CELL_LIMIT: Final = 1 << 26
_CSV_ENDINGS: Final = (".csv", ".tsv", ".txt")
_JSON_ENDINGS: Final = (".jsonl", ".ndjson", ".json")
_DELIMITERS: Final = ",;\t"
_NESTING: Final = 32
_BOMS: Final = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_SAVE_AS: Final = "save the file as UTF-8, or name its encoding, such as --encoding cp1252"


_STRAY: Final = Problem(field=None, cause="stray", reason="a NUL or half a surrogate pair in a cell without a column")


class _Tap(io.BufferedIOBase):
    """A binary stream that has been begun to be read, measured and hashed as it flows."""

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
        """All that there is; for one that nothing was read of yet."""
        return self.read() + self.read()

    def drain(self) -> None:
        """Reads what is left, so that hash and size are those of the whole."""
        while self.read(1 << 20):
            pass


class _Lines:
    """The lines of a stream, decoded, counted in `seen`, without a byte order mark.

    Raises, when made or iterated:
        ManifestError: the encoding is unknown or the bytes aren't in it.
    """

    def __init__(self, tap: _Tap, encoding: str | None) -> None:
        self.seen = 0
        self._tap = tap
        marked = next((codec for mark, codec in _BOMS.items() if tap.head.startswith(mark)), "utf-8")
        self._encoding = encoding or marked
        try:
            self._text = io.TextIOWrapper(tap, encoding=self._encoding, newline="")
        except LookupError:
            message = f"{tap.name}: {quoted(self._encoding)} is not an encoding"
            raise ManifestError(message, [message], "such as --encoding utf-8, cp1252 or utf-16") from None

    def first_character(self) -> str:
        """The first one that isn't white space, as far as the beginning of the stream tells; "" if none."""
        return self._tap.head.decode(self._encoding, "replace").lstrip("\ufeff \t\r\n")[:1]

    def __iter__(self) -> Iterator[str]:
        try:
            for line in self._text:
                self.seen += 1
                yield line.removeprefix("\ufeff") if self.seen == 1 else line
        except UnicodeDecodeError as error:
            self._undecodable(error)

    def _undecodable(self, error: UnicodeDecodeError) -> NoReturn:
        """The decoder is given a chunk only when all lines before it were handed out."""
        before = error.object[: error.start].decode(self._encoding, "replace")
        line = self.seen + 1 + len(re.findall(r"\r\n|\r|\n", before))
        offset = self._tap.size - len(error.object) + error.start
        fault = f"{self._tap.name}:{line}: not {self._encoding.upper()}: {error.reason} at byte {offset:,}"
        raise ManifestError(fault, [fault], _SAVE_AS) from None


class Manifest:
    """One manifest: a file, or standard input (`path` None), which is JSONL or a workbook.

    `columns_sent` (header to field) and `columns_carried` are complete after the first row of a table, and after the
    last of JSONL. `sheet` names the sheet of a workbook that is read, once that has begun. `digest` (SHA-256 of the
    bytes, hex) and `size` (bytes) are there once `rows` is exhausted.
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
        self._judge = RowValidator(rules, self._columns, self.faults)
        self._has_text = True

    @property
    def columns_sent(self) -> dict[str, str]:
        """The columns that say something about the audio or its file, and which field each is."""
        return dict(self._columns.sent)

    @property
    def columns_carried(self) -> list[str]:
        """The columns that only go into the results."""
        return list(self._columns.carried)

    def rows(self) -> Iterator[Row]:
        """The rows that can be staged, in order, one at a time; to be called once. What is wrong goes to `faults`.

        Raises:
            ManifestError: the file can't be read at all: it isn't there, its encoding or its first line is no use.
        """
        for record in self._records():
            row = self._judge.row(record, has_text=self._has_text)
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
                if self._broken(error, begins, lines.seen):
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
            message = f"{self.name}: a workbook says its encoding itself"
            raise ManifestError(message, [message], "Leave --encoding out, also in batcher.toml and the environment.")
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
        self.faults.add(None, None, "empty: a first line has to name the columns", cause="empty", fatal=True)

    def _layout(self, headers: list[str], line: int) -> Layout:
        layout = self._columns.read_header(headers, line)
        self._has_text = any(field == "text" for field, _ in layout.fields)
        return layout

    def _header(self, reader: Iterator[list[str]], line: int) -> list[str]:
        try:
            headers = next(reader)
        except csv.Error as error:
            message, hint = f"{self.name}:{line}: the line that names the columns is broken: {error}", ""
        else:
            if "\0" not in "".join(headers):
                return headers
            message, hint = f"{self.name}:{line}: NUL bytes in the first line: this may be UTF-16", _SAVE_AS
        raise ManifestError(message, [message], hint)

    def _broken(self, error: csv.Error, began: int, seen: int) -> bool:
        """A fault for a record that isn't CSV; whether reading can go on behind it. It is fatal, since the rows that
        follow may be the inside of a cell."""
        at = f" in line {seen}" if seen != began else ""
        reason, goes_on = f"a quote within a quoted cell{at}: double it, or quote no cell that needs none", True
        if "end of data" in str(error):
            reason, goes_on = "a quote is opened and never closed; the rest of the file was not read", False
        elif "limit" in str(error):
            reason = f"a cell of more than {_CELL_LIMIT:,} characters, or a quote left open; the rest was not read"
            goes_on = False
        self.faults.add(began, None, reason, cause=f"broken, goes on: {goes_on}", fatal=True)
        return goes_on

    def _json_records(self, lines: _Lines) -> Iterator[Record]:
        number = 0
        for line in lines:
            if line.isspace():
                continue
            number += 1
            record = Record(number, lines.seen)
            try:
                said = object_of(line)
            except WrongError as wrong:
                record.problems.append(Problem(field=None, cause=wrong.cause, reason=str(wrong)))
            else:
                record.problems = _unusable(said)
                if not record.problems:
                    record.given, record.extra, record.problems = self._columns.split(said)
            yield record
        if number:
            self._columns.check_file(None)


def input_columns(path: Path, encoding: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each record's number with all its columns as the file has them, in its order; none of one that is broken.

    Raises:
        ManifestError: the file can't be read at all.
    """
    everything = dict.fromkeys(FIELDS, "")  # without fields, every column is carried along
    unread = Rules(batch="", columns=everything, encoding=encoding)
    return ((record.number, record.extra) for record in Manifest(path, unread)._records())


def given_takes(path: Path, rules: Rules) -> Iterator[tuple[str, Any]]:
    """The rows that name their take themselves: id and take, as the file has them.

    Raises:
        ManifestError: the file can't be read at all.
    """
    for record in Manifest(path, rules)._records():
        if "take" in record.given:
            yield str(record.given.get("id", record_id(record.number))), record.given["take"]


def _delimiter(header: str) -> str:
    """The one that occurs most often outside quotes; a comma if there is none."""
    return max(_DELIMITERS, key=re.sub(r'"[^"]*("|$)', "", header).count)


def _sheet_record(number: int, line: workbook.Line, layout: Layout) -> Record:
    """The record of a sheet's row; a field whose cell cannot be used is not given."""
    record = _table_record(number, line.number, line.cells, layout, "".join(line.cells))
    for field, index in layout.fields:
        wrong = line.wrong.get(index)
        if wrong is None and field == "text" and index in line.dates:
            reason = f"{quoted(line.cells[index])} is a date or a time, and may be shown in another way: make it a text"
            wrong = WrongError("date", reason)
        if wrong is not None:
            record.given.pop(field, None)
            record.problems.append(Problem(field=field, cause=wrong.cause, reason=str(wrong)))
    return record


def _table_record(number: int, line: int, cells: list[str], layout: Layout, content: str) -> Record:
    record = Record(number, line)
    width = layout.width
    if len(cells) < width:
        cells += [""] * (width - len(cells))
    if "\0" in content or (not content.isascii() and _SURROGATE.search(content)):
        named = layout.fields + layout.carried
        record.problems = _unusable({name: cells[index] for name, index in named}) or [_STRAY]
        return record
    if len(cells) > width and any(cell.strip() for cell in cells[width:]):
        reason = (
            f"{len(cells)} cells, but the first line names {width} columns: is there a delimiter that needs quotes?"
        )
        record.problems.append(Problem(field=None, cause="surplus", reason=reason))
        return record  # its cells may stand in the wrong columns
    for field, index in layout.fields:
        cell = cells[index].strip()
        if cell:
            record.given[field] = cell
    record.extra = {header: cells[index] for header, index in layout.carried}
    for index in layout.unnamed:
        if cells[index].strip():
            reason = f"a value in column {index + 1}, which has no name in the first line"
            record.problems.append(Problem(field=None, cause=f"unnamed {index}", reason=reason))
    return record


def _unusable(values: dict[str, Any]) -> list[Problem]:
    """A problem for each value that a database or a request couldn't hold. Such a row isn't read any further."""
    problems = []
    for name, value in values.items():
        if reason := _unfit(name, 0) or _unfit(value, _NESTING):
            problems.append(Problem(field=name, cause=reason, reason=reason))
    return problems


def _unfit(value: Any, levels: int) -> str:
    if isinstance(value, str):
        if "\0" in value:
            return "has a NUL character in it"
        return "" if value.isascii() or not _SURROGATE.search(value) else "has half a surrogate pair in it"
    if not isinstance(value, (dict, list)):
        return ""
    if not levels:
        return f"is nested more than {_NESTING} levels deep"
    inner = chain(value, value.values()) if isinstance(value, dict) else value
    return next((reason for item in inner if (reason := _unfit(item, levels - 1))), "")
