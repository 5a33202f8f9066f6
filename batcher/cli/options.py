"""Options with their environment variables, and those that many commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

F = TypeVar("F", bound=Callable[..., Any])

DEBUG: Final = "batcher.debug"
"""Key of `click.Context.meta`: whether errors print a traceback."""


def option(*names: str, consent: bool = False, **attributes: Any) -> Callable[[F], F]:
    """An option that the environment can set as `BATCHER_<NAME>`; consents can only be given on the command line."""
    name = next(name for name in names if name.startswith("--")).removeprefix("--").partition("/")[0]
    if not consent:
        attributes.setdefault("envvar", "BATCHER_" + name.upper().replace("-", "_"))
    return click.option(*names, **attributes)


def ledger_options(command: F) -> F:
    """Add `--ledger` and `--sandbox`, for the commands other than `run`."""
    command = option("--sandbox", is_flag=True, help="Use the ledger of the sandbox.")(command)
    return option(
        "--ledger",
        metavar="PATH",
        help="Ledger; defaults to batcher.db beside the manifest or in the current folder.",
    )(command)


def json_option(command: F) -> F:
    """Add `--json`."""
    return option("--json", "as_json", is_flag=True, help="Print JSON to standard output.")(command)


def is_flag(ctx: click.Context, name: str) -> bool:
    """Whether the option was given on the command line."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def is_default(ctx: click.Context, name: str) -> bool:
    """Whether neither the command line, the environment nor `batcher.toml` set the option."""
    return ctx.get_parameter_source(name) in (None, ParameterSource.DEFAULT)
