"""`batcher retake`: another output of the same inputs."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import anyio
import click

from batcher.cli.options import find_ledger, ledger_options, option
from batcher.clock import Clock
from batcher.ledger import deciding, reading
from batcher.ledger.ledger import Connection, Ledger, opened, viewed
from batcher.ledger.lock import owner_lock
from batcher.ledger.recalling import identity
from batcher.marks import Mark, read_marks


@click.command()
@click.argument("names", nargs=-1, metavar="ID...")
@option("--batch", metavar="NAME", help="Only rows of this batch.")
@click.option(
    "--marks",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Rows that were marked “retake” on a page of `report`, as it exported them.",
)
@ledger_options
@click.pass_context
def retake(ctx: click.Context, /, names: tuple[str, ...], batch: str | None, marks: Path | None, **_: Any) -> None:
    """Have another output of done rows created beside the first. The next run charges for it.

    ID is a row's id, or the beginning of an item's key for all rows that share it. The row stands for the new take from
    now on; its file is named like the first with `.take2` before the ending, and the first stays where it is. A `take`
    in the manifest itself wins over this.

    With --marks, the rows are those of the file. A row that stands for another take by now than the one that was heard
    is left alone, so that a file given twice buys nothing twice.
    """
    path, ids = find_ledger(ctx, names)
    if bool(ids) == (marks is not None):
        raise click.UsageError("name rows, or a file with --marks", ctx)
    with viewed(path) as conn:
        if marks is None:
            rows = reading.find_rows(conn, ids, batch=batch)
        else:
            marked = read_marks(marks, identity(conn).ledger_id)
            rows, stale = _marked(conn, [mark for mark in marked if batch in (None, mark.batch)])
            for mark in stale:
                click.echo(f"{mark.id} of {mark.batch}  does not stand for what was heard any more: left alone")
    with owner_lock(path), opened(path) as ledger:
        for line in anyio.run(_retake, ledger, rows):
            click.echo(line)


def _marked(conn: Connection, marks: list[Mark]) -> tuple[list[tuple[int, str, str]], list[Mark]]:
    """The rows that still stand for what was heard, as `_retake` takes them, and the marks of the others."""
    found, stale = [], []
    for mark in marks:
        batch_id = reading.row_with(conn, mark.batch, mark.id, mark.key)
        if batch_id is None:
            stale.append(mark)
        else:
            found.append((batch_id, mark.batch, mark.id))
    return found, stale


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
