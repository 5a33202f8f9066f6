"""`batcher retry`: retry failed items."""

from __future__ import annotations

from typing import Any

import click

from batcher.cli.api_options import api_options
from batcher.cli.item_choice import choose_items, item_options
from batcher.cli.locked_ledger import decide
from batcher.maintenance.decisions import SETTLED_BY_RETRY


@click.command()
@item_options(SETTLED_BY_RETRY)
@api_options
@click.pass_context
def retry(ctx: click.Context, /, **_: Any) -> None:
    """Retry failed items. The next run creates and charges for them.

    For items that were rejected, failed, gone or abandoned. ID is a row's id or the beginning of an item's key. If an
    item still has a task, the API is asked about it first: a task that succeeded after all is collected instead.
    """
    path, keys = choose_items(ctx, "retry", SETTLED_BY_RETRY, "`batcher show` lists items by state.")
    for line in decide(ctx, path, lambda decisions: decisions.retry(keys)):
        click.echo(line)
