"""Reduces an .xls workbook to what its reader needs of one sheet, and bounds the memory that this takes.

The reader of workbooks loads all sheets at once, allocates their whole area twice, and trusts every length in the
file. Therefore, it gets a container written here, with checked records only. Texts of Excel 5 and 95, which are in a
code page, are written as those of Excel 97, in Unicode.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from batcher.manifest import compound, limits
from batcher.manifest.xlsx import check_area

_BOUND_SHEET, _BOF, _EOF, _SST, _CONTINUE = 0x85, 0x809, 0x0A, 0xFC, 0x3C
_PASSWORD, _CODE_PAGE, _FORMAT = 0x2F, 0x42, 0x41E
_GLOBALS: Final = {_BOF: 4, _CODE_PAGE: 2, 0x22: 2, _FORMAT: 3, 0xE0: 4}
"""Records of the workbook that are kept: version, code page, dates, formats. With their least length."""
_FORMULA, _LABEL, _RICH_LABEL, _STRING, _LABEL_SST, _MANY = 0x06, 0x204, 0xD6, 0x207, 0xFD, 0xBD
_CELLS: Final = {0x203: 14, _LABEL: 8, _RICH_LABEL: 8, 0x205: 8, 0x27E: 10, _LABEL_SST: 10, _MANY: 12, _FORMULA: 20}
"""Records of cells, with their least length; each begins with row and column."""
_EXCEL_5, _EXCEL_97 = b"\0\5", b"\0\6"
MAGIC: Final = (
    compound.MAGIC,
    *(struct.pack("<HH", _BOF, size) + version for size in (8, 16) for version in (_EXCEL_5, _EXCEL_97)),
)
"""First bytes of an .xls workbook: a compound file, or the bare records that some programs write."""
_CODECS: Final = {
    10000: "mac_roman", 10006: "mac_greek", 10007: "mac_cyrillic", 10029: "mac_latin2", 10079: "mac_iceland",
    10081: "mac_turkish", 32768: "mac_roman", 32769: "cp1252",
}  # fmt: skip
"""Code pages whose codecs have other names than their numbers."""
_STRING_BYTES: Final = 24
"""Memory that the reader takes for a text besides its characters."""
_Record = tuple[int, bytes]


class UnsupportedError(ValueError):
    """An .xls workbook cannot be read although it may be whole; the message says why."""


def _stream(content: bytes) -> bytes:
    """The records of the workbook."""
    if not content.startswith(compound.MAGIC):
        return content
    streams = compound.Streams(content)
    for name in ("Workbook", "Book"):
        if name in streams:
            return streams.read(name)
    raise UnsupportedError("it has a password" if "EncryptedPackage" in streams else "it contains no workbook")


def _records(stream: bytes, at: int) -> Iterator[_Record]:
    """The records from there up to the next end."""
    kind = -1
    while kind != _EOF and at + 4 <= len(stream):
        kind, size = struct.unpack_from("<HH", stream, at)
        if at + 4 + size > len(stream):
            raise ValueError("a record is cut off")
        yield kind, stream[at + 4 : at + 4 + size]
        at += 4 + size


def _lengths(parts: list[bytes]) -> list[int]:
    """Bytes of each shared string, from the record and those that continue it.

    Raises:
        ValueError, struct.error, IndexError: they are not as many as the record states, or are cut off.
        TooLargeError: they are too many for memory.
    """
    (count,) = struct.unpack_from("<4xI", parts[0])
    if count * 3 > sum(map(len, parts)):
        raise ValueError("it states more texts than it has")
    if count * _STRING_BYTES > limits.MAX_OLD_SHEET_BYTES:
        raise limits.TooLargeError(f"it has {count:,} texts")
    lengths, index, at = [], 0, 8
    for _ in range(count):
        if at >= len(parts[index]):
            index, at = index + 1, 0
        characters, flags = struct.unpack_from("<HB", parts[index], at)
        at += 3
        runs, extra = 0, 0
        if flags & 8:
            (runs,), at = struct.unpack_from("<H", parts[index], at), at + 2
        if flags & 4:
            (extra,), at = struct.unpack_from("<I", parts[index], at), at + 4
        lengths.append(characters * (3 if flags & 1 else 2))
        left, width = characters, 1 + (flags & 1)
        while left:
            taken = min(left, max(0, len(parts[index]) - at) // width)
            left, at = left - taken, at + taken * width
            if left:
                index, at = index + 1, 1
                width = 1 + (parts[index][0] & 1)
                lengths[-1] = characters * 3
        skip = runs * 4 + extra
        while skip > len(parts[index]) - at:
            skip, index, at = skip - (len(parts[index]) - at), index + 1, 0
        at += skip
    return lengths


@dataclass(slots=True)
class _Box:
    top: int = -1
    bottom: int = -1
    left: int = 1 << 16
    right: int = -1
    filled: int = 0
    bytes: int = 0


def _codec(page: int) -> str:
    """The codec of a code page.

    Raises:
        UnsupportedError: it is unknown.
    """
    try:
        return codecs.lookup(_CODECS.get(page, f"cp{page}")).name
    except LookupError:
        raise UnsupportedError(f"its code page {page} is unknown") from None


class Workbook:
    """An .xls workbook. `container` gives it with the cells of one sheet, or of none.

    Raises:
        ValueError, KeyError, IndexError, struct.error: it is damaged.
        TooLargeError: its lists of sheets, formats or texts are too large for memory.
        UnsupportedError: it cannot be read.
    """

    def __init__(self, content: bytes) -> None:
        self._stream = _stream(content)
        kept: list[_Record] = []
        sheets: list[bytes] = []
        strings: list[bytes] = []
        last = -1
        for kind, data in _records(self._stream, 0):
            last = kind if kind != _CONTINUE else last
            if kind == _PASSWORD:
                raise UnsupportedError("it has a password")
            if kind == _BOUND_SHEET and len(data) >= 8:
                sheets.append(data)
            elif kind == _SST or (kind == _CONTINUE and last == _SST):
                strings.append(data)
            elif kind in _GLOBALS and len(data) >= _GLOBALS[kind]:
                kept.append((kind, data))
            if len(kept) + len(strings) > limits.MAX_OLD_RECORDS:
                raise limits.TooLargeError(f"it has more than {limits.MAX_OLD_RECORDS:,} records besides cells")
        if sum(map(len, sheets)) > limits.MAX_LISTING_BYTES >> 4:
            raise limits.TooLargeError(f"its list of sheets has more than {limits.MAX_LISTING_BYTES >> 14} KiB")
        if not kept or kept[0][0] != _BOF:
            raise ValueError("it does not begin like a workbook")
        self._narrow = self._narrow_codec(kept)
        self._kept = [one for record in kept if (one := self._global(*record)) is not None]
        self._sheets = [data[:6] + self._sized(data[6:], "<B") for data in sheets]
        self._strings = strings
        self._lengths = _lengths(strings) if strings else []

    def container(self, chosen: int | None = None) -> bytes:
        """The workbook with the cells of this sheet (from 0) alone.

        Raises:
            ValueError, struct.error: the sheet is damaged.
            TooLargeError: it is too large for memory.
        """
        strings = [] if chosen is None else self._strings
        kept = self._kept + [(_SST if number == 0 else _CONTINUE, part) for number, part in enumerate(strings)]
        size = sum(4 + len(data) for data in [*(data for _, data in kept), *self._sheets]) + 4
        listed = [
            (_BOUND_SHEET, struct.pack("<I", size if number == chosen else size - 4) + data[4:])
            for number, data in enumerate(self._sheets)
        ]
        out = bytearray()
        for kind, data in [*kept, *listed, (_EOF, b"")]:
            out += struct.pack("<HH", kind, len(data)) + data
        if chosen is not None:
            (at,) = struct.unpack_from("<I", self._sheets[chosen])
            for kind, data in self._cells(at):
                out += struct.pack("<HH", kind, len(data)) + data
            out += struct.pack("<HH", _EOF, 0)
        return compound.packed(bytes(out))

    def _cells(self, start: int) -> Iterator[_Record]:
        """The records of a sheet's cells, each with lengths that match."""
        box = _Box()
        for kind, data in _records(self._stream, start):
            if kind == _STRING and len(data) >= 2 and box.filled:
                text = self._sized(data)
                box.filled, box.bytes = box.filled + 1, box.bytes + len(text) * 2
                yield kind, text
            elif kind in _CELLS and len(data) >= _CELLS[kind]:
                yield self._cell(box, kind, data)
        height, width = box.bottom - box.top + 1, box.right - box.left + 1
        if box.filled == 0:
            return
        check_area(height, width, box.filled)
        if height * width * 88 + box.filled * 40 + box.bytes * 2 > limits.MAX_OLD_SHEET_BYTES:
            most = limits.MAX_OLD_SHEET_BYTES >> 20
            raise limits.TooLargeError(f"its sheet of {height:,} rows by {width:,} columns takes more than {most} MiB")

    def _cell(self, box: _Box, kind: int, data: bytes) -> _Record:
        """The record of a cell, counted in `box`; without the formula, and without the fonts within a text."""
        if kind in (_LABEL, _RICH_LABEL):
            kind, data = _LABEL, data[:6] + self._sized(data[6:])
        self._measure(box, kind, data)
        return kind, data[:20] + bytes(2) if kind == _FORMULA else data

    def _narrow_codec(self, kept: list[_Record]) -> str | None:
        """The codec of texts by Excel 5 and 95; None if they are by a later version."""
        (_, version), *_ = kept
        if version[:2] != _EXCEL_5 and version[:4] != b"\0\0\0\x10":
            return None
        pages = [struct.unpack_from("<H", data)[0] for kind, data in kept if kind == _CODE_PAGE]
        return _codec(pages[-1] if pages else 1252)

    def _global(self, kind: int, data: bytes) -> _Record | None:
        """A record of the whole workbook, as Excel 97 writes it; None if that does without."""
        if self._narrow is None:
            return kind, data
        if kind == _BOF:
            return kind, _EXCEL_97 + data[2:]
        if kind == _FORMAT:
            return kind, data[:2] + self._sized(bytes([data[2], 0]) + data[3:])
        return None if kind == _CODE_PAGE else (kind, data)

    def _sized(self, data: bytes, length: str = "<H") -> bytes:
        """A text after its length, as Excel 97 writes it, with as many characters as there are: the reader allocates
        those that are stated.

        Raises:
            ValueError: it is not in the workbook's code page.
        """
        (characters,) = struct.unpack_from(length, data)
        text = data[struct.calcsize(length) :]
        if self._narrow is not None:
            try:
                text = b"\1" + text[:characters].decode(self._narrow).encode("utf-16-le")
            except UnicodeDecodeError:
                raise ValueError(f"a text is not in its code page, {self._narrow}") from None
        have = (len(text) - 1) // (1 + (text[0] & 1)) if text else 0
        return struct.pack(length, min(characters, have)) + (text or b"\0") + bytes(2)

    def _measure(self, box: _Box, kind: int, data: bytes) -> None:
        row, column = struct.unpack_from("<HH", data)
        many = (len(data) - 6) // 6 if kind == _MANY else 1
        if box.filled == 0:
            box.top = row
        if row < max(box.top, box.bottom):
            raise ValueError("its rows are out of order")
        box.bottom, box.filled = row, box.filled + many
        box.left, box.right = min(box.left, column), max(box.right, column + many - 1)
        if kind == _LABEL:
            box.bytes += len(data) * 2
        elif kind == _LABEL_SST:
            (number,) = struct.unpack_from("<6xI", data)
            box.bytes += self._lengths[number] if number < len(self._lengths) else 0
