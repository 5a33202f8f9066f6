"""Whatever a file contains, it is read or refused with an error for people; no other exception escapes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batcher.errors import ManifestError
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules

PIECES = [*'",;\t|\n\r \\#:=_<&{}[]', "\0", "\ufeff", "\ud83d", "é", "text", "id", "voice", "a", "12", "Stop!", '"a"']
PIECES += ["\r\n", "sep=;\n", "#separator:tab\n", "#html:true\n", "#columns:text\tid\n", "id,text\n", "id\ttext\n"]
PIECES += ["<b>&szlig;", "[sound:x]", '\\"', "utt_1 ", "utt_2 "]
MARKDOWN = [
    "---\n",
    "+++\n",
    "```",
    "~~~",
    "# ",
    "- ",
    "1. ",
    "> ",
    "| a | b |\n",
    "|---|---|\n",
    "<!--",
    "-->",
    "![",
    "](",
]
MARKDOWN += [
    "**",
    "__",
    "_",
    "`",
    "[^1]: ",
    "    ",
    "\n",
    "word ",
    "\\",
    "\ue0000\ue001",
    "[[",
    "]]",
    "&amp;",
    "===\n",
    "\t",
]
PO = [
    "msgid ",
    "msgstr ",
    "msgctxt ",
    "msgid_plural ",
    "msgstr[0] ",
    "msgstr[7] ",
    '"a b"',
    '"',
    '\\"',
    '""',
    "\n",
    "#~ ",
]
PO += ["#, fuzzy\n", "#: a\n", "# x\n", "\\x4", "\\777", "\0", "\ud83d", '"MENU_A"\n', '"Language: de\\n"\n', "é"]
JSON = [
    *'{}[]:,"',
    '"a"',
    '"@a"',
    '"@@locale"',
    '"text"',
    '"en"',
    '"de"',
    "1",
    "null",
    "\n",
    '"strings"',
    '"lines"',
    '"role"',
]
CONTENT = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "delimiter": st.sampled_from([",", "|", "\t", ":"]),
        "quotes": st.sampled_from(["on", "off"]),
        "header_row": st.integers(1, 5),
        "skip_invalid": st.just(True),
        "columns": st.just({"text": "column 2"}),
        "counted": st.just(True),
    },
)
HEADLESS = st.fixed_dictionaries(
    {"no_header": st.just(True)},
    optional={"names": st.lists(st.sampled_from(["_", "id", "text", "", "x"]), min_size=1, max_size=4)},
)


def read(folder: Path, name: str, content: bytes, choices: dict[str, Any]) -> None:
    """Read all rows of a file with this name and content in `folder`; an error for people is fine."""
    path = folder / name
    path.write_bytes(content)
    manifest = Manifest(path, Rules(**({"batch": "m", "voice": "anna"} | choices)))
    numbers = [0]
    with contextlib.suppress(ManifestError):
        for row in manifest.rows():
            assert row.number > numbers[-1]
            numbers.append(row.number)
            assert row.inputs is None or row.inputs.text
    assert all(line.isprintable() for line in manifest.faults.lines())


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["m.csv", "m.tsv", "m.txt"]), CONTENT, CHOICES | HEADLESS)
@example("m.csv", '"', {})
@example("m.tsv", '"\t"\n', {"header_row": 2})
@example("m.csv", "sep=|", {"no_header": True})
@example("m.txt", "#separator:\n#columns:\n", {})
def test_any_text_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: str, choices: dict[str, Any]
) -> None:
    read(tmp_path_factory.getbasetemp(), name, content.encode("utf-8", "surrogatepass"), choices)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["m.csv", "m.tsv", "m", "m.jsonl", "m.json"]), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes) -> None:
    read(tmp_path_factory.getbasetemp(), name, content, {})


def of(pieces: list[str]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), max_size=50).map("".join)


FORMATS = {"m.md": MARKDOWN, "m.po": PO, "m.pot": PO, "m.arb": JSON, "m.json": JSON, "m.txt": MARKDOWN, "m.sbv": PIECES}


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(list(FORMATS)).flatmap(lambda name: st.tuples(st.just(name), of(FORMATS[name]))),
    st.sampled_from([{}, {"columns": {"text": "msgid"}}, {"columns": {"text": "@a"}}, {"counted": True}]),
)
@example(("m.po", 'msgid "a"\nmsgstr[7] "b"\n'), {})
@example(("m.md", "a|b\n|---|---|\n"), {})
@example(("m.json", '{"en":{"a":"x"},"de":{}}'), {})
def test_any_text_in_another_format_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[str, str], choices: dict[str, Any]
) -> None:
    read(tmp_path_factory.getbasetemp(), file[0], file[1].encode("utf-8", "surrogatepass"), choices)
