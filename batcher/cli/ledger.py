"""`batcher ledger`: looking after the ledger's file."""

from __future__ import annotations

from typing import Any

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
    from batcher.ledger import database
    from batcher.ledger.lock import owner_lock

    path, _rest = find_ledger(ctx, manifest)
    if not database.needs_upgrade(path):
        click.echo(f"{path} is up to date")
        return
    with owner_lock(path):
        backup = database.upgrade(path)
    click.echo(f"{path} is up to date; as it was, it is kept in {backup}")
