"""Reads text files whose lines are split into cells by a delimiter, such as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from batcher.manifest import anki, dialect, limits
from batcher.manifest.faults import NOT_READ, Faults
from batcher.manifest.header import Header, find_header
from batcher.manifest.input import Input
from batcher.manifest.quoting import swallows
from batcher.manifest.rows import Record
from batcher.manifest.table import is_second_table, table_record
from batcher.manifest.values import NUMERIC, with_decimal_point


def records(source: Input) -> Iterator[Record]:
    """The records of the file; one that is not valid CSV becomes a fault of the file.

    Raises:
        ManifestError: the encoding or the header is unusable.
    """
    chosen = dialect.decide(source)
    sample = dialect.sample(source, chosen)
    stated = chosen.export.names(max(len(row.cells) for row in sample)) if chosen.export and sample else None
    header = find_header(source, sample, stated=stated)
    if header is None:
        return iter(())
    found = _table_records(source, chosen, header)
    if chosen.delimiter == ";" and not {field for field, _ in header.layout.fields}.isdisjoint(NUMERIC):
        found = _with_decimal_points(found)
    return found if chosen.export is None else _cards(found, html=chosen.export.html)


def _with_decimal_points(records: Iterator[Record]) -> Iterator[Record]:
    """The records with a point for each decimal comma, because of which a semicolon separates cells."""
    for record in records:
        record.given |= {name: with_decimal_point(record.given[name]) for name in NUMERIC if name in record.given}
        yield record


def _cards(records: Iterator[Record], *, html: bool) -> Iterator[Record]:
    """The records of an Anki export with the texts as they are spoken."""
    for record in records:
        text = anki.spoken(record.given.pop("text", ""), html=html)
        if text:
            record.given["text"] = text
        yield record


def _table_records(source: Input, chosen: dialect.Dialect, header: Header) -> Iterator[Record]:
    lines, faults = source.lines, source.faults
    layout, names = header.layout, header.cells
    counted, guarded, delimiter = source.rules.counted, chosen.guarded, chosen.delimiter
    rows = chosen.rows(lines)
    number, count, after_blank = chosen.skipped, 0, False
    for _ in range(header.number - number):
        next(rows)
        number += 1
    while True:
        begins = lines.seen + 1
        number += 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            count += 1
            if _add_fault(faults, error, begins, lines.seen):
                continue
            return
        if cells is None:
            return
        content = "".join(cells)
        if not content or content.isspace():
            after_blank = True
            continue
        if after_blank or cells == names:
            if is_second_table(source, header, begins, cells, after_blank=after_blank):
                return
            if cells == names and source.rules.single_table:
                continue
        if lines.is_split:
            _add_split(faults, lines.seen)
            continue
        if guarded and lines.seen > begins and swallows(cells, delimiter, layout.width):
            _add_swallowed(faults, begins, lines.seen, alone=len(cells) == 1)
            continue
        count, after_blank = count + 1, False
        yield table_record(count if counted else number, begins, cells, layout, content)


def _add_swallowed(faults: Faults, began: int, seen: int, *, alone: bool) -> None:
    what = "spans the lines" if alone else "contains the delimiter and lines"
    reason = f"a quoted cell {what} up to {seen}, probably rows: close its quote"
    hint = f"{dialect.QUOTES_HINT} If such cells are right, pass --quotes on."
    faults.add(began, None, reason, cause="swallowed", fatal=True, hint=hint)


def _add_split(faults: Faults, line: int) -> None:
    reason = "a carriage return that ends no line cuts this row in two: remove it, or put quotes around its cell"
    faults.add(line, None, reason, cause="split", fatal=True)


def _add_fault(faults: Faults, error: csv.Error, began: int, seen: int) -> bool:
    """Add a fault for a record that is not valid CSV; return whether the next record can be read. The fault is fatal:
    the following text may be inside a cell."""
    can_continue = False
    if "end of data" in str(error):
        reason = f"a quote is opened and never closed: close it {NOT_READ}"
    elif "limit" in str(error):
        size = f"a cell has more than {limits.MAX_LINE_CHARACTERS:,} characters"
        reason = f"{size}, or a quote is never closed: close it {NOT_READ}"
    else:
        at = f" in line {seen}" if seen != began else ""
        reason = f"a quote within a quoted cell{at}: write it twice, or remove the quotes around the cell"
        can_continue = True
    faults.add(began, None, reason, cause=f"csv, can continue: {can_continue}", fatal=True, hint=dialect.QUOTES_HINT)
    return can_continue
