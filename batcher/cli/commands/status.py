"""`batcher status`: how the batches of a ledger stand."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batcher.cli.colours import BAD, in_state
from batcher.cli.options import find_ledger, json_option, ledger_options
from batcher.clock import local_time
from batcher.formatting import amount, counted

if TYPE_CHECKING:
    from batcher.ledger.ledger import Connection
    from batcher.ledger.queries.item_counts import Counts


@click.command()
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@ledger_options
@json_option
@click.pass_context
def status(ctx: click.Context, /, manifest: tuple[str, ...], **_: Any) -> None:
    """Show how the batches of a ledger stand: items by state, a halt, the last run. Creates nothing.

    The ledger is the one beside MANIFEST, or the current folder's, or --ledger; all its batches are counted. In JSON,
    the credits spent are those of all its tasks, start and end those of the last run.
    """
    from batcher.ledger.ledger import open_readonly
    from batcher.ledger.money import spending
    from batcher.ledger.queries import report, status

    path, rest = find_ledger(ctx, manifest)
    if rest:
        raise click.UsageError(f"there is no file {rest[0]}", ctx)
    with open_readonly(path) as conn:
        if manifest and not report.batches_of(conn, Path(manifest[0])):
            click.echo(f"the ledger has no batch of {manifest[0]}", err=True)
        found = status.status(conn)
        spent = spending.spending(conn)
        ahead = _forecast(conn, found)
        one_by_one = status.by_batch(conn) if len(found["batches"]) > 1 and not ctx.params["as_json"] else []
    if ctx.params["as_json"]:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    click.echo(f"ledger {path}")
    name = f" ({found['batches'][0]})" if len(found["batches"]) == 1 else ""
    rows, items = counted(found["rows"], "row"), counted(found["items"], "item")
    click.echo(f"{counted(len(found['batches']), 'batch')}{name}: {rows}, {items}")
    for state, number in found["states"].items():
        if number:
            click.echo(in_state(state, f"  {number:>9,}  {state}"))
    for name, counts in one_by_one:
        click.echo(_batch(name, counts))
    click.echo(_credits(spent, found["credits"]["estimated_needed"]))
    if found["halt"] is not None:
        halted = (
            f"halted ({found['halt']['kind']}) since {local_time(found['halt']['since'])}: {found['halt']['detail']}"
        )
        click.echo(click.style(halted, fg=BAD))
    if found["last_run"] is not None:
        click.echo(_last_run(found["last_run"]))
    if ahead is not None:
        click.echo(ahead)


def _batch(name: str, counts: Counts) -> str:
    """One of several batches in a line; items that batches share are counted for each."""
    states = [in_state(state, f"{number:,} {state}") for state, number in counts.states.items() if number]
    skipped = counts.invalid + counts.empty
    parts = [*states, *[f"{counted(skipped, 'row')} skipped"] * bool(skipped)]
    return f"  {name}: {counted(counts.rows, 'row')}: {', '.join(parts) or 'nothing'}"


def _credits(spent: Any, needed: float | None) -> str:
    parts = {"spent": spent.spent, "in flight": spent.in_flight, "in doubt": spent.in_doubt}
    parts["still needed, by estimate"] = needed
    parts_said = (f"{'unknown' if number is None else amount(number)} {name}" for name, number in parts.items())
    return f"credits: {', '.join(parts_said)}"


def _forecast(conn: Connection, found: dict[str, Any]) -> str | None:
    """When the rest is likely done, by the last run's pace; nothing is, while the account is halted."""
    from batcher.item import UNFINISHED
    from batcher.reports.summary import forecast_message

    if found["last_run"] is None or found["halt"] is not None:
        return None
    return forecast_message(conn, found["last_run"]["run_id"], sum(found["states"][state] for state in UNFINISHED))


def _last_run(run: dict[str, Any]) -> str:
    began = f"last run {run['run_id']}: began {local_time(run['started_at'])}"
    if run["ended_at"] is not None:
        return f"{began}, ended {local_time(run['ended_at'])}, exit {run['exit_code']}: {run['message']}"
    if run["host"] == socket.gethostname() and not _is_alive(run["pid"]):
        return f"{began}, and ended without a word (killed?): the next run goes on"
    return f"{began}, at work (pid {run['pid']} on {run['host']})"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
