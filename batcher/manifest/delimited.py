"""Reads text files whose lines are split into cells by a delimiter, such as CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import chain
from typing import Final

from batcher.errors import ManifestError
from batcher.manifest.faults import Faults
from batcher.manifest.input import Input
from batcher.manifest.rows import Record
from batcher.manifest.stream import SAVE_AS
from batcher.manifest.table import EMPTY, table_record

_CELL_LIMIT: Final = 1 << 26
_DELIMITERS: Final = ",;\t"


def records(source: Input) -> Iterator[Record]:
    """The records of the file; one that is not valid CSV becomes a fault of the file.

    Raises:
        ManifestError: the encoding or the header is unusable.
    """
    lines = source.lines
    rest = iter(lines)
    first = next((line for line in rest if line.strip(_DELIMITERS + '" \r\n')), None)
    if first is None:
        source.faults.add(None, None, EMPTY, cause="empty", fatal=True)
        return
    csv.field_size_limit(max(csv.field_size_limit(), _CELL_LIMIT))
    begins = lines.seen
    reader = csv.reader(chain([first], rest), delimiter=_delimiter(first), strict=True)
    layout = source.columns.read_header(_header(reader, source.name, begins), begins)
    number = 0
    while True:
        begins = lines.seen + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            number += 1
            if _add_fault(source.faults, error, begins, lines.seen):
                continue
            return
        if cells is None:
            return
        content = "".join(cells)
        if content and not content.isspace():
            number += 1
            yield table_record(number, begins, cells, layout, content)


def _header(reader: Iterator[list[str]], name: str, line: int) -> list[str]:
    try:
        headers = next(reader)
    except csv.Error as error:
        message, hint = f"{name}:{line}: the header is not valid CSV: {error}", ""
    else:
        if "\0" not in "".join(headers):
            return headers
        message, hint = f"{name}:{line}: the header contains NUL bytes: the file may be UTF-16", SAVE_AS
    raise ManifestError(message, [message], hint)


def _add_fault(faults: Faults, error: csv.Error, began: int, seen: int) -> bool:
    """Add a fault for a record that is not valid CSV; return whether the next record can be read. The fault is fatal:
    the following text may be inside a cell."""
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
    faults.add(began, None, reason, cause=f"csv, can continue: {can_continue}", fatal=True)
    return can_continue


def _delimiter(header: str) -> str:
    """The delimiter that occurs most often outside quotes; a comma if there is none."""
    return max(_DELIMITERS, key=re.sub(r'"[^"]*("|$)', "", header).count)
