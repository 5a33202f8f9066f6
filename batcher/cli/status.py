"""`batcher status`: how the batches of a ledger stand."""

from __future__ import annotations

import json
from typing import Any

import click

from batcher.cli.options import find_ledger, json_option, ledger_options


@click.command()
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@ledger_options
@json_option
@click.pass_context
def status(ctx: click.Context, /, manifest: tuple[str, ...], **_: Any) -> None:
    """Show how the batches of a ledger stand: items by state, a halt, the last run. Creates nothing.

    The ledger is the one beside MANIFEST, or the current folder's, or --ledger.
    """
    from batcher.ledger import reading
    from batcher.ledger.ledger import viewed

    path, rest = find_ledger(ctx, manifest)
    if rest:
        raise click.UsageError(f"there is no file {rest[0]}", ctx)
    with viewed(path) as conn:
        found = reading.status(conn)
    if ctx.params["as_json"]:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    click.echo(f"ledger {path}")
    click.echo(f"{len(found['batches'])} batches ({', '.join(found['batches'])}): {found['rows']} rows, ", nl=False)
    click.echo(f"{found['items']} items")
    for state, number in found["states"].items():
        if number:
            click.echo(f"  {number:>9,}  {state}")
    if found["halt"] is not None:
        click.echo(f"halted ({found['halt']['kind']}) since {found['halt']['since']}: {found['halt']['detail']}")
    last = found["last_run"]
    if last is not None:
        click.echo(
            f"last run {last['run_id']}: began {last['started_at']}, ended {last['ended_at'] or 'not yet'}", nl=False
        )
        click.echo(f", exit {last['exit_code']}: {last['message']}" if last["ended_at"] else "")
