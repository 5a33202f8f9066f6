"""The ledger's version, its integrity, and whether it agrees with itself."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batcher.doctor.finding import Finding, hint, ok, problem
from batcher.errors import BatcherError, TroubleError
from batcher.formatting import counted
from batcher.item import State
from batcher.ledger.ledger import Connection, open_readonly, world_of
from batcher.ledger.queries import integrity, names
from batcher.ledger.storage import database
from batcher.ledger.storage.schema import REVISION
from batcher.settings import Settings

_RESTORE: Final = "Put a backup in its place and run with --restored; keep this one."


def examine(settings: Settings) -> list[Finding]:
    """Look into the ledger, which a run may be working on."""
    path = settings.ledger
    if not path.exists():
        return [ok("ledger", f"there is none yet at {path}: the first run makes it")]
    try:
        if database.needs_upgrade(path):
            message = f"{path} is of an older version"
            return [hint("ledger", message, "The next run, or `batcher ledger upgrade`, backs it up and migrates it.")]
        with open_readonly(path) as conn:
            return _look(conn, path, settings.world)
    except TroubleError as error:
        return [problem("ledger", error.message, error.hint, passing=True)]
    except BatcherError as error:
        return [problem("ledger", error.message, error.hint)]


def _look(conn: Connection, path: Path, world: str) -> list[Finding]:
    broken = integrity.damage(conn)
    if broken:
        return [problem("integrity", f"{path} is damaged: {line}", _RESTORE) for line in broken]
    if (theirs := world_of(conn)) != world:
        message = f"{path} belongs to the {theirs} world"
        return [problem("ledger", message, "Add --sandbox, leave it out, or name another with --ledger.")]
    found = [ok("ledger", f"{path} has the version {REVISION} that this batcher writes, and is whole")]
    for one in integrity.inconsistencies(conn):
        message = f"{one.number:,} {one.description}: {', '.join(name[:16] for name in one.examples)}"
        do = (
            "`batcher show` tells their stories; please report this. Until then keep a backup: `batcher ledger backup`."
        )
        found.append(problem("consistency", message, do))
    if len(found) == 1:
        found.append(ok("consistency", "states, creates, tasks, files and events agree"))
    if in_doubt := names.find_keys(conn, (), states=[State.IN_DOUBT]):
        message = f"{counted(len(in_doubt), 'create')} in doubt: whether it was bought is not known"
        found.append(hint("doubt", message, "`batcher resolve` lists what is known of each, and settles it."))
    return found
