"""Workbooks: which .xlsx manifests are read or refused, and how `report` writes one."""

from __future__ import annotations

import base64
import csv
import io
import json
import random
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from python_calamine import CalamineWorkbook
from xlsxwriter import Workbook

from batcher.errors import ManifestError, UsageError
from batcher.manifest.compound import packed
from batcher.manifest.reader import Manifest, input_columns
from batcher.manifest.rows import Row
from batcher.manifest.rules import Rules
from batcher.reports.table import Sheet
from tests.support.ledger_kit import book_in

if TYPE_CHECKING:
    from tests.conftest import Project

Cells = list[list[Any]]
ERRORS: Final = ("#REF!", "#N/A", "#DIV/0!", "#NAME?", "#VALUE!", "#NULL!", "#NUM!")


def workbook(path: Path, cells: Cells, shape: Callable[[Any, Any], None] | None = None, *, above: int = 0) -> Path:
    """A workbook whose first sheet has these cells, after blank rows; `shape` changes the rest of it."""
    with Workbook(path, {"default_date_format": "dd.mm.yy"}) as book:
        sheet = book.add_worksheet("Script")
        for row, values in enumerate(cells, above):
            for column, value in enumerate(values):
                if value is not None:
                    sheet.write(row, column, value)
        if shape is not None:
            shape(book, sheet)
    return path


def read(path: Path, **changes: Any) -> tuple[list[Row], list[str]]:
    """The manifest's rows, and its errors without the folder."""
    manifest = Manifest(path, Rules(**({"batch": "m", "voice": "anna"} | changes)))
    rows = list(manifest.rows())
    return rows, [line.removeprefix(f"{path.parent}/") for line in manifest.faults.lines()]


def test_a_workbook_gives_the_same_rows_as_its_csv(tmp_path: Path) -> None:
    """Only the numbers are the sheet's."""
    cells = [
        ["ID", "text", "Voice-Id", "speed", "note"],
        ["a", " Hi\nyou ", "bob", "1.5", "é"],
        ["b", "Bye", "", "", ""],
    ]
    with (tmp_path / "m.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(cells)
    ours, theirs = read(workbook(tmp_path / "m.xlsx", cells, above=3)), read(tmp_path / "m.csv")
    told = [[(row.id, row.inputs, row.output, row.extra) for row in rows] for rows, _ in (ours, theirs)]
    assert told[0] == told[1]
    assert ours[1] == theirs[1] == []
    assert [(row.number, row.line) for row in ours[0]] == [(5, 5), (6, 6)]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (7.0, "7"),
        (-3, "-3"),
        (0.5, "0.5"),
        (0.1 + 0.2, "0.3"),
        (4006381333931, "4006381333931"),
        (1e300, "1e+300"),
        (True, "TRUE"),
        (date(2026, 11, 2), "2026-11-02"),
        (datetime(2026, 11, 2, 9, 30), "2026-11-02 09:30:00"),  # noqa: DTZ001 - a sheet knows no zone
        (time(9, 30), "09:30:00"),
        ("007", "007"),
        ("_x000D_ & <b> ü", "_x000D_ & <b> ü"),
    ],
)
def test_a_cell_is_read_by_its_value(tmp_path: Path, value: Any, said: str) -> None:
    """Whole numbers without a decimal point, dates in ISO 8601, texts unchanged."""
    path = workbook(tmp_path / "m.xlsx", [["text", "note"], ["Hi.", value]])
    [row], faults = read(path)
    assert (row.extra, faults) == ({"note": said}, [])


def test_numeric_ids_takes_and_parameters_are_whole_numbers(tmp_path: Path) -> None:
    """As the spreadsheet shows them."""
    cells: Cells = [["id", "text", "take", "speed"], [7.0, "One.", 2.0, 1.5], [8.0, 1984.0, None, 1.0]]
    rows, faults = read(workbook(tmp_path / "m.xlsx", cells))
    assert faults == []
    assert [(row.id, row.output) for row in rows] == [("7", "7.mp3"), ("8", "8.mp3")]
    assert [row.inputs and (row.inputs.text, row.inputs.take, row.inputs.params) for row in rows] == [
        ("One.", 2, {"speed": 1.5}),
        ("1984", 1, {"speed": 1.0}),
    ]


