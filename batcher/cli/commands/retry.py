"""`batcher retry`: retry failed items."""

from __future__ import annotations

from typing import Any

import click

from batcher.cli.api_options import api_options
from batcher.cli.ledger_path import find_ledger
from batcher.cli.locked_ledger import decide
from batcher.cli.options import option
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
    help="Only items in this state; without IDs, all of them.",
)
@option("--batch", metavar="NAME", help="Only items of this batch.")
@api_options
@click.pass_context
def retry(
    ctx: click.Context, /, arguments: tuple[str, ...], states: tuple[str, ...], batch: str | None, **_: Any
) -> None:
    """Retry failed items. The next run creates and charges for them.

    For items that were rejected, failed, gone or abandoned. ID is a row's id or the beginning of an item's key. If an
    item still has a task, the API is asked about it first: a task that succeeded after all is collected instead.
    """
    path, ids = find_ledger(ctx, arguments)
    if not ids and not states:
        raise click.UsageError("name items by ID, or pass --state", ctx)
    chosen = [state for state in SETTLED_BY_RETRY if not states or state in states]
    with open_readonly(path) as conn:
        if batch is not None:
            names.need_rows(conn, ids, batch=batch)
        keys = names.find_keys(conn, ids, states=chosen, batch=batch)
    if not keys:
        allowed = " or ".join(states or map(str, SETTLED_BY_RETRY))
        raise UsageError(f"nothing to retry: no matching item is {allowed}", "`batcher show` lists items by state.")
    for line in decide(ctx, path, lambda decisions: decisions.retry(keys)):
        click.echo(line)
