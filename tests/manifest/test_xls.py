"""Old Excel files: hostile ones are refused without much memory, ordinary ones are read."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from batcher.errors import ManifestError
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from batcher.manifest.xls import packed

Record = tuple[int, bytes]


def label(row: int, column: int, text: str, stated: int | None = None) -> Record:
    size = len(text) if stated is None else stated
    return 0x204, struct.pack("<4HB", row, column, 0, size, 0) + text.encode("latin-1")


def shared(row: int, column: int, number: int) -> Record:
    return 0xFD, struct.pack("<HHHI", row, column, 0, number)


def joined(*records: Record) -> bytes:
    return b"".join(struct.pack("<HH", kind, len(data)) + data for kind, data in records)


def book(path: Path, *cells: Record, above: tuple[Record, ...] = ()) -> Path:
    """A workbook of one sheet with these cells, after those of a header."""
    begin = (0x809, struct.pack("<HHHH", 0x600, 5, 0, 0))
    sheet = (0x85, struct.pack("<IHBB", 0, 0, 1, 0) + b"S")
    at = len(joined(begin, *above, sheet, (0x0A, b"")))
    sheet = (0x85, struct.pack("<I", at) + sheet[1][4:])
    whole = joined(begin, *above, sheet, (0x0A, b""), begin, label(0, 0, "text"), *cells, (0x0A, b""))
    path.write_bytes(packed(whole))
    return path


def read(path: Path) -> list[object]:
    return [row.inputs and row.inputs.text for row in Manifest(path, Rules(batch="m", voice="anna")).rows()]


LONG = "a" * 9000
SPLIT: tuple[Record, ...] = (
    (0xFC, struct.pack("<IIHB", 2, 2, len(LONG), 0) + LONG[:8000].encode()),
    (0x3C, b"\0" + LONG[8000:].encode() + struct.pack("<HB", 2, 1) + "é!".encode("utf-16-le")),
)


def test_texts_formulas_and_texts_in_several_records_are_read(tmp_path: Path) -> None:
    formula = (0x06, struct.pack("<HHH8sHIH", 4, 0, 0, b"\0" * 6 + b"\xff\xff", 0, 0, 1) + b"\x1d")
    result = (0x207, struct.pack("<HB", 4, 0) + b"Sum.")
    path = book(tmp_path / "m.xls", label(1, 0, "Hi."), shared(2, 0, 0), shared(3, 0, 1), formula, result, above=SPLIT)
    assert read(path) == ["Hi.", LONG, "é!", "Sum."]


def test_a_long_text_is_read_whatever_the_size_of_the_container(tmp_path: Path) -> None:
    path = book(tmp_path / "m.xls", *[label(row, 0, "a" * 4000) for row in range(1, 2500)])
    assert len(read(path)) == 2499


BIG: tuple[Record, ...] = (
    (0xFC, struct.pack("<IIHB", 1, 1, 65000, 0) + b"a" * 8000),
    *[(0x3C, b"\0" + b"a" * 8000)] * 7,
    (0x3C, b"\0" + b"a" * 1000),
)


@pytest.mark.parametrize(
    ("cells", "above", "why"),
    [
        ([label(65535, 255, "x")], (), "65,536 rows by 256 columns: delete the cell far away"),
        ([label(16000, 255, "x")], (), "16,001 rows by 256 columns takes more than 96 MiB"),
        ([shared(row, 0, 0) for row in range(1, 2000)], BIG, "takes more than 96 MiB"),
        ([], ((0xFC, struct.pack("<II", 1, 0x7FFFFFFF)),), "it states more texts than it has"),
        ([], ((0xFC, struct.pack("<II", 1, 0xFFFFFFFF)),), "it states more texts than it has"),
        ([label(9, 0, "x"), label(2, 0, "y")], (), "its rows are out of order"),
    ],
)
def test_a_file_that_would_exhaust_memory_is_refused(
    tmp_path: Path, cells: list[Record], above: tuple[Record, ...], why: str
) -> None:
    with pytest.raises(ManifestError, match=why):
        read(book(tmp_path / "m.xls", *cells, above=above))


def test_stated_lengths_are_not_believed(tmp_path: Path) -> None:
    size = (0x200, struct.pack("<IIHHH", 0, 0xFFFFFFFF, 0, 0xFFFF, 0))
    path = book(tmp_path / "m.xls", size, label(1, 0, "Hi.", stated=65535))
    assert read(path) == ["Hi."]


def test_a_container_whose_sectors_form_a_circle_is_refused(tmp_path: Path) -> None:
    path = book(tmp_path / "m.xls", label(1, 0, "Hi."))
    content = bytearray(path.read_bytes())
    (table,) = struct.unpack_from("<I", content, 76)
    struct.pack_into("<I", content, (table + 1) * 512 + 4 * 3, 0)
    path.write_bytes(content)
    with pytest.raises(ManifestError, match="does not end"):
        read(path)
