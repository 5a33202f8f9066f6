"""`batcher show`: items, one by one."""

from __future__ import annotations

import json
from typing import Any

import click

from batcher.cli.options import find_ledger, json_option, ledger_options, option
from batcher.item import State


@click.command()
@click.argument("names", nargs=-1, metavar="[ID...]")
@option(
    "--state", "states", multiple=True, type=click.Choice([str(state) for state in State]), help="Only items in it."
)
@option("--batch", metavar="NAME", help="Only items of this batch.")
@ledger_options
@json_option
@click.pass_context
def show(ctx: click.Context, /, names: tuple[str, ...], states: tuple[str, ...], batch: str | None, **_: Any) -> None:
    """Show items: their state, task, rows and error. Creates nothing.

    ID is a row's id or the beginning of an item's key (8 digits or more); a manifest among them names the ledger.
    """
    from batcher.ledger import reading
    from batcher.ledger.ledger import viewed

    path, ids = find_ledger(ctx, names)
    with viewed(path) as conn:
        keys = reading.find_keys(conn, ids, states=[State(state) for state in states], batch=batch)
        found = list(reading.show(conn, keys))
    if ctx.params["as_json"]:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    for item in found:
        _print(item)


def _print(item: dict[str, Any]) -> None:
    click.echo(f"{item['key'][:16]}  {item['state']}  attempt {item['attempt']}", nl=False)
    click.echo(f"  task {item['task_id']} of {item['account']}" if item["task_id"] else "")
    for row in item["rows"]:
        click.echo(f"    row {row['row']} of {row['batch']}: id {row['id']}, output {row['output']}")
    if item["error"] is not None:
        error = item["error"]
        named = ", ".join(f"{name} {error[name]}" for name in ("code", "http_status", "request_id") if error[name])
        click.echo(f"    {error['message'] or 'no message'}" + (f" ({named})" if named else ""))
