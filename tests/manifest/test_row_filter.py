"""`--where` decides by a column which rows of a file are rows of the batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batcher.manifest.reader import Manifest, input_columns
from batcher.manifest.row_filter import condition, is_same_filter
from batcher.manifest.rules import Rules

SHEET = """id,text,Is Spoken,part
a,One.,TRUE,1
b,,false,1
c,Three., true ,2
d,Four.,,2
e,Five.,TRUE,3
"""


class Read:
    """What is read of a file with these conditions."""

    def __init__(self, folder: Path, content: str, *where: str, name: str = "m.csv", **rules: Any) -> None:
        path = folder / name
        path.write_text(content)
        self.rules = Rules(**({"batch": "m", "voice": "anna", "where": where} | rules))
        self.manifest = Manifest(path, self.rules)
        rows = list(self.manifest.rows())
        self.ids = "".join(row.id for row in rows)
        self.numbers = [row.number for row in rows]
        self.left_out = self.manifest.left_out
        self.faults = [line.removeprefix(f"{path}") for line in self.manifest.faults.lines()]
        self.columns = list(input_columns(path, self.rules))


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        (["Is Spoken=TRUE"], "ace"),
        (["is_spoken=true"], "ace"),
        (["is_spoken=TRUE", "part=1", "part=3"], "ae"),
        (["part=2"], "cd"),
        (["part!=1", "part!=3"], "cd"),
        (["part != 1", "is-spoken="], "d"),
        (["text=Five."], "e"),
        (["id!=b"], "acde"),
        (["id!=b", "id=b", "id=c"], "c"),
    ],
)
def test_rows_that_do_not_match_are_not_read(tmp_path: Path, where: list[str], ids: str) -> None:
    """The empty text of row b is no fault without row b. The other rows keep their numbers."""
    read = Read(tmp_path, SHEET, *where)
    assert (read.ids, read.left_out, read.faults) == (ids, 5 - len(ids), [])
    assert read.numbers == ["abcde".index(row) + 2 for row in ids]
    assert [number for number, _ in read.columns] == read.numbers


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        (
            ["is_spken=TRUE"],
            "--where is_spken=TRUE: the file has no column `is_spken` (it has id, text, Is Spoken, part)",
        ),
        (["parts=1"], "the file has no column `parts` (it has id, text, Is Spoken, part): did you mean `part`?"),
        (["text=Six."], "--where text=Six.: no row has this value"),
        (["part=4"], '--where part=4: no row has this value (the column has "1", "2", "3")'),
        (["part=1", "part=4"], '--where part=4: no row has this value (the column has "1", "2", "3")'),
        (["is_spoken=FALSE", "part=3"], "no row meets all conditions of --where"),
        (
            ["is_spoken=yes"],
            '--where is_spoken=yes: no row has this value (the column has "TRUE", "false", " true ", "")',
        ),
    ],
)
def test_a_condition_that_cannot_be_meant_is_an_error(tmp_path: Path, where: list[str], fault: str) -> None:
    read = Read(tmp_path, SHEET, *where)
    assert read.manifest.faults.fatal
    assert any(fault in line for line in read.faults), read.faults
    assert "Three." not in str(read.faults)


def test_an_exclusion_that_excludes_nothing_is_a_note(tmp_path: Path) -> None:
    """A setting may exclude rows that are not in every version of the file."""
    read = Read(tmp_path, SHEET, "part!=9", skip_empty=True)
    assert (read.ids, read.faults) == ("abcde", [])
    assert read.manifest.notes == ['--where part!=9: no row has this value (the column has "1", "2", "3")']


def test_a_broken_row_is_reported_whatever_it_would_contain(tmp_path: Path) -> None:
    """Nobody knows whether it was selected."""
    read = Read(tmp_path, SHEET + "f,Six.,TRUE,4,surplus,cells\n", "is_spoken=TRUE")
    assert (read.ids, len(read.faults)) == ("ace", 1)


RECORDS = [
    {"id": "a", "text": "One.", "ok": True, "part": 1, "meta": {"lang": "fr", "level": 1.5}},
    {"id": "b", "text": "Two.", "ok": False, "part": 2.0, "meta": {"lang": "de"}},
    {"id": "c", "text": "Three.", "part": "1", "meta": {"lang": None}},
    {"id": "d", "text": 4, "ok": True, "part": [1], "meta": {}},
]


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        (["ok=TRUE"], "ad"),
        (["ok="], "c"),
        (["ok!=false"], "acd"),
        (["part=1"], "ac"),
        (["part=2"], "b"),
        (["meta.lang=fr", "meta.lang=de"], "ab"),
        (["meta.lang="], "cd"),
        (["meta.level=1.5"], "a"),
    ],
)
@pytest.mark.parametrize("as_document", [False, True])
def test_values_of_json_match_as_they_are_written(
    tmp_path: Path, where: list[str], ids: str, *, as_document: bool
) -> None:
    """Numbers by their value, and paths lead into nested objects. The text of row d is a fault only where it is
    selected."""
    lines = "\n".join(map(json.dumps, RECORDS))
    content = json.dumps(RECORDS, indent=1) if as_document else lines
    read = Read(tmp_path, content, *where, name="m.json" if as_document else "m.jsonl")
    assert read.ids == ids.replace("d", "")
    assert len(read.faults) == ("d" in ids)


def test_columns_are_known_by_their_own_names_if_they_are_read_as_fields(tmp_path: Path) -> None:
    read = Read(tmp_path, SHEET, "text=Five.", columns={"voice": "Is Spoken", "id": "part"}, voice=None)
    assert read.ids == "3"
    content = "key,en,fr\na,One.,Un.\nb,Two.,\n"
    assert Read(tmp_path, content, "fr!=", columns={"text": "fr", "id": "key"}).ids == "a"
    read = Read(tmp_path, content, "text=One.", columns={"text": "en", "id": "key"})
    assert "the file has no column `text` (it has key, en, fr)" in read.faults[0]


def test_conditions_are_compared_regardless_of_their_order_and_spelling() -> None:
    assert is_same_filter(["is_spoken=TRUE", "part=1"], ("part = 1", "Is Spoken=true"))
    assert not is_same_filter(["part=1"], ["part!=1"])
    assert not is_same_filter(["part=1"], [])
    for wrong in ("part", "=1", "!=1"):
        with pytest.raises(ValueError, match="is not COLUMN=VALUE"):
            condition(wrong)
