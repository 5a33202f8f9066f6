"""Checks that a zip archive can be unpacked in memory, by unpacking it piece by piece: its own sizes may be wrong."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator

from batcher.manifest import limits

_LOCAL_HEADER = struct.Struct("<26xHH")
"""The part of a file's local header up to the lengths of its name and its extra field, which end it."""
_CHUNK = 1 << 20
_SMALL = 1 << 20
"""Bytes of a part that may be compressed by any ratio."""


def check(archive: zipfile.ZipFile) -> None:
    """Check the size of every part, and of all together.

    Raises:
        TooLargeError: they are too large.
        ValueError: a part is compressed in an unusual way.
        zipfile.BadZipFile, zlib.error, struct.error: the archive is damaged.
    """
    whole = 0
    for part in archive.infolist():
        most = max(_SMALL, part.compress_size * limits.MAX_RATIO)
        size = 0
        for piece in _unpacked(archive, part):
            size += len(piece)
            whole += len(piece)
            if size > most:
                raise limits.TooLargeError(
                    f"a part of it becomes more than {limits.MAX_RATIO} times larger when unpacked"
                )
            if whole > limits.MAX_WORKBOOK_BYTES:
                raise limits.TooLargeError(f"it has more than {limits.MAX_WORKBOOK_BYTES >> 20:,} MiB when unpacked")


def _unpacked(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> Iterator[bytes]:
    """What the compressed bytes contain, up to their end and in small pieces."""
    if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("a part of it is compressed in an unusual way")
    file = archive.fp
    if file is None:
        return
    file.seek(part.header_offset)
    name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    file.seek(name + extra, 1)
    left, inflate = part.compress_size, zlib.decompressobj(-zlib.MAX_WBITS)
    while left > 0 and (data := file.read(min(_CHUNK, left))):
        left -= len(data)
        if part.compress_type == zipfile.ZIP_STORED:
            yield data
            continue
        while data and not inflate.eof:
            yield inflate.decompress(data, _CHUNK)
            data = inflate.unconsumed_tail
