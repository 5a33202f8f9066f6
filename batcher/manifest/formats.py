"""Decides which format a manifest has. To add one, write its reader in a module of its own and list it here.

A reader is a function that yields the records of an `Input`, and raises `ManifestError` if it cannot be read at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from batcher.errors import ManifestError
from batcher.manifest import delimited, document, jsonl, markdown, plain, po, prose, subtitles, workbook
from batcher.manifest.input import Input
from batcher.manifest.rows import Record
from batcher.manifest.rules import PARSE_OPTIONS
from batcher.manifest.unsupported import refuse_unsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format: its name in messages, its reader, and the parse options that its reader uses."""

    name: str
    records: Callable[[Input], Iterator[Record]]
    options: frozenset[str]


_TABLE: Final = frozenset({"columns", "no_header", "names", "header_row", "single_table"})
_DELIMITED: Final = Format(
    name="a delimited text file",
    records=delimited.records,
    options=_TABLE | {"encoding", "delimiter", "quotes"},
)
_PLAIN: Final = Format(name="plain text", records=plain.records, options=_DELIMITED.options)
_JSONL: Final = Format(name="JSONL", records=jsonl.records, options=frozenset({"columns", "encoding"}))
_DOCUMENT: Final = Format(name="JSON", records=document.records, options=frozenset({"columns", "encoding"}))
_SUBTITLES: Final = Format(name="subtitles", records=subtitles.records, options=frozenset({"columns", "encoding"}))
_PROSE: Final = Format(name="prose", records=prose.records, options=_DELIMITED.options)
_MARKDOWN: Final = Format(name="Markdown", records=markdown.records, options=frozenset({"columns", "encoding"}))
_PO: Final = Format(name="gettext PO", records=po.records, options=frozenset({"columns", "encoding"}))
_WORKBOOK: Final = Format(name="a workbook", records=workbook.records, options=_TABLE | {"sheet"})

_JSON: Final = re.compile(r'\{|\[\s*[\[{"\]]')
"""How JSON begins."""
_QUOTED_JSON: Final = re.compile(r'\{\s*"|\[\s*[{"]')
"""How JSON begins that no text looks like."""
_BY_ENDING: Final = {
    ".csv": _DELIMITED,
    ".tsv": _DELIMITED,
    ".jsonl": _JSONL,
    ".ndjson": _JSONL,
    ".json": _JSONL,
    ".arb": _DOCUMENT,
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".po": _PO,
    ".pot": _PO,
    ".srt": _SUBTITLES,
    ".vtt": _SUBTITLES,
    ".sbv": _SUBTITLES,
    ".xlsx": _WORKBOOK,
    ".xlsm": _WORKBOOK,
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
        if name not in (*found.options, "where") and getattr(source.rules, name):
            message = f"{source.name}: {option} does not apply to {found.name}"
            hint = f"Remove {option}, and its setting in batcher.toml and the environment."
            raise ManifestError(message, [message], hint)
    return found.records(source)


def _format(source: Input) -> Format:
    """By the first bytes, then the name's ending, then the first characters. Empty standard input is JSONL.

    Raises:
        ManifestError: the format is known not to be readable.
    """
    refuse_unsupported(source.name, source.ending, source.tap.head)
    if source.tap.head.startswith(workbook.MAGIC):
        return _WORKBOOK
    found = _BY_ENDING.get(source.ending) or (_of_text if source.ending == ".txt" else _by_beginning)(source)
    return _DOCUMENT if found is _JSONL and document.is_document(source) else found


def _of_text(source: Input) -> Format:
    """The format of a file whose name shows only that it is text."""
    first = source.lines.beginning()
    if _QUOTED_JSON.match(first):
        return _JSONL
    if subtitles.are_subtitles(first):
        return _SUBTITLES
    if po.is_po(first):
        return _PO
    if not plain.is_plain(source):
        return _DELIMITED
    return _PROSE if prose.is_prose(source) else _PLAIN


def _by_beginning(source: Input) -> Format:
    first = source.lines.beginning()
    if not first:
        return _JSONL if source.is_stdin else _DELIMITED
    if subtitles.are_subtitles(first):
        return _SUBTITLES
    if po.is_po(first):
        return _PO
    return _JSONL if _JSON.match(first) else _DELIMITED
