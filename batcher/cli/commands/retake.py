"""`batcher retake`: another take of done rows, or back to an earlier one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import anyio
import click

from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.ledger_path import find_ledger
from batcher.cli.options import json_option, ledger_options, option
from batcher.clock import Clock
from batcher.errors import ManifestError
from batcher.formatting import counted
from batcher.ledger.imports.parse_options import last_parse_options
from batcher.ledger.ledger import Connection, Ledger, open_ledger, open_readonly
from batcher.ledger.queries import manifest_paths, names
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.queries.identity import identity
from batcher.ledger.storage.lock import owner_lock
from batcher.maintenance.retakes import Retake, Retakes
from batcher.manifest.reader import explicit_takes
from batcher.reports.marks import Mark, read_marks

_Rows = list[tuple[int, str, str]]
"""Batch id, batch name and row id of each row."""
_ManifestTakes = dict[tuple[int, str], Any]
"""Takes that manifests set, by batch id and row id."""
_Outcome = tuple[str, str, Retake]
"""Batch name, row id, and what became of the row's retake."""
_STALE: Final = "already retaken since it was marked; skipped"


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
    outcomes: list[_Outcome] = []
    with open_readonly(path) as conn:
        if marks is None:
            rows = names.find_rows(conn, ids, batch=batch)
        else:
            marked = read_marks(marks, identity(conn).ledger_id)
            rows, stale = _marked(conn, [mark for mark in marked if batch in (None, mark.batch)])
            outcomes = [(mark.batch, mark.id, Retake(message=_STALE)) for mark in stale]
        takes = _manifest_takes(conn, rows)
    with owner_lock(path), open_ledger(path) as ledger:
        outcomes += anyio.run(_retake, ledger, rows, takes, take)
    _print(ctx, outcomes)


def _print(ctx: click.Context, outcomes: list[_Outcome]) -> None:
    if ctx.params["as_json"]:
        facts = [{"batch": batch, "id": row_id, **asdict(found)} for batch, row_id, found in outcomes]
        changed = sum(found.take is not None for *_, found in outcomes)
        reply(ctx, f"{changed:,} of {counted(len(facts), 'row')} changed", outcomes=facts)
        return
    for batch, row_id, found in outcomes:
        click.echo(f"{row_id} of {batch}  {found.message}")


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
        path, rules = Path(manifest_paths.source_of(conn, batch)[0]), last_parse_options(conn, batch)
        with suppress(ManifestError):
            named = {(batch.batch_id, row_id): take for row_id, take in explicit_takes(path, rules)}
            found |= {row: named[row] for row in wanted & named.keys()}
    return found


async def _retake(ledger: Ledger, rows: _Rows, takes: _ManifestTakes, take: int | None) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    retakes = Retakes(ledger=ledger, clock=Clock())
    batches = {batch.batch_id: batch for batch in await ledger.do(current_batches)}
    for batch_id, name, row_id in rows:
        if (own := takes.get((batch_id, row_id))) is not None:
            message = f"the manifest sets take {own}; change it there, and the next run creates the new take"
            result = Retake(message=message)
        elif take is None:
            result = await retakes.request(batches[batch_id], row_id)
        else:
            result = await retakes.switch(batches[batch_id], row_id, take)
        outcomes.append((name, row_id, result))
    return outcomes
