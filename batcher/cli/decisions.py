"""Arguments and output of the commands that decide about items: `retry`, `abandon`, `resolve`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batcher.address import Address
from batcher.cli.json_output import reply
from batcher.cli.ledger_path import find_ledger
from batcher.cli.options import option
from batcher.formatting import counted
from batcher.item import State

if TYPE_CHECKING:
    from batcher.maintenance.decisions import Outcome
    from batcher.maintenance.operations import Choice

F = TypeVar("F", bound=Callable[..., Any])


def item_options(states: Sequence[State]) -> Callable[[F], F]:
    """Add the argument `ID...`, and `--state` for these states and `--batch`."""

    def add(command: F) -> F:
        command = option("--batch", metavar="NAME", help="Only items of this batch.")(command)
        command = option(
            "--state",
            "states",
            multiple=True,
            type=click.Choice([str(state) for state in states]),
            help="Only items in this state; without IDs, all of them.",
        )(command)
        return click.argument("arguments", nargs=-1, metavar="[ID...]")(command)

    return add


def chosen_items(ctx: click.Context) -> tuple[Address, Choice]:
    """The ledger's path, and the items that `item_options` choose."""
    from batcher.maintenance.operations import Choice

    path, ids = find_ledger(ctx, ctx.params["arguments"])
    states = [State(name) for name in ctx.params["states"]]
    return path, Choice(ids=ids or None, states=states, batch=ctx.params["batch"])


def print_outcomes(ctx: click.Context, outcomes: Sequence[Outcome]) -> None:
    """Print what was decided, item by item."""
    if ctx.params["as_json"]:
        changed = sum(one.changed for one in outcomes)
        message = f"{changed:,} of {counted(len(outcomes), 'item')} changed"
        reply(ctx, message, outcomes=[asdict(one) for one in outcomes])
        return
    for one in outcomes:
        click.echo(one.line())