@pytest.mark.parametrize(("value", "shown_by", "said"), [(7, "000", "7"), (0.5, "0 %", "0.5"), (7.25, "0", "7.25")])
def test_number_formats_do_not_matter(tmp_path: Path, value: float, shown_by: str, said: str) -> None:
    path = workbook(
        tmp_path / "m.xlsx",
        [["id", "text"], ["", "Hi."]],
        lambda book, sheet: sheet.write_number(1, 0, value, book.add_format({"num_format": shown_by})),
    )
    [row], faults = read(path)
    assert (row.id, faults) == (said, [])


def test_errors_use_the_sheets_row_numbers(tmp_path: Path) -> None:
    """Blank rows count, and so does the header. A cell of white space is blank."""
    cells: Cells = [["text"], ["One."], [], ["  "], ["Two."], [], ["Three."]]
    rows, _ = read(workbook(tmp_path / "m.xlsx", cells, above=2))
    assert [(row.number, row.line) for row in rows] == [(4, 4), (7, 7), (9, 9)]
    path = workbook(tmp_path / "n.xlsx", [["id", "text"], ["a", "One."], [], ["b", ""]], above=2)
    assert read(path)[1] == [
        "n.xlsx[Script]:6: text: the text is empty: write one, or skip such rows with --skip-empty"
    ]


@pytest.mark.parametrize("error", ERRORS)
def test_a_failed_formula_in_a_field_is_an_error(tmp_path: Path, error: str) -> None:
    """Even where a default would replace a blank cell."""
    cells: Cells = [["text", "voice"], ["One.", None], ["Two.", "bob"]]
    path = workbook(
        tmp_path / "m.xlsx", cells, lambda _book, sheet: sheet.write_formula(1, 1, "=Other!A1", None, error)
    )
    rows, faults = read(path)
    assert [row.line for row in rows] == [3]
    assert faults == [f"m.xlsx[Script]:2: voice: the cell contains the error {error}: fix its formula"]


def test_a_failed_formula_hides_no_other_error_of_its_row(tmp_path: Path) -> None:
    """It causes no other either; a skipped row keeps its id."""

    def shape(_book: Any, sheet: Any) -> None:
        sheet.write_formula(1, 1, "=1/0", None, "#DIV/0!")

    cells: Cells = [["id", "text", "voice", "speed"], ["a", None, None, "fast"], ["b", "Two.", "bob", 1]]
    path = workbook(tmp_path / "m.xlsx", cells, shape)
    rows, faults = read(path, voice=None, skip_invalid=True)
    assert [(row.id, row.skipped) for row in rows] == [("a", "invalid"), ("b", None)]
    assert [fault.split(": ", 2)[1:] for fault in faults] == [
        ["text", "the cell contains the error #DIV/0!: fix its formula"],
        ["speed", '"fast" is not a number: use digits, as in 1 or 0.8'],
        ["no voice", "add a `voice` column or pass --voice VOICE"],
    ]


def test_a_failed_formula_in_another_column_is_carried(tmp_path: Path) -> None:
    """As the spreadsheet shows it."""
    path = workbook(
        tmp_path / "m.xlsx",
        [["text", "note"], ["One.", None]],
        lambda _book, sheet: sheet.write_formula(1, 1, "=VLOOKUP(1,A1:B2,2)", None, "#N/A"),
    )
    [row], faults = read(path)
    assert (row.extra, faults) == ({"note": "#N/A"}, [])


