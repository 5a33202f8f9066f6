"""Fingerprints of files and folders, which show that something has changed since they were taken.

A folder's times show that a file was added or removed, but not by whom, and a run adds files, too. So there is also a
checksum over the names in a folder, from which a run can compute the one to expect after its own additions
(`AddedNames`). Listing a folder takes a tenth of the time of looking for each of its files.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from batcher.clock import Clock
from batcher.ledger.records import FolderNames

_CLOCK_GRAIN_SECONDS: Final = 2.0
"""The coarsest resolution of file times: a second change within it may not alter a stamp."""


def stamp(path: Path) -> list[int] | None:
    """Fingerprint of a file, or of which files are in a folder: inode, size, mtime and ctime in ns.

    None if the path does not exist. Two changes within one tick of the file system's clock look like one.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def is_settled(stamp: list[int], clock: Clock) -> bool:
    """Whether the last change is old enough that any further change alters the stamp."""
    return max(stamp[-2:]) / 1e9 <= clock.host_now() - _CLOCK_GRAIN_SECONDS


def read_names(folder: Path, known: FolderNames | None, *, ignored: Sequence[str], clock: Clock) -> FolderNames | None:
    """The names of the files now in the folder; none if it does not exist. None if it cannot be listed.

    The folder is not listed if `known` is trusted and has the same stamp. Names that end in one of `ignored` do not
    count; if there are any, neither do those that begin with a dot.
    """
    now = stamp(folder)
    if known is not None and known.trusted and known.stamp == now:
        return known
    before = None if known is None else known.stamp
    if now is None:
        return FolderNames(0, before, trusted=False)
    try:
        checksum = _checksum(folder, tuple(ignored))
    except OSError:
        return None
    if not is_settled(now, clock):
        return FolderNames(checksum, before, trusted=False)
    # Some network file systems do not update a folder's times, so a stamp is trusted only once it has changed.
    return FolderNames(checksum, now, trusted=known is not None and before != now)


def _checksum(folder: Path, ignored: tuple[str, ...]) -> int:
    """The sum over the names, since folders are not listed in a stable order."""
    with os.scandir(folder) as entries:
        return sum(
            _name_checksum(entry.name)
            for entry in entries
            if not (ignored and (entry.name[0] == "." or entry.name.endswith(ignored)))
            if not entry.is_dir(follow_symlinks=False)
        )


def _name_checksum(name: str) -> int:
    # Squared, because CRCs are linear: the sums of two pairs of similar names could be equal.
    return zlib.crc32(os.fsencode(name)) ** 2


class AddedNames:
    """The names of files added to folders, by their checksums. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.checksums: dict[str, int] = {}
        """By folder, as its path was passed to `add`."""

    def add(self, folder: str, name: str) -> None:
        """A file with this name has been added to the folder, which had none."""
        with self._lock:
            self.checksums[folder] = self.checksums.get(folder, 0) + _name_checksum(name)
