"""No file exhausts the memory or takes forever, however it was made."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from xlsxwriter import Workbook

from batcher.errors import ManifestError
from batcher.manifest import limits
from batcher.manifest.compound import MAGIC
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules

_MOST_BYTES = 90 << 20
"""With the 50 MiB of the program itself, less than 150 MiB."""
_SHEET = "xl/worksheets/sheet1.xml"


def refusal(path: Path) -> str:
    """Why the manifest is refused, without much memory."""
    manifest = Manifest(path, Rules(batch="m", voice="anna"))
    tracemalloc.start()
    try:
        for _ in manifest.rows():
            pass
    except ManifestError as error:
        return error.message
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < _MOST_BYTES
    return "\n".join(manifest.faults.lines())


@pytest.mark.parametrize(
    ("name", "begin", "fill", "why"),
    [
        ("m.csv", "text,id\n", "a", ":2: the line has 8,388,608 characters or more"),
        ("m.csv", "text,id\n", "\U0001f600", ":2: the line has 8,388,608 characters or more"),
        ("m.csv", "text,id\n", ",", ":2: the line has 8,388,608 characters or more"),
        ("m.csv", "text,id\n\"", "a" * 999 + "\n", ":2: a cell has more than 8,388,608 characters"),
        ("m.jsonl", '{"text":"', "a", ":1: the line has 8,388,608 characters or more"),
        ("m.txt", "", "a", ":1: the line has 8,388,608 characters or more"),
        ("m.txt", f"{'a ' * 30}\n", f"{'a ' * 30}\n", ":1: a text has more than 1,048,576 characters"),
        ("m.md", "# A\n", f"{'*a _b [![]( ` ' * 99}\n", ":2: a text has more than 1,048,576 characters"),
        ("m.md", "# A\n", "a", ":2: the line has 8,388,608 characters or more"),
        ("m.po", 'msgid "a"\nmsgstr ""\n', "\"" + "a" * 999 + "\"\n", "a text has more than 1,048,576 characters"),
        ("m.srt", "1\n00:00:01,000 --> 00:00:02,000\n", "a", ":3: the line has 8,388,608 characters or more"),
        ("m.json", '[{"text":"', "a" * 9 * (1 << 20), ": more than 32 MiB, too much for a JSON document"),
    ],
)  # fmt: skip
def test_a_line_without_end_is_refused(tmp_path: Path, name: str, begin: str, fill: str, why: str) -> None:
    path = tmp_path / name
    path.write_text(begin + fill * max(4, (9 << 20) // len(fill)), encoding="utf-8")
    assert why in refusal(path)


@pytest.mark.slow
def test_so_many_columns_that_no_spreadsheet_has_them_are_refused(tmp_path: Path) -> None:
    """In the header, in one object, or one by one in the objects; as many as a sheet has are read."""
    many = [f"note{number}" for number in range(limits.MAX_COLUMNS + 10)]
    objects = ({"text": "a", name: 1} for name in many)
    contents = {
        "a.csv": f"text,{','.join(many)}\nHello.\n",
        "b.jsonl": json.dumps(dict.fromkeys(many, 1) | {"text": "a"}),
        "c.jsonl": "\n".join(map(json.dumps, objects)),
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_text(content)
        assert refusal(path) == f"{path}: more than 16,384 columns"
    wide = tmp_path / "d.csv"
    wide.write_text(f"text,{','.join(many[: limits.MAX_COLUMNS - 1])}\nHello.\n")
    assert refusal(wide) == ""


def test_a_name_that_occurs_twice_among_thousands_is_found(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("{" + ",".join(f'"k{number}":1' for number in range(20_000)) + ',"k19999":2,"text":"a"}\n{}')
    assert "m.jsonl:1: `k19999` occurs twice" in refusal(path)


def test_an_object_of_one_line_that_is_too_long_to_look_at_is_one_row(tmp_path: Path) -> None:
    """Not a document of ids and texts."""
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"id": "a", "note": ["x, "] * 200_000, "text": "Hello."}))
    rows = list(Manifest(path, Rules(batch="m", voice="anna")).rows())
    assert [(row.id, row.inputs and row.inputs.text) for row in rows] == [("a", "Hello.")]


def book(path: Path, sheet: Iterable[bytes] = (), *, listing: bytes = b"") -> Path:
    """A workbook with `sheet` in place of its rows below the header, or with `listing` in its list of sheets."""
    with Workbook(path.with_suffix(".small")) as small:
        small.add_worksheet().write_column(0, 0, ["text", "Hello."])
    with (
        zipfile.ZipFile(path.with_suffix(".small")) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target,
    ):
        for name in source.namelist():
            head, mark, tail = source.read(name).partition(b"</sheetData>" if name == _SHEET else b"</workbook>")
            with target.open(name, "w") as part:
                part.write(head)
                for piece in sheet if name == _SHEET else (listing,) if mark else ():
                    part.write(piece)
                part.write(mark + tail)
    return path


_ROW = b'<row><c t="inlineStr"><is><t>a</t></is></c></row>'


@pytest.mark.parametrize(
    "sheet",
    [
        [_ROW * 1000] * 3000,
        [b'<row><c t="inlineStr"><is><t>', *[b"a" * (1 << 20)] * 150, b"</t></is></c></row>"],
        [b" " * (1 << 20)] * 150,
        [b'<row><c t="e"/></row>' * 1000] * 5000,
    ],
    ids=["rows", "cell", "white space", "errors"],
)
def test_a_workbook_made_to_exhaust_memory_is_refused(tmp_path: Path, sheet: list[bytes]) -> None:
    path = book(tmp_path / "m.xlsx", sheet)
    assert "a part of it becomes more than 100 times larger when unpacked" in refusal(path)


def test_a_workbook_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    """Its parts are unpacked piece by piece, whatever sizes the archive states."""
    path = book(tmp_path / "m.xlsx", [b" " * (1 << 20)] * 150)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sizes = {part.file_size for part in archive.infolist() if part.file_size > 1 << 20}
    for size in sizes:
        packed = struct.pack("<I", size)
        while (at := content.find(packed)) >= 0:
            content[at : at + 4] = struct.pack("<I", 1000)
    path.write_bytes(content)
    assert "a part of it becomes more than 100 times larger" in refusal(path)


def test_a_workbook_of_more_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_WORKBOOK_BYTES", 1 << 20)
    rows = [b'<row r="%d"><c t="inlineStr"><is><t>%d</t></is></c></row>' % (i, i * i) for i in range(3, 30_000)]
    assert "it has more than 1 MiB when unpacked" in refusal(book(tmp_path / "m.xlsx", rows))


@pytest.mark.parametrize("magic", [b"PK\x03\x04", MAGIC, b""])
def test_a_workbook_whose_file_is_larger_than_the_limit_is_refused_unread(tmp_path: Path, magic: bytes) -> None:
    """However little of it unpacks."""
    path = tmp_path / "m.xlsx"
    with path.open("wb") as file:
        file.write(magic)
        file.truncate(limits.MAX_WORKBOOK_FILE_BYTES + 1)
    manifest = Manifest(path, Rules(batch="m", voice="anna"))
    tracemalloc.start()
    with pytest.raises(ManifestError, match="it is too large: the file has more than 128 MiB"):
        list(manifest.rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_list_of_sheets_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_LISTING_BYTES", 1 << 14)
    assert "its list of sheets has more than" in refusal(book(tmp_path / "m.xlsx", listing=b" " * (1 << 15)))


@pytest.mark.slow
def test_a_large_honest_workbook_is_read(tmp_path: Path) -> None:
    """Of many similar rows, with many blank cells that have a format."""
    path = tmp_path / "m.xlsx"
    with Workbook(path, {"constant_memory": True}) as made:
        sheet, bold = made.add_worksheet(), made.add_format({"bold": True})
        sheet.write_row(0, 0, ["text", "voice"])
        for row in range(1, 5000):
            sheet.write_row(row, 0, ["Please wait.", "anna"])
            for column in range(2, 20):
                sheet.write_blank(row, column, None, bold)
    assert len(list(Manifest(path, Rules(batch="m")).rows())) == 4999
