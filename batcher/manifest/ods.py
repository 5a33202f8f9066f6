"""Finds what the reader of workbooks leaves out of an .ods file: errors of formulas, and merged cells."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from typing import Final
from xml.etree import ElementTree

from batcher.manifest import limits
from batcher.manifest.xlsx import check_area

Area = tuple[tuple[int, int], tuple[int, int]]
"""Row and column, from 0, of the first and of the last cell."""
_CONTENT: Final = "content.xml"
_TABLE: Final = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_TEXT: Final = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_ERROR: Final = "{urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0}value-type"


@dataclass(slots=True)
class Table:
    """The cells of a sheet with an error (position from 0, error), and its merged areas."""

    errors: list[tuple[tuple[int, int], str]] = field(default_factory=list)
    merged: list[Area] = field(default_factory=list)


def is_ods(archive: zipfile.ZipFile) -> bool:
    """Whether the archive is a spreadsheet of OpenDocument."""
    names = archive.namelist()
    return _CONTENT in names and "mimetype" in names and b"spreadsheet" in archive.read("mimetype")


def tables(archive: zipfile.ZipFile) -> dict[str, Table]:
    """The sheets by name. A cell or row that is repeated is reported once.

    Raises:
        TooLargeError: the sheets are too large for memory.
    """
    found: dict[str, Table] = {}
    table, row, column, width, height, filled, repeated, copied = Table(), 0, 0, 0, 0, 0, 1, 0
    with archive.open(_CONTENT) as content:
        for event, one in ElementTree.iterparse(content, ("start", "end")):  # noqa: S314
            match event, one.tag.removeprefix(_TABLE):
                case "start", "table":
                    table = found[one.get(f"{_TABLE}name", "")] = Table()
                    row = width = height = filled = 0
                case "start", "table-row":
                    column, repeated = 0, _count(one, "number-rows-repeated")
                case "end", "table-cell" | "covered-table-cell":
                    times = _count(one, "number-columns-repeated")
                    if len(one):
                        width, height, filled = max(width, column + times), row + repeated, filled + 1
                        _add(table, row, column, one)
                        copied += _copied(one, times * repeated)
                    column += times
                    one.clear()
                case "end", "table-row":
                    row += repeated
                    one.clear()
                case "end", "table":
                    check_area(height, width, filled)
                    _check_copied(copied)
    return found


def _add(table: Table, row: int, column: int, cell: ElementTree.Element) -> None:
    if cell.get(_ERROR) == "error":
        table.errors.append(((row, column), "".join(cell.itertext())))
    rows, columns = _count(cell, "number-rows-spanned"), _count(cell, "number-columns-spanned")
    if rows > 1:
        table.merged.append(((row, column), (row + rows - 1, column + columns - 1)))


def _copied(cell: ElementTree.Element, times: int) -> int:
    """Characters that the cell takes in memory beyond those in the file: spaces by their number, and repetitions."""
    spaces = sum(max(int(one.get(f"{_TEXT}c", "1")), 0) for one in cell.iter(f"{_TEXT}s"))
    return spaces + (times - 1) * (spaces + sum(map(len, cell.itertext())))


def _check_copied(characters: int) -> None:
    if characters > limits.MAX_COPIED_CHARACTERS:
        raise limits.TooLargeError(
            f"its repeated cells and spaces have more than {limits.MAX_COPIED_CHARACTERS:,} characters"
        )


def _count(one: ElementTree.Element, name: str) -> int:
    return int(one.get(f"{_TABLE}{name}", "1"))
