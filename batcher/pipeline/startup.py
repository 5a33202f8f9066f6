"""What must be there before a run begins: its input, and a ledger that is up to date."""

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
    """Standard input to its end: whoever writes it may take their time, and nothing waits for them but this.

    Raises:
        UsageError: it is closed.
        StorageError: there is no room for it.
    """
    if sys.stdin is None:
        raise UsageError("standard input is closed", "Pipe JSONL into it, or name a file.")
    try:
        spooled = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the run
        shutil.copyfileobj(sys.stdin.buffer, spooled)
        spooled.seek(0)
    except OSError as error:
        hint = "Free some space for temporary files, or name another folder for them in TMPDIR."
        raise StorageError(f"standard input cannot be kept: {error.strerror}", hint) from error
    return spooled


def need_manifests(settings: Settings) -> None:
    """A name that was mistyped must not make a ledger; where there is one, its tasks are collected all the same."""
    for source in settings.sources:
        if source.path is not None and not source.path.is_file():
            raise UsageError(f"there is no manifest {source.path}", "Nothing was created.")


def ready_ledger(settings: Settings, progress: Progress) -> bool:
    """Have an up-to-date ledger where the settings want it. Returns whether it is new. The caller holds the lock."""
    if not settings.ledger.exists():
        database.create(settings.ledger, settings.world)
        return True
    database.set_stray_journal_aside(settings.ledger)
    if database.needs_upgrade(settings.ledger):
        backup = database.upgrade(settings.ledger)
        progress.say(f"the ledger was of an older version and is migrated; as it was, it is kept in {backup}")
    return False
