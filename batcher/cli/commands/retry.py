"""`batcher retry`: retry failed items."""

from __future__ import annotations

from typing import Any

import click

from batcher.cli.api_options import api_options
from batcher.cli.item_choice import choose_items, item_options
from batcher.cli.json_output import JsonCommand
from batcher.cli.locked_ledger import decide, print_outcomes
from batcher.cli.options import json_option
from batcher.maintenance.decisions import SETTLED_BY_RETRY


@click.command(cls=JsonCommand)
@item_options(SETTLED_BY_RETRY)
@api_options
@json_option
@click.pass_context
def retry(ctx: click.Context, /, **_: Any) -> None:
    """Retry failed items. The next run creates and charges for them.

    For items that were rejected, failed, gone or abandoned. ID is a row's id or the beginning of an item's key. If an
    item still has a task, the API is asked about it first: a task that succeeded after all is collected instead.
    """
    path, keys = choose_items(ctx, "retry", SETTLED_BY_RETRY, "`batcher show` lists items by state.")
    print_outcomes(ctx, decide(ctx, path, lambda decisions: decisions.retry(keys)))
