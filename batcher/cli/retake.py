"""`batcher retake`: another output of the same inputs."""

from __future__ import annotations

import getpass
from typing import Any

import anyio
import click

from batcher.cli.options import find_ledger, ledger_options, option
from batcher.clock import Clock
from batcher.ledger import deciding, reading
from batcher.ledger.ledger import Ledger, opened, viewed
from batcher.ledger.lock import owner_lock


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="ID...")
@option("--batch", metavar="NAME", help="Only rows of this batch.")
@ledger_options
@click.pass_context
def retake(ctx: click.Context, /, names: tuple[str, ...], batch: str | None, **_: Any) -> None:
    """Have another output of done rows created beside the first. The next run charges for it.

    ID is a row's id, or the beginning of an item's key for all rows that share it. The row stands for the new take from
    now on; its file is named like the first with `.take2` before the ending, and the first stays where it is. A `take`
    in the manifest itself wins over this.
    """
    path, ids = find_ledger(ctx, names)
    with viewed(path) as conn:
        rows = reading.find_rows(conn, ids, batch=batch)
    with owner_lock(path), opened(path) as ledger:
        for line in anyio.run(_retake, ledger, rows):
            click.echo(line)


async def _retake(ledger: Ledger, rows: list[tuple[int, str, str]]) -> list[str]:
    lines = []
    for batch_id, batch, row_id in rows:
        at, who = Clock().now(), getpass.getuser()
        made = await ledger.do(deciding.retake, batch_id, row_id, at=at, who=who)
        lines.append(f"{row_id} of {batch}  {_words(made)}")
    return lines


def _words(made: tuple[int, bool] | None) -> str:
    if made is None:
        return "is not done: left alone"
    take, to_buy = made
    return f"take {take}: " + ("created by the next run, and paid for" if to_buy else "another row has it: linked")
