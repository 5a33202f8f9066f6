"""Options set in `batcher.toml`, for those that neither the command line nor the environment set.

The project's file comes first, then the user's own.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from batcher import settings
from batcher.cli import trust
from batcher.cli.option_types import ColumnNames, ExitCodes
from batcher.cli.options import is_default
from batcher.errors import UsageError
from batcher.files import is_url
from batcher.manifest.faults import printable

SECTIONS: Final = ("columns", "voices")
"""Tables of `batcher.toml`; all other keys are option names."""
_OF_THE_API: Final = frozenset(("allow-audio-host", "allow-http", "api-url", "token-file"))
"""Keys that have no effect in the sandbox."""
FILES: Final = "batcher.files"
"""Key of `click.Context.meta`: the file that set each option that a file set."""

TABLES: Final = "batcher.tables"
"""Key of `click.Context.meta`: the tables of the project's file, by name."""


def apply_config_file(ctx: click.Context, folder: Path) -> dict[str, Any]:
    """Set the command's remaining options from `batcher.toml` in the project folder, then from the user's own file.

    Returns the parsed file of the project.

    Raises:
        UsageError: a file contains an unknown key, a consent, or a value of the wrong type, or the project's file sets
            something that needs trust and has none.
    """
    folder = folder.absolute()
    config = settings.read_file(folder)
    own_folder = settings.user_folder()
    own = settings.read_file(own_folder) if own_folder is not None else {}
    if folder != own_folder:
        # First of all: a value that was set would count even if the command then failed.
        trust.need_trust(config, folder, _open_keys(ctx), _api_url(ctx, config, own))
    _apply(ctx, config, folder / settings.FILE_NAME, SECTIONS)
    ctx.meta[TABLES] = {name: config[name] for name in SECTIONS if isinstance(config.get(name), dict)}
    if own_folder is not None and folder != own_folder:
        _apply(ctx, own, own_folder / settings.FILE_NAME, ())
    return config


def _open_keys(ctx: click.Context) -> set[str]:
    """The keys that the command would take from a file: neither the command line nor the environment set them."""
    keys = {_key(param) for param in _configurable(ctx.command) if param.name and is_default(ctx, param.name)}
    return keys - _OF_THE_API if ctx.params.get("sandbox") else keys


def _api_url(ctx: click.Context, *configs: Mapping[str, Any]) -> Any:
    """The API's address that the command would use with these files, the first of which comes first."""
    if not is_default(ctx, "api_url"):
        return ctx.params["api_url"]
    return next((config["api-url"] for config in configs if "api-url" in config), settings.DEFAULT_URL)


def _apply(ctx: click.Context, config: Mapping[str, Any], path: Path, sections: tuple[str, ...]) -> None:
    """Set the options that nothing has set yet."""
    known = _configurable_names(ctx) if config else set()  # loads every command
    own = {_key(param): param for param in _configurable(ctx.command)}
    for name, value in config.items():
        if name in sections and not _is_list_of_columns(name, value):
            continue
        if name not in known:
            raise _unknown_key(name, known, path)
        param = own.get(name)
        if param is not None and param.name is not None and is_default(ctx, param.name):
            ctx.params[param.name] = _converted(ctx, param, value, path)
            ctx.set_parameter_source(param.name, ParameterSource.DEFAULT_MAP)
            ctx.meta.setdefault(FILES, {})[param.name] = path


def merged_columns(chosen: tuple[str, ...], config: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Merge `[columns]` and `--column`; for a field in both, `--column` wins.

    Raises:
        UsageError: a choice is not FIELD=HEADER.
    """
    table = config.get("columns")
    table = None if _is_list_of_columns("columns", table) else table
    columns = dict(settings.string_table(table, "columns", folder / settings.FILE_NAME))
    for text in chosen:
        try:
            name, header = settings.column_choice(text)
        except ValueError as error:
            raise UsageError(f"--column: {error}") from None
        columns[name] = header
    return columns


def _is_list_of_columns(name: str, value: Any) -> bool:
    """Whether `columns` is not the table `[columns]`, but the names that `--columns` takes."""
    return name == "columns" and isinstance(value, str | list)


def _configurable(command: click.Command) -> Iterator[click.Option]:
    return (param for param in command.params if isinstance(param, click.Option) and param.envvar is not None)


def _configurable_names(ctx: click.Context) -> set[str]:
    """The keys that `batcher.toml` may contain: all commands share the file."""
    root = ctx.find_root().command
    if not isinstance(root, click.Group):
        return {_key(param) for param in _configurable(root)}
    commands = (root.get_command(ctx, name) for name in root.list_commands(ctx))
    return {_key(param) for command in commands if command is not None for param in _configurable(command)}


def _key(param: click.Parameter) -> str:
    return max(param.opts, key=len, default="").removeprefix("--")


def _unknown_key(name: str, known: set[str], path: Path) -> UsageError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]}?" if near else "Keys are option names; consents go on the command line only."
    return UsageError(f"{path}: unknown key {name!r}", hint)


def _as_given(param: click.Option, value: Any) -> Any:
    """The value as a command line would give it, since that is what the checks of options expect: text, or a flag.

    Raises:
        click.BadParameter: the option cannot have a value of this kind.
    """
    if param.is_flag and isinstance(value, bool):
        return value
    takes_list = param.multiple or isinstance(param.type, ColumnNames | ExitCodes)
    parts = value if takes_list and isinstance(value, list) else [value]
    texts = [str(part) for part in parts]
    if any(isinstance(part, bool | list | dict) for part in parts) or "\0" in "".join(texts):
        shown = printable(json.dumps(value, default=str, ensure_ascii=False))
        wanted = "true or false" if param.is_flag else "text or a list of texts" if takes_list else "text or a number"
        raise click.BadParameter(f"{shown} is not a possible value: write {wanted}")
    return texts if param.multiple or isinstance(value, list) else texts[0]


def _converted(ctx: click.Context, param: click.Option, value: Any, path: Path) -> Any:
    try:
        converted = param.type_cast_value(ctx, _as_given(param, value))
    except click.BadParameter as error:
        raise UsageError(f"{path}: {_key(param)}: {error.message}") from None
    if isinstance(converted, Path) or (param.name in ("ledger", "out_dir") and not is_url(str(converted))):
        return type(converted)(path.parent / converted)
    return converted
