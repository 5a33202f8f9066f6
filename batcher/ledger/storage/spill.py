"""The spill file: stores answers to create requests that the database cannot store.

Its space is reserved before the first create request, so that a disk that fills up later still has room for the answers
to what was bought. Each record has its length and a checksum; reading stops at an incomplete record.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Final

from batcher.errors import StorageError
from batcher.ledger.records import AnswerRecord
from batcher.ledger.storage.database import sync

_HEADER: Final = struct.Struct("<4sII")
_MAGIC: Final = b"TTS1"
_SIZE: Final = 1 << 20
"""Bytes reserved."""
_RAW_LIMIT: Final = 4096
"""Maximum bytes stored of a raw answer: the file then has room for over a hundred such records, or thousands of
usual ones."""


class Spill:
    """The spill file of one ledger, used only by the holder of the owner's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end: int | None = None  # offset of the next record; None until the file is read

    def reserve(self) -> None:
        """Reserve the space on disk.

        Raises:
            StorageError: there is not enough space.
        """
        if self.path.exists() and self.path.stat().st_size >= _SIZE:
            return
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                _write(descriptor, bytes(_SIZE - size), size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync(self.path.parent)
        except OSError as error:
            raise StorageError(
                f"cannot write {self.path}: {error.strerror}", "Free some space. Nothing was created."
            ) from error

    def append(self, record: AnswerRecord) -> None:
        """Make `record` durable, after the records already here.

        Raises:
            StorageError: the reserved space is not enough, or the disk fails.
        """
        if self._end is None:
            self.records()
        end = self._end or 0
        payload = _shortened(record).to_json()
        data = _HEADER.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600)
            try:
                _write(descriptor, data, end)
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from error
        self._end = end + len(data)

    def records(self) -> list[AnswerRecord]:
        """All complete records, in the order written. The next record will follow them."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            data = b""
        found: list[AnswerRecord] = []
        at = 0
        while at + _HEADER.size <= len(data):
            magic, length, checksum = _HEADER.unpack_from(data, at)
            payload = data[at + _HEADER.size : at + _HEADER.size + length]
            if magic != _MAGIC or length == 0 or len(payload) != length or zlib.crc32(payload) != checksum:
                break
            found.append(AnswerRecord.from_json(payload))
            at += _HEADER.size + length
        self._end = at
        return found

    def clear(self) -> None:
        """Delete all records; only once each of them is committed."""
        if not self._end:
            return
        descriptor = os.open(self.path, os.O_WRONLY)
        try:
            _write(descriptor, bytes(self._end), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._end = 0

    def remove(self) -> None:
        """Remove the file, unless it holds records or has not been read."""
        if self._end == 0:
            self.path.unlink(missing_ok=True)


def _write(descriptor: int, data: bytes, at: int) -> None:
    """Write all of `data`; a nearly full disk may write a part of it and report success.

    Raises:
        OSError: it does not fit.
    """
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], at + done)


def _shortened(record: AnswerRecord) -> AnswerRecord:
    return replace(record, raw=record.raw[:_RAW_LIMIT])
