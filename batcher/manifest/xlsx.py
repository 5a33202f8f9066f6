"""Finds what the reader of workbooks leaves out of an .xlsx sheet: errors, and formulas without a result."""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from typing import IO, Final
from xml.etree import ElementTree

from batcher.manifest import limits

LISTING: Final = "xl/workbook.xml"
"""The part of the archive that lists the sheets; only this format has it."""
_Position = tuple[int, int]


def unread(archive: zipfile.ZipFile, sheet: str) -> list[tuple[_Position, str]]:
    """The cells that calamine reads as blank though they are not: position (from 0) and error, which is "" for a
    formula that was never calculated.

    Raises:
        TooLargeError: the sheet is too large for memory.
    """
    with archive.open(_part(archive, sheet)) as part:
        return list(_unread(part))


def _part(archive: zipfile.ZipFile, sheet: str) -> str:
    """The archive's path of a sheet's cells.

    Raises:
        KeyError, StopIteration: the archive does not name it.
    """
    folder, name = posixpath.split(LISTING)
    listing = ElementTree.fromstring(_listing(archive, LISTING))  # noqa: S314
    found = next(one.attrib for one in listing.iter() if _tag(one) == "sheet" and one.get("name") == sheet)
    number = next(value for key, value in found.items() if key.endswith("}id"))
    links = ElementTree.fromstring(_listing(archive, f"{folder}/_rels/{name}.rels"))  # noqa: S314
    target = next(one.attrib["Target"] for one in links if one.get("Id") == number)
    return posixpath.normpath(posixpath.join(folder, target)) if not target.startswith("/") else target.lstrip("/")


def _listing(archive: zipfile.ZipFile, part: str) -> bytes:
    with archive.open(part) as content:
        data = content.read(limits.MAX_LISTING_BYTES + 1)
    if len(data) > limits.MAX_LISTING_BYTES:
        raise limits.TooLargeError(f"its list of sheets has more than {limits.MAX_LISTING_BYTES >> 20} MiB")
    return data


def check_area(rows: int, columns: int, filled: int) -> None:
    """Check that a sheet is not much larger than its filled cells are many.

    Raises:
        TooLargeError: it is not.
    """
    if rows * columns > max(limits.MAX_SPARSE_CELLS, filled * limits.MAX_BLANK_SHARE):
        raise limits.TooLargeError(
            f"its sheet has {rows:,} rows by {columns:,} columns: delete the cell far away from the others"
        )


def _unread(part: IO[bytes]) -> Iterator[tuple[_Position, str]]:
    row = column = width = height = -1
    filled = 0
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
                if inner:
                    width, height, filled = max(width, column + 1), max(height, row + 1), filled + 1
                if one.get("t") == "e" or ("f" in inner and one.get("t") != "str" and not inner.get("v")):
                    yield (row, column), inner.get("v", "")
            case "end", "row" if rows is not None:
                rows.clear()
    check_area(height, width, filled)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _column(reference: str) -> int:
    """The column, from 0, of a cell such as `AB12`."""
    number = 0
    for letter in re.match("[A-Z]*", reference)[0]:  # type: ignore[index]
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1
