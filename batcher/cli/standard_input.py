"""A manifest on standard input, which is read before a run takes its lock."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from typing import BinaryIO

from batcher.errors import StorageError, UsageError
from batcher.settings import Settings


def with_standard_input(found: Settings) -> Settings:
    """The settings, with standard input read to its end into a temporary file if it is one of the manifests.

    Raises:
        UsageError: standard input is closed.
        StorageError: the temporary file cannot be written.
    """
    if all(source.path is not None for source in found.sources):
        return found
    content = _spool()
    sources = (source if source.path is not None else replace(source, content=content) for source in found.sources)
    return replace(found, sources=tuple(sources))


def _spool() -> BinaryIO:
    """Read standard input to its end into a temporary file.

    Raises:
        UsageError: standard input is closed.
        StorageError: the temporary file cannot be written.
    """
    if sys.stdin is None:
        raise UsageError("standard input is closed", "Pipe JSONL into it, or name a manifest file.")
    try:
        spooled = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the run
        shutil.copyfileobj(sys.stdin.buffer, spooled)
        spooled.seek(0)
    except OSError as error:
        hint = "Free some space for temporary files, or set TMPDIR to another folder."
        raise StorageError(f"cannot store standard input in a temporary file: {error.strerror}", hint) from error
    return spooled
