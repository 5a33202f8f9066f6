"""Reads and writes compound files: the containers of .xls workbooks, and of newer ones with a password."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from batcher.manifest import limits

MAGIC: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""First bytes of a compound file."""
_SPECIAL: Final = 0xFFFFFFFA
"""The first of the numbers that mark the end of a chain, or a sector without one."""
_END, _FREE = 0xFFFFFFFE, 0xFFFFFFFF
_ENTRY_BYTES: Final = 128
_SMALL_BYTES: Final = 64
_SMALL_STREAM_BYTES: Final = 4096
"""A smaller stream is stored in small sectors, within the stream of the root."""


class Streams:
    """The streams of a compound file, by name; those of embedded documents are left out.

    Raises, when constructed or read:
        ValueError, struct.error: the file is damaged.
        TooLargeError: its list of streams is too large for memory.
    """

    def __init__(self, content: bytes) -> None:
        shift, first, self._small, double = struct.unpack_from("<30xH16xI8xI4xI", content)
        if shift not in (9, 12):
            raise ValueError("its sectors have an unusual size")
        self._content = content
        self._size = 1 << shift
        self._table = self._join(self._table_sectors(double))
        entries = self._join(_chain(self._table, first))
        if len(entries) > limits.MAX_LISTING_BYTES:
            raise limits.TooLargeError(f"its list of streams has more than {limits.MAX_LISTING_BYTES >> 20} MiB")
        (self._root,) = struct.unpack_from("<I", entries, 116)
        self._found = dict(_beside_root(entries))

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def read(self, name: str) -> bytes:
        """The stream of this name.

        Raises:
            KeyError: there is none.
        """
        start, length = self._found[name]
        if length >= _SMALL_STREAM_BYTES:
            return self._join(_chain(self._table, start))[:length]
        small = self._join(_chain(self._table, self._root))
        links = self._join(_chain(self._table, self._small))
        pieces = (small[number * _SMALL_BYTES : (number + 1) * _SMALL_BYTES] for number in _chain(links, start))
        return b"".join(pieces)[:length]

    def _join(self, numbers: Iterable[int]) -> bytes:
        size = self._size
        return b"".join(self._content[(number + 1) * size : (number + 2) * size] for number in numbers)

    def _table_sectors(self, double: int) -> list[int]:
        """Numbers of the sectors that hold the table; those beyond 109 are listed in further sectors, from `double`."""
        used: dict[int, None] = {}
        lists: set[int] = set()
        listed: Iterable[int] = struct.unpack_from("<109I", self._content, 76)
        while True:
            for number in listed:
                if number in used:
                    raise ValueError("a sector of its table is used twice")
                if number < _SPECIAL:
                    used[number] = None
            if double >= _SPECIAL:
                return list(used)
            if double in lists:
                raise ValueError("the list of its table's sectors does not end")
            lists.add(double)
            *listed, double = struct.unpack(f"<{self._size // 4}I", self._join([double]))


def _chain(table: bytes, start: int) -> Iterator[int]:
    """Numbers of the sectors of a chain."""
    left = len(table) // 4
    while start < _SPECIAL:
        if left == 0 or start * 4 + 4 > len(table):
            raise ValueError("a chain of its sectors does not end")
        yield start
        left -= 1
        (start,) = struct.unpack_from("<I", table, start * 4)


def _beside_root(entries: bytes) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, first sector and size in bytes of the streams that are not in a folder of the file."""
    (first,) = struct.unpack_from("<I", entries, 76)
    waiting, left = [first], len(entries) // _ENTRY_BYTES
    while waiting:
        number = waiting.pop()
        if number >= _SPECIAL:
            continue
        if left == 0:
            raise ValueError("its list of streams does not end")
        left -= 1
        name, length, kind, *siblings = struct.unpack_from("<64sHBxII", entries, number * _ENTRY_BYTES)
        waiting += siblings
        if kind == 2:
            place = struct.unpack_from("<II", entries, number * _ENTRY_BYTES + 116)
            yield name[: max(0, length - 2)].decode("utf-16-le", "replace"), place


def packed(stream: bytes, name: str = "Workbook") -> bytes:
    """A compound file with this stream alone."""
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
        "<8s16x5H6x9I", MAGIC, 0x3E, 3, 0xFFFE, 9, 6,
        0, tables, sectors, 0, 4096, _END, 0, base + tables if doubles else _END, doubles,
    )  # fmt: skip
    folder = _entry("Root Entry", 5, _END, 0) + _entry(name, 2, 0, len(stream)) + bytes(256)
    return b"".join(
        [header, struct.pack("<109I", *ids[:109]), stream, folder, struct.pack(f"<{len(numbers)}I", *numbers), difat]
    )


def _entry(name: str, kind: int, start: int, size: int) -> bytes:
    child = 1 if kind == 5 else _FREE
    return struct.pack(
        "<64sHBB3I36xIQ", name.encode("utf-16-le"), len(name) * 2 + 2, kind, 1, _FREE, _FREE, child, start, size
    )
