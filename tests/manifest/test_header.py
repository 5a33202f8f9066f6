"""The header of a table: which row it is, tables without one, and the advice when the first row looks wrong."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from batcher.errors import ManifestError
from batcher.manifest.reader import Manifest, input_columns
from batcher.manifest.rules import Rules


def read(folder: Path, content: str, name: str = "m.csv", **changes: Any) -> tuple[list[tuple[str, str]], Manifest]:
    """Id and text of each row, and the manifest."""
    path = folder / name
    path.write_text(content, encoding="utf-8", newline="")
    manifest = Manifest(path, Rules(**({"batch": "m", "voice": "anna"} | changes)))
    return [(row.id, row.inputs.text if row.inputs else "") for row in manifest.rows()], manifest


def said(manifest: Manifest) -> list[str]:
    return [line.partition("m.")[2].partition(":")[2] for line in manifest.faults.lines()]


SPEECH = """\
BK1-01|The mill stood 3 years.|The mill stood three years.
BK1-02|"Sell it," they said.|"Sell it," they said.
"""


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (SPEECH, "--no-header --columns id,_,text"),
        ("4100201;Hull breach detected.\n4100202;Docking complete.\n", "--no-header --columns id,text"),
        ("Docking complete.\tben\nHull breach.\tanna\n", "--no-header --columns text,id"),
        ("Please hold.\nGoodbye!\n", "--no-header --columns text"),
        ("Good morning, all.\nYour call is, truly, important.\n", "--no-header --columns text --delimiter tab, if"),
        ("r1,yes\nr2,no\n", "--no-header --columns id,text"),
    ],
)
def test_a_first_row_that_looks_like_data_is_an_error_with_the_options_that_read_it(
    tmp_path: Path, content: str, options: str
) -> None:
    """These options read every row."""
    _, manifest = read(tmp_path, content)
    (line,) = [line for line in said(manifest) if "cells" not in line]
    assert line.startswith(f"1: no `text` column: the first row looks like data, not like the header: pass {options}")
    _, *words = shlex.split(options.partition(", if")[0])
    changes: dict[str, Any] = {"no_header": True, "names": words[1].split(",")}
    rows, manifest = read(tmp_path, content, **changes | ({"delimiter": "\t"} if "tab" in words else {}))
    assert manifest.faults.lines() == []
    assert len(rows) == content.count("\n")


def test_columns_of_a_table_without_a_header_are_named_by_position(tmp_path: Path) -> None:
    """A skipped column is neither sent nor carried; another name is carried."""
    rows, manifest = read(tmp_path, SPEECH, no_header=True, names=("id", "_", "text"))
    assert rows == [("BK1-01", "The mill stood three years."), ("BK1-02", '"Sell it," they said.')]
    assert (manifest.columns_sent, manifest.columns_carried) == ({"id": "id", "text": "text"}, [])
    assert manifest.notes == ["delimiter |; quotes are part of the texts"]
    _, manifest = read(tmp_path, SPEECH, no_header=True, names=("", "raw", "text"))
    assert manifest.columns_carried == ["raw"] or manifest.columns_carried == ["column 1", "raw"]


def test_a_file_of_one_column_without_a_header_is_texts(tmp_path: Path) -> None:
    """Its rows are numbered from 1."""
    rows, manifest = read(tmp_path, "Please hold.\n\nGoodbye!\n", no_header=True)
    assert (rows, manifest.faults.lines()) == ([("000001", "Please hold."), ("000003", "Goodbye!")], [])


def test_columns_without_a_header_can_be_mapped_by_their_position(tmp_path: Path) -> None:
    rows, manifest = read(tmp_path, "x,One.\ny,Two.\n", no_header=True, columns={"text": "column 2"})
    assert (rows, manifest.columns_carried) == ([("000001", "One."), ("000002", "Two.")], ["column 1"])
    _, manifest = read(tmp_path, "x,One.\ny,Two.\n", no_header=True)
    assert said(manifest) == ["1: no `text` column: name the columns with --no-header --columns id,text"]


def test_more_cells_than_names_are_an_error(tmp_path: Path) -> None:
    _, manifest = read(tmp_path, "1,One.,x\n", no_header=True, names=("id", "text"))
    assert said(manifest)[0].startswith("1: 3 cells, but --columns names 2 columns: ")


def test_a_header_is_not_spoken_as_a_row(tmp_path: Path) -> None:
    """--no-header for a file that has one is an error."""
    _, manifest = read(tmp_path, "id,text\n1,One.\n", no_header=True, names=("id", "text"))
    assert said(manifest) == ["1: names the columns, and as a row it would be spoken: remove --no-header"]


def test_a_row_is_not_mapped_as_the_header_unseen(tmp_path: Path) -> None:
    """--column text=TEXT OF THE FIRST ROW would lose that row; --header-row 1 insists."""
    content = "4100201;Hull breach detected.\n4100202;Docking complete.\n"
    columns = {"text": "Hull breach detected.", "id": "4100201"}
    _, manifest = read(tmp_path, content, columns=columns)
    assert said(manifest) == [
        "1: looks like a row of the table, and as the header it would not be spoken: "
        "pass --no-header --columns id,text; if it is the header, pass --header-row 1"
    ]
    assert read(tmp_path, content, columns=columns, header_row=1)[0] == [("4100202", "Docking complete.")]


@pytest.mark.parametrize("header", ["Satz", "Text to be spoken", "Line (English)", "Q1 text"])
def test_a_mapped_header_is_not_mistaken_for_data(tmp_path: Path, header: str) -> None:
    rows, manifest = read(tmp_path, f"no,{header},2024\n1,One.,7\n2,Two.,8\n", columns={"text": header})
    assert (len(rows), manifest.faults.lines()) == (2, [])


def test_the_error_names_the_row_below_titles_that_looks_like_the_header(tmp_path: Path) -> None:
    """By the name of the text, or as the first row with several cells. Row numbers count from the file's beginning."""
    titles = "Audio guide,,\nas of 3 March,,\n,,\n"
    advice = "row 4 looks like the header: pass --header-row 4"
    _, manifest = read(tmp_path, f"{titles}No,Room,Text\n1,Foyer,Welcome.\n2,Hall,A clock.\n")
    assert said(manifest) == [f"1: no `text` column: {advice}"]
    rows, manifest = read(tmp_path, f"{titles}No,Room,Text\n1,Foyer,Welcome.\n\n2,Hall,A clock.\n", header_row=4)
    assert (rows, manifest.faults.lines()) == ([("000005", "Welcome."), ("000007", "A clock.")], [])
    _, manifest = read(tmp_path, f"{titles}No,Room,Ansage\n1,Foyer,Welcome.\n")
    assert advice in said(manifest)[0]
    _, manifest = read(tmp_path, f"{titles}No,Room,Ansage\n1,Foyer,Welcome.\n", columns={"text": "ansage"})
    assert said(manifest)[0].endswith(advice)


