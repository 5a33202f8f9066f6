"""Types of option values: durations, rates and web addresses."""

from __future__ import annotations

from typing import Any, Final

import click

from batcher import settings
from batcher.manifest.markup.nouns import types
from batcher.manifest.rules import delimiter


class Duration(click.ParamType[float]):
    """A duration such as `50m`, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the duration."""
        try:
            return settings.duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Rate(click.ParamType[float]):
    """A rate in requests per second: above 0 and finite."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the number."""
        try:
            return settings.rate(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ExitCodes(click.ParamType[tuple[int, ...]]):
    """Exit codes of runs that could begin, separated by commas; in `batcher.toml` also a list."""

    name = "codes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse the numbers."""
        parts = value if isinstance(value, list | tuple) else str(value).split(",")
        found = [str(part).strip() for part in parts]
        if unknown := [code for code in found if code not in _MAY_BE_OK]:
            hint = "1, 2 and 130 stay as they are" if unknown[0] in ("1", "2", "130") else "it is not an exit code"
            self.fail(f"{unknown[0]!r} cannot count as success ({hint}): use {', '.join(_MAY_BE_OK)}", param, ctx)
        return tuple(sorted(set(map(int, found))))


_MAY_BE_OK: Final = ("3", "4", "5", "6", "7", "8")
"""A bug, a wrong command line and an interruption never count as success."""


class Delimiter(click.ParamType[str]):
    """One character, or the name of a delimiter such as `tab`."""

    name = "delimiter"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Look up the name."""
        try:
            return delimiter(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ColumnNames(click.ParamType[tuple[str, ...]]):
    """Names of columns, separated by commas; in `batcher.toml` also a list."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split the names."""
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            self.fail(f"{value!r} is not a list of names: write for example id,_,text", param, ctx)
        return tuple(name.strip() for name in names)


class Where(click.ParamType[str]):
    """A condition such as `status=final`."""

    name = "condition"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the form, and write it in one way."""
        from batcher.manifest.row_filter import condition

        try:
            return str(condition(str(value)))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class RowIds(click.ParamType[tuple[str, ...]]):
    """IDs of rows, separated by commas."""

    name = "ids"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split the IDs."""
        if isinstance(value, tuple):
            return value
        ids = tuple(filter(None, map(str.strip, str(value).split(","))))
        if not ids:
            self.fail("name at least one row", param, ctx)
        return ids


class MarkupTypes(click.ParamType[tuple[str, ...]]):
    """Types of markup, separated by commas; `more` are further types."""

    name = "types"

    def __init__(self, *more: str) -> None:
        self._more = more

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Check each type."""
        if isinstance(value, tuple):
            return value
        try:
            return types(str(value).split(","), *self._more)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class WebAddress(click.ParamType[str]):
    """A URL that begins with https:// or http://."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the scheme."""
        if not str(value).startswith(("https://", "http://")):
            self.fail("the URL must begin with https:// or http://", param, ctx)
        return str(value)
