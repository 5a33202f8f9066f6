"""Quotes in delimited files: the file decides whether they enclose cells, and a cell that holds rows is an error."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path
from typing import Any

import pytest

from batcher.manifest import quoting
from batcher.manifest.quoting import encloses, swallows
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules

PLAIN_NOTE = "quotes are part of the texts"


def read(folder: Path, content: str, name: str = "m.tsv", **changes: Any) -> tuple[list[tuple[str, str]], Manifest]:
    """Id and text of each row, and the manifest."""
    path = folder / name
    path.write_text(content, encoding="utf-8", newline="")
    manifest = Manifest(path, Rules(**({"batch": "m", "voice": "anna"} | changes)))
    return [(row.id, row.inputs.text if row.inputs else "") for row in manifest.rows()], manifest


def said(manifest: Manifest) -> list[str]:
    return [line.partition("m.")[2] for line in manifest.faults.lines()]


@pytest.mark.parametrize(("name", "mark"), [("m.tsv", "\t"), ("m.csv", "|")])
def test_an_open_quote_swallows_no_rows(tmp_path: Path, name: str, mark: str) -> None:
    """A cell that begins with a quote, and another that ends with one lines later, are rows like the others."""
    lines = [
        "id\ttext",
        "a1\tRead aloud.",
        'a2\t"No lamp is to be left.',
        "a3\tNo boat.",
        'a4\tNo stranger."',
        "a5\tEnd.",
    ]
    rows, manifest = read(tmp_path, "\n".join(lines).replace("\t", mark), name)
    assert rows == [
        ("a1", "Read aloud."), ("a2", '"No lamp is to be left.'), ("a3", "No boat."), ("a4", 'No stranger."'),
        ("a5", "End."),
    ]  # fmt: skip
    assert not manifest.faults
    assert PLAIN_NOTE in manifest.notes[0]


@pytest.mark.parametrize(("name", "mark"), [("m.tsv", "\t"), ("m.csv", "|"), ("m.csv", ";"), ("m.csv", ",")])
def test_a_quote_that_ends_within_a_cell_is_part_of_the_text(tmp_path: Path, name: str, mark: str) -> None:
    """In a file in which no cell is enclosed."""
    rows, manifest = read(tmp_path, f'id{mark}text\n1{mark}"Stop!" she said.\n2{mark}He "left".\n', name)
    assert (rows, manifest.faults.lines()) == ([("1", '"Stop!" she said.'), ("2", 'He "left".')], [])
    assert PLAIN_NOTE in manifest.notes[-1]


def test_a_quote_that_is_never_closed_is_part_of_the_text_of_a_tsv(tmp_path: Path) -> None:
    rows, manifest = read(tmp_path, 'id\ttext\n1\t"Never closed.\n' + "2\tNext.\n" * 500)
    assert (len(rows), rows[0], manifest.faults.lines()) == (501, ("1", '"Never closed.'), [])


def test_quotes_that_enclose_cells_are_removed(tmp_path: Path) -> None:
    """Doubled quotes, delimiters and line breaks within a cell prove that they enclose."""
    rows, manifest = read(tmp_path, 'id\ttext\n1\t"He said ""go"", then\tleft."\n2\t"Line one\nline two"\n3\t"Hi"\n')
    assert (rows, manifest.faults.lines()) == (
        [("1", 'He said "go", then\tleft.'), ("2", "Line one\nline two"), ("3", "Hi")],
        [],
    )
    assert manifest.notes == ["delimiter tab; quotes enclose cells"]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("style", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
def test_what_a_csv_writer_wrote_is_read_back(tmp_path: Path, mark: str, style: Any) -> None:
    """Texts with quotes, line breaks and the delimiter, in any dialect."""
    words = ['"Stop!" she said.', "one, two; three | four", "first\nsecond, line", "plain", '"whole"', 'it is 5" wide']
    texts = [*words, *(random.Random(7).choice(words) for _ in range(100))]
    file = io.StringIO()
    writer = csv.writer(file, delimiter=mark, quoting=style)
    writer.writerows([["id", "text"], *([str(index), text] for index, text in enumerate(texts))])
    rows, manifest = read(tmp_path, file.getvalue(), "m.csv")
    assert (manifest.faults.lines(), [text for _, text in rows]) == ([], texts)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", 'id,text\n1,"No lamp, ever\n2,No boat.\n3,No stranger, ever."\n4,Bye\n'),
        ("m.csv", 'id;text\n1;"No lamp\n2;No boat."\n4;Bye\n'),
        ("m.tsv", 'id\ttext\n1\t"He said ""go""\tand"\n2\t"No lamp\n3\tNo boat."\n4\tBye\n'),
    ],
)
def test_a_cell_that_swallows_rows_is_an_error_with_a_way_out(tmp_path: Path, name: str, content: str) -> None:
    """Where quotes enclose cells, or may."""
    _, manifest = read(tmp_path, content, name)
    (line,) = said(manifest)
    assert "a quoted cell contains the delimiter and lines up to" in line
    assert manifest.faults.fatal
    (hint,) = manifest.faults.hints
    assert "--quotes off" in hint
    assert "--quotes on" in hint
    for choice in ("on", "off"):
        assert "lines up to" not in "".join(said(read(tmp_path, content, name, quotes=choice)[1]))


@pytest.mark.parametrize(
    "content",
    [
        'id,text\n1,"Dear Anna,\nI write, today.\nBye"\n2,Hello\n',
        'text,voice\n"One\ntwo, three",anna\n',
        'id,text\nintro,"Come\nmy dear friend, come"\n',
    ],
)
def test_prose_with_line_breaks_and_commas_is_a_text(tmp_path: Path, content: str) -> None:
    """Its lines do not read like rows of the file."""
    _, manifest = read(tmp_path, content, "m.csv")
    assert manifest.faults.lines() == []


def test_one_broken_cell_does_not_change_the_meaning_of_all_quotes(tmp_path: Path) -> None:
    """In a file that encloses its cells, it is an error."""
    content = 'id,text\n"1","One."\n"2","He said "no" to me."\n"3","Three."\n'
    rows, manifest = read(tmp_path, content, "m.csv")
    assert rows == [("1", "One."), ("3", "Three.")]
    assert said(manifest)[0].startswith("csv:3: a quote within a quoted cell")
    assert manifest.faults.hints == ["If quotes in this file are part of the texts, pass --quotes off."]


def test_the_users_choice_overrides_what_the_file_suggests(tmp_path: Path) -> None:
    content = 'id\ttext\n1\t"One."\n'
    assert read(tmp_path, content, quotes="off")[0] == [("1", '"One."')]
    assert read(tmp_path, content, quotes="on")[0] == [("1", "One.")]


def test_a_text_of_many_lines_is_looked_at_only_so_far() -> None:
    """The decision reads a bounded part of a file of quoted cells."""
    read_lines = 0

    def lines() -> Any:
        nonlocal read_lines
        for number in range(100_000):
            read_lines += 1
            yield f'{number},"One, two."\n'

    assert encloses(lines(), ",") is True
    assert read_lines < 2 * quoting._VOTES


def test_a_file_without_quotes_at_the_beginning_of_a_cell_needs_no_decision() -> None:
    assert encloses(['a,b "c"\n', "d,e\n"], ",") is None


@pytest.mark.parametrize(
    ("cells", "mark", "found"),
    [
        (["1", "a\tb"], "\t", False),
        (["1", "a\nb"], "\t", False),
        (["1", "a\n2\tb"], "\t", True),
        (["1", "a\r2|b"], "|", True),
        (["1", "a\n2,b"], ",", True),
        (["1", "a\nwell, b"], ",", False),
        (["1", "a\n2, b, c"], ",", False),
        (["x1", "a\ny2,b", "c"], ",", True),
        (["1", "one\nalpha,b"], ",", True),
        (["1", "red, green\nand blue,"], ",", False),
        (["intro scene", "it cost\n1,000"], ",", False),
        (["love", "Dear Anna,\nthanks, Ben"], ",", False),
        (["1", " a\nBob, come"], ",", True),
        (["1", "a,anna\n2,b"], ",", True),
        (["one\ntwo"], ",", True),
        (["one\n"], ",", False),
    ],
)
def test_a_cell_swallows_rows_if_its_lines_read_like_rows(cells: list[str], mark: str, found: bool) -> None:
    assert swallows(cells, mark, 3 if "anna" in cells[-1] else len(cells)) is found


def test_names_of_columns_may_be_quoted_where_texts_are_not(tmp_path: Path) -> None:
    rows, manifest = read(tmp_path, '"id"\t"text"\n1\t"Stop!" she said.\n2\t"Go," he said.\n3\tGo.\n')
    assert (rows[0], manifest.faults.lines()) == (("1", '"Stop!" she said.'), [])


def test_a_backslash_before_a_quote_within_a_cell_is_understood(tmp_path: Path) -> None:
    """It is where most such cells can only be read like that."""
    content = 'id,text\n"a","He said \\"stop\\", twice."\n"b","A line\\nbreak."\n"c","C:\\\\"\n'
    rows, manifest = read(tmp_path, content, "m.csv")
    assert rows == [("a", 'He said "stop", twice.'), ("b", "A line\\nbreak."), ("c", "C:\\\\")]
    assert (manifest.notes, manifest.faults.lines()) == (['\\" is a quote within a cell'], [])
    rows, manifest = read(tmp_path, 'id,text\n1,"C:\\"\n2,say \\"so\\"\n', "m.csv")
    assert (rows, manifest.notes) == ([("1", "C:\\"), ("2", 'say \\"so\\"')], [])


def test_quotes_behind_a_space_enclose_cells_where_all_do(tmp_path: Path) -> None:
    rows, manifest = read(tmp_path, 'id, text\n1, "Stop, she said."\n2, Go.\n', "m.csv")
    assert rows == [("1", "Stop, she said."), ("2", "Go.")]
    assert manifest.notes == ["quotes also enclose cells behind a space"]
    rows, manifest = read(tmp_path, 'id, text\n1, "Stop!" she said.\n', "m.csv")
    assert (rows, manifest.notes) == ([("1", '"Stop!" she said.')], [])