def test_titles_may_fill_several_cells(tmp_path: Path) -> None:
    """The header is the first of the widest rows, and the rows below a wrong header are not judged."""
    content = "Kapitel 1,,28.11.2026,,\n\nNr.,Figur,Zeile,Dauer,Status\nk1,Anna,Es war einmal.,,ok\nk2,Ben,Nein.,,ok\n"
    _, manifest = read(tmp_path, content)
    options = "--header-row 3 --column text=Zeile --column id=Nr. --column voice=Figur"
    assert said(manifest) == [f"1: no `text` column: row 3 looks like the header: pass {options}"]
    assert manifest.faults.options == {
        "--header-row": ["3"],
        "--column": ["text=Zeile", "id=Nr.", "voice=Figur"],
    }


@pytest.mark.parametrize("number", [2, 9])
def test_a_header_row_that_is_blank_or_missing_is_an_error(tmp_path: Path, number: int) -> None:
    _, manifest = read(tmp_path, "text\n\nOne.\n", header_row=number)
    assert manifest.faults.lines()[0].endswith(f"--header-row {number}: that row is blank, or the file ends before it")


def test_a_first_column_without_a_name_is_carried(tmp_path: Path) -> None:
    """Data frames are exported with an index, and game engines with keys in such a column."""
    rows, manifest = read(tmp_path, ",speaker,text\n0,anna,The train is late.\n1,ben,It is.\n")
    assert (rows, manifest.faults.lines()) == ([("000002", "The train is late."), ("000003", "It is.")], [])
    assert manifest.columns_carried == ["column 1", "speaker"]
    assert read(tmp_path, ",text\nk1,One.\n", columns={"id": "column 1"})[0] == [("k1", "One.")]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (
            "id,text\n1,Hi\nid,text\n2,Ho\n",
            3,
            "repeats the header, so the file holds several tables: save each as a file; or, ",
        ),
        ("id,text\n1,Hi\n\nspeaker,voice\nanna,v1\n", 4, "another table seems to begin here"),
        ("id,text\n1,Hi\n,\n,\nid,text,voice\n2,Ho,anna\n", 5, "another table seems to begin here"),
    ],
)
def test_a_file_with_several_tables_is_an_error(tmp_path: Path, content: str, line: int, words: str) -> None:
    """Names of columns are not spoken."""
    rows, manifest = read(tmp_path, content)
    assert rows == [("1", "Hi")]
    assert said(manifest)[0].startswith(f"{line}: {words}")
    assert manifest.faults.fatal


