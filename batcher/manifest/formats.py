"""Decides which format a manifest has. To add one, write its reader in a module of its own and list it here.

A reader is a function that yields the records of an `Input`, and raises `ManifestError` if it cannot be read at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from batcher.errors import ManifestError
from batcher.manifest import delimited, document, jsonl, plain, subtitles, workbook
from batcher.manifest.input import Input
from batcher.manifest.rows import PARSE_OPTIONS, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format: its name in messages, its reader, and the parse options that its reader uses."""

    name: str
    records: Callable[[Input], Iterator[Record]]
    options: frozenset[str]


_TABLE: Final = frozenset({"columns", "no_header", "names", "header_row"})
_DELIMITED: Final = Format(
    name="a delimited text file",
    records=delimited.records,
    options=_TABLE | {"encoding", "delimiter", "quotes"},
)
_PLAIN: Final = Format(name="plain text", records=plain.records, options=_DELIMITED.options)
_JSONL: Final = Format(name="JSONL", records=jsonl.records, options=frozenset({"columns", "encoding"}))
_DOCUMENT: Final = Format(name="JSON", records=document.records, options=frozenset({"columns", "encoding"}))
_SUBTITLES: Final = Format(name="subtitles", records=subtitles.records, options=frozenset({"columns", "encoding"}))
_WORKBOOK: Final = Format(name="a workbook", records=workbook.records, options=_TABLE | {"sheet"})

_JSON: Final = re.compile(r'\{|\[\s*[\[{"\]]')
"""How JSON begins."""
_BY_ENDING: Final = {
    ".csv": _DELIMITED,
    ".tsv": _DELIMITED,
    ".txt": _DELIMITED,
    ".jsonl": _JSONL,
    ".ndjson": _JSONL,
    ".json": _JSONL,
    ".srt": _SUBTITLES,
    ".vtt": _SUBTITLES,
    ".xlsx": _WORKBOOK,
    ".xls": _WORKBOOK,
    ".ods": _WORKBOOK,
}


def records(source: Input) -> Iterator[Record]:
    """The records of the manifest, read as the format that it has.

    Raises:
        ManifestError: it cannot be read, or an option does not apply to its format.
    """
    found = _format(source)
    for name, option in PARSE_OPTIONS.items():
        if name not in found.options and getattr(source.rules, name):
            message = f"{source.name}: {option} does not apply to {found.name}"
            hint = f"Remove {option}, and its setting in batcher.toml and the environment."
            raise ManifestError(message, [message], hint)
    return found.records(source)


def _format(source: Input) -> Format:
    """By the first bytes, then the name's ending, then the first characters. Empty standard input is JSONL."""
    if source.tap.head.startswith(workbook.MAGIC):
        return _WORKBOOK
    found = _BY_ENDING.get(source.ending) or _by_beginning(source)
    if source.ending == ".txt" and plain.is_plain(source):
        return _PLAIN
    return _DOCUMENT if found is _JSONL and document.is_document(source) else found


def _by_beginning(source: Input) -> Format:
    first = source.lines.beginning()
    if not first:
        return _JSONL if source.is_stdin else _DELIMITED
    if first.startswith("WEBVTT"):
        return _SUBTITLES
    return _JSONL if _JSON.match(first) else _DELIMITED
