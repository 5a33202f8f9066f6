"""`batcher trust`: accept the settings of a project folder that could leak a token or write elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from batcher import settings
from batcher.cli import trust as trusting


@click.command()
@click.argument(
    "folder",
    required=False,
    default=".",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="[FOLDER]",
)
def trust(folder: Path) -> None:
    """Trust the settings of a project folder that could send your token elsewhere or write outside the folder.

    Prints these settings of its `batcher.toml`, and remembers them until one of them changes; other lines may change.
    FOLDER defaults to the current one.
    """
    folder = folder.absolute()
    config = settings.read_file(folder)
    found = trusting.guarded(config, folder)
    if not found:
        click.echo(f"{folder / settings.FILE_NAME} has no setting that needs trust")
        return
    record = trusting.trust(config, folder)
    for name in found:
        click.echo(trusting.listed({name: found[name]}))
    click.echo(f"trusted in {folder}; to undo: rm {record}")
