"""`batcher trust`: accept the settings of a project folder that could leak a token or write elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from batcher import settings
from batcher.cli import trust as trusting
from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.options import json_option


@click.command(cls=JsonCommand)
@click.argument(
    "folder",
    required=False,
    default=".",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="[FOLDER]",
)
@json_option
@click.pass_context
def trust(ctx: click.Context, /, folder: Path, **_: Any) -> None:
    """Trust the settings of a project folder that could send your token elsewhere or write outside the folder.

    Prints these settings of its `batcher.toml`, and remembers them until one of them changes; other lines may change.
    FOLDER defaults to the current one.
    """
    folder = folder.absolute()
    config = settings.read_file(folder)
    found = trusting.guarded(config, folder)
    if not found:
        message, record = f"{folder / settings.FILE_NAME} has no setting that needs trust", None
    else:
        record = trusting.trust(config, folder)
        message = f"trusted in {folder}; to undo: rm {record}"
    if ctx.params["as_json"]:
        public = {name: trusting.public(value) for name, value in found.items()}
        shown = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in public.items()}
        reply(ctx, message, folder=str(folder), settings=shown, record=record and str(record))
        return
    for name in found:
        click.echo(trusting.listed({name: found[name]}))
    click.echo(message)
