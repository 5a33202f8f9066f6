"""`batcher retake`: another take of done rows."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import click

from batcher.cli.ledger_path import find_ledger
from batcher.cli.options import ledger_options, option
from batcher.clock import Clock
from batcher.errors import ManifestError
from batcher.item import State
from batcher.ledger.imports.parse_options import last_parse_options
from batcher.ledger.ledger import Connection, Ledger, open_ledger, open_readonly
from batcher.ledger.lifecycle import decisions
from batcher.ledger.queries import names, report
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.queries.identity import identity
from batcher.ledger.storage.lock import owner_lock
from batcher.maintenance.decisions import person
from batcher.manifest.reader import explicit_takes
from batcher.reports.marks import Mark, read_marks

_Rows = list[tuple[int, str, str]]
"""Batch id, batch name and row id of each row."""
_ManifestTakes = dict[tuple[int, str], Any]
"""Takes that manifests set, by batch id and row id."""


@click.command()
@click.argument("arguments", nargs=-1, metavar="ID...")
@option("--batch", metavar="NAME", help="Only rows of this batch.")
@click.option(
    "--marks",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Retake the rows marked in this file, exported from a report page.",
)
@ledger_options
@click.pass_context
def retake(ctx: click.Context, /, arguments: tuple[str, ...], batch: str | None, marks: Path | None, **_: Any) -> None:
    """Request another take of done rows. The next run charges for it.

    ID is a row's id, or the beginning of an item's key for all rows that share it. From now on the row uses the new
    take. The first file stays; the new one has `.take2` before its extension. Rows that share an item and are retaken
    together share the new take. A row whose manifest sets `take` is skipped: request another take there.

    With --marks, retakes the rows marked in a file. A row that was retaken since it was marked is skipped, so using the
    same file twice buys nothing twice.
    """
    path, ids = find_ledger(ctx, arguments)
    if bool(ids) == (marks is not None):
        raise click.UsageError("name rows by ID, or pass --marks FILE", ctx)
    with open_readonly(path) as conn:
        if marks is None:
            rows = names.find_rows(conn, ids, batch=batch)
        else:
            marked = read_marks(marks, identity(conn).ledger_id)
            rows, stale = _marked(conn, [mark for mark in marked if batch in (None, mark.batch)])
            for mark in stale:
                click.echo(f"{mark.id} of {mark.batch}  already retaken since it was marked; skipped")
        takes = _manifest_takes(conn, rows)
    with owner_lock(path), open_ledger(path) as ledger:
        for line in anyio.run(_retake, ledger, rows, takes):
            click.echo(line)


def _marked(conn: Connection, marks: list[Mark]) -> tuple[_Rows, list[Mark]]:
    """The rows that still use the marked take, and the marks of the others."""
    found, stale = [], []
    for mark in marks:
        batch_id = names.row_with(conn, mark.batch, mark.id, mark.key)
        if batch_id is None:
            stale.append(mark)
        else:
            found.append((batch_id, mark.batch, mark.id))
    return found, stale


def _manifest_takes(conn: Connection, rows: _Rows) -> _ManifestTakes:
    """The takes that manifests set for these rows; manifests that cannot be read are ignored."""
    wanted = {(batch_id, row_id) for batch_id, _, row_id in rows}
    found: _ManifestTakes = {}
    for batch in current_batches(conn):
        if not any(batch_id == batch.batch_id for batch_id, _ in wanted):
            continue
        path, rules = Path(report.source_of(conn, batch)[0]), last_parse_options(conn, batch)
        with suppress(ManifestError):
            named = {(batch.batch_id, row_id): take for row_id, take in explicit_takes(path, rules)}
            found |= {row: named[row] for row in wanted & named.keys()}
    return found


async def _retake(ledger: Ledger, rows: _Rows, takes: _ManifestTakes) -> list[str]:
    lines = []
    for batch_id, batch, row_id in rows:
        if (take := takes.get((batch_id, row_id))) is not None:
            result = f"the manifest sets take {take}; change it there, and the next run creates the new take"
        else:
            at, who = Clock().now(), person()
            result = _result(await ledger.do(decisions.retake, batch_id, row_id, at=at, who=who))
        lines.append(f"{row_id} of {batch}  {result}")
    return lines


def _result(retake: decisions.Retake | None) -> str:
    if retake is None:
        return "not done yet; skipped"
    if retake.rival is not None:
        row, batch = retake.rival
        return f"skipped: the file of take {retake.take}, {retake.output}, belongs to row {row} of {batch}"
    if retake.is_new:
        return f"take {retake.take}: the next run creates and pays for it"
    next_step = {State.PENDING: "the next run creates it once", State.DONE: "the next run links it"}
    what = next_step.get(State(retake.state), f"it is {retake.state}")
    return f"take {retake.take}, shared with another row with the same inputs: {what}"
