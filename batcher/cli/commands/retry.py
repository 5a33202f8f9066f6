"""`batcher retry`: retry failed items."""

from __future__ import annotations

from typing import Any

import anyio
import click

from batcher.cli.api_options import api_options, api_settings
from batcher.cli.decisions import chosen_items, item_options, print_outcomes
from batcher.cli.json_output import JsonCommand
from batcher.cli.options import json_option
from batcher.maintenance import operations
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
    path, choice = chosen_items(ctx)
    print_outcomes(ctx, anyio.run(operations.retry, api_settings(ctx, path), choice))