def test_a_formula_is_read_by_its_stored_result(tmp_path: Path) -> None:
    """An empty result counts; a formula that no program has computed is an error."""

    def shape(_book: Any, sheet: Any) -> None:
        sheet.write_formula(1, 0, '="On"&"e."', None, "One.")
        sheet.write_formula(1, 1, "=6+1", None, 7)
        sheet.write_formula(1, 2, '=""', None, "")
        sheet.write_formula(2, 0, '="Two."', None, "Two.")

    path = workbook(tmp_path / "m.xlsx", [["text", "id", "voice"]], shape)
    _edit(path, r'<c r="C2">(<f>""</f>)<v></v>', r'<c r="C2" t="str">\1<v></v>')
    rows, faults = read(path)
    assert faults == []
    assert [(row.id, row.inputs and row.inputs.voice) for row in rows] == [("7", "anna"), ("000003", "anna")]
    _edit(path, r'<c r="A3" t="str">(<f>.*?</f>)<v>Two.</v>', r'<c r="A3">\1<v />')
    reason = "the formula was never calculated: open the file in a spreadsheet program and save it"
    assert read(path)[1] == [f"m.xlsx[Script]:3: text: {reason}"]


def _edit(path: Path, pattern: str, to: str, name: str = "xl/worksheets/sheet1.xml") -> None:
    """Change the XML of the sheet, or of the part called `name`."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    changed, number = re.subn(pattern, to, parts[name].decode())
    assert number == 1
    with zipfile.ZipFile(path, "w") as archive:
        for one, content in (parts | {name: changed.encode()}).items():
            archive.writestr(one, content)


def test_a_cell_without_a_reference_follows_the_one_before(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "m.xlsx",
        [["text", "voice"], ["One.", None]],
        lambda _book, sheet: sheet.write_formula(1, 1, "=1/0", None, "#DIV/0!"),
    )
    _edit(path, r'<row r="2"[^>]*><c r="A2"([^>]*>.*?)<c r="B2"', r"<row><c \1<c ")
    assert read(path)[1] == ["m.xlsx[Script]:2: voice: the cell contains the error #DIV/0!: fix its formula"]


def test_a_text_that_is_a_date_is_an_error(tmp_path: Path) -> None:
    """The file does not hold what the spreadsheet shows."""
    cells: Cells = [["text", "id"], [date(2026, 11, 2), date(2026, 11, 3)], [timedelta(hours=30), "b"]]
    path = workbook(
        tmp_path / "m.xlsx",
        cells,
        lambda book, sheet: sheet.write_datetime(2, 0, timedelta(hours=30), book.add_format({"num_format": "[h]:mm"})),
    )
    rows, faults = read(path, skip_invalid=True)
    assert [row.id for row in rows] == ["2026-11-03", "b"]
    reason = "is a date or a time: format the cell as text and type what is to be spoken"
    assert faults == [f'm.xlsx[Script]:2: text: "2026-11-02" {reason} (and 1 more row: 3)']


def test_a_cell_merged_with_the_row_above_is_an_error(tmp_path: Path) -> None:
    """Merging across columns or over blank rows is not."""

    def shape(_book: Any, sheet: Any) -> None:
        sheet.merge_range("B2:B3", "bob")
        sheet.merge_range("A4:B4", "Across.")
        sheet.merge_range("D5:D9", "below")

    cells: Cells = [["text", "voice", "id", "note"], ["One.", None, "a"], ["Two.", None, "b"], [None, None, "c"]]
    rows, faults = read(workbook(tmp_path / "m.xlsx", cells, shape))
    assert [row.id for row in rows if row.inputs] == ["a", "c"]
    assert faults[0] == "m.xlsx[Script]:3: voice: the cell is merged with row 2: unmerge it and fill in each row"
    assert len(faults) == 2
    assert faults[1].startswith("m.xlsx[Script]:5: text: the text is empty")


def test_a_huge_merged_area_takes_no_memory(tmp_path: Path) -> None:
    """It counts only as far as there are cells."""
    path = workbook(tmp_path / "m.xlsx", [["text"], ["One."], ["Two."]])
    _edit(path, "</sheetData>", '</sheetData><mergeCells count="1"><mergeCell ref="C1:XFD1048576"/></mergeCells>')
    rows, faults = read(path)
    assert ([row.number for row in rows], faults) == ([2, 3], [])


@pytest.mark.parametrize(
    "cell", ['r="XFD1048576"><v>1</v>', 'r="ZZZZZZ3"><v>1</v>', 'r="XFD1048576" t="e"><v>#REF!</v>']
)
def test_a_cell_far_from_the_others_is_refused(tmp_path: Path, cell: str) -> None:
    """Reading up to a stray cell in a far corner would take hundreds of gigabytes."""
    path = workbook(tmp_path / "m.xlsx", [["text"], ["One."]])
    row = "".join(re.findall(r'r="[A-Z]+(\d+)"', cell))
    _edit(path, "</sheetData>", f'<row r="{row}"><c {cell}</c></row></sheetData>')
    with pytest.raises(
        ManifestError,
        match=f"too large: its sheet has {int(row):,} rows by [0-9,]+ columns: delete the cell far away",
    ):
        read(path)


def test_a_workbook_without_a_visible_sheet_is_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path / "m.xlsx", [["text"]])
    _edit(path, "<sheet ", '<sheet state="hidden" ', "xl/workbook.xml")
    with pytest.raises(ManifestError, match="all of its sheets are hidden"):
        read(path)


def test_the_first_visible_sheet_is_read_and_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "m.xlsx"
    with Workbook(path) as book:
        hidden = book.add_worksheet("Old")
        hidden.write(0, 0, "text")
        hidden.hide()
        shown = book.add_worksheet("Act 1")
        shown.activate()
        shown.set_first_sheet()
        shown.write_column(0, 0, ["text", "One."])
        book.add_worksheet("Act 2").write_column(0, 0, ["text", "Two."])
    manifest = Manifest(path, Rules(batch="m"))
    assert list(manifest.rows()) == []
    assert manifest.notes == ["reading the first visible sheet of the workbook: Act 1"]
    assert manifest.faults.lines()[0].startswith(f"{path}[Act 1]:2: no voice")


def test_an_empty_sheet_is_reported_like_an_empty_file(tmp_path: Path) -> None:
    reason = "empty: the first line must name the columns"
    assert read(workbook(tmp_path / "m.xlsx", []))[1] == [f"m.xlsx[Script]: {reason}"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"text,id\nHi,1\n", "it is damaged: Cannot detect file format"),
        (b"", "it is damaged: Cannot detect file format"),
        (packed(b"x", "EncryptedPackage"), "it has a password"),
    ],
)
def test_a_file_that_is_no_workbook_is_refused_with_a_hint(tmp_path: Path, content: bytes, why: str) -> None:
    """In one line."""
    path = tmp_path / "m.xlsx"
    path.write_bytes(content)
    with pytest.raises(ManifestError) as refused:
        read(path)
    assert refused.value.message == f"{path}: cannot be read as a workbook: {why}"
    assert "or as CSV" in refused.value.hint


def test_a_damaged_workbook_is_read_or_refused(tmp_path: Path) -> None:
    """Whichever bytes are damaged or missing, nothing else happens."""
    whole = workbook(tmp_path / "m.xlsx", [["text", "id"], ["One.", 1.0]]).read_bytes()
    chance, refused = random.Random(1), 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 4, 40))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        (tmp_path / "b.xlsx").write_bytes(content[: chance.choice((len(content), chance.randrange(len(content))))])
        try:
            read(tmp_path / "b.xlsx")
        except ManifestError:
            refused += 1
    assert refused > 100


def test_an_encoding_for_a_workbook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="--encoding does not apply to a workbook"):
        read(workbook(tmp_path / "m.xlsx", [["text"], ["One."]]), encoding="cp1252")


def test_a_workbook_may_come_from_standard_input(tmp_path: Path) -> None:
    """It has the same hash as the file."""
    path = workbook(tmp_path / "m.xlsx", [["text"], ["One."], ["Two."]])
    manifests = [Manifest(None, Rules(batch="m", voice="a"), stdin=io.BytesIO(path.read_bytes()))]
    manifests.append(Manifest(path, Rules(batch="m", voice="a")))
    texts = [[row.inputs and row.inputs.text for row in one.rows()] for one in manifests]
    assert texts == [["One.", "Two."]] * 2
    assert manifests[0].digest == manifests[1].digest
    assert manifests[0].size == manifests[1].size == path.stat().st_size


def test_all_columns_come_back_in_the_sheets_order(tmp_path: Path) -> None:
    """Without the blank rows."""
    path = workbook(tmp_path / "m.xlsx", [["text", "ID"], ["One.", 7.0], [], ["Two.", "x"]])
    found = list(input_columns(path, Rules(batch="m")))
    assert found == [(2, {"text": "One.", "ID": "7"}), (4, {"text": "Two.", "ID": "x"})]


def test_a_workbook_is_bought_once_and_reported_with_its_columns(project: Project) -> None:
    """After an edit of one cell, only that row is bought."""
    path = project.folder / "lines.xlsx"
    cells: Cells = [["Nr", "text", "Szene"], [7.0, "One.", "=A1"], [8.0, "Two.", date(2026, 11, 2)]]
    workbook(path, cells)
    columns = ("--voice", "anna", "--column", "id=Nr")
    ended = project.run(path, *columns)
    assert (ended.exit_code, ended.report["created"]) == (0, 2), ended
    assert "reading the first visible sheet of the workbook: Script" in ended.err
    assert sorted(one.name for one in project.audio.glob("*.mp3")) == ["7.mp3", "8.mp3"]
    assert project.run(path, *columns).report["created"] == 0
    told = project.batcher("report", path, "--format", "jsonl", environment={"BATCHER_ENCODING": "cp1252"})
    assert [json.loads(line)["Nr"] for line in told.out.splitlines()] == ["7", "8"]
    assert "differs from the last run" not in told.err
    cells[2][1] = "Two!"
    workbook(path, cells)
    assert project.run(path, *columns).report["created"] == 1


def test_without_the_extra_a_report_names_what_to_install(project: Project) -> None:
    manifest = project.manifest(1)
    assert project.run(manifest).exit_code == 0
    missing = "import sys; sys.modules['xlsxwriter'] = None"
    code = f"{missing}; from batcher.cli.app import main; sys.argv = ['batcher', 'report', '--format', 'xlsx']; main()"
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert told.returncode == 2, told
    assert "pip install 'tts-batcher[xlsx]'" in told.stderr
    assert "Traceback" not in told.stderr


PLAIN: Final = ("=HYPERLINK(1)", "+1", "@SUM(1)", "\tcmd", "http://example.org", "_x000D_", "a\x07b\r\nc")
HOSTILE: Final = (*PLAIN, "ü" * 40_000)


def test_report_writes_a_workbook_of_texts_and_numbers(project: Project) -> None:
    """Texts stay texts, regardless of how they begin. A text that is too long is cut, with a message."""
    rows = [{"id": f"r{i}", "text": f"Line {i}.", "voice": "anna", "note": note} for i, note in enumerate(HOSTILE)]
    (project.folder / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert project.run("lines.jsonl").exit_code == 0
    told = project.batcher("report", "--format", "xlsx")
    path = project.audio / "lines.report.xlsx"
    assert told.exit_code == 0, told
    assert "1 cell cut" in told.err
    assert str(path) in told.err
    [header, *cells] = CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()
    assert header[:5] == ["id", "text", "voice", "note", "batcher_batch"]
    assert [one[3] for one in cells[:-1]] == list(PLAIN)
    assert cells[-1][3] == "ü" * 32_766 + "…"
    assert [one[header.index("batcher_row")] for one in cells] == list(range(1, len(HOSTILE) + 1))
    with zipfile.ZipFile(path) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet
    assert "hyperlink" not in sheet
    assert 'state="frozen"' in sheet
    assert f'<autoFilter ref="A1:{chr(ord("A") + len(header) - 1)}{len(HOSTILE) + 1}"' in sheet
    assert not list(project.audio.glob(".*.part"))


def test_more_rows_than_a_sheet_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written."""
    for most, refused in ((3, False), (2, True)):
        monkeypatch.setattr("batcher.reports.table._MAX_ROWS", most)
        file, folder = io.BytesIO(), tmp_path / str(most)
        folder.mkdir()
        with book_in(folder) as book, book.engine.connect() as conn:
            wanted = book.take_in("text\nOne.\nTwo.\n")
            sheet = Sheet(conn, [wanted], texts=True)
            if refused:
                with pytest.raises(UsageError, match="at most 2 rows"):
                    sheet.write_workbook(file)
            else:
                assert sheet.write_workbook(file) == 0
        assert (file.tell() == 0) is refused


