"""`batcher changes`: the files that a run has made."""

from __future__ import annotations

from typing import Any

import click

from batcher.address import home_of
from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.ledger_path import find_ledger_only
from batcher.cli.options import json_option, ledger_options, option
from batcher.files import is_url
from batcher.formatting import counted


@click.command(cls=JsonCommand)
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@click.option("--since", metavar="RUN", help="The first run that counts, by its id; defaults to the last one.")
@option("--batch", metavar="NAME", help="Only files of this batch.")
@ledger_options
@json_option
@click.pass_context
def changes(ctx: click.Context, /, manifest: tuple[str, ...], since: str | None, batch: str | None, **_: Any) -> None:
    """List the files that a run has made or replaced. Creates nothing.

    Prints the path of each file that was put at its output since the run began, by this run or later: audio that was
    downloaded, another take, and audio that a changed row now shares with another. `run --json` and `batcher status`
    have the id of a run.
    """
    from batcher.ledger import ledger
    from batcher.ledger.queries import changes as queries

    path = find_ledger_only(ctx, manifest)
    with ledger.open_readonly(path) as conn:
        run_id, started_at = queries.run_named(conn, since)
        found = list(queries.changes(conn, started_at, batch))
    for one in found:
        one["output"] = one["output"] if is_url(one["output"]) else str(home_of(path) / one["output"])
    if ctx.params["as_json"]:
        reply(ctx, f"{counted(len(found), 'file')} since run {run_id}", since=run_id, changes=found)
        return
    for one in found:
        click.echo(one["output"])
