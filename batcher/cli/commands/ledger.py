"""`batcher ledger`: upgrade, back up or recover a ledger."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click

from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.ledger_path import find_ledger
from batcher.cli.options import json_option, ledger_options


@click.group()
def ledger() -> None:
    """Upgrade, back up or recover a ledger."""


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
    _print(ctx, f"Upgraded {path}; the previous version is in {backup}", ledger=str(path), backup=str(backup))


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
    from batcher.ledger.storage import database

    path, _rest = find_ledger(ctx, manifest)
    database.back_up(path, target)
    _print(ctx, f"Copied {path} to {target}", ledger=str(path), backup=str(target.absolute()))


@ledger.command(cls=JsonCommand)
@click.argument("results", nargs=-1, required=True, metavar="RESULTS...", type=click.Path(path_type=Path))
@ledger_options
@json_option
@click.pass_context
def recover(ctx: click.Context, /, results: tuple[Path, ...], **_: Any) -> None:
    """Recover purchases from results files. Creates nothing.

    RESULTS are files that earlier runs wrote, such as BATCH.results.jsonl. The next run that imports their rows reuses
    the tasks and audio files listed there instead of creating them again.
    """
    from batcher.clock import Clock
    from batcher.formatting import counted
    from batcher.ledger.ledger import open_locked
    from batcher.ledger.lifecycle import restored_rows
    from batcher.pipeline import restore

    path, _rest = find_ledger(ctx, ())
    with open_locked(path) as ledger:
        lines = restore.read_results(results, path.parent)
        number = anyio.run(partial(ledger.do, restored_rows.add, lines, at=Clock().now()))
    message = f"Recovered {counted(number, 'row')}; the next run reuses their tasks and audio"
    _print(ctx, message, ledger=str(path), rows=number)


def _print(ctx: click.Context, message: str, **data: Any) -> None:
    if ctx.params["as_json"]:
        reply(ctx, message, **data)
    else:
        click.echo(message)
