"""Unpacks a manifest that is compressed: gzip, or a zip archive of one file."""

from __future__ import annotations

import gzip
import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, BinaryIO, Final, cast

from batcher import files
from batcher.errors import ManifestError
from batcher.manifest import limits
from batcher.manifest.faults import printable
from batcher.manifest.stream import copied, temporary_copy

_GZIP: Final = b"\x1f\x8b"
_ZIP: Final = b"PK\x03\x04"
_ENDINGS: Final = (".gz", ".zip")
_CHUNK: Final = 1 << 20
_BROKEN: Final = (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zlib.error, zipfile.BadZipFile)
_OFFICE: Final = frozenset({"mimetype", "[Content_Types].xml"})
"""Members of archives that are documents themselves."""
_MEMBERS_LISTED: Final = 5


def stem(path: PurePath) -> str:
    """The name of a manifest without its extension: `lines` for `lines.csv` and `lines.csv.gz`."""
    name = path.stem
    return PurePath(name).stem if path.suffix.lower() in _ENDINGS else name


def content_digest(path: Path) -> str:
    """SHA-256, hex, of the unpacked content of a manifest, as `Manifest.digest`.

    Raises:
        OSError: the file cannot be read.
        ManifestError: it cannot be unpacked.
    """
    with files.reading(path) as stream, unpacked(stream, str(path)) as (content, _):
        digest = hashlib.sha256()
        while data := content.read(_CHUNK):
            digest.update(data)
        return digest.hexdigest()


@contextmanager
def unpacked(stream: BinaryIO, name: str) -> Iterator[tuple[BinaryIO, str]]:
    """The stream of the manifest with this file name, unpacked if it is compressed, and the ending of its name in lower
    case. What is unpacked is in memory up to 8 MiB, then in a temporary file.

    Raises:
        ManifestError: it cannot be unpacked, or is too large then; or the archive holds several files.
    """
    begin = stream.tell()
    opened = _opened(stream, stream.read(len(_ZIP)), name, begin)
    if opened is None:
        stream.seek(begin)
        yield stream, PurePath(name).suffix.lower()
        return
    source, inner = opened
    with temporary_copy() as content:
        try:
            with source:
                is_whole = copied(source, content, limits.MAX_UNPACKED_BYTES)
        except _BROKEN as error:
            raise _unreadable(name, f"{error}" or "it is damaged") from None
        if not is_whole:
            raise _unreadable(name, f"it is too large: more than {limits.MAX_UNPACKED_BYTES >> 20:,} MiB unpacked")
        yield content, PurePath(inner).suffix.lower()


def _opened(stream: BinaryIO, head: bytes, name: str, begin: int) -> tuple[IO[bytes], str] | None:
    """The compressed content and its file name; None if the file is not compressed, or is a document."""
    stream.seek(begin)
    if head.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=stream)), PurePath(name).stem
    if not head.startswith(_ZIP):
        return None
    try:
        archive = zipfile.ZipFile(stream)
        members = [one.filename for one in archive.infolist() if not one.is_dir()]
        files = [one for one in members if not one.startswith("__MACOSX/") and not PurePath(one).name.startswith(".")]
        if not _OFFICE.isdisjoint(members):
            return None
        if len(files) == 1:
            return archive.open(files[0]), files[0]
    except _BROKEN as error:
        if PurePath(name).suffix.lower() != ".zip":
            return None  # what reads documents reports it
        raise _unreadable(name, f"{error}") from None
    listed = ", ".join(map(printable, files[:_MEMBERS_LISTED])) or "none"
    more = ", ..." if len(files) > _MEMBERS_LISTED else ""
    message = f"{name}: the archive must hold one file, but has {len(files)}: {listed}{more}"
    raise ManifestError(message, [message], "Unpack it and name the files.")


def _unreadable(name: str, why: str) -> ManifestError:
    message = f"{name}: cannot be unpacked: {why}"
    return ManifestError(message, [message], "Unpack it and pass the file in it.")
