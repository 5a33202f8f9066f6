"""Markdown: which parts of a document are spoken, and in which form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batcher.errors import ManifestError
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules


def read(folder: Path, content: str, **changes: Any) -> tuple[list[tuple[int, str, str]], Manifest]:
    """Number, kind of block and text of each row, and the manifest."""
    (folder / "m.md").write_text(content, encoding="utf-8")
    manifest = Manifest(folder / "m.md", Rules(**({"batch": "m", "voice": "anna"} | changes)))
    rows = [(row.number, row.extra["block"], row.inputs.text) for row in manifest.rows() if row.inputs]
    return rows, manifest


def texts(folder: Path, content: str) -> list[str]:
    return [text for _, _, text in read(folder, content)[0]]


def test_each_block_is_a_row_with_the_number_of_its_first_line(tmp_path: Path) -> None:
    content = (
        "# The harbour #\n\nThe ferry\ncomes  \nin.\n\nPiers\n-----\n* one\n  and more\n\n1. two\n\n> Said\n> he.\n"
    )
    rows, manifest = read(tmp_path, content)
    assert rows == [
        (1, "heading", "The harbour"),
        (3, "paragraph", "The ferry comes\nin."),
        (7, "heading", "Piers"),
        (9, "list item", "one and more"),
        (12, "list item", "two"),
        (14, "quotation", "Said he."),
    ]
    assert manifest.columns_carried == ["block", "section"]
    assert (manifest.faults.lines(), len(manifest.notes)) == ([], 1)


def test_the_section_of_a_row_is_the_heading_above(tmp_path: Path) -> None:
    (tmp_path / "m.md").write_text("Hi.\n\n# *A*\n\nOne.\n", encoding="utf-8")
    manifest = Manifest(tmp_path / "m.md", Rules(batch="m", voice="anna"))
    assert [row.extra["section"] for row in manifest.rows()] == ["", "", "A"]


@pytest.mark.parametrize(
    ("part", "counted"),
    [
        ("```py\nx = 1\n\n# no heading\n```", "1 code block"),
        ("~~~~\n~~~\nx\n~~~~", "1 code block"),
        ("    x = 1\n    y = 2", "1 code block"),
        ("<!-- a\n\nb -->", "1 comment"),
        ("| a | b |\n|---|:-:|\n| 1 | 2 |", "1 table"),
        ("a | b\n--|--\n1 | 2", "1 table"),
        ("![the *map*](map.png 'x')", "1 image"),
        ("[![badge](a.svg)](http://x.y)", "1 image"),
        ("[^1]: See there.\n  And there.", "1 footnote"),
        ('<p align="center">\n<img src="a.png">\n</p>', "1 HTML block"),
        ("---", ""),
        ("* * *", ""),
        ("[ref]: http://x.y 'A title'", ""),
        ("::: note\n:::", ""),
    ],
)
def test_what_is_not_text_is_left_out_and_counted(tmp_path: Path, part: str, counted: str) -> None:
    rows, manifest = read(tmp_path, f"One.\n\n{part}\n\nTwo.\n")
    assert [text for _, _, text in rows] == ["One.", "Two."]
    assert manifest.notes[1:] == ([f"not spoken: {counted}"] if counted else [])


@pytest.mark.parametrize("front", ["---\ntitle: x\n\n# no\n---\n", "+++\ntitle = 1\n+++\n"])
def test_front_matter_is_left_out(tmp_path: Path, front: str) -> None:
    rows, manifest = read(tmp_path, f"{front}One.\n")
    assert ([text for _, _, text in rows], manifest.notes[1]) == (["One."], "not spoken: front matter")


@pytest.mark.parametrize(
    ("marked", "spoken"),
    [
        (
            "**Bold**, *it*, __bold__, _it_, ***both***, ~~gone~~ and `code`.",
            "Bold, it, bold, it, both, gone and code.",
        ),
        ("**bold *it*** and **bold *it* too**, _a_b_ and *5 * 3*.", "bold it and bold it too, a_b and 5 * 3."),
        ("## Rates {#rates}", "Rates"),
        ("A [link](http://x.y/z_(a)), [another][ref] and [[wiki|a third]].", "A link, another and a third."),
        ("Before ![the map](map.png) after[^2].", "Before after."),
        ("2 * 3 * 4, snake_case_name and 5 < 6.", "2 * 3 * 4, snake_case_name and 5 < 6."),
        (r"Not \*so\* and `*this*` neither.", "Not *so* and *this* neither."),
        ("Salt &amp; water, <http://x.y>.", "Salt & water, http://x.y."),
        ("Broken\\\nhere.", "Broken\nhere."),
        ("A <!-- hidden --> word.", "A word."),
        ("[x] is no link, nor is (this).", "[x] is no link, nor is (this)."),
    ],
)
def test_marks_of_emphasis_and_links_are_not_spoken(tmp_path: Path, marked: str, spoken: str) -> None:
    assert texts(tmp_path, marked) == [spoken]


def test_html_and_placeholders_remain_for_the_check_of_markup(tmp_path: Path) -> None:
    assert texts(tmp_path, "Hello <b>you</b>, {{ name }}.\n") == ["Hello <b>you</b>, {{ name }}."]


def test_items_of_lists_may_be_nested_checked_and_have_paragraphs(tmp_path: Path) -> None:
    content = "- one\n    - [x] two\n\n      more\n- three\n\nEnd.\n"
    assert [row[1:] for row in read(tmp_path, content)[0]] == [
        ("list item", "one"),
        ("list item", "two"),
        ("list item", "more"),
        ("list item", "three"),
        ("paragraph", "End."),
    ]


def test_a_paragraph_may_begin_a_line_with_a_year(tmp_path: Path) -> None:
    assert texts(tmp_path, "It was in\n1986. A good year.\n") == ["It was in 1986. A good year."]


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ("One.\n\n```\nTwo.\n", 3, "code block"),
        ("---\ntitle: x\n\nTwo.\n", 1, "front matter"),
        ("One.\n<!-- a\n\nTwo.\n", 2, "comment"),
    ],
)
def test_a_part_that_never_ends_is_an_error(tmp_path: Path, content: str, line: int, what: str) -> None:
    """It would swallow the rest of the document."""
    _, manifest = read(tmp_path, content)
    assert manifest.faults.lines() == [
        f"{tmp_path}/m.md:{line}: the {what} that begins here never ends: close it, or the text below is not spoken"
    ]
    assert manifest.faults.fatal


def test_a_document_without_text_is_an_error(tmp_path: Path) -> None:
    _, manifest = read(tmp_path, "![x](y)\n\n---\n")
    assert manifest.faults.lines() == [f"{tmp_path}/m.md: empty: the file has no paragraphs that can be spoken"]


def test_a_section_can_choose_the_voice_and_options_of_tables_do_not_apply(tmp_path: Path) -> None:
    (tmp_path / "m.md").write_text("# ben\n\nOne.\n", encoding="utf-8")
    manifest = Manifest(tmp_path / "m.md", Rules(batch="m", voice="anna", columns={"voice": "section"}))
    assert [row.inputs.voice for row in manifest.rows() if row.inputs] == ["anna", "ben"]
    with pytest.raises(ManifestError, match="--header-row does not apply to Markdown"):
        read(tmp_path, "One.\n", header_row=2)
