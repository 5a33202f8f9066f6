"""What a run needs before it begins: its input, and an up-to-date ledger."""

from __future__ import annotations

import shutil
import sys
import tempfile
from typing import BinaryIO

from batcher.errors import StorageError, UsageError
from batcher.ledger.storage import database
from batcher.reports.progress import Progress
from batcher.settings import Settings


def spool() -> BinaryIO:
    """Read standard input to its end into a temporary file, before the run takes the lock.

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


def need_manifests(settings: Settings) -> None:
    """Check that the manifests exist, so that a mistyped name does not create a ledger.

    Raises:
        UsageError: one does not exist, or is no file.
    """
    for source in settings.sources:
        if source.path is None or source.path.is_file():
            continue
        if source.path.exists():
            hint = "Nothing was created. To read a pipe, pass - and redirect it: `batcher run - < PIPE`."
            raise UsageError(f"{source.path} is not a regular file", hint)
        raise UsageError(f"file not found: {source.path}", "Nothing was created.")


def ready_ledger(settings: Settings, progress: Progress) -> bool:
    """Create the ledger, or migrate it to this version. Returns whether it is new. The caller holds the lock."""
    if not settings.ledger.exists():
        database.create(settings.ledger, settings.world)
        return True
    database.set_stray_journal_aside(settings.ledger)
    if database.needs_upgrade(settings.ledger):
        backup = database.upgrade(settings.ledger)
        progress.say(f"upgraded the ledger; the previous version is in {backup}")
    return False
