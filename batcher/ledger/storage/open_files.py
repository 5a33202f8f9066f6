"""The databases that this process has open.

Closing any descriptor of a file releases all locks that the process holds on it, those of SQLite too: another process
could then take a ledger in use for one that nobody uses, and delete its journal. So nothing but SQLite may open the
file of a ledger while this process has it open.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from pathlib import Path
from typing import Final

from batcher import files

_guard: Final = threading.Lock()
_open: Final[Counter[tuple[int, int]]] = Counter()


class TrackedConnection(sqlite3.Connection):
    """A connection that counts as open from `track` until it is closed."""

    _file: tuple[int, int] | None = None

    def track(self, path: Path) -> None:
        """Count the database at `path` as open."""
        with _guard:
            self._file = _identity(path)
            _open[self._file] += 1

    def close(self) -> None:
        """Close the connection."""
        super().close()
        with _guard:
            if self._file is not None:
                _open[self._file] -= 1
            self._file = None


def beginning(path: Path, size: int) -> bytes | None:
    """The first `size` bytes of the file. None if this process has it open as a database.

    Raises:
        OSError: it cannot be read.
    """
    with _guard:
        if _open[_identity(path)]:
            return None
        with files.reading(path) as file:
            return file.read(size)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