def test_with_consent_all_rows_are_one_table(tmp_path: Path) -> None:
    """What looks like a header is a row then, but a repeated header is still not spoken."""
    rows, manifest = read(tmp_path, "id,text\n1,Hi\nid,text\n\nid,text\n\nname,voice\n2,Ho\n", single_table=True)
    assert (rows, manifest.faults.lines()) == ([("1", "Hi"), ("name", "voice"), ("2", "Ho")], [])
    assert read(tmp_path, "text\nHi\ntext\n")[0] == [("000002", "Hi"), ("000003", "text")]


def test_a_row_of_types_below_the_header_is_left_out(tmp_path: Path) -> None:
    rows, manifest = read(tmp_path, "id,text,loud\nint,string,bool\n1,Hi.,x\n")
    assert (rows, manifest.notes) == ([("1", "Hi.")], ["row 2 has the types of the columns: left out"])
    assert read(tmp_path, "id,text\nkey,number\n1,Hi.\n")[0] == [("key", "number"), ("1", "Hi.")]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("Key,Line\na,One day it rained.\nb,It did so again.\n", "--column text=Line --column id=Key"),
        ("id,Line\na,One day it rained.\n", "--column text=Line"),
        ("Key,Line\na,Hello {name}.\nb,It <b>rained</b>.\n", "--column text=Line --column id=Key --strip html,braces"),
        ('Key,"Line\n(new)"\na,One day it rained.\na,It did.\n', "--column 'text=Line (new)'"),
        ("Notes,Script\nPlease check it again.,One day it rained.\n", "--column text=Script"),
        ("a,b\nHund,dog\n", "--column text=a"),
        ("no,词\n1,今晚城门关闭\n", "--column 'text=词'"),
    ],
)
def test_the_error_has_the_options_for_the_likely_columns(tmp_path: Path, content: str, options: str) -> None:
    """Of the text, and of an id that is a name of the row."""
    _, manifest = read(tmp_path, content)
    words = said(manifest)[0].removeprefix("1: no `text` column: pass ")
    assert re.split(r"; or, | \(--allow ", words)[0] == options


@pytest.mark.parametrize("header", ["label start:", "title: Start", "0:01:02.000", "one two three four five six seven"])
def test_a_line_of_another_format_is_not_offered_as_a_column(tmp_path: Path, header: str) -> None:
    _, manifest = read(tmp_path, f"{header}\nOne day.\n", "m.xyz")
    assert "text=" + header not in said(manifest)[0]


def test_blank_rows_between_rows_are_no_second_table(tmp_path: Path) -> None:
    rows, manifest = read(tmp_path, "id,text\n1,Hi\n\n2,Voice\n\nintro,Good morning.\n\n3,text\n")
    assert (len(rows), manifest.faults.lines()) == (4, [])


@pytest.mark.parametrize(
    ("name", "content", "delimiter"),
    [
        ("m.csv", "id|text\n1|A, b; c.\n", "|"),
        ("m.csv", "text,a|b\nHi,x\n", ","),
        ("m.csv", "id;text, german\n1;Eins\n", ";"),
        ("m.csv", "Audio guide\nas of March\nid;text\n1;Hi\n2;Ho\n3;Hu\n", ";"),
        ("m.tsv", "text\nHello, you\n", "\t"),
        ("m.tsv", "text,a\tid\nHello, you\t1\n", "\t"),
        ("m.tsv", "id,text\n1,Hello\n", ","),
        ("m.csv", "sep=;\r\nid;text, x\r\n1;Hi\r\n", ";"),
        ("m.csv", "\ufeffsep=|\nid|text\n1|Hi; you\n", "|"),
    ],
)
def test_the_delimiter_is_found(tmp_path: Path, name: str, content: str, delimiter: str) -> None:
    """By the first row and, if that has several, by the following; a .tsv file's is a tab. It is reported."""
    _, manifest = read(tmp_path, content, name, columns={"text": "text, german"} if "german" in content else {})
    word = {"\t": "tab", ";": "semicolon"}.get(delimiter, delimiter)
    assert [note.split(";")[0] for note in manifest.notes] == [f"delimiter {word}"] * (delimiter != ",")


