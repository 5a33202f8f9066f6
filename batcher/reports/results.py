"""Results files: one line per row of a batch, in manifest order."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from batcher.audio.store import Store
from batcher.settings import RESULT_FORMATS

_RESULT_COLUMNS: Final = (
    *("batch", "row", "id", "state", "output", "key", "task_id", "take"),
    *("sha256", "bytes", "audio_seconds", "error"),
)

RESULTS: Final = ".results"
"""Suffix after the batch's name in the names of results files."""
REPORT: Final = ".report"
"""Suffix after the batch's name in the names of report pages and workbooks."""
RESERVED_ENDINGS: Final = (f"{RESULTS}.jsonl", f"{RESULTS}.csv", f"{REPORT}.html", f"{REPORT}.xlsx")
"""Endings of these files' names, which no output in the output folder may have."""


def results_names(batch: str) -> list[str]:
    """Names of the results files of a batch, in its output folder."""
    return [f"{batch}{RESULTS}.{ending}" for ending in RESULT_FORMATS]


def write_results(
    store: Store, batch: str, lines: Iterator[dict[str, Any]], formats: Sequence[str] = RESULT_FORMATS
) -> None:
    """Replace `BATCH.results.jsonl` and `.csv` in the output folder, or one of them, with its next `flush`.

    Raises:
        OSError: they cannot be written; the old ones stay.
    """
    with ExitStack() as opened:
        jsonl, table = (
            opened.enter_context(store.replacing(name, encoding=encoding) if kind in formats else _nowhere(encoding))
            for name, kind, encoding in zip(results_names(batch), RESULT_FORMATS, (None, "utf-8"), strict=True)
        )
        _write_lines(jsonl, table, lines)


def _nowhere(encoding: str | None) -> IO[Any]:
    return Path(os.devnull).open("w" if encoding else "wb", encoding=encoding)


def _write_lines(jsonl: IO[bytes], table: IO[str], lines: Iterator[dict[str, Any]]) -> None:
    writer = csv.writer(table)
    writer.writerow((*_RESULT_COLUMNS, "extra", "ignored"))
    for line in lines:
        jsonl.write(_JSON.encode(line) + b"\n")
        line["error"], line["extra"] = _cell(line["error"]), _cell(line["extra"] or None)
        line["ignored"] = ",".join(line["ignored"] or ())
        writer.writerow(line.values())


def _cell(value: dict[str, Any] | None) -> str | None:
    return None if value is None else _JSON.encode(value).decode()


_JSON: Final = msgspec.json.Encoder()
