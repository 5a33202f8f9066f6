"""The content of stored files, which may be on disk or in an object store."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from batcher import files
from batcher.audio import objects

TEMPORARY: Final = "batcher-"
"""Beginning of the names of temporary files and folders."""


def digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with files.reading(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(home: Path, location: str) -> str | None:
    """SHA-256 of what is at a location: a URL, or a path relative to `home`. None if there is no file."""
    try:
        with on_disk(home, location) as path:
            return digest(path) if path.is_file() else None
    except FileNotFoundError:
        return None


@contextmanager
def on_disk(home: Path, location: str) -> Iterator[Path]:
    """A file on disk with the content of a location: the file itself, or a temporary copy of an object.

    Raises:
        FileNotFoundError: there is no such object.
    """
    if not files.is_url(location):
        yield home / location
        return
    with tempfile.NamedTemporaryFile(prefix=TEMPORARY) as file:
        objects.download(location, file)
        file.flush()
        yield Path(file.name)
