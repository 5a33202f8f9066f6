"""The report as data: the manifest's own columns, in their order, and beside them what became of each row."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, Literal

from batcher.errors import ManifestError
from batcher.ledger.ledger import Connection
from batcher.ledger.records import Wanted
from batcher.ledger.reporting import Told, source_of, told_rows
from batcher.manifest import given_columns

Format = Literal["csv", "jsonl"]
_MARK: Final = "batcher_"
"""Begins the name of each column that is added, so that none takes the place of the manifest's own."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - wide ones count too
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


class Sheet:
    """The rows of some batches as records of one table.

    `changed` are the manifests that no longer read as the ledger knows them (or were standard input): of their rows
    the columns are those that the ledger keeps. Without `texts`, so are those of all rows, except the text; and what
    errors say in prose is left out, since it may quote a text.
    """

    def __init__(self, conn: Connection, wanted: Sequence[Wanted], *, texts: bool) -> None:
        self._conn = conn
        self._wanted = wanted
        self._texts = texts
        sources = {batch.batch_id: source_of(conn, batch) for batch in wanted}
        self._files = {
            number: Path(name) for number, (name, digest) in sources.items() if texts and _reads(name, digest)
        }
        self.changed = [name for number, (name, _) in sources.items() if texts and number not in self._files]

    def write(self, file: IO[str], kind: Format) -> None:
        """Write every row. In CSV, a cell that a spreadsheet would take for a formula gets an apostrophe in front."""
        if kind == "jsonl":
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in self._records())
            return
        columns = list(dict.fromkeys(name for record in self._records() for name in record))
        columns.sort(key=lambda name: name.startswith(_MARK))  # stable: ours follow the manifest's
        writer = csv.writer(file)
        writer.writerow(map(_defused, columns))
        writer.writerows([_defused(_cell(record.get(name))) for name in columns] for record in self._records())

    def _records(self) -> Iterator[dict[str, Any]]:
        for batch in self._wanted:
            path = self._files.get(batch.batch_id)
            given = given_columns(path) if path is not None else iter(())
            number = 0
            columns: dict[str, Any] = {}
            for row in told_rows(self._conn, [batch]):
                while path is not None and number < row.number:
                    number, columns = next(given, (row.number, {}))
                own = columns if number == row.number else self._kept(row)
                yield {name: value for name, value in own.items() if not name.startswith(_MARK)} | self._became(row)

    def _kept(self, row: Told) -> dict[str, Any]:
        """The row as the ledger has it."""
        if row.inputs is None:
            return {"id": row.id} | row.extra
        named = {"voice": row.inputs.voice, "model": row.inputs.model, "format": row.inputs.format}
        text = {"text": row.inputs.text} if self._texts else {}
        return {"id": row.id} | text | named | row.inputs.params | row.extra

    def _became(self, row: Told) -> dict[str, Any]:
        found = {
            "batch": row.batch,
            "row": row.number,
            "id": row.id,
            "state": row.state,
            "output": row.output,
            "take": row.take if row.key else None,
            "audio_seconds": row.audio_seconds,
            "error": row.error,
            "error_message": row.error_message if self._texts else None,
            "task_id": row.task_id,
            "key": row.key,
        }
        return {_MARK + name: value for name, value in found.items()}


def _reads(name: str, digest: str) -> bool:
    """Whether the file is there, is the one that the ledger took in, and can be read without being told how."""
    try:
        with Path(name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                return False
        return all(True for _ in given_columns(Path(name)))
    except (OSError, ManifestError):
        return False


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _defused(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: see OWASP's page on CSV injection. Plain numbers stay."""
    return f"'{cell}" if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else cell
