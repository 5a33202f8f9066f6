"""What a run needs before it begins: its input, and an up-to-date ledger."""

from __future__ import annotations

from batcher.errors import UsageError
from batcher.ledger.storage import database
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from batcher.reports.observer import Observer
from batcher.settings import Settings, Source


def open_manifest(source: Source, rules: Rules) -> Manifest:
    """The manifest of a source, to be read from its beginning by these rules."""
    if source.content is not None:
        source.content.seek(0)
    return Manifest(source.path, rules, stdin=source.content, name=source.title)


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


def ready_ledger(settings: Settings, progress: Observer) -> bool:
    """Create the ledger, or migrate it to this version. Returns whether it is new. The caller holds the lock."""
    if not settings.ledger.exists():
        database.create(settings.ledger, settings.world)
        return True
    database.set_stray_journal_aside(settings.ledger)
    if database.needs_upgrade(settings.ledger):
        backup = database.upgrade(settings.ledger)
        progress.say(f"upgraded the ledger; the previous version is in {backup}")
    return False
