"""`batcher sandbox`: the API on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from batcher.formatting import amount


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8750, show_default=True)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=Path("batcher-sandbox.tasks.db"),
    show_default=True,
    help="Where its tasks and its balance live.",
)
@click.option("--credits", "credit", type=float, default=1_000_000.0, show_default=True, help="Of a new store.")
@click.option("--top-up", type=float, metavar="CREDITS", help="Add to the balance of the store, and end.")
@click.option("--price", type=float, default=1.0, show_default=True, help="Credits per UTF-8 byte of text.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="How fast tasks render.")
@click.option("--concurrent", type=int, default=0, help="Creates at once before 429; 0: any number.")
@click.option("--rate", type=float, default=0.0, help="Creates a second before 429; 0: any number.")
@click.option("--fail", type=float, default=0.0, help="Share of tasks that fail.")
@click.option("--drop", type=float, default=0.0, help="Share of creates that are charged and never answered.")
@click.option("--url-seconds", type=float, default=60.0, show_default=True, help="Life of an audio URL.")
@click.option("--seed", type=int, default=0, help="Which tasks fail or drop.")
def sandbox(port: int, store: Path, credit: float, top_up: float | None, **knobs: Any) -> None:
    """Serve the API on this machine, with real speech, for trying things out. Costs nothing.

    Use it from another terminal: BATCHER_API_TOKEN=sandbox batcher run FILE --api-url http://127.0.0.1:8750/api/open/v1
    """
    from batcher.sandbox.host import serve
    from batcher.sandbox.options import SandboxOptions
    from batcher.sandbox.store import top_up as add

    if top_up is not None:
        click.echo(f"the balance is now {amount(add(store, top_up))} credits", err=True)
        return
    asked = SandboxOptions(credits=credit, **knobs)
    click.echo(
        f"the sandbox answers at http://127.0.0.1:{port}/api/open/v1, its token is sandbox; Ctrl-C ends it", err=True
    )
    serve(store, asked, host="127.0.0.1", port=port)
