"""`batcher ledger`: looking after the ledger's file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click

from batcher.cli.options import find_ledger, ledger_options


@click.group()
def ledger() -> None:
    """Look after the ledger's file."""


@ledger.command()
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@ledger_options
@click.pass_context
def upgrade(ctx: click.Context, /, manifest: tuple[str, ...], **_: Any) -> None:
    """Bring an older ledger up to date, after a backup beside it. The next run would do the same. Creates nothing."""
    from batcher.ledger.storage import database
    from batcher.ledger.storage.lock import owner_lock

    path, _rest = find_ledger(ctx, manifest)
    if not database.needs_upgrade(path):
        click.echo(f"{path} is up to date")
        return
    with owner_lock(path):
        backup = database.upgrade(path)
    click.echo(f"{path} is up to date; as it was, it is kept in {backup}")


@ledger.command()
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@ledger_options
@click.pass_context
def backup(ctx: click.Context, /, target: Path, manifest: tuple[str, ...], **_: Any) -> None:
    """Copy the ledger to FILE, also while a run is at work. Creates nothing.

    The copy knows that it is one: what was bought after it was made is not in it, so the first run on it wants
    --restored.
    """
    from batcher.ledger.storage import database

    path, _rest = find_ledger(ctx, manifest)
    database.back_up(path, target)
    click.echo(f"{path} is copied to {target}")


@ledger.command()
@click.argument("results", nargs=-1, required=True, metavar="RESULTS...", type=click.Path(path_type=Path))
@ledger_options
@click.pass_context
def recover(ctx: click.Context, /, results: tuple[Path, ...], **_: Any) -> None:
    """Tell the ledger what results files (BATCH.results.jsonl) say is bought. Creates nothing.

    The next run that imports their rows takes over tasks, and audio that lies where the files say, instead of creating
    them again.
    """
    from batcher.clock import Clock
    from batcher.formatting import counted
    from batcher.ledger.ledger import open_ledger
    from batcher.ledger.lifecycle import restored_rows
    from batcher.ledger.storage.lock import owner_lock
    from batcher.pipeline import restore

    path, _rest = find_ledger(ctx, ())
    with owner_lock(path), open_ledger(path) as ledger:
        lines = restore.read_results(results, path.parent)
        number = anyio.run(partial(ledger.do, restored_rows.add, lines, at=Clock().now()))
    click.echo(f"noted: {counted(number, 'row')} that may be bought; the next run takes up what they tell")
