"""Checks the ledger: its version, its integrity, its consistency, and creates in doubt."""

from __future__ import annotations

from pathlib import Path

from batcher.doctor.finding import Finding, hint, ok, problem
from batcher.errors import BatcherError, TroubleError
from batcher.formatting import counted
from batcher.item import State
from batcher.ledger.ledger import Connection, open_readonly, world_of
from batcher.ledger.queries import integrity, names
from batcher.ledger.storage import access, database
from batcher.ledger.storage.schema import REVISION
from batcher.settings import Settings


def check_ledger(settings: Settings) -> list[Finding]:
    """Check the ledger, which a run may be using."""
    path = settings.ledger
    try:
        if not path.exists():
            return [ok("ledger", f"there is no ledger at {path} yet; the first run creates it")]
        access.check_files(path, readonly=False)
        if database.needs_upgrade(path):
            message = f"{path} was written by an older version of batcher"
            return [hint("ledger", message, "The next run, or `batcher ledger upgrade`, backs it up and migrates it.")]
        with open_readonly(path) as conn:
            return _check_content(conn, path, settings.world)
    except OSError as error:
        return [problem("ledger", f"cannot read {error.filename}: {error.strerror}", "Check its folder's permissions.")]
    except BatcherError as error:
        return [problem("ledger", error.message, error.hint, passing=isinstance(error, TroubleError))]


def _check_content(conn: Connection, path: Path, world: str) -> list[Finding]:
    if damage := integrity.damage(conn):
        action = "Replace it with a backup and run with --restored; keep the damaged file."
        return [problem("integrity", f"{path} is damaged: {line}", action) for line in damage]
    if (actual := world_of(conn)) != world:
        action = "Add --sandbox" if actual == "sandbox" else "Leave out --sandbox"
        return [problem("ledger", f"{path} belongs to the {actual} world", f"{action}, or choose another --ledger.")]
    version = ok("ledger", f"{path} is intact and up to date (version {REVISION})")
    return [version, *_check_consistency(conn), *_check_doubts(conn)]


def _check_consistency(conn: Connection) -> list[Finding]:
    found = []
    for one in integrity.inconsistencies(conn):
        message = f"{one.number:,} {one.description}: {', '.join(name[:16] for name in one.examples)}"
        action = (
            "Please report this; `batcher show` has their history. "
            "Until it is resolved, keep a backup: `batcher ledger backup FILE`."
        )
        found.append(problem("consistency", message, action))
    return found or [ok("consistency", "states, creates, tasks, files and events agree")]


def _check_doubts(conn: Connection) -> list[Finding]:
    in_doubt = names.find_keys(conn, (), states=[State.IN_DOUBT])
    if not in_doubt:
        return []
    message = f"{counted(len(in_doubt), 'create')} in doubt (may have been bought)"
    return [hint("doubt", message, "`batcher resolve` lists the evidence for each, and settles it.")]
