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
