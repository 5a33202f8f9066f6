"""Where the ledger of a command is."""

from __future__ import annotations

from pathlib import Path

import click

from batcher.cli.config_file import apply_config_file
from batcher.errors import UsageError
from batcher.settings import ledger_path, project_folder


def find_ledger(ctx: click.Context, names: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """Find a command's ledger: `--ledger`, or beside a manifest among `names`, or in the current folder.

    Returns its path and the names that are not manifests.

    Raises:
        UsageError: only a sandbox ledger exists, and `--sandbox` was not given.
    """
    manifests = [Path(name) for name in names if Path(name).is_file()]
    option = ctx.params["ledger"]
    beside = manifests[0] if manifests else ledger_path(option, Path(), sandbox=False) if option is not None else None
    folder = project_folder(beside)
    apply_config_file(ctx, folder)
    path = ledger_path(ctx.params["ledger"], folder, sandbox=ctx.params["sandbox"])
    if not path.exists() and ctx.params["ledger"] is None and not ctx.params["sandbox"]:
        other = path.with_name("batcher-sandbox.db")
        if other.exists():
            raise UsageError(f"no ledger at {path}, but a sandbox ledger beside it", "Pass --sandbox to use that one.")
    return path, tuple(name for name in names if Path(name) not in manifests)


def find_ledger_only(ctx: click.Context, names: tuple[str, ...]) -> Path:
    """Find the ledger of a command whose only arguments are manifests.

    Raises:
        click.UsageError: a manifest does not exist.
    """
    path, missing = find_ledger(ctx, names)
    if missing:
        raise click.UsageError(f"file not found: {missing[0]}", ctx)
    return path
