"""The options of a run as parameters of Python functions: their types, checks and defaults.

They have the names of the command line's options, with underscores.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypedDict

from batcher.errors import UsageError
from batcher.manifest.markup.nouns import TABLE, types
from batcher.manifest.row_filter import condition
from batcher.manifest.rules import delimiter
from batcher.settings import DEFAULT_URL, SANDBOX_CONCURRENCY, duration, rate, read_token, token_from_environment

StrPath = str | os.PathLike[str]


class Options(TypedDict, total=False):
    """The options of a run or a plan; `batcher help python` lists those that differ from the command line.

    Durations are seconds, a `timedelta`, or text such as "50m". None stands for the default.
    """

    # How the manifest is read.
    batch: str | None
    column: Mapping[str, str]  # field to header; "" ignores the field
    voices: Mapping[str, str]  # names of voices in the manifest to voice IDs
    encoding: str | None
    delimiter: str | None
    quotes: Literal["auto", "on", "off"]
    header_row: int | None
    no_header: bool
    columns: Iterable[str] | None  # names of the columns, with no_header
    sheet: str | None
    where: str | Iterable[str]
    skip_invalid: bool
    skip_empty: bool
    allow: str | Iterable[str]
    strip: str | Iterable[str]
    rescan: bool
    # Defaults of rows.
    voice: str | None
    model: str | None
    format: str | None
    # Files.
    ledger: StrPath | None
    out_dir: StrPath | None
    filename: str
    results: Literal["all", "none", "jsonl", "csv"]
    # Rows and limits of the run.
    only: str | Iterable[str]
    sample: int | None
    concurrency: int
    create_rate: float | None
    poll_rate: float | None
    max_items: int | None
    max_credits: float | None
    max_in_doubt: int
    max_runtime: float | str | timedelta | None
    no_wait: bool
    collect_only: bool
    wait_lock: float | str | timedelta
    # Consents.
    rebuy: bool
    rename: bool
    refilter: bool
    restored: bool
    override_halt: bool
    # The API.
    api_url: str
    token: str | None
    token_file: StrPath | None
    sandbox: bool
    allow_http: bool
    no_credits_code: str | Iterable[str]
    allow_audio_host: str | Iterable[str]


class LedgerOptions(TypedDict, total=False):
    """Which ledger a function works on: `ledger`, or that beside `manifest`, or else that in the current folder.

    The others are for functions that ask the API.
    """

    manifest: StrPath | None
    ledger: StrPath | None
    sandbox: bool
    api_url: str
    token: str | None
    token_file: StrPath | None
    allow_http: bool


def checked_for_ledger(given: LedgerOptions, function: str) -> dict[str, Any]:
    """The options that are given to this function, which works on a ledger.

    Raises:
        TypeError: an option does not exist.
    """
    known = LedgerOptions.__annotations__
    if unknown := next((name for name in given if name not in known), None):
        raise TypeError(f"{function}() got an unexpected keyword argument {unknown!r}{_suggestion(unknown, known)}")
    return dict(given)


def checked(given: Mapping[str, Any], function: str) -> dict[str, Any]:
    """The values of all options, with defaults for those that are not given to this function.

    Raises:
        TypeError: an option does not exist.
        UsageError: a value is invalid.
    """
    values = {name: one.default for name, one in _OPTIONS.items()}
    for name, value in given.items():
        if name not in _OPTIONS:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{_suggestion(name, _OPTIONS)}")
        if value is not None:
            try:
                values[name] = _OPTIONS[name].check(value)
            except ValueError as error:
                raise UsageError(f"{name}: {error}") from None
    if values["sandbox"] and given.get("concurrency") is None:
        values["concurrency"] = SANDBOX_CONCURRENCY
    return values


def token_of(values: Mapping[str, Any]) -> str | None:
    """The API token: `token`, or else from `token_file`, or else from `BATCHER_API_TOKEN`.

    Raises:
        UsageError: the file cannot be read, or its content cannot be a token.
    """
    token, file = values["token"], values["token_file"]
    return read_token(token if token is not None or file is not None else token_from_environment(), file)


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [*known], n=1)
    return f". Did you mean {near[0]!r}?" if near else ""


class _Option(NamedTuple):
    """The check of an option's value, which raises ValueError, and its default."""

    check: Callable[[Any], Any]
    default: Any = None


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither True nor False")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    return value