def test_report_reads_the_manifest_in_its_encoding(project: Project) -> None:
    path = project.folder / "lines.csv"
    path.write_bytes("id;text;Größe\nr1;Schön.;groß\n".encode("cp1252"))
    assert project.run(path, "--voice", "anna", "--encoding", "cp1252").exit_code == 0
    told = project.batcher("report", "--format", "csv", "--encoding", "cp1252")
    assert "differs from the last run" not in told.err
    [row] = csv.DictReader(io.StringIO(told.out))
    assert row["Größe"] == "groß"
    (project.folder / "batcher.toml").write_text('encoding = "cp1252"\n', encoding="utf-8")
    assert project.batcher("report", "--format", "csv").out == told.out


def test_titles_above_the_header_of_a_sheet_are_skipped_on_request(tmp_path: Path) -> None:
    """The error names the row; a sheet without a header is read by position."""
    cells: Cells = [["Audio guide"], [], ["No", "Text"], [1, "Welcome."], [2, "A clock."]]
    path = workbook(tmp_path / "m.xlsx", cells)
    assert read(path)[1] == ["m.xlsx[Script]:1: no `text` column: row 3 looks like the header: pass --header-row 3"]
    assert [(row.number, row.id) for row in read(path, header_row=3)[0]] == [(4, "000004"), (5, "000005")]
    path = workbook(tmp_path / "m.xlsx", cells[3:])
    assert read(path)[1] == [
        "m.xlsx[Script]:1: no `text` column: the first row looks like data, not like the header: "
        "pass --no-header --columns id,text"
    ]
    rows, faults = read(path, no_header=True, names=("id", "text"))
    assert ([(row.number, row.id) for row in rows], faults) == ([(1, "1"), (2, "2")], [])


