"""`batcher runs`: the runs of a ledger."""

from __future__ import annotations

from typing import Any

import click

from batcher.address import Server
from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.ledger_path import find_ledger_only
from batcher.cli.options import json_option, ledger_options, option
from batcher.errors import UsageError
from batcher.formatting import counted


@click.command(cls=JsonCommand)
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@click.option("--end", metavar="RUN", help="End this run's session with the server, so that another can take over.")
@option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Runs listed, the last ones.")
@ledger_options
@json_option
@click.pass_context
def runs(ctx: click.Context, /, manifest: tuple[str, ...], end: str | None, limit: int, **_: Any) -> None:
    """List the last runs: host, process, times, and the items that each has not finished. Creates nothing.

    --end is for a ledger on a server, when a run's machine hangs and is still connected: the server ends the run's
    session, and the run can neither create nor write any more.
    """
    from batcher.ledger.ledger import open_readonly
    from batcher.ledger.queries.run_list import run_list

    address = find_ledger_only(ctx, manifest)
    with open_readonly(address) as conn:
        found = run_list(conn, limit)
    if end is not None:
        _end(address, end, found)
    if ctx.params["as_json"]:
        reply(ctx, counted(len(found), "run") + (f"; ended {end}" if end else ""), runs=found)
        return
    for one in found:
        click.echo(_line(one))
    if end:
        click.echo(f"ended the session of run {end}")


def _line(run: dict[str, Any]) -> str:
    until = "working" if run["is_working"] else "ended without a record of it"
    if run["ended_at"] is not None:
        until = f"ended {run['ended_at']}, {run['outcome']}"
    done = "" if run["created"] is None else f", {run['created']} created, {run['collected']} collected"
    held = f", {counted(run['open_items'], 'open item')}" if run["open_items"] else ""
    return f"{run['run_id']}  {run['host']}, process {run['pid']}: started {run['started_at']}, {until}{done}{held}"


def _end(address: object, run_id: str, found: list[dict[str, Any]]) -> None:
    """End the session of a run that is working.

    Raises:
        UsageError: there is no such run, or its ledger is a file.
    """
    run = next((one for one in found if one["run_id"].startswith(run_id)), None)
    if run is None or not run["is_working"]:
        raise UsageError(f"no run {run_id} is working", "`batcher runs` lists them.")
    if not isinstance(address, Server):
        raise UsageError("a ledger in a file has no sessions", f"End process {run['pid']} on {run['host']} instead.")
    from batcher.ledger.storage.postgres import end_session

    end_session(address, run["run_id"])
