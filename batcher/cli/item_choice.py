"""The items that a command is about: chosen by id, state and batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from batcher.cli.ledger_path import find_ledger
from batcher.cli.options import option
from batcher.errors import UsageError
from batcher.item import State

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


def choose_items(ctx: click.Context, verb: str, permitted: Sequence[State], hint: str) -> tuple[Path, list[str]]:
    """The ledger's path, and the keys of the items that `item_options` choose, of those in a permitted state.

    `verb` and `hint` are for the error if there are none.

    Raises:
        click.UsageError: neither items nor states are named.
        UsageError: no item matches.
    """
    from batcher.ledger.ledger import open_readonly
    from batcher.ledger.queries import names

    states, batch = ctx.params["states"], ctx.params["batch"]
    path, ids = find_ledger(ctx, ctx.params["arguments"])
    if not ids and not states:
        raise click.UsageError("name items by ID, or pass --state", ctx)
    chosen = [state for state in permitted if not states or state in states]
    with open_readonly(path) as conn:
        if batch is not None:
            names.need_rows(conn, ids, batch=batch)
        keys = names.find_keys(conn, ids, states=chosen, batch=batch)
    if not keys:
        allowed = " or ".join(states or map(str, permitted))
        raise UsageError(f"nothing to {verb}: no matching item is {allowed}", hint)
    return path, keys
