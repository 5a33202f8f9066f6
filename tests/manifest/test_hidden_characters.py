"""What nobody sees in a manifest: marks around headers, texts of nothing, lone carriage returns, text direction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batcher.manifest.faults import Faults
from batcher.manifest.markup.markup import find, strip
from batcher.manifest.outputs import OutputNames
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules

MARKS = {
    "no-break space": "\xa0",
    "zero-width space": "\u200b",
    "byte order mark": "\ufeff",
    "right-to-left mark": "\u200f",
    "soft hyphen": "\xad",
    "word joiner": "\u2060",
    "filler": "\u3164",
}


def _read(folder: Path, content: str, name: str = "m.csv", **changes: Any) -> tuple[list[Any], list[str]]:
    """The rows, and the faults without the folder's name."""
    path = folder / name
    path.write_bytes(content.encode())
    manifest = Manifest(path, Rules(**({"batch": "m", "voice": "anna"} | changes)))
    rows = list(manifest.rows())
    return rows, [line.removeprefix(f"{folder}/") for line in manifest.faults.lines()]


@pytest.mark.parametrize("mark", MARKS.values(), ids=MARKS)
@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_marks_around_a_header_do_not_hide_its_field(tmp_path: Path, mark: str, name: str) -> None:
    for header in (f"{mark}id", f"id{mark}", f"{mark}{mark}id", f"i{mark}d"):
        content = (
            f"{header},text\nintro,Hello.\n" if name == "m.csv" else f'{{"{header}": "intro", "text": "Hello."}}\n'
        )
        (row,), faults = _read(tmp_path, content, name)
        assert (row.id, row.output, faults) == ("intro", "intro.mp3", [])


def test_marks_around_other_headers_are_not_carried(tmp_path: Path) -> None:
    (row,), _ = _read(tmp_path, "text,\u200bnote\ufeff\nHello.,x\n")
    assert row.extra == {"note": "x"}


@pytest.mark.parametrize("text", ["\u200b", "\ufeff \u2060", "\xad", "\u200e\u200f", "\u3000\xa0", "\u2800"])
@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_a_text_of_invisible_characters_alone_is_empty(tmp_path: Path, text: str, name: str) -> None:
    content = f"id,text\na,{text}\n" if name == "m.csv" else f'{{"id": "a", "text": "{text}"}}\n'
    rows, faults = _read(tmp_path, content, name)
    assert (rows, "the text is empty" in faults[0]) == ([], True)
    (row,), faults = _read(tmp_path, content, name, skip_empty=True)
    assert (row.skipped, faults) == ("empty", [])


@pytest.mark.parametrize("text", ["…", "♪", "😀", "***", "\u0645\u06cc\u200c\u062e", "\u200f\u05e9", "👨\u200d👩"])
def test_other_texts_are_sent_as_they_are(tmp_path: Path, text: str) -> None:
    (row,), _ = _read(tmp_path, f"id,text\na,{text}\n")
    assert row.inputs.text == text
    assert "controls" not in find(text)


@pytest.mark.parametrize("mark", ["\u202e", "\u2066", "\u200f", "\x07", "\x1b", "\x9b"])
def test_an_id_or_output_that_controls_the_screen_is_a_fault(tmp_path: Path, mark: str) -> None:
    for header in ("id", "output"):
        rows, faults = _read(tmp_path, f"{header},text\na{mark}b,Hello.\n")
        assert (rows, len(faults)) == ([], 1)
        assert "another control character: remove it" in faults[0]
        assert mark not in faults[0]


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("Hello\x0bthere.", "Hello there."),
        ("ring \x07 ring", "ring ring"),
        ("a\u202etxt\u202cb", "atxtb"),
        ("\x1b", ""),
    ],
)
def test_control_characters_in_a_text_are_reported_and_can_be_removed(text: str, stripped: str) -> None:
    assert list(find(text)) == list(find(f"{text}, in a text of very many words")) == ["controls"]
    assert strip(text, ["controls"]) == stripped


LONE = "a carriage return that ends no line cuts this"


def test_a_lone_carriage_return_that_cuts_a_row_in_two_is_a_fault(tmp_path: Path) -> None:
    _, faults = _read(tmp_path, "text,id\r\nHello there\rworld of sound,m1\r\nThe next line,m2\r\n")
    assert faults[0].startswith("m.csv:2: ")
    assert LONE in faults[0]
    _, faults = _read(tmp_path, "First line.\nSecond\rline.\nThird line.\n", "m.txt")
    assert LONE in faults[0]


@pytest.mark.parametrize(
    "content",
    ["text,id\rHello.,m1\rBye.,m2\r", 'text,id\r\n"Hel\rlo.",m1\r\nBye.,m2\r\n', "text,id\nHello.,m1\r\nBye.,m2\n"],
    ids=["only carriage returns", "in quotes", "both ends"],
)
def test_other_line_ends_are_read(tmp_path: Path, content: str) -> None:
    rows, faults = _read(tmp_path, content)
    assert ([row.id for row in rows], faults) == (["m1", "m2"], [])


@pytest.mark.parametrize("template", ["{row:999999999999}", "{id:>500000000}", "{id:.1000}", "{voice:{row}}"])
def test_a_file_name_has_no_field_of_a_huge_width(template: str) -> None:
    faults = Faults("m.csv")
    OutputNames(template, "m", faults)
    assert (faults.fatal, len(faults.lines())) == (True, 1)


def test_usual_widths_are_allowed() -> None:
    faults = Faults("m.csv")
    OutputNames("{row:06d}-{id:.100}.{format}", "m", faults)
    assert not faults
