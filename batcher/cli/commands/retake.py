"""`batcher retake`: another take of done rows, or back to an earlier one."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click

from batcher.cli.api_options import ledger_settings
from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.ledger_path import find_ledger
from batcher.cli.options import json_option, ledger_options, option
from batcher.cli.terminal import show
from batcher.formatting import counted
from batcher.maintenance import retakes
from batcher.maintenance.retakes import MarkedRetakes, Note


@click.command(cls=JsonCommand)
@click.argument("arguments", nargs=-1, metavar="ID...")
@option("--batch", metavar="NAME", help="Only rows of this batch.")
@click.option("--take", type=click.IntRange(1), metavar="N", help="Switch back to this existing take, at no cost.")
@click.option(
    "--marks",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Retake the rows marked in this file, exported from a report page.",
)
@ledger_options
@json_option
@click.pass_context
def retake(
    ctx: click.Context,
    /,
    arguments: tuple[str, ...],
    batch: str | None,
    take: int | None,
    marks: Path | None,
    **_: Any,
) -> None:
    """Request another take of done rows. The next run charges for it.

    ID is a row's id, or the beginning of an item's key for all rows that share it. The new take replaces the file of
    the row once it is made; earlier takes stay in the folder .items, and `batcher show ID` prints where. Rows that
    share an item and are retaken together share the new take. A row whose manifest sets `take` is skipped: request
    another take there.

    With --take, switches to a take that exists already, at once and at no cost.

    With --marks, retakes the rows marked in a file. A row that was retaken since it was marked is skipped, so using the
    same file twice buys nothing twice.
    """
    path, ids = find_ledger(ctx, arguments)
    if bool(ids) == (marks is not None):
        raise click.UsageError("name rows by ID, or pass --marks FILE", ctx)
    if marks is not None and take is not None:
        raise click.UsageError("--take needs rows named by ID, not --marks", ctx)
    settings = ledger_settings(path)
    if marks is not None:
        _print(ctx, anyio.run(partial(retakes.retake_marked, settings, marks, batch=batch)))
    else:
        outcomes = anyio.run(partial(retakes.retake, settings, ids, take=take, batch=batch))
        _print(ctx, MarkedRetakes(outcomes=outcomes, notes=[]))


def _print(ctx: click.Context, found: MarkedRetakes) -> None:
    nothing = _why_nothing(found) if ctx.params["marks"] is not None else None
    if ctx.params["as_json"]:
        changed = sum(one.take is not None for one in found.outcomes)
        message = nothing or f"{changed:,} of {counted(len(found.outcomes), 'row')} changed"
        reply(ctx, message, **asdict(found))
        return
    for one in found.outcomes:
        show(f"{one.id} of {one.batch}  {one.message}")
    for note in found.notes:
        show(_line(note))
    if nothing is not None:
        show(nothing)


def _why_nothing(found: MarkedRetakes) -> str | None:
    """Why a marks file leads to no retake; None if it leads to some."""
    if not found.outcomes:
        return "nothing to retake: the file marks no row for a retake"
    if all(one.message == retakes.STALE for one in found.outcomes):
        return "nothing to retake: all marked rows have another take by now"
    return None


def _line(note: Note) -> str:
    """A note on one line, without what a terminal would interpret."""
    text = "".join(char if char.isprintable() else "?" for char in " ".join(note.note.split()))
    return f"{note.id} of {note.batch}  note: {text}"
