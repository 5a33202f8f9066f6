"""Fields that are joined from several columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from xlsxwriter import Workbook

from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules

ROWS: list[dict[str, Any]] = [
    {"Line 2": "two.", "id": "a", "Line 1": " One,"},
    {"Line 2": "", "id": "b", "Line 1": "Alone."},
]


def write(path: Path) -> None:
    """The rows in the format of the file's name."""
    if path.suffix == ".xlsx":
        with Workbook(path) as book:
            sheet = book.add_worksheet()
            for index, cells in enumerate([list(ROWS[0]), *(list(row.values()) for row in ROWS)]):
                sheet.write_row(index, 0, cells)
    elif path.suffix == ".tsv":
        cells = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
        path.write_text("".join("\t".join(row) + "\n" for row in cells))
    else:
        path.write_text(json.dumps(ROWS) if path.suffix == ".json" else "\n".join(map(json.dumps, ROWS)))


def read(path: Path, **columns: str) -> tuple[list[tuple[str, str]], Manifest]:
    manifest = Manifest(path, Rules(batch="m", voice="anna", columns=columns))
    return [(row.id, row.inputs.text) for row in manifest.rows() if row.inputs], manifest


@pytest.mark.parametrize("name", ["m.tsv", "m.xlsx", "m.json", "m.jsonl"])
def test_columns_are_joined_in_the_order_given_and_blank_ones_left_out(tmp_path: Path, name: str) -> None:
    """The columns are carried too."""
    write(tmp_path / name)
    rows, manifest = read(tmp_path / name, text="line1 + Line 2")
    assert (rows, manifest.faults.lines()) == ([("a", "One, two."), ("b", "Alone.")], [])
    assert manifest.columns_sent == {"line1 + Line 2": "text", "id": "id"}
    assert manifest.columns_carried == ["Line 2", "Line 1"]


@pytest.mark.parametrize("name", ["m.tsv", "m.xlsx"])
def test_a_column_to_join_that_is_missing_is_an_error(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    rows, manifest = read(tmp_path / name, text="Line 1+Line 3")
    assert rows == []
    assert "the file has no column `Line 1+Line 3` (it has id, Line 2, Line 1)" in manifest.faults.lines()[0]


def test_of_json_each_column_to_join_must_be_in_some_row(tmp_path: Path) -> None:
    """A misspelt one would otherwise be left out of every text."""
    (tmp_path / "m.jsonl").write_text('{"a": "One"}\n{"a": "Two", "b": "more"}')
    rows, manifest = read(tmp_path / "m.jsonl", text="a+b")
    assert ([text for _, text in rows], manifest.faults.lines()) == (["One", "Two more"], [])
    _, manifest = read(tmp_path / "m.jsonl", text="a+bb")
    assert "--column text=a+bb: no row has `bb`" in manifest.faults.lines()[0]
    assert manifest.faults.fatal


def test_a_column_whose_name_contains_a_plus_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("a+b,a,b\nOne.,x,y\n")
    rows, manifest = read(tmp_path / "m.csv", text="a+b")
    assert ([text for _, text in rows], manifest.faults.lines()) == (["One."], [])


def test_nested_values_may_be_joined(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"x": {"a": "One", "b": 2}}')
    assert read(tmp_path / "m.jsonl", text="x.a+x.b")[0] == [("000001", "One 2")]
