"""JSON documents: arrays, objects of ids and texts, and paths into nested objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batcher.errors import ManifestError
from batcher.manifest import limits
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules


def read(folder: Path, content: str, name: str = "m.json", **changes: Any) -> tuple[list[tuple[str, str]], Manifest]:
    """Id and text of each row, and the manifest."""
    (folder / name).write_text(content, encoding="utf-8")
    manifest = Manifest(folder / name, Rules(**({"batch": "m", "voice": "anna"} | changes)))
    rows = [(row.id, row.inputs.text) for row in manifest.rows() if row.inputs]
    return rows, manifest


def errors(manifest: Manifest) -> list[str]:
    return [line.rpartition("/")[2] for line in manifest.faults.lines()]


ROWS = [{"id": "a", "text": "One."}, {"id": "b", "text": "Two."}]
PAIRS = [("a", "One."), ("b", "Two.")]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "value",
    [
        ROWS,
        {"a": "One.", "b": "Two."},
        {"a": {"text": "One."}, "b": {"text": "Two."}},
        {"version": 3, "lines": ROWS},
        {"version": {"n": 3}, "lines": ROWS, "more": "x"},
    ],
)
def test_every_shape_of_a_document_gives_the_same_rows(tmp_path: Path, value: Any, indent: int | None) -> None:
    rows, manifest = read(tmp_path, json.dumps(value, indent=indent))
    assert (rows, errors(manifest)) == (PAIRS, [])


def test_an_array_of_texts_gives_a_row_for_each(tmp_path: Path) -> None:
    assert read(tmp_path, '["One.", "Two."]')[0] == [("000001", "One."), ("000002", "Two.")]


def test_nested_ids_are_joined_by_dots(tmp_path: Path) -> None:
    value = {"menu": {"start": "Start.", "sub": {"x": "Deep."}}, "end": "End."}
    rows, manifest = read(tmp_path, json.dumps(value, indent=1))
    assert rows == [("menu.start", "Start."), ("menu.sub.x", "Deep."), ("end", "End.")]
    assert manifest.notes == ["the names in the JSON object are ids, and its values are texts"]


@pytest.mark.parametrize("name", ["m.json", "m.jsonl", "m"])
def test_an_array_is_recognised_by_its_beginning(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, "\n" + json.dumps(ROWS, indent=1), name)[0] == PAIRS


@pytest.mark.parametrize("name", ["m.json", "m.jsonl", "m"])
@pytest.mark.parametrize("count", [1, 2])
def test_objects_on_lines_of_their_own_are_rows(tmp_path: Path, name: str, count: int) -> None:
    assert read(tmp_path, "\n".join(map(json.dumps, ROWS[:count])), name)[0] == PAIRS[:count]


def test_an_error_names_the_line_and_the_other_elements_are_read(tmp_path: Path) -> None:
    content = '[{"text": "One."},\n{"text": "Two.", "text": "Twice."},\n7,\n{"text": 1e999},\n{"text": "Five."}]'
    rows, manifest = read(tmp_path, content, skip_invalid=True)
    assert rows == [("000001", "One."), ("000005", "Five.")]
    assert errors(manifest) == [
        "m.json:2: `text` occurs twice in one object: remove one",
        "m.json:3: 7 is neither an object nor a text: write an object with a text",
        "m.json:4: 1e999 is too large: write a smaller number",
    ]
    assert not manifest.faults.fatal


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ('[{"text": "One."}\n{"text": "Two."}]', "m.json:2: not valid JSON at character 1: Expecting ',' delimiter"),
        ('[{"text": "One."},\n{"text" "Two."}]', "m.json:2: not valid JSON at character 9: Expecting ':' delimiter"),
        ('[{"text": "One."}', "m.json:1: not valid JSON at character 18: Expecting ',' delimiter"),
        ('[{"text": "One."}]\n[]', "m.json:2: not valid JSON at character 1: Extra data"),
        ("[" * 100_000, "m.json:1: not valid JSON at character 2: nested too deeply"),
    ],
)
def test_a_broken_document_is_fatal(tmp_path: Path, content: str, error: str) -> None:
    manifest = read(tmp_path, content)[1]
    assert errors(manifest)[:1] == [f"{error} (the rest of the file was not read)"]
    assert manifest.faults.fatal


@pytest.mark.parametrize("content", ['{"a": [{"text": "x"}], "b": [{"text": "y"}]}', '{"a": 1}', '{"a": [1, 2]}'])
def test_an_object_without_obvious_rows_is_refused_with_an_example(tmp_path: Path, content: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, content)
    assert "Write an array of objects" in str(caught.value.hint)


def test_a_document_that_memory_may_not_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_DOCUMENT_BYTES", 1 << 20)
    with pytest.raises(ManifestError, match="more than 1 MiB"):
        read(tmp_path, json.dumps([{"text": "x" * 100}] * 10_000, indent=1))


BATCH = {"custom_id": "p-0", "body": {"model": "t", "Input": "Hello.", "voice": "alloy", "list": [{"t": "Listed."}]}}


@pytest.mark.parametrize("name", ["m.jsonl", "m.json"])
def test_a_column_may_be_a_path_into_nested_objects(tmp_path: Path, name: str) -> None:
    columns = {"text": "body.input", "id": "custom_id", "voice": "body.voice"}
    content = json.dumps(BATCH if name == "m.jsonl" else [BATCH])
    rows, manifest = read(tmp_path, content, name, columns=columns)
    assert (rows, errors(manifest)) == ([("p-0", "Hello.")], [])
    assert manifest.columns_sent == {"custom_id": "id", "body.input": "text", "body.voice": "voice"}
    assert manifest.columns_carried == ["body"]


def test_a_path_may_pass_through_a_list_and_names_with_dots(tmp_path: Path) -> None:
    content = json.dumps(BATCH | {"x.y": {"z": "Dotted."}})
    assert read(tmp_path, content, "m.jsonl", columns={"text": "body.list.0.t"})[0] == [("000001", "Listed.")]
    assert read(tmp_path, content, "m.jsonl", columns={"text": "x.y.z"})[0] == [("000001", "Dotted.")]


def test_without_a_text_the_error_names_the_path_of_one(tmp_path: Path) -> None:
    manifest = read(tmp_path, json.dumps(BATCH), "m.jsonl")[1]
    assert errors(manifest) == ["m.jsonl: no `text` column: pass --column text=body.Input"]


def test_a_path_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    manifest = read(tmp_path, json.dumps(BATCH), "m.jsonl", columns={"text": "body.nothing"})[1]
    assert "--column text=body.nothing: the file has no column `body.nothing`" in errors(manifest)[0]


ARB = {
    "@@locale": "en",
    "@@last_modified": "2026-01-01",
    "gate": "Closed.",
    "@gate": {"description": "At night", "placeholders": {"n": {"type": "int"}}},
    "river": "Cold.",
}


@pytest.mark.parametrize("name", ["m.arb", "m.json"])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_texts_of_an_arb_file_are_rows_with_their_attributes(tmp_path: Path, name: str, indent: int | None) -> None:
    (tmp_path / name).write_text(json.dumps(ARB, indent=indent), encoding="utf-8")
    manifest = Manifest(tmp_path / name, Rules(batch="m", voice="anna"))
    rows = [(row.id, row.inputs.text, row.extra) for row in manifest.rows() if row.inputs]
    attributes = {"@description": "At night", "@placeholders": {"n": {"type": "int"}}}
    assert rows == [("gate", "Closed.", attributes), ("river", "Cold.", {})]
    assert errors(manifest) == []


def test_a_value_of_an_arb_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    _, manifest = read(tmp_path, json.dumps({"@@locale": "en", "a": 7, "b": "One."}, indent=1))
    assert errors(manifest)[0].endswith("7 is neither an object nor a text: write an object with a text")


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        ({"$schema": "http://x.y", "_comment": "For translators.", "a": "One."}, ["a"]),
        ({"version": 2, "locale": "en", "strings": {"a": "One.", "b": {"c": "Two."}}}, ["a", "b.c"]),
        ({"language": "Language", "version": "Version", "start": "Start"}, ["language", "version", "start"]),
        ({"menu": {"a": "One."}, "title": "Two."}, ["menu.a", "title"]),
        ({"data": {"items": ROWS}}, ["a", "b"]),
        ({"id": "a", "text": "One.", "voice": "ben"}, ["a"]),
        ({"text": "One."}, ["000001"]),
    ],
)
def test_what_is_noted_beside_the_texts_of_a_document_is_no_row(tmp_path: Path, value: Any, ids: list[str]) -> None:
    rows, manifest = read(tmp_path, json.dumps(value, indent=1))
    assert ([row_id for row_id, _ in rows], errors(manifest)) == (ids, [])


def test_descriptions_of_texts_are_not_taken_for_texts(tmp_path: Path) -> None:
    value = {f"m{n}": {"message": f"This is line {n}.", "description": "Shown at the top of it."} for n in range(3)}
    _, manifest = read(tmp_path, json.dumps(value, indent=1))
    assert errors(manifest)[0] == (
        "m.json: no `text` column: pass --column text=message; or, if another column has the texts, "
        "--column text=description"
    )
    rows, manifest = read(tmp_path, json.dumps(value, indent=1), columns={"text": "message"})
    assert (rows[0], errors(manifest)) == (("m0", "This is line 0."), [])