def test_a_second_table_of_a_sheet_is_an_error(tmp_path: Path) -> None:
    path = workbook(tmp_path / "m.xlsx", [["id", "text"], ["1", "Hi."], [], ["speaker", "voice"], ["anna", "v1"]])
    rows, faults = read(path)
    assert ([row.id for row in rows], [fault.split(": ")[1] for fault in faults]) == (
        ["1"],
        ["another table seems to begin here"],
    )


def test_with_consent_all_rows_of_a_sheet_are_one_table(tmp_path: Path) -> None:
    path = workbook(tmp_path / "m.xlsx", [["id", "text"], ["1", "Hi."], ["id", "text"], [], ["speaker", "voice"]])
    rows, faults = read(path, single_table=True)
    assert ([(row.number, row.id) for row in rows], faults) == ([(2, "1"), (5, "speaker")], [])


def two_sheets(path: Path, *, text: str = "text") -> Path:
    with Workbook(path) as book:
        book.add_worksheet("Cast").write_column(0, 0, ["Name", "Mara"])
        book.add_worksheet("Empty")
        book.add_worksheet("My lines").write_column(0, 0, ["Script", text, "One."])
        book.add_worksheet("Old").write_column(0, 0, ["text", "Two."])
    return path


def test_without_texts_on_the_first_sheet_the_error_has_the_option_for_the_one_that_has(tmp_path: Path) -> None:
    path = two_sheets(tmp_path / "m.xlsx")
    assert read(path)[1][0] == ("m.xlsx[Cast]:1: no `text` column: sheet \"My lines\" has one: pass --sheet 'My lines'")
    assert read(path, columns={"text": "Line"})[1][0].endswith(
        "or another sheet with --sheet NAME (the others are Empty, My lines, Old)"
    )


