"""`batcher ledger`: upgrade, back up or recover a ledger."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from batcher.cli.ledger_path import find_ledger
from batcher.cli.options import ledger_options
from batcher.errors import UsageError

if TYPE_CHECKING:
    from batcher.audio.stores import Stores
    from batcher.pipeline.restore import ResultsFile


@click.group()
def ledger() -> None:
    """Upgrade, back up or recover a ledger."""


@ledger.command()
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@ledger_options
@click.pass_context
def upgrade(ctx: click.Context, /, manifest: tuple[str, ...], **_: Any) -> None:
    """Upgrade an older ledger to this version. Creates nothing.

    Backs it up beside itself first. The next run would do the same.
    """
    from batcher.ledger.storage import database
    from batcher.ledger.storage.lock import owner_lock

    path, _rest = find_ledger(ctx, manifest)
    if not database.needs_upgrade(path):
        click.echo(f"{path} is already up to date")
        return
    with owner_lock(path):
        backup = database.upgrade(path)
    click.echo(f"Upgraded {path}; the previous version is in {backup}")


@ledger.command()
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@ledger_options
@click.pass_context
def backup(ctx: click.Context, /, target: Path, manifest: tuple[str, ...], **_: Any) -> None:
    """Copy the ledger to FILE, even during a run. Creates nothing.

    The copy is marked as a backup. It lacks later purchases, so its first run needs --restored.
    """
    from batcher.ledger.storage import database

    path, _rest = find_ledger(ctx, manifest)
    database.back_up(path, target)
    click.echo(f"Copied {path} to {target}")


@ledger.command()
@click.argument("results", nargs=-1, required=True, metavar="RESULTS...")
@ledger_options
@click.pass_context
def recover(ctx: click.Context, /, results: tuple[str, ...], **_: Any) -> None:
    """Recover purchases from results files. Creates nothing.

    RESULTS are files that earlier runs wrote, such as BATCH.results.jsonl. The next run that imports their rows reuses
    the tasks and audio files listed there instead of creating them again.
    """
    from batcher.audio.stores import Stores
    from batcher.clock import Clock
    from batcher.formatting import counted
    from batcher.ledger.ledger import open_ledger
    from batcher.ledger.lifecycle import restored_rows
    from batcher.ledger.storage.lock import owner_lock
    from batcher.pipeline import restore

    path, _rest = find_ledger(ctx, ())
    with owner_lock(path), open_ledger(path) as ledger, tempfile.TemporaryDirectory() as folder:
        lines = restore.read_results(_on_disk(Stores(path.parent), results, Path(folder)))
        number = anyio.run(partial(ledger.do, restored_rows.add, lines, at=Clock().now()))
    click.echo(f"Recovered {counted(number, 'row')}; the next run reuses their tasks and audio")


def _on_disk(stores: Stores, names: tuple[str, ...], folder: Path) -> list[ResultsFile]:
    from batcher.pipeline.restore import results_file

    try:
        return [results_file(*stores.file(name), folder) for name in names]
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}", "Check its name.") from error
