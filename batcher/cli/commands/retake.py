"""`batcher retake`: another output of the same inputs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import click

from batcher.cli.options import find_ledger, ledger_options, option
from batcher.clock import Clock
from batcher.errors import ManifestError
from batcher.item import State
from batcher.ledger.imports.importer import last_parse_options
from batcher.ledger.ledger import Connection, Ledger, open_ledger, open_readonly
from batcher.ledger.lifecycle import decisions
from batcher.ledger.queries import names, report
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.queries.identity import identity
from batcher.ledger.storage.lock import owner_lock
from batcher.maintenance.decisions import person
from batcher.manifest.reader import given_takes
from batcher.reports.marks import Mark, read_marks

_Rows = list[tuple[int, str, str]]
"""Rows by their batch's number, its name, and their id."""
_OwnTakes = dict[tuple[int, str], Any]


@click.command()
@click.argument("arguments", nargs=-1, metavar="ID...")
@option("--batch", metavar="NAME", help="Only rows of this batch.")
@click.option(
    "--marks",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Rows that were marked “retake” on a page of `report`, as it exported them.",
)
@ledger_options
@click.pass_context
def retake(ctx: click.Context, /, arguments: tuple[str, ...], batch: str | None, marks: Path | None, **_: Any) -> None:
    """Have another output of done rows created beside the first. The next run charges for it.

    ID is a row's id, or the beginning of an item's key for all rows that share it. The row stands for the new take from
    now on; its file is named like the first with `.take2` before the ending, and the first stays where it is. Rows of
    the same text and voice that are retaken together share the new take. A row with a `take` in the manifest itself is
    left alone: that is the place to ask for another.

    With --marks, the rows are those of the file. A row that stands for another take by now than the one that was heard
    is left alone, so that a file given twice buys nothing twice.
    """
    path, ids = find_ledger(ctx, arguments)
    if bool(ids) == (marks is not None):
        raise click.UsageError("name rows, or a file with --marks", ctx)
    with open_readonly(path) as conn:
        if marks is None:
            rows = names.find_rows(conn, ids, batch=batch)
        else:
            marked = read_marks(marks, identity(conn).ledger_id)
            rows, stale = _marked(conn, [mark for mark in marked if batch in (None, mark.batch)])
            for mark in stale:
                click.echo(f"{mark.id} of {mark.batch}  does not stand for what was heard any more: left alone")
        own = _own_takes(conn, rows)
    with owner_lock(path), open_ledger(path) as ledger:
        for line in anyio.run(_retake, ledger, rows, own):
            click.echo(line)


def _marked(conn: Connection, marks: list[Mark]) -> tuple[_Rows, list[Mark]]:
    """The rows that still stand for what was heard, as `_retake` takes them, and the marks of the others."""
    found, stale = [], []
    for mark in marks:
        batch_id = names.row_with(conn, mark.batch, mark.id, mark.key)
        if batch_id is None:
            stale.append(mark)
        else:
            found.append((batch_id, mark.batch, mark.id))
    return found, stale


def _own_takes(conn: Connection, rows: _Rows) -> _OwnTakes:
    """The takes that the manifests, read as the last run did, name for these rows; of those that are there."""
    wanted = {(batch_id, row_id) for batch_id, _, row_id in rows}
    found: _OwnTakes = {}
    for batch in current_batches(conn):
        if not any(batch_id == batch.batch_id for batch_id, _ in wanted):
            continue
        path, rules = Path(report.source_of(conn, batch)[0]), last_parse_options(conn, batch)
        with suppress(ManifestError):
            named = {(batch.batch_id, row_id): take for row_id, take in given_takes(path, rules)}
            found |= {row: named[row] for row in wanted & named.keys()}
    return found


async def _retake(ledger: Ledger, rows: _Rows, own: _OwnTakes) -> list[str]:
    lines = []
    for batch_id, batch, row_id in rows:
        if (take := own.get((batch_id, row_id))) is not None:
            words = f"has take {take} in its manifest: write another there, and the next run creates it"
        else:
            at, who = Clock().now(), person()
            words = _words(await ledger.do(decisions.retake, batch_id, row_id, at=at, who=who))
        lines.append(f"{row_id} of {batch}  {words}")
    return lines


def _words(made: decisions.Retake | None) -> str:
    if made is None:
        return "is not done: left alone"
    if made.rival is not None:
        row, batch = made.rival
        return f"left alone: take {made.take} would be {made.output}, which row {row} of {batch} has"
    if made.is_new:
        return f"take {made.take}: created by the next run, and paid for"
    became = {State.PENDING: "the next run creates it, once", State.DONE: "the next run links it"}
    words = became.get(State(made.state), f"it is {made.state}")
    return f"take {made.take}: shared with another row of the same inputs: {words}"