def test_a_column_of_prose_on_another_sheet_is_offered_with_both_options(tmp_path: Path) -> None:
    with Workbook(tmp_path / "m.xlsx") as book:
        book.add_worksheet("Cast").write_row(0, 0, ["Name", "Sex"])
        for row, cells in enumerate([["No", "The line"], [1, "And they are off!"], [2, "What a start."]]):
            (book.get_worksheet_by_name("Lines") or book.add_worksheet("Lines")).write_row(row, 0, cells)
    assert read(tmp_path / "m.xlsx")[1][0].endswith(
        "column `The line` of sheet \"Lines\" may be it: pass --sheet Lines --column 'text=The line'"
    )


@pytest.mark.parametrize("name", ["My lines", " my LINES"])
def test_a_sheet_is_chosen_by_name(tmp_path: Path, name: str) -> None:
    rows, faults = read(two_sheets(tmp_path / "m.xlsx"), sheet=name, header_row=2)
    assert ([row.inputs and row.inputs.text for row in rows], faults) == (["One."], [])


def test_a_sheet_that_the_workbook_lacks_is_refused_and_the_others_listed(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match='has no sheet "Nine"') as refused:
        read(two_sheets(tmp_path / "m.xlsx"), sheet="Nine")
    assert refused.value.hint == "It has Cast, Empty, My lines, Old."


