"""Checks the ledger: its version, its integrity, its consistency, and creates in doubt."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batcher.address import Address
from batcher.clock import local
from batcher.doctor.finding import Finding, hint, ok, problem
from batcher.errors import BatcherError, LedgerError, TroubleError
from batcher.formatting import amount, counted
from batcher.item import State
from batcher.ledger.ledger import Connection, open_readonly, world_of
from batcher.ledger.lifecycle import halts
from batcher.ledger.money import spending
from batcher.ledger.queries import integrity, item_counts, names
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.records import Halt
from batcher.ledger.storage import access, database
from batcher.ledger.storage.schema import REVISION
from batcher.ledger.storage.server_health import server_health
from batcher.settings import Settings

_MAX_DEAD_SHARE: Final = 0.3
_MAX_TRANSACTION_SECONDS: Final = 600.0


def check_ledger(settings: Settings) -> list[Finding]:
    """Check the ledger, which a run may be using."""
    path = settings.ledger
    try:
        if not database.exists(path):
            return [ok("ledger", f"there is no ledger at {path} yet; the first run creates it")]
        if isinstance(path, Path):
            access.check_files(path, readonly=False)
        if database.needs_upgrade(path):
            message = f"{path} was written by an older version of batcher"
            return [hint("ledger", message, "The next run, or `batcher ledger upgrade`, backs it up and migrates it.")]
        with open_readonly(path) as conn:
            return _check_content(conn, path, settings.world)
    except OSError as error:
        return [problem("ledger", f"cannot read {error.filename}: {error.strerror}", "Check its folder's permissions.")]
    except BatcherError as error:
        passing = isinstance(error, TroubleError) and not isinstance(error, LedgerError)  # damage does not pass
        return [problem("ledger", error.message, error.hint, passing=passing)]


def _check_content(conn: Connection, path: Address, world: str) -> list[Finding]:
    if damage := integrity.damage(conn):
        action = "Replace it with a backup and run with --restored; keep the damaged file."
        return [problem("integrity", f"{path} is damaged: {line}", action) for line in damage]
    if (actual := world_of(conn)) != world:
        action = "Add --sandbox" if actual == "sandbox" else "Leave out --sandbox"
        return [problem("ledger", f"{path} belongs to the {actual} world", f"{action}, or choose another --ledger.")]
    version = ok("ledger", f"{path} is intact and up to date (version {REVISION})")
    return [version, *_check_server(conn), *_check_consistency(conn), *_check_halts(conn), *_check_doubts(conn)]


def _check_server(conn: Connection) -> list[Finding]:
    """Check the server of a ledger that is on one. Opening it has checked what a run cannot do without."""
    health = server_health(conn)
    if health is None:
        return []
    found = [ok("server", f"PostgreSQL {health.version}, synchronous_commit={health.synchronous_commit}")]
    if health.dead_share > _MAX_DEAD_SHARE:
        message = f"{health.dead_share:.0%} of the table {health.dead_table} are old versions of rows"
        found.append(hint("server", message, "Runs get slower: check that autovacuum is on, or VACUUM the table."))
    if health.oldest_transaction_seconds > _MAX_TRANSACTION_SECONDS:
        message = f"a transaction has been open for {health.oldest_transaction_seconds / 60:,.0f} min"
        found.append(
            hint("server", message, "End its session: the server cannot remove old versions of rows meanwhile.")
        )
    return found


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


def _check_halts(conn: Connection) -> list[Finding]:
    """Why runs create nothing at present, and what that takes to change."""
    found = []
    for halt in halts.open_halts(conn):
        message = f"halted since {local(halt.since_at)}: {halt.detail}"
        if halt.kind == "credits":
            action = "Top up the API credits (membership credits are separate), and the next run continues."
            found.append(problem("halt", f"{message}; {_needed(conn, halt)}", action))
        else:
            action = f"A run after {local(halt.probe_after_at)} tries again with one create; see `batcher resolve`."
            found.append(problem("halt", message, action, passing=True))
    return found


def _needed(conn: Connection, halt: Halt) -> str:
    """The balance at the halt, and the estimated credits for the next item and for all that are to be created."""
    wanted = current_batches(conn)
    left = "unknown balance then" if halt.balance is None else f"{amount(halt.balance)} credits left then"
    following, every = spending.next_need(conn, wanted), spending.estimated_need(conn, wanted)
    if following is None or every is None:
        return f"{left}, and the cost of the next item is unknown"
    items = counted(item_counts.count(conn, wanted).states[State.PENDING], "item")
    return f"{left}; the next item needs about {amount(following)}, all {items} to go about {amount(every)}"


def _check_doubts(conn: Connection) -> list[Finding]:
    in_doubt = names.find_keys(conn, (), states=[State.IN_DOUBT])
    if not in_doubt:
        return []
    message = f"{counted(len(in_doubt), 'create')} in doubt (may have been bought)"
    return [hint("doubt", message, "`batcher resolve` lists the evidence for each, and settles it.")]
