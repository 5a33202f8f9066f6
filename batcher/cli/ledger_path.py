"""Where the ledger of a command is."""

from __future__ import annotations

from pathlib import Path

import click

from batcher.address import Address
from batcher.cli.config_file import apply_config_file
from batcher.errors import UsageError
from batcher.settings import folder_of_ledger, ledger_address, project_folder


def find_ledger(ctx: click.Context, names: tuple[str, ...]) -> tuple[Address, tuple[str, ...]]:
    """Find a command's ledger: `--ledger`, or beside a manifest among `names`, or in the current folder.

    Returns its address and the names that are not manifests.

    Raises:
        UsageError: only a sandbox ledger exists, and `--sandbox` was not given.
    """
    manifests = [Path(name) for name in names if Path(name).is_file()]
    option = ctx.params["ledger"]
    folder = project_folder(manifests[0]) if manifests else folder_of_ledger(option)
    apply_config_file(ctx, folder)
    address = ledger_address(ctx.params["ledger"], folder, sandbox=ctx.params["sandbox"])
    if isinstance(address, Path) and ctx.params["ledger"] is None and not (ctx.params["sandbox"] or address.exists()):
        other = address.with_name("batcher-sandbox.db")
        if other.exists():
            raise UsageError(
                f"no ledger at {address}, but a sandbox ledger beside it", "Pass --sandbox to use that one."
            )
    return address, tuple(name for name in names if Path(name) not in manifests)


def find_ledger_only(ctx: click.Context, names: tuple[str, ...]) -> Address:
    """Find the ledger of a command whose only arguments are manifests.

    Raises:
        click.UsageError: a manifest does not exist.
    """
    address, missing = find_ledger(ctx, names)
    if missing:
        raise click.UsageError(f"file not found: {missing[0]}", ctx)
    return address
