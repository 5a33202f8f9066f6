"""`batcher doctor`: check the setup."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from batcher.address import without_password
from batcher.cli.colours import ERROR, GOOD, WARNING
from batcher.cli.config_file import FILES, TABLES
from batcher.cli.json_output import reply
from batcher.cli.option_types import Duration
from batcher.cli.options import is_flag
from batcher.cli.run_options import GroupedCommand, manifest_options, run_settings
from batcher.cli.terminal import show
from batcher.doctor.finding import Finding, Level
from batcher.formatting import counted
from batcher.settings import FILE_NAME, duration_text, folder_of_ledger, user_folder

_SOURCES: Final[dict[ParameterSource | None, str]] = {
    ParameterSource.COMMANDLINE: "flag",
    ParameterSource.ENVIRONMENT: "environment",
}
_COLOURS: Final = {"ok": GOOD, "hint": WARNING, "problem": ERROR}


@click.command(cls=GroupedCommand)
@click.argument("manifests", nargs=-1, metavar="[MANIFEST...]")
@manifest_options
@click.pass_context
def doctor(ctx: click.Context, /, manifests: tuple[str, ...], **_: Any) -> None:
    """Check the setup and explain how to fix problems. Creates nothing.

    Takes the options of `run` and checks everything that a run depends on: token, account and host, the clock,
    the API's published schema, the ledger and its disk, the manifests, free space, leftover files and the sandbox's
    speech. Also prints the source of each setting. Each finding is ok, a hint or a problem.
    """
    from batcher.clock import Clock
    from batcher.doctor.checks import run_checks

    missing = [name for name in manifests if name != "-" and not Path(name).is_file()]
    if missing:
        raise click.UsageError(f"file not found: {missing[0]}", ctx)
    folder = folder_of_ledger(ctx.params["ledger"])
    found = run_checks(run_settings(ctx, manifests, without=folder), Clock())
    code, settings = exit_code(found), _settings(ctx)
    if ctx.params["as_json"]:
        findings = [asdict(one) for one in found]
        reply(ctx, _message(found), exit_code=code, findings=findings, settings=settings)
    else:
        _print(ctx, found, settings)
    ctx.exit(code)


def exit_code(found: Sequence[Finding]) -> int:
    """2 if there is a problem to fix, 8 if all problems are temporary, else 0."""
    problems = [one for one in found if one.level == "problem"]
    if any(not one.passing for one in problems):
        return 2
    return 8 if problems else 0


def _message(found: Sequence[Finding]) -> str:
    levels = [one.level for one in found]
    return f"{counted(levels.count(Level.PROBLEM), 'problem')}, {counted(levels.count(Level.HINT), 'hint')}"


def _settings(ctx: click.Context) -> list[dict[str, Any]]:
    """Every setting with its value and source; for the token only the source."""
    found: list[dict[str, Any]] = [{"name": "token", "value": None, "source": _token_source(ctx)}]
    for param in ctx.command.params:
        if isinstance(param, click.Option) and param.envvar is not None and param.name is not None:
            value = ctx.params[param.name]
            if isinstance(value, tuple):
                value = ", ".join(chain.from_iterable(one if isinstance(one, tuple) else (one,) for one in value))
            if param.name == "ledger" and value is not None:
                value = without_password(value)
            plain = value if isinstance(value, bool | int | float | None) else str(value)
            name = max(param.opts, key=len).removeprefix("--")
            found.append({"name": name, "value": plain, "source": _source(ctx, param.name)})
    for table, entries in ctx.meta.get(TABLES, {}).items():
        found += [{"name": f"[{table}] {key}", "value": text, "source": FILE_NAME} for key, text in entries.items()]
    return found


def _token_source(ctx: click.Context) -> str:
    if os.environ.get("BATCHER_API_TOKEN", "").strip() and not is_flag(ctx, "token_file"):
        return "environment"
    if ctx.params["token_file"] is None:
        return "nowhere"
    return f"file named by {_source(ctx, 'token_file')}"


def _source(ctx: click.Context, name: str) -> str:
    """What set the option: for the project's file its name, for the user's own its path."""
    file = ctx.meta.get(FILES, {}).get(name)
    if file is not None:
        return str(file) if file.parent == user_folder() else FILE_NAME
    return _SOURCES.get(ctx.get_parameter_source(name), "default")


def _print(ctx: click.Context, found: Sequence[Finding], settings: list[dict[str, Any]]) -> None:
    for one, following in zip_longest(found, found[1:]):
        level = click.style(f"{one.level:<8}", fg=_COLOURS[one.level])
        show(f"{level} {one.topic}: {one.message}", hanging=9)
        if one.hint and (following is None or one.hint != following.hint):
            show(f"         {one.hint}")
    click.echo("settings that differ from their defaults:")
    types = {max(param.opts, key=len).removeprefix("--"): param.type for param in ctx.command.params}
    for setting in settings:
        if setting["source"] not in ("default", "nowhere"):
            name = setting["name"]
            value = "" if name == "token" else f" = {_as_written(types.get(name), setting['value'])}"
            show(f"         {name}{value} ({setting['source']})", hanging=11)


def _as_written(kind: object, value: Any) -> str:
    """A setting's value as people write it in `batcher.toml`."""
    if isinstance(kind, Duration):
        return duration_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
