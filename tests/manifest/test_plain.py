"""Text files: whether they are a table, and otherwise one text per line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules


def read(folder: Path, content: str, **changes: Any) -> tuple[list[tuple[int, str]], Manifest]:
    """Number and text of each row, and the manifest."""
    (folder / "m.txt").write_text(content, encoding="utf-8")
    manifest = Manifest(folder / "m.txt", Rules(**({"batch": "m", "voice": "anna"} | changes)))
    return [(row.number, row.inputs.text) for row in manifest.rows() if row.inputs], manifest


PROSE = [
    "Good morning.\nPlease hold the line.\n",
    "Good morning, and welcome.\nPlease hold.\nIt is important, truly, to us.\n",
    "Hello, you.\nBye, you.\n",
    '"Goodbye," said nobody.\n"No, no," said I.\n',
    "One; two.\nThree; four.\n",
    "Hello\nBye\n",
    "Hello\n",
    "A fare is 1,000 pounds.\nFree today.\n",
    "Say A|B.\nOr not.\nOr so.\n",
    "[music] Hello.\nBye.\n",
    "{Hello}\nBye.\n",
]


@pytest.mark.parametrize("content", PROSE)
@pytest.mark.parametrize("changes", [{}, {"no_header": True}, {"columns": {"voice": ""}}])
def test_without_the_structure_of_a_table_each_line_is_a_text(
    tmp_path: Path, content: str, changes: dict[str, Any]
) -> None:
    rows, manifest = read(tmp_path, content, **changes)
    assert rows == list(enumerate(content.splitlines(), 1))
    assert (manifest.faults.lines(), manifest.notes) == ([], ["each line is one text"])


def test_blank_lines_are_not_rows_and_white_space_is_removed(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff\n  One. \r\n\r\n\tTwo.\r\n")[0] == [(2, "One."), (4, "Two.")]
    assert read(tmp_path, "\nOne.\n\nTwo.\n", counted=True)[0] == [(1, "One."), (2, "Two.")]


@pytest.mark.parametrize(
    ("content", "changes"),
    [
        ("text\nOne.\nTwo.\n", {}),
        ("text,id\nOne.,2\nTwo.,3\n", {}),
        ("id, text\n1, One.\n2, Two.\n", {}),
        ("id\tnote\ttext\n1\tx\tOne.\n2\tx\tTwo.\n", {}),
        ("sep=;\ntext;id\nOne.;3\nTwo.;4\n", {}),
        ("line\nOne.\nTwo.\n", {"columns": {"text": "line"}}),
        ("1|One.\n2|Two.\n", {"no_header": True, "names": ("id", "text")}),
        ("text\nOne.\nTwo.\n", {"header_row": 1}),
        ("Tour\nNo\tText\n1\tOne.\n2\tTwo.\n", {"header_row": 2}),
    ],
)
def test_a_table_stays_a_table(tmp_path: Path, content: str, changes: dict[str, Any]) -> None:
    rows, manifest = read(tmp_path, content, **changes)
    assert ([text for _, text in rows], manifest.faults.lines()) == (["One.", "Two."], [])
    assert "each line is one text" not in manifest.notes


@pytest.mark.parametrize(
    "content",
    [
        "name,line\nanna,Hello.\nben,Bye, you.\n",
        "id, line\n1, Hello.\n2, Bye, you.\n",
        "BK-1|One.\nBK-2|Two.\n",
        "a\tOne.\nb\tTwo.\nthree\n",
        'a,"One, two."\n"b, c","Three."\n',
        "a;One.\nb;Two.\n",
        "Tour\nid\ttext\n1\tOne.\n",
    ],
)
def test_a_table_without_a_known_header_is_never_spoken_line_by_line(tmp_path: Path, content: str) -> None:
    """Its error names the options with which it is read."""
    rows, manifest = read(tmp_path, content)
    assert rows == []
    assert "no `text` column" in manifest.faults.lines()[0]


@pytest.mark.parametrize(
    "content",
    [
        '{"text": "One."}\n{"text": "Two."}\n',
        '[{"text": "One."}, {"text": "Two."}]',
        "1\n00:00:01,000 --> 00:00:02,000\nOne.\n\n2\n00:00:03,000 --> 00:00:04,000\nTwo.\n",
        "WEBVTT\n\n00:01.000 --> 00:02.000\nOne.\n\n00:03.000 --> 00:04.000\nTwo.\n",
    ],
)
def test_other_formats_in_a_text_file_are_not_spoken_line_by_line(tmp_path: Path, content: str) -> None:
    rows, manifest = read(tmp_path, content)
    assert ([text for _, text in rows], manifest.faults.lines()) == (["One.", "Two."], [])


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    _, manifest = read(tmp_path, "\n \n")
    assert manifest.faults.lines() == [f"{tmp_path}/m.txt: empty: write one text per line"]


WRAPPED = (
    "It was late in the evening when the ferry came in, and nobody\n"
    "stood on the pier but an old man with a lantern, half-\n"
    "asleep, who did not turn round.\n"
)


def test_prose_with_broken_lines_is_read_by_paragraph(tmp_path: Path) -> None:
    """A row has the number of the paragraph's first line."""
    rows, manifest = read(tmp_path, f"CHAPTER ONE\n\n{WRAPPED}\n\n{WRAPPED}")
    text = " ".join(WRAPPED.split()).replace("half- ", "half-")
    assert rows == [(1, "CHAPTER ONE"), (3, text), (8, text)]
    assert manifest.notes == ["each paragraph is one text, its lines joined; if each line is a text, pass --no-header"]
    assert [number for number, _ in read(tmp_path, WRAPPED, counted=True)[0]] == [1]


def test_prose_can_be_read_by_line(tmp_path: Path) -> None:
    assert len(read(tmp_path, WRAPPED, no_header=True)[0]) == 3


def test_lines_of_chinese_and_japanese_are_joined_without_a_space(tmp_path: Path) -> None:
    line = "门今夜关闭没有人独自过河带上灯笼快点走过去看看码头上有没有人在等船如果没有就回来"
    assert read(tmp_path, f"{line}\n{line}\n{line[:9]}。\n")[0] == [(1, f"{line}{line}{line[:9]}。")]


@pytest.mark.parametrize(
    "content",
    [
        "Turn left at the next crossing, go straight on.\nTurn right at the last one, and stop right there.\n",
        "please hold the line\nyour call is important to us\nall agents are busy now\n",
        "Whose woods are far below\nand whose the house with open door\n\nThe owner keeps the meadow\nand sees me\n",
        "A long first sentence that goes to the edge of it.\nShort.\n\nOne more that goes to the edge of it.\nNo.\n",
    ],
)
def test_lines_that_are_not_broken_at_a_width_are_texts(tmp_path: Path, content: str) -> None:
    rows, manifest = read(tmp_path, content)
    assert [text for _, text in rows] == [line for line in content.splitlines() if line]
    assert manifest.notes == ["each line is one text"]


def test_lines_that_begin_with_ids_are_not_spoken_unseen(tmp_path: Path) -> None:
    content = "utt_01 THE GATE\nutt_02 THE RIVER\nutt_03 THE END\n"
    _, manifest = read(tmp_path, content)
    assert "1: each line begins with what looks like its id, which would be spoken" in manifest.faults.lines()[0]
    assert manifest.faults.fatal
    rows, manifest = read(tmp_path, content, no_header=True)
    assert (rows[0], manifest.faults.lines()) == ((1, "utt_01 THE GATE"), [])
    assert not read(tmp_path, "5 apples\n7 days a week\n5 apples\n")[1].faults
