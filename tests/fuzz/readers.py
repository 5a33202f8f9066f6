"""Files that somebody hands in as a manifest."""

from __future__ import annotations

import io
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

from batcher.manifest.compound import packed
from tests.manifest.test_any_file import CHOICES, CONTENT, FORMATS, HEADLESS, of, read
from tests.manifest.test_xls import HEAD, SPLIT, book, excel_5, label, narrow, shared

_SHEET: Final = "xl/worksheets/sheet1.xml"
_XML = [*"<>&;/= \"'", "<row>", "</row>", '<c r="A1"', ' t="s">', "<v>0</v>", "</c>", "<t>a", "]]>", "<!--", "<?"]
_XML += [
    "&#0;",
    "&#xD800;",
    "9999999",
    "-1",
    "1e999",
    '<c r="XFD1048576">',
    "<mergeCell/>",
    'encoding="utf-16"?>',
    "\0",
]

table: Final = st.tuples(st.sampled_from(["m.csv", "m.tsv", "m.txt"]), CONTENT, CHOICES | HEADLESS)
document: Final = st.tuples(
    st.sampled_from(list(FORMATS)).flatmap(lambda name: st.tuples(st.just(name), of(FORMATS[name]))),
    st.sampled_from([{}, {"columns": {"text": "msgid"}}, {"columns": {"text": "@a"}}, {"counted": True}]),
)
anything: Final = st.tuples(
    st.sampled_from(["m", "m.csv", "m.json", "m.jsonl", "m.srt", "m.vtt", "m.md", "m.po", "m.xlsx", "m.ods", "m.zip"]),
    st.binary(max_size=400),
)
edits: Final = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=6
)
"""Edits of bytes: where, as a share of the length; how many are removed; what is put in."""
workbook: Final = st.tuples(st.sampled_from(["bytes", "excel 5", "excel 97"]), edits) | st.tuples(
    st.just("xml"),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 40), of(_XML)), min_size=1, max_size=4),
)


def read_table(case: tuple[str, str, dict[str, Any]]) -> None:
    """A table as text, with any choices of the user."""
    name, content, choices = case
    read(_folder(), name, content.encode("utf-8", "surrogatepass"), choices)


def read_document(case: tuple[tuple[str, str], dict[str, Any]]) -> None:
    """Text in another format."""
    (name, content), choices = case
    read(_folder(), name, content.encode("utf-8", "surrogatepass"), choices)


def read_anything(case: tuple[str, bytes]) -> None:
    """Any bytes under any name."""
    read(_folder(), *case, {})


def read_workbook(case: tuple[str, list[tuple[float, int, bytes | str]]]) -> None:
    """A workbook whose bytes, or whose sheet's XML, are edited, or old ones."""
    kind, changes = case
    if kind.startswith("excel"):
        for data in _old(kind):
            read(_folder(), "m.xls", edited(data, changes), {})
        return
    parts = _parts()
    if kind == "xml":
        read(_folder(), "m.xlsx", _zipped(parts | {_SHEET: edited(parts[_SHEET], changes)}), {})
    else:
        read(_folder(), "m.xlsx", edited(_zipped(parts), changes), {})


def edited(data: bytes, changes: list[tuple[float, int, bytes | str]]) -> bytes:
    """`data` after these edits."""
    for where, removed, added in changes:
        at = int(where * len(data))
        data = data[:at] + (added.encode() if isinstance(added, str) else added) + data[at + removed :]
    return data


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="batcher-fuzz-"))


@cache
def _parts() -> dict[str, bytes]:
    """The parts of a small workbook."""
    import xlsxwriter

    file = io.BytesIO()
    with xlsxwriter.Workbook(file) as book:
        sheet = book.add_worksheet()
        for number, row in enumerate([("id", "text", "count"), ("a", "Mind the gap.", 1), ("b", "Stand back.", 2.5)]):
            sheet.write_row(number, 0, row)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@cache
def _old(kind: str) -> list[bytes]:
    """Small .xls workbooks, one of them without a container."""
    if kind == "excel 5":
        cells = (*HEAD, narrow(1, 0, b"Mind the gap."), narrow(2, 0, b"Stand back.", fonts=2))
        return [excel_5(*cells), packed(excel_5(*cells), "Book")]
    path = book(_folder() / "old.xls", label(1, 0, "Hi."), shared(2, 0, 0), shared(3, 0, 1), above=SPLIT)
    return [path.read_bytes()]


def _zipped(parts: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return file.getvalue()
