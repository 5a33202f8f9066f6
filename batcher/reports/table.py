"""The report as data: the manifest's own columns in their order, followed by the result of each row."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from batcher.errors import ManifestError, UsageError
from batcher.ledger.imports.parse_options import last_parse_options
from batcher.ledger.ledger import Connection
from batcher.ledger.queries.manifest_paths import source_of
from batcher.ledger.queries.report import ReportRow, report_rows
from batcher.ledger.records import Batch
from batcher.manifest.columns import REPORT_PREFIX
from batcher.manifest.packed import content_digest
from batcher.manifest.reader import input_columns
from batcher.manifest.rules import Rules

if TYPE_CHECKING:
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

Plain = Literal["csv", "jsonl"]
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - full-width ones count too
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
_MAX_ROWS: Final = 1_048_576
_MAX_COLUMNS: Final = 16_384
_MAX_UNITS: Final = 32_767
"""Limits of a worksheet, and of a cell in UTF-16 units: Microsoft's "Excel specifications and limits"."""
_EXACT: Final = 2**53
"""Integers up to this are exact as floating-point numbers, which is what a cell holds."""
_WIDTH: Final = 16
"""Column width in characters."""


class Sheet:
    """The rows of some batches as records of one table.

    `changed` lists the manifests that differ from their last import (or were standard input): the columns of their
    rows come from the ledger. Without `texts`, the columns of all rows do, without the text and without error messages,
    which may quote it. Manifests are read as in their last import; `encoding` applies to those that need another.
    """

    def __init__(self, conn: Connection, wanted: Sequence[Batch], *, texts: bool, encoding: str | None = None) -> None:
        self._conn = conn
        self._wanted = wanted
        self._texts = texts
        sources = {batch.batch_id: source_of(conn, batch) for batch in wanted}
        rules = {batch.batch_id: last_parse_options(conn, batch) for batch in wanted}
        found = {number: _readable(*source, rules[number], encoding) for number, source in sources.items() if texts}
        self._files = {number: file for number, file in found.items() if file is not None}
        self.changed = [name for number, (name, _) in sources.items() if texts and number not in self._files]

    def write(self, file: IO[str], kind: Plain) -> None:
        """Write every row. In CSV, cells that a spreadsheet would run as a formula are prefixed with an apostrophe."""
        if kind == "jsonl":
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in self._records())
            return
        columns = self._columns()
        writer = csv.writer(file)
        writer.writerow(map(_escaped, columns))
        writer.writerows([_escaped(_cell(record.get(name))) for name in columns] for record in self._records())

    def write_workbook(self, file: IO[bytes]) -> int:
        """Write every row as an .xlsx workbook with one sheet. Text stays text: nothing becomes a formula.

        Returns the number of cells that were truncated to the maximum length.

        Raises:
            UsageError: the rows do not fit into a sheet, or the xlsx extra is not installed.
            OSError: the file cannot be written.
        """
        try:
            from xlsxwriter import Workbook
            from xlsxwriter.exceptions import FileCreateError
        except ImportError as error:
            raise UsageError("writing .xlsx needs the xlsx extra", "pip install 'tts-batcher[xlsx]'") from error
        columns = self._columns()
        number = sum(1 for _ in self._records())
        if number >= _MAX_ROWS or len(columns) > _MAX_COLUMNS:
            limits = f"{_MAX_ROWS:,} rows, including the header, and {_MAX_COLUMNS:,} columns"
            raise UsageError(f"the report is too large for a sheet: at most {limits}", "Choose --format csv or jsonl.")
        try:
            with Workbook(file, {"constant_memory": True}) as book:
                return self._fill(book.add_worksheet("batcher"), book.add_format({"bold": True}), columns, number)
        except FileCreateError as error:
            raise error.args[0] from None

    def _fill(self, sheet: Worksheet, bold: Format, columns: Sequence[str], number: int) -> int:
        sheet.freeze_panes(1, 0)
        sheet.autofilter(0, 0, number, len(columns) - 1)
        sheet.set_column(0, len(columns) - 1, _WIDTH)
        for index, name in enumerate(columns):
            sheet.write_string(0, index, _truncated(name), bold)
        return sum(
            _put(sheet, row, index, record.get(name))
            for row, record in enumerate(self._records(), 1)
            for index, name in enumerate(columns)
        )

    def _columns(self) -> list[str]:
        """All columns of any row, the manifest's before ours."""
        columns = dict.fromkeys(name for record in self._records() for name in record)
        return sorted(columns, key=lambda name: name.startswith(REPORT_PREFIX))

    def _records(self) -> Iterator[dict[str, Any]]:
        for batch in self._wanted:
            file = self._files.get(batch.batch_id)
            originals = input_columns(*file) if file is not None else iter(())
            number = 0
            columns: dict[str, Any] = {}
            for row in report_rows(self._conn, [batch]):
                while file is not None and number < row.number:
                    number, columns = next(originals, (row.number, {}))
                own = columns if number == row.number else self._stored_columns(row)
                yield own | self._result_columns(row)

    def _stored_columns(self, row: ReportRow) -> dict[str, Any]:
        """The manifest's columns as the ledger has them."""
        if row.inputs is None:
            return {"id": row.id} | row.extra
        named = {"voice": row.inputs.voice, "model": row.inputs.model, "format": row.inputs.format}
        text = {"text": row.inputs.text} if self._texts else {}
        return {"id": row.id} | text | named | row.inputs.params | row.extra

    def _result_columns(self, row: ReportRow) -> dict[str, Any]:
        found = {
            "batch": row.batch,
            "row": row.number,
            "id": row.id,
            "state": row.state,
            "output": row.output,
            "take": row.take if row.key else None,
            "audio_seconds": row.audio_seconds,
            "error": row.error,
            "error_message": row.error_message if self._texts else None,
            "ignored": row.ignored,
            "task_id": row.task_id,
            "key": row.key,
        }
        return {REPORT_PREFIX + name: value for name, value in found.items()}


def _readable(name: str, digest: str, rules: Rules, encoding: str | None) -> tuple[Path, Rules] | None:
    """The manifest and working rules: those of its last import, with `encoding` if it works. None if the file is
    missing or differs from its last import."""
    path = Path(name)
    try:
        if content_digest(path) != digest:
            return None
    except (OSError, ManifestError):
        return None
    encodings = dict.fromkeys((encoding or rules.encoding, rules.encoding, None))
    choices = (replace(rules, encoding=one) for one in encodings)
    return next(((path, one) for one in choices if _is_readable(path, one)), None)


def _is_readable(path: Path, rules: Rules) -> bool:
    try:
        return all(True for _ in input_columns(path, rules))
    except ManifestError:
        return False


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _put(sheet: Worksheet, row: int, column: int, value: Any) -> bool:
    """Write one cell. Returns whether it was truncated."""
    if value is None or value == "":
        return False
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _EXACT:
        sheet.write_number(row, column, value)
        return False
    whole = _cell(value)
    text = _truncated(whole)
    sheet.write_string(row, column, text)
    return text != whole


def _truncated(text: str) -> str:
    """The text truncated to the maximum length of a cell."""
    units = text.encode("utf-16-le")
    if len(units) <= 2 * _MAX_UNITS:
        return text
    return units[: 2 * (_MAX_UNITS - 1)].decode("utf-16-le", "ignore") + "…"


def _escaped(cell: str) -> str:
    """A cell that no spreadsheet runs as a formula (see OWASP, CSV injection). Plain numbers stay as they are."""
    return f"'{cell}" if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else cell
