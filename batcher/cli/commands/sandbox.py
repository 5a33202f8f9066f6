"""`batcher sandbox`: serve the API on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.options import json_option
from batcher.formatting import amount, rounded


@click.command(cls=JsonCommand)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8750, show_default=True, metavar="PORT", help="Port to listen on."
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=Path("batcher-sandbox.tasks.db"),
    show_default=True,
    metavar="FILE",
    help="File for its tasks and balance.",
)
@click.option(
    *("--credits", "credit"),
    type=float,
    default=1_000_000.0,
    show_default=True,
    metavar="CREDITS",
    help="Balance of a new store.",
)
@click.option("--top-up", type=float, metavar="CREDITS", help="Add to the balance of the store and exit.")
@click.option(
    "--price", type=float, default=1.0, show_default=True, metavar="CREDITS", help="Price per UTF-8 byte of text."
)
@click.option(
    "--speed", type=float, default=1.0, show_default=True, metavar="FACTOR", help="Factor by which tasks render faster."
)
@click.option(
    "--concurrent",
    type=int,
    default=0,
    metavar="N",
    help="Create requests in flight before 429; unlimited by default.",
)
@click.option(
    "--rate",
    type=float,
    default=0.0,
    metavar="N",
    help="Create requests per second before 429; unlimited by default.",
)
@click.option("--fail", type=float, default=0.0, metavar="SHARE", help="Share of tasks that fail, from 0 to 1.")
@click.option(
    "--drop",
    type=float,
    default=0.0,
    metavar="SHARE",
    help="Share of create requests that are charged but never answered, from 0 to 1.",
)
@click.option(
    "--url-seconds",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Lifetime of an audio URL.",
)
@click.option("--seed", type=int, default=0, metavar="N", help="Seed that selects the tasks to fail or drop.")
@json_option
@click.pass_context
def sandbox(
    ctx: click.Context, /, port: int, store: Path, credit: float, top_up: float | None, as_json: bool, **options: Any
) -> None:
    """Serve the API on this machine, with real speech, at no cost.

    Use it from another terminal:

    \b
      export BATCHER_API_TOKEN=sandbox
      batcher run FILE --api-url http://127.0.0.1:8750/api/open/v1

    With --json, prints one object as soon as it accepts connections, with the address: --port 0 picks a free port.
    """
    from batcher.sandbox.host import Running, serve
    from batcher.sandbox.options import SandboxOptions
    from batcher.sandbox.store import top_up as add

    if top_up is not None:
        balance = add(store, top_up)
        message = f"Added {amount(top_up)} credits; the balance is now {amount(balance)}"
        if as_json:
            reply(ctx, message, added=rounded(top_up), balance=rounded(balance))
        else:
            click.echo(message, err=True)
        return

    def announce(running: Running) -> None:
        message = f"Sandbox API at {running.url}, with the token {running.token}"
        if as_json:
            reply(ctx, message, url=running.url, token=running.token, store=str(store.absolute()))
        click.echo(f"{message}. Stop it with Ctrl-C.", err=True)

    settings = SandboxOptions(credits=credit, **options)
    serve(store, settings, host="127.0.0.1", port=port, on_ready=announce)
