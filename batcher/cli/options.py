"""The options that commands share, and how a value is found: flags win, then the environment, then `batcher.toml`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from batcher import settings
from batcher.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

SECTIONS: Final = ("columns", "voices")
"""Tables of `batcher.toml` that are no options."""
DEBUG: Final = "batcher.debug"
"""Key of `click.Context.meta`: whether errors print their traceback."""


class Duration(click.ParamType[float]):
    """A span of time such as `50m`, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds of `value`."""
        try:
            return settings.duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Rate(click.ParamType[float]):
    """So many a second."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, which is above 0 and finite."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = 0.0
        if not 0 < number < math.inf:
            self.fail(f"{value!r} is not a number above 0", param, ctx)
        return number


class WebAddress(click.ParamType[str]):
    """An address that begins with https:// or http://."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address itself."""
        if not str(value).startswith(("https://", "http://")):
            self.fail("it must begin with https:// or http://", param, ctx)
        return str(value)


def option(*names: str, consent: bool = False, **attributes: Any) -> Callable[[F], F]:
    """An option that is also `BATCHER_<NAME>` in the environment; a consent is a flag on the command line alone."""
    name = next(name for name in names if name.startswith("--")).removeprefix("--").partition("/")[0]
    if not consent:
        attributes.setdefault("envvar", "BATCHER_" + name.upper().replace("-", "_"))
    return click.option(*names, **attributes)


def ledger_options(command: F) -> F:
    """Where the ledger is, for the commands beside `run`."""
    command = option("--sandbox", is_flag=True, help="The sandbox's ledger of the project folder.")(command)
    return option("--ledger", metavar="PATH", help="The ledger; by default batcher.db of the project folder.")(command)


def need_one_api(ctx: click.Context, *, sandbox: bool) -> None:
    """Make sure that nobody is sent to the sandbox who has named another API; a flag wins over a configured address.

    Raises:
        UsageError: both are asked for.
    """
    if sandbox and not _unset(ctx, "api_url") and (is_flag(ctx, "api_url") or not is_flag(ctx, "sandbox")):
        raise UsageError(
            "--sandbox and --api-url name two APIs", "Leave one out; a sandbox served by hand is named by --api-url."
        )


def find_token(ctx: click.Context) -> str | None:
    """The API token: of the file that a flag names, or else the environment's own, or else of a file named elsewhere.

    Raises:
        UsageError: the file cannot be read, or what it holds cannot be a token.
    """
    token = None if is_flag(ctx, "token_file") else settings.token_from_environment()
    return settings.read_token(token, ctx.params["token_file"])


def is_flag(ctx: click.Context, name: str) -> bool:
    """Whether the option was given on the command line."""
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def json_option(command: F) -> F:
    """Data for programs."""
    return option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")(command)


def fill_from_file(ctx: click.Context, folder: Path) -> dict[str, Any]:
    """Give `batcher.toml`'s value to every option of the command that neither a flag nor the environment set.

    Returns the whole file.

    Raises:
        UsageError: it holds a name that no option has, a consent, or a value of the wrong type.
    """
    found = settings.read_file(folder)
    path = folder / settings.FILE_NAME
    known = _configurable(ctx) if found else set()  # knowing them takes the loading of every command
    for name, value in found.items():
        if name in SECTIONS:
            continue
        if name not in known:
            _refuse(name, known, path)
        here = (param for param in ctx.command.params if isinstance(param, click.Option) and param.envvar is not None)
        param = next((param for param in here if _file_name(param) == name), None)
        if param is not None and param.name is not None and _unset(ctx, param.name):
            ctx.params[param.name] = _converted(ctx, param, value, path)
            ctx.set_parameter_source(param.name, click.core.ParameterSource.DEFAULT_MAP)
    return found


def _configurable(ctx: click.Context) -> set[str]:
    """The names that the file may set: those of every command, since all share it."""
    root = ctx.find_root().command
    names = root.list_commands(ctx) if isinstance(root, click.Group) else []
    commands = [root.get_command(ctx, name) for name in names] if isinstance(root, click.Group) else [root]
    return {
        _file_name(param)
        for command in commands
        if command is not None
        for param in command.params
        if isinstance(param, click.Option) and param.envvar is not None
    }


def _file_name(param: click.Parameter) -> str:
    longest = max(param.opts, key=len, default="")
    return longest.removeprefix("--")


def _unset(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) in (None, click.core.ParameterSource.DEFAULT)


def _refuse(name: str, known: set[str], path: Path) -> None:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]}?" if near else "Its keys are the options' names; consents are flags only."
    raise UsageError(f"{path}: unknown key {name!r}", hint)


def _converted(ctx: click.Context, param: click.Parameter, value: Any, path: Path) -> Any:
    try:
        converted = param.type_cast_value(ctx, str(value) if isinstance(param.type, Duration) else value)
    except click.BadParameter as error:
        raise UsageError(f"{path}: {_file_name(param)}: {error.message}") from None
    if isinstance(converted, Path) or (param.name == "ledger" and "://" not in str(converted)):
        return type(converted)(path.parent / converted)
    return converted


def ledger_path(value: str | None, folder: Path, *, sandbox: bool) -> Path:
    """The ledger that was named, or the project folder's own. Symbolic links are followed.

    Raises:
        UsageError: it is a URL of something other than SQLite.
    """
    if value is None:
        return (folder / ("batcher-sandbox.db" if sandbox else "batcher.db")).resolve()
    if "://" in value:
        if not value.startswith("sqlite:///"):
            raise UsageError(
                f"the ledger cannot be at {value.partition(':')[0]}://…", "Name a path, or sqlite:///PATH."
            )
        value = value.removeprefix("sqlite:///")
    return Path(value).expanduser().resolve()


def project_folder(manifest: Path | None) -> Path:
    """The manifest's folder, or the current one for standard input."""
    return (manifest.parent if manifest is not None else Path()).absolute()


def find_ledger(ctx: click.Context, names: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """The ledger that a command is about: `--ledger`, or that of a manifest among `names`, or the current folder's.

    Returns it and the names that are not manifests.
    """
    manifests = [Path(name) for name in names if Path(name).is_file()]
    named = ctx.params["ledger"]
    beside = manifests[0] if manifests else ledger_path(named, Path(), sandbox=False) if named is not None else None
    folder = project_folder(beside)
    fill_from_file(ctx, folder)
    path = ledger_path(ctx.params["ledger"], folder, sandbox=ctx.params["sandbox"])
    if not path.exists() and ctx.params["ledger"] is None and not ctx.params["sandbox"]:
        other = path.with_name("batcher-sandbox.db")
        if other.exists():
            raise UsageError(f"no ledger at {path}, only the sandbox's beside it", "Add --sandbox to look at that.")
    return path, tuple(name for name in names if Path(name) not in manifests)


def merged_columns(chosen: tuple[str, ...], file: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """`--column` and `[columns]`: the former wins, field by field.

    Raises:
        UsageError: one is not FIELD=HEADER.
    """
    columns = dict(settings.string_table(file.get("columns"), "columns", folder / settings.FILE_NAME))
    for text in chosen:
        try:
            name, header = settings.column_choice(text)
        except ValueError as error:
            raise UsageError(f"--column: {error}") from None
        columns[name] = header
    return columns
