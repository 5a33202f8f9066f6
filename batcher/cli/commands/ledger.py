"""`batcher ledger`: upgrade, back up, move or recover a ledger."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from batcher.address import Server, home_of
from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.ledger_path import find_ledger
from batcher.cli.options import json_option, ledger_options
from batcher.errors import UsageError
from batcher.settings import ledger_address

if TYPE_CHECKING:
    from batcher.audio.stores import Stores
    from batcher.pipeline.restore import ResultsFile


@click.group()
def ledger() -> None:
    """Upgrade, back up, move or recover a ledger."""


@ledger.command(cls=JsonCommand)
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@ledger_options
@json_option
@click.pass_context
def upgrade(ctx: click.Context, /, manifest: tuple[str, ...], **_: Any) -> None:
    """Upgrade an older ledger to this version. Creates nothing.

    Backs it up beside itself first. The next run would do the same.
    """
    from batcher.ledger.storage import database
    from batcher.ledger.storage.lock import owner_lock

    path, _rest = find_ledger(ctx, manifest)
    if not database.needs_upgrade(path):
        _print(ctx, f"{path} is already up to date", ledger=str(path), backup=None)
        return
    with owner_lock(path):
        backup = database.upgrade(path)
    kept = "" if backup is None else f"; the previous version is in {backup}"
    _print(ctx, f"Upgraded {path}{kept}", ledger=str(path), backup=None if backup is None else str(backup))


@ledger.command(cls=JsonCommand)
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@ledger_options
@json_option
@click.pass_context
def backup(ctx: click.Context, /, target: Path, manifest: tuple[str, ...], **_: Any) -> None:
    """Copy the ledger to FILE, even during a run. Creates nothing.

    The copy is marked as a backup. It lacks later purchases, so its first run needs --restored.
    """
    from batcher.ledger.storage import sqlite

    path, _rest = find_ledger(ctx, manifest)
    if isinstance(path, Server):
        raise UsageError("a ledger on a server is backed up with the server's tools", "For example: pg_dump")
    sqlite.back_up(path, target)
    _print(ctx, f"Copied {path} to {target}", ledger=str(path), backup=str(target.absolute()))


@ledger.command(cls=JsonCommand)
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@json_option
@click.pass_context
def copy(ctx: click.Context, /, source: str, target: str, **_: Any) -> None:
    """Move a ledger between a file and a server. Creates nothing.

    SOURCE and TARGET are paths or URLs as for --ledger. Everything is copied to TARGET, where there must be no ledger
    yet. SOURCE stays, but no run accepts it any more: both together would buy the same rows twice.
    """
    from batcher.formatting import counted
    from batcher.ledger.ledger import blaming_damage
    from batcher.ledger.storage import moving

    here = Path().absolute()
    old, new = (ledger_address(one, here, sandbox=False) for one in (source, target))
    with blaming_damage(old):
        number = moving.move(old, new)
    message = f"Moved {counted(number, 'item')} from {old} to {new}; pass the new address to --ledger from now on"
    _print(ctx, message, source=str(old), ledger=str(new), items=number)


@ledger.command(cls=JsonCommand)
@click.argument("results", nargs=-1, required=True, metavar="RESULTS...")
@ledger_options
@json_option
@click.pass_context
def recover(ctx: click.Context, /, results: tuple[str, ...], **_: Any) -> None:
    """Recover purchases from results files. Creates nothing.

    RESULTS are files that earlier runs wrote, such as BATCH.results.jsonl. The next run that imports their rows reuses
    the tasks and audio files listed there instead of creating them again.
    """
    from batcher.audio.stores import Stores
    from batcher.clock import Clock
    from batcher.formatting import counted
    from batcher.ledger.ledger import open_locked
    from batcher.ledger.lifecycle import restored_rows
    from batcher.pipeline import restore

    path, _rest = find_ledger(ctx, ())
    with open_locked(path) as ledger, tempfile.TemporaryDirectory() as folder:
        lines = restore.read_results(_on_disk(Stores(home_of(path)), results, Path(folder)))
        number = anyio.run(partial(ledger.do, restored_rows.add, lines, at=Clock().now()))
    message = f"Recovered {counted(number, 'row')}; the next run reuses their tasks and audio"
    _print(ctx, message, ledger=str(path), rows=number)


def _on_disk(stores: Stores, names: tuple[str, ...], folder: Path) -> list[ResultsFile]:
    from batcher.pipeline.restore import results_file

    try:
        return [results_file(*stores.file(name), folder) for name in names]
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}", "Check its name.") from error


def _print(ctx: click.Context, message: str, **data: Any) -> None:
    if ctx.params["as_json"]:
        reply(ctx, message, **data)
    else:
        click.echo(message)