OLD: Final = (
    "c-rk)O=uHA6#izj+x(EENlk@T2%%urS_<ODOI<5yFB+=|iU^vR#fFxRqyc{pTCF(>f+xjGp%*VzFaDqhy$K2xJqUu3>d})>p@%l>o430)(Ht"
    "7kU}V2#-n@A;@6FG9GqbyI7vh!KhrNsV1-s!x)e54cMkXi)-9ijhZ&{Lc^8h8wLt7yjAV+p+couo%mp+vKUW9@N>Pw=)XG$k=4(Wnvq*{o*J"
    "cf*rV;B}H#h!w@l%nY2adk00!*m1F``q?9(>*M?!E~6~R>TP`=;?u7P8=Us`nWDiRNyh|d}PTEbmNtb<106X-B!a$F`t?IH!G5A7;_-cjT)v"
    "=%uH60AQ#TzyOjc#+`alD<;hzs7a;j^z1-hGeoIk-X;`O)48$@bSoX;pjW%4#n396DW(yAFO=D^WBYXtQ6ozaxo;S~?#*Lyu(VNeawUTk6L_"
    "uOw%2CRY=#Xg)5t}9U==s7>NE+aMAFJE<5#9}9qB(RjALl(0qmzB*-nVxLvt#-xmQ3?mZ{G-;<rHAys?;Fm=vs|U2Uue}(`#&X6Z5@H6Eri*"
    "`^UN+X8#Pgxz4ry)Xz@Fdwoj{zm@p%*TYYe<uCd+;^#*fFD2$b=(FgfrOA=Ld}c5x2F0D*5>ItE7tY!7iD}Po=SV<_Ib*k+Yp)Zl2r(PC??$"
    "Byk7QFiXMUm;tIDwfwT)L*ZMdp(#&*eF9lNAZ$+uSWQAu@d2`<;$5^PIz+6%TNJ#bkG@%<4;($Q8LXe+GkceHIk1srXKwO_lwM<d^R@ZiCN2"
    "M-=Rv<C#gW!Z0*Dt~9#Z>@gkzs@S9s`s1Zzr_(0=qb@>={}g07jdzv_}K_exVFSPb=?1j633|bA|{aKaZEHFzx351YUi_V#n_+QLe2JHZDyQ"
    "*x&I#l=>5|"
)
"""A workbook in the older format, compressed: sheets Notes, without texts, and Lines, with two."""


def test_the_older_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.xls"
    path.write_bytes(zlib.decompress(base64.b85decode(OLD)))
    assert "pass --sheet Lines" in read(path)[1][0]
    rows, faults = read(path, sheet="Lines")
    assert [(row.number, row.id, row.inputs and row.inputs.text, row.extra) for row in rows] == [
        (2, "a", "One.", {"n": "7", "d": ""}),
        (3, "b", "Two.", {"n": "0.5", "d": ""}),
    ]
    assert faults == []