def _secret(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} is not a string")
    return value


def _path(value: Any) -> Path:
    if not isinstance(value, str | os.PathLike) or isinstance(value, bytes):
        raise ValueError(f"{value!r} is not a path")
    return Path(value)


def _path_or_url(value: Any) -> str:
    return os.fspath(_path(value)) if not isinstance(value, str) else value


def _whole(least: int, most: int | None = None) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        # Integers of other libraries count too.
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise ValueError(f"{value!r} is not a whole number")
        number = int(value)
        if number < least or (most is not None and number > most):
            up_to = f" to {most:,}" if most is not None else " or more"
            raise ValueError(f"{number} is out of range: use {least}{up_to}")
        return number

    return check


def _amount(value: Any) -> float:
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise ValueError(f"{value!r} is not a number")
    number = float(value)
    if not number >= 0:
        raise ValueError(f"{value!r} is not a number from 0")
    return number


def _seconds(value: Any) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return duration(value) if isinstance(value, str) else _amount(value)


def _words(value: Any) -> tuple[str, ...]:
    """Names: one string, with commas between them, or several."""
    names = value.split(",") if isinstance(value, str) else value
    if isinstance(names, Mapping) or not isinstance(names, Iterable):
        raise ValueError(f"{value!r} is not a list of strings")
    return tuple(_text(name).strip() for name in names)


def _ids(value: Any) -> tuple[str, ...]:
    ids = tuple(filter(None, _words(value)))
    if not ids:  # not all rows: whoever computed the list would buy everything
        raise ValueError("name at least one row, or pass None for all")
    return ids


def _conditions(value: Any) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else _words(value)
    return tuple(str(condition(one)) for one in given)


def _mapping(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError(f'{value!r} is not a mapping such as {{"text": "Script"}}')
    return {_text(name): _text(other) for name, other in value.items()}


def _choice(*names: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in names:
            raise ValueError(f"{value!r} is not one of {', '.join(names)}")
        return _text(value)

    return check


_OPTIONS: Final = {
    "batch": _Option(_text),
    "column": _Option(_mapping, {}),
    "voices": _Option(_mapping, {}),
    "encoding": _Option(_text),
    "delimiter": _Option(lambda value: delimiter(_text(value))),
    "quotes": _Option(_choice("auto", "on", "off"), "auto"),
    "header_row": _Option(_whole(1, 1000)),
    "columns": _Option(_words),
    "sheet": _Option(_text),
    "where": _Option(_conditions, ()),
    "allow": _Option(lambda value: types(_words(value), TABLE), ()),
    "strip": _Option(lambda value: types(_words(value)), ()),
    "voice": _Option(_text),
    "model": _Option(_text),
    "format": _Option(_text),
    "ledger": _Option(_path_or_url),
    "out_dir": _Option(_path_or_url),
    "filename": _Option(_text, "{id}.{format}"),
    "results": _Option(_choice("all", "none", "jsonl", "csv"), "all"),
    "only": _Option(_ids, ()),
    "sample": _Option(_whole(1)),
    "concurrency": _Option(_whole(1, 20_000), 5),
    "create_rate": _Option(rate),
    "poll_rate": _Option(rate),
    "max_items": _Option(_whole(0)),
    "max_credits": _Option(_amount),
    "max_in_doubt": _Option(_whole(0), 5),
    "max_runtime": _Option(_seconds),
    "wait_lock": _Option(_seconds, 0.0),
    "api_url": _Option(_text, DEFAULT_URL),
    "token": _Option(_secret),
    "token_file": _Option(_path),
    "no_credits_code": _Option(_words, ()),
    "allow_audio_host": _Option(_words, ()),
} | dict.fromkeys(
    (
        *("no_header", "skip_invalid", "skip_empty", "rescan", "no_wait", "collect_only", "sandbox", "allow_http"),
        *("rebuy", "rename", "refilter", "restored", "override_halt"),
    ),
    _Option(_flag, False),
)
"""Every option by its name."""
