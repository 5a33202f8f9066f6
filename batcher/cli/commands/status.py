"""`batcher status`: the progress of a ledger's batches."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from batcher.cli.colours import ERROR, in_state
from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.ledger_path import find_ledger_only
from batcher.cli.options import json_option, ledger_options
from batcher.cli.terminal import show
from batcher.clock import local_time
from batcher.formatting import amount, counted

if TYPE_CHECKING:
    from batcher.ledger.ledger import Connection
    from batcher.ledger.queries.eta import Forecast
    from batcher.ledger.queries.item_counts import Counts


_COSTS: Final = ("spent", "in_flight", "in_doubt")


@click.command(cls=JsonCommand)
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@ledger_options
@json_option
@click.pass_context
def status(ctx: click.Context, /, manifest: tuple[str, ...], **_: Any) -> None:
    """Show progress: items by state, credits and the last run. Creates nothing.

    Counts all batches of the ledger, which is the one beside MANIFEST, in the current folder, or --ledger. In JSON,
    `credits.spent` covers all tasks of the ledger; `start` and `end` are the balances of the last run.
    """
    from batcher.ledger.ledger import open_readonly
    from batcher.ledger.queries import manifest_paths, status
    from batcher.reports.summary import forecast_message

    path = find_ledger_only(ctx, manifest)
    with open_readonly(path) as conn:
        if manifest and not manifest_paths.batches_of(conn, Path(manifest[0])):
            click.echo(f"the ledger has no batch from {manifest[0]}", err=True)
        found = status.status(conn)
        ahead = _forecast(conn, found)
        batches = status.by_batch(conn) if len(found["batches"]) > 1 or ctx.params["as_json"] else []
    if found["last_run"] is not None:
        found["last_run"]["state"] = _state_of(found["last_run"])
    name = f" ({found['batches'][0]})" if len(found["batches"]) == 1 else ""
    rows, items = counted(found["rows"], "row"), counted(found["items"], "item")
    message = f"{counted(len(found['batches']), 'batch')}{name}: {rows}, {items}"
    if ctx.params["as_json"]:
        by_batch = [{"batch": batch, **asdict(counts)} for batch, counts in batches]
        facts = found | {"ledger": str(path), "by_batch": by_batch, "forecast": ahead and asdict(ahead)}
        reply(ctx, message, **facts)
        return
    click.echo(f"ledger {path}")
    click.echo(message)
    for state, number in found["states"].items():
        if number:
            click.echo(in_state(state, f"  {number:>9,}  {state}"))
    for name, counts in batches:
        show(_batch(name, counts))
    show(_credits(found["credits"]))
    if found["halt"] is not None:
        halted = (
            f"halted ({found['halt']['kind']}) since {local_time(found['halt']['since'])}: {found['halt']['detail']}"
        )
        show(click.style(halted, fg=ERROR))
    if found["last_run"] is not None:
        show(_last_run(found["last_run"]))
    if ahead is not None:
        show(forecast_message(ahead))


def _batch(name: str, counts: Counts) -> str:
    """One line for one of several batches; items that batches share count for each."""
    states = [in_state(state, f"{number:,} {state}") for state, number in counts.states.items() if number]
    skipped = counts.invalid + counts.empty
    parts = [*states, *[f"{counted(skipped, 'row')} skipped"] * bool(skipped)]
    return f"  {name}: {counted(counts.rows, 'row')}: {', '.join(parts) or 'no items'}"


def _credits(found: dict[str, float | None]) -> str:
    parts, needed = {name.replace("_", " "): found[name] for name in _COSTS}, found["estimated_needed"]
    parts["still needed" if needed is None else "still needed (estimate)"] = needed
    words = [f"{name} unknown" if number is None else f"{amount(number)} {name}" for name, number in parts.items()]
    if added := found["topped_up"]:
        spent = parts["spent"]
        words[0] = f"spent {'unknown' if spent is None else f'about {amount(spent)}'}"
        words.append(f"topped up about {amount(added)}")
    left = found["left"]
    return "credits: " + ", ".join(words + ([] if left is None else [f"{amount(left)} left"]))


def _forecast(conn: Connection, found: dict[str, Any]) -> Forecast | None:
    """When the rest will be done at the last run's pace; None while the account is halted."""
    from batcher.item import UNFINISHED
    from batcher.ledger.queries.eta import forecast

    if found["last_run"] is None or found["halt"] is not None:
        return None
    return forecast(conn, found["last_run"]["run_id"], sum(found["states"][state] for state in UNFINISHED))


def _last_run(run: dict[str, Any]) -> str:
    started = f"last run {run['run_id']}: started {local_time(run['started_at'])}"
    if run["state"] == "ended":
        return f"{started}, ended {local_time(run['ended_at'])}, exit {run['exit_code']}: {run['message']}"
    if run["state"] == "crashed":
        return f"{started}, was killed or crashed; the next run continues"
    return f"{started}, running (pid {run['pid']} on {run['host']})"


def _state_of(run: dict[str, Any]) -> str:
    """`ended`, `crashed` (also if killed), or `running`, which is assumed of a run on another host."""
    if run["ended_at"] is not None:
        return "ended"
    return "crashed" if run["host"] == socket.gethostname() and not _is_alive(run["pid"]) else "running"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
