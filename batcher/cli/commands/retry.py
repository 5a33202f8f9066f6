"""`batcher retry`: another try for what ended badly."""

from __future__ import annotations

from typing import Any

import click

from batcher.cli.decisions import api_options, decide
from batcher.cli.options import find_ledger, option
from batcher.errors import UsageError
from batcher.ledger.ledger import open_readonly
from batcher.ledger.queries import names
from batcher.maintenance.decisions import SETTLED_BY_RETRY


@click.command()
@click.argument("arguments", nargs=-1, metavar="[ID...]")
@option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([str(state) for state in SETTLED_BY_RETRY]),
    help="All items in this state.",
)
@option("--batch", metavar="NAME", help="Only items of this batch.")
@api_options
@click.pass_context
def retry(
    ctx: click.Context, /, arguments: tuple[str, ...], states: tuple[str, ...], batch: str | None, **_: Any
) -> None:
    """Have items that ended badly created again. The next run charges for them.

    Each is named by a row's id or the beginning of its key, or with --state all of a kind are taken. If an item still
    has a task, that is read first: when it ended well after all, it is collected and not created again.
    """
    path, ids = find_ledger(ctx, arguments)
    if not ids and not states:
        raise click.UsageError("name the items, or a --state", ctx)
    chosen = [state for state in SETTLED_BY_RETRY if not states or state in states]
    with open_readonly(path) as conn:
        if batch is not None:
            names.need_rows(conn, ids, batch=batch)
        keys = names.find_keys(conn, ids, states=chosen, batch=batch)
    if not keys:
        wanted = " or ".join(states or map(str, SETTLED_BY_RETRY))
        raise UsageError(f"none of them is {wanted}: nothing to retry", "`batcher show` tells how items stand.")
    for line in decide(ctx, path, lambda decisions: decisions.retry(keys)):
        click.echo(line)