def ods(path: Path, rows: str) -> Path:
    kinds = {
        "office": "urn:oasis:names:tc:opendocument:xmlns:office:1.0",
        "table": "urn:oasis:names:tc:opendocument:xmlns:table:1.0",
        "text": "urn:oasis:names:tc:opendocument:xmlns:text:1.0",
        "calcext": "urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0",
    }
    spaces = " ".join(f'xmlns:{name}="{uri}"' for name, uri in kinds.items())
    body = f'<office:body><office:spreadsheet><table:table table:name="S">{rows}</table:table></office:spreadsheet>'
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr(
            "META-INF/manifest.xml", '<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>'
        )
        archive.writestr(
            "content.xml", f"<office:document-content {spaces}>{body}</office:body></office:document-content>"
        )
    return path


def ods_row(*cells: str, more: str = "") -> str:
    inner = "".join(
        f'<table:table-cell office:value-type="string" {more}><text:p>{cell}</text:p></table:table-cell>'
        for cell in cells
    )
    return f"<table:table-row>{inner}</table:table-row>"


@pytest.mark.parametrize(
    "rows",
    [
        ods_row("One.<text:s text:c='2000000000'/>"),
        ods_row("x" * 2000, more='table:number-columns-repeated="16000"'),
        ods_row("x" * 2000).replace("<table:table-row", '<table:table-row table:number-rows-repeated="16000"'),
    ],
)
def test_an_open_document_with_more_characters_than_memory_is_refused(tmp_path: Path, rows: str) -> None:
    """A file of 700 bytes can stand for any number."""
    with pytest.raises(
        ManifestError, match="too large: its repeated cells and spaces have more than 8,388,608 characters"
    ):
        read(ods(tmp_path / "m.ods", ods_row("text") + rows))


BLANK_ROWS: Final = (
    '<table:table-row table:number-rows-repeated="1000000"><table:table-cell table:number-columns-repeated="16384"/>'
    "</table:table-row>"
)


def test_an_open_document_is_read(tmp_path: Path) -> None:
    path = ods(tmp_path / "m.ods", ods_row("id", "text") + ods_row("a", "One.") + BLANK_ROWS)
    rows, faults = read(path)
    assert ([(row.number, row.id, row.inputs and row.inputs.text) for row in rows], faults) == ([(2, "a", "One.")], [])


def test_an_error_in_an_open_document_is_reported(tmp_path: Path) -> None:
    failed = ods_row("#DIV/0!", more='table:formula="of:=1/0" office:string-value="" calcext:value-type="error"')
    _, faults = read(ods(tmp_path / "m.ods", ods_row("text") + ods_row("One.") + failed))
    assert faults == ["m.ods[S]:3: text: the cell contains the error #DIV/0!: fix its formula"]


def test_a_merged_cell_of_an_open_document_is_an_error(tmp_path: Path) -> None:
    covered = "<table:table-row><table:covered-table-cell/><table:table-cell/></table:table-row>"
    merged = ods_row("One.", "x").replace("<table:table-cell", '<table:table-cell table:number-rows-spanned="2"', 1)
    rest = covered.replace(
        "<table:table-cell/>", '<table:table-cell office:value-type="string"><text:p>y</text:p></table:table-cell>'
    )
    _, faults = read(ods(tmp_path / "m.ods", ods_row("text", "note") + merged + rest))
    assert faults == ["m.ods[S]:3: text: the cell is merged with row 2: unmerge it and fill in each row"]


def test_an_open_document_that_expands_without_bounds_is_refused(tmp_path: Path) -> None:
    wide = ods_row("x", more='table:number-columns-repeated="16000"')
    many = wide.replace("<table:table-row>", '<table:table-row table:number-rows-repeated="100000">')
    with pytest.raises(ManifestError, match="too large: its sheet has 100,000 rows by 16,000 columns: delete"):
        read(ods(tmp_path / "m.ods", many))
