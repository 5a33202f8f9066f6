"""`batcher abandon`: give up items that ended badly."""

from __future__ import annotations

from typing import Any

import anyio
import click

from batcher.cli.api_options import ledger_settings
from batcher.cli.decisions import chosen_items, item_options, print_outcomes
from batcher.cli.json_output import JsonCommand
from batcher.cli.options import json_option, ledger_options
from batcher.maintenance import operations
from batcher.maintenance.decisions import ENDED_BADLY


@click.command(cls=JsonCommand)
@item_options(ENDED_BADLY)
@ledger_options
@json_option
@click.pass_context
def abandon(ctx: click.Context, /, **_: Any) -> None:
    """Give up items that were rejected, failed or are gone. Creates nothing.

    ID is a row's id or the beginning of an item's key. A run then counts these rows as settled, so it can exit with 0
    again. `batcher retry` takes an abandoned item up again. To give up an item in doubt, use `batcher resolve`.
    """
    path, choice = chosen_items(ctx)
    print_outcomes(ctx, anyio.run(operations.abandon, ledger_settings(path), choice))
