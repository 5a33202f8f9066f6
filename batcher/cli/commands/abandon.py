"""`batcher abandon`: give up items that ended badly."""

from __future__ import annotations

from typing import Any

import anyio
import click

from batcher.cli.ledger_path import find_ledger
from batcher.cli.options import ledger_options, option
from batcher.clock import Clock
from batcher.errors import UsageError
from batcher.item import State
from batcher.ledger.ledger import open_ledger, open_readonly
from batcher.ledger.lifecycle import decisions
from batcher.ledger.queries import names
from batcher.ledger.storage.lock import owner_lock
from batcher.maintenance.decisions import ENDED_BADLY, settle


@click.command()
@click.argument("arguments", nargs=-1, metavar="[ID...]")
@option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([str(state) for state in ENDED_BADLY]),
    help="Only items in this state; without IDs, all of them.",
)
@option("--batch", metavar="NAME", help="Only items of this batch.")
@ledger_options
@click.pass_context
def abandon(
    ctx: click.Context, /, arguments: tuple[str, ...], states: tuple[str, ...], batch: str | None, **_: Any
) -> None:
    """Give up items that were rejected, failed or are gone. Creates nothing.

    ID is a row's id or the beginning of an item's key. A run then counts these rows as settled, so it can exit with 0
    again. `batcher retry` takes an abandoned item up again. To give up an item in doubt, use `batcher resolve`.
    """
    path, ids = find_ledger(ctx, arguments)
    if not ids and not states:
        raise click.UsageError("name items by ID, or pass --state", ctx)
    chosen = [state for state in ENDED_BADLY if not states or state in states]
    with open_readonly(path) as conn:
        if batch is not None:
            names.need_rows(conn, ids, batch=batch)
        keys = names.find_keys(conn, ids, states=chosen, batch=batch)
        in_doubt = names.find_keys(conn, ids, states=[State.IN_DOUBT], batch=batch) if ids else []
    if not keys:
        hint = "To give up an item in doubt, use `batcher resolve --abandon`." if in_doubt else ""
        allowed = " or ".join(states or map(str, ENDED_BADLY))
        raise UsageError(
            f"nothing to abandon: no matching item is {allowed}", hint or "`batcher show` lists items by state."
        )
    with owner_lock(path), open_ledger(path) as ledger:
        outcome = "abandoned; `batcher retry` takes it up again"
        for line in anyio.run(settle, ledger, Clock(), keys, decisions.abandon, outcome):
            click.echo(line)
