"""The spill file: stores answers to create requests that the database cannot store.

Its space is reserved before the first create request, so that a disk that fills up later still has room for the answers
to what was bought. Each record has its length and a checksum; reading stops at an incomplete record.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Final

from batcher import files
from batcher.errors import StorageError
from batcher.ledger.records import AnswerRecord
from batcher.ledger.storage.sqlite import sync

_HEADER: Final = struct.Struct("<4sII")
_MAGIC: Final = b"TTS1"
_SIZE: Final = 1 << 20
"""Bytes reserved."""
_RAW_LIMIT: Final = 4096
"""Maximum bytes stored of a raw answer: the file then has room for over a hundred such records, or thousands of
usual ones."""


class Spill:
    """The spill file of a run, or of a ledger's file.

    Whoever writes to it has it locked as long as the process lives, which may be longer than its session with a server.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end: int | None = None  # offset of the next record; None until the file is read
        self._descriptor: int | None = None  # once open: there may be none left when the file is needed

    def reserve(self) -> None:
        """Reserve the space on disk, and keep the file open.

        Raises:
            StorageError: there is not enough space, or the file cannot be used.
        """
        try:
            descriptor = self._opened()
            size = os.fstat(descriptor).st_size
            if size == 0:
                self._end = 0
            if size < _SIZE:
                files.write(descriptor, bytes(_SIZE - size), size)
                os.fsync(descriptor)
                sync(self.path.parent)
        except OSError as error:
            hint = "Free some space, or move the file away. Nothing was created."
            raise StorageError(f"cannot write {self.path}: {error.strerror}", hint) from error

    def _opened(self) -> int:
        """The descriptor of the file, opened and locked once; again if the file was deleted since.

        Raises:
            BlockingIOError: another process uses it.
        """
        if self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0:
            self.close()
            self._end = 0
        if self._descriptor is None:
            descriptor = files.open_own(self.path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
        return self._descriptor

    def is_left(self) -> bool:
        """Whether no other process uses the file: none does until this one closes it."""
        try:
            self._opened()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the file if it is open."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def append(self, record: AnswerRecord) -> None:
        """Make `record` durable, after the records already here.

        Raises:
            StorageError: the reserved space is not enough, or the disk fails.
        """
        payload = _shortened(record).to_json()
        data = _HEADER.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload
        try:
            descriptor = self._opened()
            if self._end is None:
                self.records()
            end = self._end or 0
            files.write(descriptor, data, end)
            os.fdatasync(descriptor)
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from error
        self._end = end + len(data)

    def records(self) -> list[AnswerRecord]:
        """All complete records, in the order written. The next record will follow them.

        Raises:
            StorageError: the file cannot be read, or is not a regular file.
        """
        try:
            with files.reading(self.path) as file:
                data = file.read()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            hint = "It stores answers to create requests. If it is not batcher's, move it away."
            raise StorageError(f"cannot read {self.path}: {error.strerror}", hint) from error
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
        try:
            descriptor = self._opened()
            files.write(descriptor, bytes(self._end), 0)
            os.fsync(descriptor)
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from error
        self._end = 0

    def remove(self) -> None:
        """Close the file, and remove it unless it holds records or has not been read."""
        self.close()
        if self._end == 0:
            self.path.unlink(missing_ok=True)


def _shortened(record: AnswerRecord) -> AnswerRecord:
    return replace(record, raw=record.raw[:_RAW_LIMIT])
