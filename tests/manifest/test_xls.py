"""Old Excel files: hostile ones are refused without much memory, ordinary ones are read."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from batcher.errors import ManifestError
from batcher.manifest.compound import packed
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules

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


MANY_TEXTS: tuple[Record, ...] = ((0xFC, struct.pack("<II", 1, 5_000_000)), *((0x3C, bytes(60_000)),) * 251)


@pytest.mark.parametrize(
    ("cells", "above", "why"),
    [
        ([label(65535, 255, "x")], (), "65,536 rows by 256 columns: delete the cell far away"),
        ([label(16000, 255, "x")], (), "16,001 rows by 256 columns takes more than 96 MiB"),
        ([shared(row, 0, 0) for row in range(1, 2000)], BIG, "takes more than 96 MiB"),
        ([], ((0xFC, struct.pack("<II", 1, 0x7FFFFFFF)),), "it states more texts than it has"),
        ([], ((0xFC, struct.pack("<II", 1, 0xFFFFFFFF)),), "it states more texts than it has"),
        ([], ((0xE0, bytes(4)),) * 66_000, "more than 65,536 records besides cells"),
        ([], ((0xFC, struct.pack("<II", 0, 0)), *((0x3C, b""),) * 66_000), "more than 65,536 records besides cells"),
        ([], MANY_TEXTS, "it has 5,000,000 texts"),
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


def excel_5(*cells: Record, page: int | None = 1252, name: str = "Zeilen", codec: str = "cp1252") -> bytes:
    """The records of a workbook as Excel 5 and 95 write them, with a sheet of these cells after one that is hidden."""
    begin, end = (0x809, struct.pack("<4H", 0x500, 5, 0, 0)), (0x0A, b"")
    code_page = [] if page is None else [(0x42, struct.pack("<H", page))]
    date = [
        (0x41E, struct.pack("<HB", 164, 10) + b"yyyy-mm-dd"),
        (0xE0, bytes(16)),
        (0xE0, struct.pack("<HH12x", 0, 164)),
    ]
    names = [b"H", name.encode(codec)]

    def sheets(*starts: int) -> list[Record]:
        return [
            (0x85, struct.pack("<IBBB", start, hidden, 0, len(one)) + one)
            for start, hidden, one in zip(starts, (1, 0), names, strict=True)
        ]

    first = len(joined(begin, *code_page, *date, *sheets(0, 0), end))
    sheet = joined((0x809, struct.pack("<4H", 0x500, 16, 0, 0)), end)
    whole = joined(begin, *code_page, *date, *sheets(first, first + len(sheet)), end) + sheet
    return whole + joined((0x809, struct.pack("<4H", 0x500, 16, 0, 0)), *cells, end)


def narrow(row: int, column: int, text: bytes, *, fonts: int | None = None) -> Record:
    """A text of Excel 5; with `fonts`, one with as many changes of the font within."""
    data = struct.pack("<4H", row, column, 0, len(text)) + text
    return (0x204, data) if fonts is None else (0xD6, data + bytes([fonts]) + bytes(range(1, 2 * fonts + 1)))


HEAD = (narrow(0, 0, b"text"), narrow(0, 1, b"n"), narrow(0, 2, b"when"))


def test_a_workbook_of_excel_5_is_read_in_full(tmp_path: Path) -> None:
    """Texts of one letter, with fonts, and by formulas; numbers, dates and truth values; outside a container too."""
    cells = [
        *HEAD,
        narrow(1, 0, "Größe: „5 €“".encode("cp1252")),
        narrow(1, 1, b"x"),
        (0x203, struct.pack("<HHHd", 1, 2, 1, 43864)),
        narrow(2, 0, b"A bold word.", fonts=2),
        (0x27E, struct.pack("<HHHI", 2, 1, 0, 7 << 2 | 2)),
        (0x06, struct.pack("<HHH8sHIH", 3, 0, 0, b"\0" * 6 + b"\xff\xff", 0, 0, 1) + b"\x1d"),
        (0x207, struct.pack("<H", 1) + b"I"),
        (0x205, struct.pack("<HHHBB", 3, 1, 0, 1, 0)),
        narrow(4, 0, b""),
    ]
    stream = excel_5(*cells)
    for number, content in enumerate([packed(stream), packed(stream, "Book"), stream]):
        path = tmp_path / f"{number}.xls"
        path.write_bytes(content)
        manifest = Manifest(path, Rules(batch="m", voice="anna"))
        assert [(row.inputs and row.inputs.text, row.extra) for row in manifest.rows()] == [
            ("Größe: „5 €“", {"n": "x", "when": "2020-02-03"}),
            ("A bold word.", {"n": "7", "when": ""}),
            ("I", {"n": "TRUE", "when": ""}),
        ]
        assert manifest.notes == ["reading the first visible sheet of the workbook: Zeilen"]


@pytest.mark.parametrize(
    ("page", "codec", "text"),
    [
        (1251, "cp1251", "Здравствуйте."),
        (932, "cp932", "こんにちは。"),
        (10000, "mac_roman", "Größe"),
        (32769, "cp1252", "Größe"),
        (1361, "johab", "안녕하세요"),
        (None, "cp1252", "Größe"),
    ],
)
def test_texts_of_excel_5_are_decoded_by_their_code_page(
    tmp_path: Path, page: int | None, codec: str, text: str
) -> None:
    path = tmp_path / "m.xls"
    path.write_bytes(packed(excel_5(*HEAD[:1], narrow(1, 0, text.encode(codec)), page=page, name=text, codec=codec)))
    manifest = Manifest(path, Rules(batch="m", voice="anna", sheet=text))
    assert [row.inputs and row.inputs.text for row in manifest.rows()] == [text]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (excel_5(*HEAD, page=999), "its code page 999 is unknown"),
        (excel_5(*HEAD, narrow(1, 0, b"\x81")), "it is damaged: a text is not in its code page, cp1252"),
        (joined((0x809, struct.pack("<4H", 0x500, 5, 0, 0)), (0x2F, b"1234")), "it has a password"),
        (joined((0x809, struct.pack("<4H", 0x500, 16, 0, 0)), *HEAD, (0x0A, b"")), "it has no sheet of cells"),
        (packed(joined((0x409, struct.pack("<3H", 0x400, 16, 0)))), "it does not begin like a workbook"),
        (packed(b"x", "EncryptedPackage"), "it has a password"),
        (packed(b"x", "WordDocument"), "it contains no workbook"),
        (joined((0x409, struct.pack("<3H", 0x400, 16, 0))), "a workbook of Excel 4 or older cannot be read"),
        (excel_5(*HEAD, narrow(65535, 255, b"x")), "delete the cell far away"),
    ],
)
def test_a_workbook_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "m.xls"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=why):
        read(path)