def test_a_given_delimiter_is_used(tmp_path: Path) -> None:
    assert read(tmp_path, "id:text\n1:Hi, you\n", delimiter=":")[0] == [("1", "Hi, you")]


def test_a_line_that_names_the_delimiter_is_not_the_header(tmp_path: Path) -> None:
    """Spreadsheets write it, and count it as a line of the file."""
    content = '\ufeffsep=;\r\nid;text\r\nd1;"Bis morgen; ja"\r\n;Ende\r\n'
    rows, manifest = read(tmp_path, content)
    assert (rows, manifest.faults.lines()) == ([("d1", "Bis morgen; ja"), ("000004", "Ende")], [])


CARDS = "#separator:tab\n#html:true\n#tags column:3\n"
NOTES = "<b>der Hund</b>\tthe dog<br><i>m.</i>\tunit1\nIch hei&szlig;e A.\tMy name is A. [sound:a1.mp3]\tunit1\n"


def test_the_first_lines_of_an_anki_export_are_read(tmp_path: Path) -> None:
    """They name delimiter and columns; tags, sounds and entities are not spoken."""
    rows, manifest = read(tmp_path, CARDS + NOTES, "m.txt", columns={"text": "column 1"})
    assert (rows, manifest.faults.lines()) == ([("000004", "der Hund"), ("000005", "Ich heiße A.")], [])
    assert manifest.columns_carried == ["column 2", "tags"]
    named = "#separator:Semicolon\n#columns:Front;Text;Tags\nVorn;<b>Hi</b> [sound:x.mp3];t\n"
    rows, manifest = read(tmp_path, named, "m.txt")
    assert (rows, manifest.columns_carried) == ([("000003", "<b>Hi</b>")], ["Front", "Tags"])
    rows, _ = read(tmp_path, CARDS + NOTES, "m.txt", no_header=True, names=("_", "text", "_"))
    assert rows == [("000004", "the dog\nm."), ("000005", "My name is A.")]


def test_an_anki_export_without_named_columns_is_told_how_to_name_them(tmp_path: Path) -> None:
    _, manifest = read(tmp_path, CARDS + NOTES, "m.txt")
    assert said(manifest) == [
        "4: no `text` column: name the columns with --no-header --columns _,text,_; or, if another column has the"
        " texts, --no-header --columns text,_,_"
    ]


def test_a_card_of_sounds_has_no_text(tmp_path: Path) -> None:
    _, manifest = read(tmp_path, "#html:true\n#columns:id\ttext\n1\t<br>[sound:x.mp3]\n", "m.txt")
    assert said(manifest)[0].startswith("3: text: the text is empty")


def test_standard_input_may_be_a_table() -> None:
    """A pipe is looked at ahead as well."""
    manifest = Manifest(None, Rules(batch="m", voice="anna"), stdin=_Pipe(b'id|text\n1|"Stop!" she said.\n2|Go.\n'))
    assert [row.inputs.text for row in manifest.rows() if row.inputs] == ['"Stop!" she said.', "Go."]
    assert manifest.notes == ["delimiter |; quotes are part of the texts"]
    assert manifest.size == 34


def test_an_option_that_does_not_apply_is_an_error(tmp_path: Path) -> None:
    """JSONL has no header."""
    with pytest.raises(ManifestError, match="--columns does not apply to JSONL"):
        read(tmp_path, '{"text": "a"}\n', "m.jsonl", names=("text",))


def test_all_columns_come_back_under_their_names(tmp_path: Path) -> None:
    """A report has the columns of a table without a header, too."""
    read(tmp_path, SPEECH)
    rules = Rules(batch="m", no_header=True, names=("id", "_", "text"))
    assert next(iter(input_columns(tmp_path / "m.csv", rules))) == (
        1,
        {"id": "BK1-01", "text": "The mill stood three years."},
    )


class _Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


def test_where_a_semicolon_separates_cells_numbers_may_have_a_decimal_comma(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("text;speed;note\nOne, two.;0,9;1,5\nThree.;1.1;\n", encoding="utf-8")
    manifest = Manifest(tmp_path / "m.csv", Rules(batch="m", voice="anna"))
    rows = [(row.inputs.text, row.inputs.params, row.extra["note"]) for row in manifest.rows() if row.inputs]
    assert rows == [("One, two.", {"speed": 0.9}, "1,5"), ("Three.", {"speed": 1.1}, "")]
