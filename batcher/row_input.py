"""The rows that a program passes instead of a file: they are stored as JSON lines, and read like a manifest."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, time
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final, Protocol, TypeVar, cast
from uuid import UUID

import anyio.lowlevel

from batcher.errors import ManifestError, StorageError, UsageError
from batcher.manifest.faults import printable
from batcher.options import token_of
from batcher.run_settings import settings_of, sources_of
from batcher.settings import Settings

TITLE: Final = "<rows>"
"""What messages call such rows, with their number as the line."""
_SPOOLED_BYTES: Final = 1 << 23
"""More than this becomes a temporary file."""
_PAUSE_ROWS: Final = 1000
"""Other tasks of the event loop have a turn after this many rows."""


class DataFrame(Protocol):
    """A table of pandas or polars, or any other with rows by `itertuples` or `iter_rows`."""

    @property
    def columns(self) -> Any:
        """The names of the columns."""


SyncRows = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | DataFrame | Iterable[Mapping[str, Any]]
"""Manifests, by path, or rows: mappings of column names to values, or a table."""
Rows = SyncRows | AsyncIterable[Mapping[str, Any]]
T = TypeVar("T")


def paths_of(rows: Any) -> list[Path]:
    """The paths of the manifests, if that is what is given; none for rows."""
    if isinstance(rows, str | os.PathLike) and not isinstance(rows, bytes):
        return [Path(rows)]
    if isinstance(rows, list | tuple) and rows and all(isinstance(one, str | os.PathLike) for one in rows):
        return [Path(one) for one in rows]
    return []


async def spool(rows: Any) -> BinaryIO:
    """Store the rows in a file, in the event loop of the caller.

    Raises:
        ManifestError: a row is no mapping, or a value cannot be stored.
        StorageError: the temporary file cannot be written.
    """
    with _Lines() as lines:
        if isinstance(rows, AsyncIterable):
            async for row in rows:
                lines.add(row)
        else:
            for row in _records(rows):
                lines.add(row)
                if lines.number % _PAUSE_ROWS == 0:
                    await anyio.lowlevel.checkpoint()
        return lines.content()


def spool_now(rows: Any) -> BinaryIO:
    """Store the rows in a file.

    Raises:
        ManifestError: as for `spool`.
        StorageError: the temporary file cannot be written.
        TypeError: the rows come from an asynchronous iterator.
    """
    if isinstance(rows, AsyncIterable):
        raise TypeError("batcher.run() and plan() cannot await rows: use `async with batcher.open(...)`")
    with _Lines() as lines:
        for row in _records(rows):
            lines.add(row)
        return lines.content()


class _Lines:
    """JSON lines in a temporary file, which an error removes. `number` counts them."""

    def __init__(self) -> None:
        self.number = 0
        self._file = tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES)  # noqa: SIM115 - it lives as long as the run

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self._file.close()

    def add(self, row: Any) -> None:
        self.number += 1
        if not isinstance(row, Mapping):
            self._fault(None, f'a {type(row).__name__} is not a mapping such as {{"id": "a1", "text": "Hello."}}')
        values = {}
        for name, value in row.items():
            try:
                values[str(name)] = _plain(value)
            except TypeError as error:
                self._fault(str(name), str(error))
        try:
            self._file.write(json.dumps(values).encode() + b"\n")
        except OSError as error:
            hint = "Free some space for temporary files, or set TMPDIR to another folder."
            raise StorageError(f"cannot store the rows in a temporary file: {error.strerror}", hint) from error

    def content(self) -> BinaryIO:
        return cast("BinaryIO", self._file)

    def _fault(self, column: str | None, reason: str) -> None:
        where = "" if column is None else f"{printable(column)}: "
        fault = f"{TITLE}:{self.number}: {where}{reason}"
        raise ManifestError(f"{fault}; nothing was created", [fault])


def _records(rows: Any) -> Iterable[Any]:
    """The rows one by one; those of a table as mappings."""
    if hasattr(rows, "columns") and (hasattr(rows, "itertuples") or hasattr(rows, "iter_rows")):
        return _table_records(rows)
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        raise UsageError(
            f"cannot read rows from a {type(rows).__name__}",
            "Pass a path, a list of mappings, a data frame, or an iterator of mappings.",
        )
    return rows


def _table_records(table: Any) -> Iterator[dict[str, Any]]:
    names = [str(name) for name in table.columns]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two columns are called {min(twice)!r}", "Rename one.")
    tuples = table.iter_rows() if hasattr(table, "iter_rows") else table.itertuples(index=False, name=None)
    return (dict(zip(names, values, strict=True)) for values in tuples)


def _plain(value: Any) -> Any:
    """The value as JSON has it; None for what tables call missing.

    Raises:
        TypeError: JSON has no such value.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if getattr(value, "ndim", 0):
        raise TypeError("an array cannot be stored: pass a list")
    if type(value).__name__ == "NAType" or bool(value != value):
        return None
    if isinstance(value, float):
        return value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID | PurePath):
        return str(value)
    if callable(getattr(value, "item", None)):  # a number of an array
        return _plain(value.item())
    raise TypeError(f"a value of type {type(value).__name__} cannot be stored: pass a string or a number")


async def settings_for_rows(rows: Rows | None, values: Mapping[str, Any], folder: Path) -> Settings:
    """The settings of a run of these rows, which are read to their end if they are not paths."""
    paths = paths_of(rows)
    content = None if paths or rows is None else await spool(rows)
    return settings_for(rows is not None, paths, content, values, folder)


def settings_for(has_rows: bool, paths: list[Path], content: Any, values: Mapping[str, Any], folder: Path) -> Settings:
    """The settings of a run of these manifests, or of the rows in `content`.

    Raises:
        UsageError: options contradict each other, or there are no rows.
    """
    if not has_rows and not values["collect_only"]:
        raise UsageError("no rows given", "Pass a path or rows; or collect_only=True.")
    manifests: list[Path | None] = [*paths] if content is None else [None]
    sources = sources_of(values, manifests, content=content, title=TITLE)
    return settings_of(values, sources, folder=folder, token=token_of(values))


@contextmanager
def closing_content(settings: Settings) -> Iterator[None]:
    """Close the temporary file of passed rows at the end."""
    try:
        yield
    finally:
        for source in settings.sources:
            if source.content is not None:
                source.content.close()
