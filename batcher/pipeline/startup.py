"""What a run needs before it begins: its input, and an up-to-date ledger that is its own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from batcher.address import Server
from batcher.clock import Clock
from batcher.errors import LockedError, UsageError
from batcher.ledger.ledger import Ledger, open_ledger
from batcher.ledger.lifecycle import restored_rows
from batcher.ledger.storage import database, sqlite
from batcher.ledger.storage.lock import owner_lock
from batcher.manifest.reader import Manifest, Watch
from batcher.manifest.rules import Rules
from batcher.pipeline.restore import need_consent, settle_own_runs
from batcher.pipeline.stop import StopRequests
from batcher.reports.observer import Observer
from batcher.settings import Settings, Source

_LOCK_SECONDS: Final = 0.1
"""Time between two attempts to take the lock."""
_SERVER_SECONDS: Final = 10.0
"""A run waits at least this long for the lock of a ledger on a server: others take it for a moment, to create it."""


def open_manifest(source: Source, rules: Rules, *, watch: Watch = lambda rows, _: rows) -> Manifest:
    """The manifest of a source, to be read from its beginning by these rules; `watch` sees the rows."""
    if source.content is not None:
        source.content.seek(0)
    return Manifest(source.path, rules, stdin=source.content, name=source.title, watch=watch)


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
    if not database.exists(settings.ledger):
        database.create(settings.ledger, settings.world)
        return True
    if isinstance(settings.ledger, Path):
        sqlite.set_stray_journal_aside(settings.ledger)
    if database.needs_upgrade(settings.ledger):
        backup = database.upgrade(settings.ledger)
        kept = "" if backup is None else f"; the previous version is in {backup}"
        progress.say(f"upgraded the ledger{kept}")
    return False


async def open_owned(
    held: ExitStack, settings: Settings, run_id: str, progress: Observer, clock: Clock, requests: StopRequests
) -> tuple[Ledger, bool]:
    """Take the owner's lock and open the ledger, waiting as long as the settings say, or until a request to stop.

    Returns it, and whether it is outdated.
    """
    patience = _SERVER_SECONDS if isinstance(settings.ledger, Server) else 0.0
    give_up_at = clock.steady() + max(settings.wait_lock_seconds, patience)
    while True:
        try:
            return await _try_open(held, settings, run_id, progress, clock)
        except LockedError:
            if clock.steady() >= give_up_at or requests.any:
                raise
        await clock.sleep(_LOCK_SECONDS)


async def _try_open(
    held: ExitStack, settings: Settings, run_id: str, progress: Observer, clock: Clock
) -> tuple[Ledger, bool]:
    with ExitStack() as attempt:
        attempt.enter_context(owner_lock(settings.ledger, hint="Pass --wait-lock 5m to wait for it."))
        new = await anyio.to_thread.run_sync(ready_ledger, settings, progress)
        await settle_own_runs(settings, progress, clock)
        outdated, alone = await anyio.to_thread.run_sync(need_consent, settings)
        ledger = attempt.enter_context(open_ledger(settings.ledger, settings.world, run_id=run_id, alone=alone))
        if not alone and await ledger.do(restored_rows.due):
            raise LockedError(f"another run has just begun to restore the ledger {settings.ledger}")
        held.push(attempt.pop_all())
    api = f", API {settings.other_api}" if settings.other_api else ""
    progress.say(f"ledger {settings.ledger}{' (NEW)' if new else ''}, output folder {settings.out_dir}{api}")
    return ledger, outdated
