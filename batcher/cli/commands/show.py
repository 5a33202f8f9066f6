"""`batcher show`: items and their history."""

from __future__ import annotations

from typing import Any, Final

import click

from batcher.address import home_of
from batcher.cli.colours import in_state
from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.ledger_path import find_ledger
from batcher.cli.options import json_option, ledger_options, option
from batcher.clock import local_time
from batcher.formatting import counted, plain_error
from batcher.item import State

_SHOWN: Final = 200
"""Longer texts are cut to this number of characters."""
_LABELS: Final = {"looks": "polls"}
"""Labels of facts that are not printed under their own names."""


@click.command(cls=JsonCommand)
@click.argument("arguments", nargs=-1, metavar="[ID...]")
@option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([str(state) for state in State]),
    metavar="STATE",
    help="Only items in this state: " + ", ".join(State) + ".",
)
@option("--batch", metavar="NAME", help="Only items of this batch.")
@ledger_options
@json_option
@click.pass_context
def show(
    ctx: click.Context, /, arguments: tuple[str, ...], states: tuple[str, ...], batch: str | None, **_: Any
) -> None:
    """Show items: state, task, rows, error and history. Creates nothing.

    ID is a row's id or the beginning of an item's key (at least 8 digits); a manifest finds the ledger beside it. Items
    named by ID are shown with their history: inputs, attempts and answers, tasks, costs, file, other takes and
    events. --json prints items without their history.
    """
    from batcher.audio.stores import Stores
    from batcher.ledger.ledger import open_readonly
    from batcher.ledger.queries import names, status

    path, ids = find_ledger(ctx, arguments)
    with open_readonly(path) as conn:
        keys = names.find_keys(conn, ids, states=[State(state) for state in states], batch=batch)
        found = list(status.show(conn, keys))
        histories = {key: status.story(conn, key) for key in keys} if ids else {}
        opened = Stores(home_of(path))
        stores = [opened.at(out_dir) for out_dir in status.out_dirs(conn)] if ids else []
    in_states = f" in state {' or '.join(states)}" if states else ""
    nothing = f"no matching items{in_states}{f' in batch {batch}' if batch else ''}"
    if ctx.params["as_json"]:
        reply(ctx, counted(len(found), "item") if found else nothing, items=found)
        return
    if not found:
        click.echo(nothing, err=True)
    for item in found:
        _print(item)
        if item["key"] in histories:
            _print_history(histories[item["key"]], [bad for store in stores for bad in store.bad(item["key"])])


def _print(item: dict[str, Any]) -> None:
    state = in_state(item["state"], item["state"])
    click.echo(f"{item['key'][:16]}  {state}  attempt {item['attempt']}", nl=False)
    click.echo(f"  task {item['task_id']} of {item['account']}" if item["task_id"] else "")
    for row in item["rows"]:
        click.echo(f"    row {row['row']} of {row['batch']}: id {row['id']}, output {row['output']}")
    if item["error"] is not None:
        error = item["error"]
        named = ", ".join(f"{name} {error[name]}" for name in ("code", "http_status", "request_id") if error[name])
        message = plain_error(error["message"] or "no message") + (f" ({named})" if named else "")
        click.echo(f"    {in_state(item['state'], message)}")


def _print_history(history: dict[str, Any], bad: list[str]) -> None:
    inputs = dict(history["inputs"])
    text = inputs.pop("text")
    click.echo(f"    text: {text if len(text) <= _SHOWN else text[:_SHOWN] + ' …'!r}")
    click.echo(f"    inputs: {_pairs(inputs)}")
    for kind in ("attempts", "tasks"):
        for one in history[kind]:
            click.echo(f"    {kind.removesuffix('s')}: {_pairs(one)}")
    if history["file"] is not None:
        click.echo(f"    file: {_pairs(history['file'])}")
    for one in history["other_takes"]:
        click.echo(f"    other take: {_pairs(one)}")
    for path in bad:
        click.echo(f"    unusable download: {path}")
    for event in history["events"]:
        detail = f" ({event['detail']})" if event["detail"] else ""
        run = f" in run {event['run_id']}" if event["run_id"] else ""
        state = in_state(event["state"], event["state"])
        click.echo(f"    {local_time(event['at'])}  {event['event']} -> {state}{detail}{run}")


def _pairs(facts: dict[str, Any]) -> str:
    known = ((_LABELS.get(name, name), value) for name, value in facts.items() if value not in (None, {}, ""))
    return ", ".join(f"{name} {local_time(value) if name.endswith('_at') else value}" for name, value in known)
