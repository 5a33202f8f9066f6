"""Reads a manifest row by row. Faults are collected on the way and no row is held in memory, so that a file of any
length can be checked to its end before anything is bought."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from batcher import files
from batcher.errors import ManifestError
from batcher.manifest import formats
from batcher.manifest.columns import FIELDS, Columns
from batcher.manifest.faults import Faults
from batcher.manifest.input import Input
from batcher.manifest.packed import unpacked
from batcher.manifest.row_filter import RowFilter
from batcher.manifest.rows import FindFormer, FindState, Record, Row, RowValidator, record_id
from batcher.manifest.rules import Rules
from batcher.manifest.stream import seekable

Watch = Callable[[Iterator[Record], str], Iterator[Record]]
"""Passes records on as they are read from the file of this name, to show progress."""


class Manifest:
    """One manifest: a file, or (`path` None) standard input or what `stdin` contains, called `name`.

    `columns_sent` (header to field) and `columns_carried` are complete after the first row of a table or the last of
    JSONL. `notes` are what was decided about the file's format; `hints`, about names, are added when it is staged.
    `digest` (SHA-256, hex) and `size` (bytes) are those of the unpacked content, and set once `rows` is exhausted.
    """

    def __init__(
        self,
        path: Path | None,
        rules: Rules,
        *,
        stdin: BinaryIO | None = None,
        name: str = "<stdin>",
        watch: Watch = lambda rows, _: rows,
    ) -> None:
        self.name = name if path is None else str(path)
        self.faults = Faults(self.name)
        self.digest: str | None = None
        self.size = 0
        self.notes: list[str] = []
        self.hints: list[str] = []
        self._path = path
        self._stdin = stdin
        self._watch = watch
        self._rules = rules
        self._columns = Columns(rules.columns, self.faults)
        self._validator = RowValidator(rules, self._columns, self.faults)
        self._filter = RowFilter(rules.where, self._columns, self.faults, self.notes)

    @property
    def columns_sent(self) -> dict[str, str]:
        """The columns that are fields: header to field."""
        return dict(self._columns.sent)

    @property
    def columns_carried(self) -> list[str]:
        """The columns that are only copied to the results."""
        return list(self._columns.carried)

    def description(self) -> list[str]:
        """What was decided about the file that its user may want to check: format, columns, and names of outputs."""
        lines = [*self.notes, *filter(None, [self._columns.guesses()])]
        if {"id", "output"}.isdisjoint(self._columns.sent.values()) and "{id" in self._rules.filename:
            lines.append(
                "no id column: outputs are named by row number, so inserting a row renames the outputs after it"
            )
        return lines

    @property
    def left_out(self) -> int:
        """Rows that `--where` does not select, so far."""
        return self._filter.left_out

    @property
    def stripped(self) -> int:
        """Rows from whose texts markup was removed, so far."""
        return self._validator.stripped

    def rows(self, find_former: FindFormer = lambda _: None, find_state: FindState = lambda _: None) -> Iterator[Row]:
        """Yield the rows that can be staged, in order; call it once. Everything wrong is added to `faults`.

        `find_former` finds what the ledger has for a row's id, `find_state` the state of its item with a key.

        Raises:
            ManifestError: the file cannot be read: it is missing, or its encoding or its header is unusable.
        """
        for record in self._watch(self._records(), self.name):
            row = self._validator.row(record, find_former, find_state)
            if row is not None:
                yield row

    def _records(self) -> Iterator[Record]:
        try:
            with (
                nullcontext(self._stdin or sys.stdin.buffer)
                if self._path is None
                else files.reading(self._path) as stream,
                seekable(stream, self.name) as seeking,
                unpacked(seeking, self.name) as (content, ending),
            ):
                source = self._input(content, ending if self._path is not None else "")
                yield from self._filter.selected(formats.records(source))
                source.tap.drain()
                self.digest, self.size = source.tap.sha256.hexdigest(), source.tap.size
        except OSError as error:
            message = f"{self.name}: cannot be read: {error.strerror or error}"
            hint = "" if self._path is None or not self._path.is_fifo() else "Pass - to read standard input."
            raise ManifestError(message, [message], hint) from error

    def _opened(self) -> AbstractContextManager[BinaryIO]:
        if self._path is not None:
            return files.reading(self._path)
        return nullcontext(self._stdin or sys.stdin.buffer)

    def _input(self, stream: BinaryIO, ending: str) -> Input:
        return Input(
            name=self.name,
            ending=ending,
            is_stdin=self._path is None,
            stream=stream,
            rules=self._rules,
            columns=self._columns,
            faults=self.faults,
            notes=self.notes,
        )


def input_columns(path: Path, rules: Rules) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each record's number and all its columns, unchanged and in the file's order; no columns for a broken record.

    Raises:
        ManifestError: the file cannot be read.
    """
    unmapped = dict.fromkeys(FIELDS, "")  # without fields, every column is carried
    return ((record.number, record.extra) for record in Manifest(path, replace(rules, columns=unmapped))._records())


def explicit_takes(path: Path, rules: Rules) -> Iterator[tuple[str, Any]]:
    """Id and take, unchanged, of the rows that set their take.

    Raises:
        ManifestError: the file cannot be read.
    """
    for record in Manifest(path, rules)._records():
        if "take" in record.given:
            yield str(record.given.get("id", record_id(record.number))), record.given["take"]
