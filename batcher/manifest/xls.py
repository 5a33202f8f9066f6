"""Reduces an .xls workbook to what its reader needs of one sheet, and bounds the memory that this takes.

The reader of workbooks loads all sheets at once, allocates their whole area twice, and trusts every length in the
file. Therefore, it gets a container written here, with checked records only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from batcher.manifest import limits
from batcher.manifest.xlsx import check_area

_HEADER: Final = 512
_SPECIAL: Final = 0xFFFFFFFA
"""The first of the numbers that mark the end of a chain, or a sector without one."""
_BOUND_SHEET, _BOF, _EOF, _SST, _CONTINUE = 0x85, 0x809, 0x0A, 0xFC, 0x3C
_GLOBALS: Final = {_BOF: 4, 0x2F: 2, 0x42: 2, 0x22: 2, 0x41E: 2, 0xE0: 4}
"""Records of the workbook that are kept: password, code page, dates, formats. With their least length."""
_FORMULA, _LABEL, _STRING, _LABEL_SST, _MANY = 0x06, 0x204, 0x207, 0xFD, 0xBD
_CELLS: Final = {0x203: 14, _LABEL: 10, 0x205: 8, 0x27E: 10, _LABEL_SST: 10, _MANY: 12, _FORMULA: 20}
"""Records of cells, with their least length; each begins with row and column."""
_END, _FREE = 0xFFFFFFFE, 0xFFFFFFFF
_Record = tuple[int, bytes]


def _chain(table: bytes, start: int) -> Iterator[int]:
    """Numbers of the sectors of a chain."""
    left = len(table) // 4
    while start < _SPECIAL:
        if left == 0 or start * 4 + 4 > len(table):
            raise ValueError("a chain of its sectors does not end")
        yield start
        left -= 1
        (start,) = struct.unpack_from("<I", table, start * 4)


def _stream(content: bytes) -> bytes:
    """The stream of the container that holds the workbook.

    Raises:
        ValueError, struct.error: it is damaged, or there is none.
    """
    shift, first, mini, double = struct.unpack_from("<30xH16xI8xI4xI", content)
    if shift not in (9, 12):
        raise ValueError("its sectors have an unusual size")
    size = 1 << shift

    def join(numbers: Iterator[int] | list[int]) -> bytes:
        return b"".join(content[(number + 1) * size : (number + 2) * size] for number in numbers)

    listed = list(struct.unpack_from("<109I", content, 76))
    for _ in range(len(content) // size):
        if double >= _SPECIAL:
            break
        *more, double = struct.unpack(f"<{size // 4}I", join([double]))
        listed += more
    used = [number for number in listed if number < _SPECIAL]
    if len(set(used)) != len(used):
        raise ValueError("a sector of its table is used twice")
    table = join(used)
    entries = join(_chain(table, first))
    found: dict[str, tuple[int, int]] = {}
    for at in range(0, len(entries) - 127, 128):
        name = entries[at : at + 64].decode("utf-16-le", "replace").partition("\0")[0]
        found.setdefault(name, struct.unpack_from("<II", entries, at + 116))
    start, length = found["Workbook"] if "Workbook" in found else found["Book"]
    if length >= 4096:
        return join(_chain(table, start))[:length]
    (root,) = struct.unpack_from("<I", entries, 116)
    small, links = join(_chain(table, root)), join(_chain(table, mini))
    return b"".join(small[number * 64 : number * 64 + 64] for number in _chain(links, start))[:length]


def _records(stream: bytes, at: int) -> Iterator[_Record]:
    """The records from there up to the next end."""
    kind = -1
    while kind != _EOF and at + 4 <= len(stream):
        kind, size = struct.unpack_from("<HH", stream, at)
        if at + 4 + size > len(stream):
            raise ValueError("a record is cut off")
        yield kind, stream[at + 4 : at + 4 + size]
        at += 4 + size


def packed(stream: bytes) -> bytes:
    """A container with this stream alone."""
    stream += bytes(max(4096, -(-len(stream) // 512) * 512) - len(stream))
    sectors = len(stream) // 512
    tables = 1
    while tables * 128 < sectors + tables + 1:
        tables += 1
    doubles = max(0, -(-(tables - 109) // 127))
    while tables * 128 < sectors + 1 + tables + doubles:
        tables += 1
        doubles = max(0, -(-(tables - 109) // 127))
    base = sectors + 1
    numbers = [*range(1, sectors), _END, _END, *[0xFFFFFFFD] * tables, *[0xFFFFFFFC] * doubles]
    numbers += [_FREE] * (tables * 128 - len(numbers))
    ids = [*range(base, base + tables)]
    ids += [_FREE] * (109 + 127 * doubles - tables)
    difat = b""
    for number in range(doubles):
        part = ids[109 + 127 * number : 236 + 127 * number]
        difat += struct.pack("<128I", *part, base + tables + number + 1 if number + 1 < doubles else _END)
    header = struct.pack(
        "<8s16x5H6x9I", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0x3E, 3, 0xFFFE, 9, 6,
        0, tables, sectors, 0, 4096, _END, 0, base + tables if doubles else _END, doubles,
    )  # fmt: skip
    folder = _entry("Root Entry", 5, _END, 0) + _entry("Workbook", 2, 0, len(stream)) + bytes(256)
    return b"".join(
        [header, struct.pack("<109I", *ids[:109]), stream, folder, struct.pack(f"<{len(numbers)}I", *numbers), difat]
    )


def _entry(name: str, kind: int, start: int, size: int) -> bytes:
    child = 1 if kind == 5 else _FREE
    return struct.pack(
        "<64sHBB3I36xIQ", name.encode("utf-16-le"), len(name) * 2 + 2, kind, 1, _FREE, _FREE, child, start, size
    )


def _lengths(parts: list[bytes]) -> list[int]:
    """Bytes of each shared string, from the record and those that continue it.

    Raises:
        ValueError, struct.error, IndexError: they are not as many as the record states, or are cut off.
    """
    (count,) = struct.unpack_from("<4xI", parts[0])
    if count * 3 > sum(map(len, parts)):
        raise ValueError("it states more texts than it has")
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


class Workbook:
    """An .xls workbook. `container` gives it with the cells of one sheet, or of none.

    Raises:
        ValueError, KeyError, IndexError, struct.error: it is damaged.
        TooLargeError: its list of sheets is too large for memory.
    """

    def __init__(self, content: bytes) -> None:
        self._stream = _stream(content)
        self._kept: list[_Record] = []
        self._sheets: list[_Record] = []
        self._wide = True
        strings: list[bytes] = []
        last = -1
        for kind, data in _records(self._stream, 0):
            last = kind if kind != _CONTINUE else last
            if kind == _BOUND_SHEET and len(data) >= 8:
                self._sheets.append((kind, data))
            elif kind == _SST or (kind == _CONTINUE and last == _SST):
                strings.append(data)
            elif kind in _GLOBALS and len(data) >= _GLOBALS[kind]:
                self._kept.append((kind, data))
                if kind == _BOF:
                    self._wide = data[:2] not in (b"\0\2", b"\0\3", b"\0\4", b"\0\5")
        if sum(len(data) for _, data in self._sheets) > limits.MAX_LISTING_BYTES >> 4:
            raise limits.TooLargeError(f"its list of sheets has more than {limits.MAX_LISTING_BYTES >> 14} KiB")
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
        size = sum(4 + len(data) for _, data in kept + self._sheets) + 4
        listed = [
            (kind, struct.pack("<I", size if number == chosen else size - 4) + data[4:])
            for number, (kind, data) in enumerate(self._sheets)
        ]
        out = bytearray()
        for kind, data in [*kept, *listed, (_EOF, b"")]:
            out += struct.pack("<HH", kind, len(data)) + data
        if chosen is not None:
            (at,) = struct.unpack_from("<I", self._sheets[chosen][1])
            for kind, data in self._cells(at):
                out += struct.pack("<HH", kind, len(data)) + data
            out += struct.pack("<HH", _EOF, 0)
        return packed(bytes(out))

    def _cells(self, start: int) -> Iterator[_Record]:
        """The records of a sheet's cells, each with lengths that match."""
        box = _Box()
        for kind, data in _records(self._stream, start):
            if kind == _STRING and len(data) >= 4 and box.filled:
                box.filled, box.bytes = box.filled + 1, box.bytes + len(data) * 2
                yield kind, self._text(data)
            elif kind in _CELLS and len(data) >= _CELLS[kind]:
                self._measure(box, kind, data)
                if kind == _FORMULA:
                    data = data[:20] + bytes(2)
                yield kind, data[:6] + self._text(data[6:]) if kind == _LABEL else data
        height, width = box.bottom - box.top + 1, box.right - box.left + 1
        if box.filled == 0:
            return
        check_area(height, width, box.filled)
        if height * width * 88 + box.filled * 40 + box.bytes * 2 > limits.MAX_OLD_SHEET_BYTES:
            most = limits.MAX_OLD_SHEET_BYTES >> 20
            raise limits.TooLargeError(f"its sheet of {height:,} rows by {width:,} columns takes more than {most} MiB")

    def _text(self, data: bytes) -> bytes:
        """A text with as many characters as there are: the reader allocates those that are stated."""
        (characters,) = struct.unpack_from("<H", data)
        have = (len(data) - 3) // (1 + (data[2] & 1)) if self._wide else len(data) - 2
        return struct.pack("<H", min(characters, have)) + data[2:]

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
