"""`batcher abandon`: give up items that ended badly."""

from __future__ import annotations

from typing import Any

import anyio
import click

from batcher.cli.item_choice import choose_items, item_options
from batcher.cli.json_output import JsonCommand
from batcher.cli.locked_ledger import print_outcomes
from batcher.cli.options import json_option, ledger_options
from batcher.clock import Clock
from batcher.item import State
from batcher.ledger.ledger import open_ledger
from batcher.ledger.lifecycle import decisions
from batcher.ledger.storage.lock import owner_lock
from batcher.maintenance.decisions import ENDED_BADLY, settle


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
    hint = "`batcher show` lists items by state; `batcher resolve --abandon` gives up one in doubt."
    path, keys = choose_items(ctx, "abandon", ENDED_BADLY, hint)
    with owner_lock(path), open_ledger(path) as ledger:
        message = "abandoned; `batcher retry` takes it up again"
        outcomes = anyio.run(settle, ledger, Clock(), keys, decisions.abandon, State.ABANDONED, message)
    print_outcomes(ctx, outcomes)
