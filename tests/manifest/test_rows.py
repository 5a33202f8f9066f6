"""Rows of a manifest: valid values, defaults, and skipped rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batcher.item import Inputs, State
from batcher.manifest.reader import Manifest
from batcher.manifest.rows import Former, Row
from batcher.manifest.rules import Rules


def read(folder: Path, content: str, name: str = "m.csv", **changes: Any) -> tuple[list[Row], Manifest]:
    path = folder / name
    path.write_text(content)
    manifest = Manifest(path, Rules(**({"batch": "m", "voice": "anna"} | changes)))
    return list(manifest.rows()), manifest


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"text" "a"}', "not valid JSON at character 9: Expecting ':' delimiter"),
        ('{"text": "a"} x', "not valid JSON at character 15: Extra data"),
        ('["a"]', "a list is not an object: write one JSON object per line"),
        ("null", "null is not an object"),
        ('{"id": 1, "text": "a", "text": "b"}', "`text` occurs twice in one object"),
        ('{"text": "a", "params": {"x": 1, "x": 2}}', "`x` occurs twice in one object"),
        ('{"text": "a", "speed": NaN}', "NaN is not valid JSON: write a number or null"),
        ('{"text": "a", "params": {"x": 1e999}}', "1e999 is too large: write a smaller number"),
        ('{"text": "a", "n": ' + "1" * 5000 + "}", "a number has too many digits"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"text": "a", "n": ' + "[" * 50 + "]" * 50 + "}", "n: is nested more than 32 levels deep"),
        ('{"text": "a\\ud83d"}', "text: contains a broken character (half of a surrogate pair)"),
        ('{"text": "a\\u0000b"}', "text: contains a NUL character"),
        ('{"text": "a", "notes": ["\\u0000"]}', "notes: contains a NUL character"),
        ('{"text": 1.5}', "text: 1.5 is not a string: put it in quotes"),
        ('{"text": null}', "text: the text is empty"),
        ('{"text": "a", "id": 1.0}', "id: 1.0 is not a string"),
        ('{"text": "a", "id": true}', "id: true is not a string"),
        ('{"text": "a", "take": 1.5}', "take: 1.5 is not a take: use 1, 2, 3, ..."),
        ('{"text": "a", "take": -1}', "take: -1 is not a take"),
        ('{"text": "a", "speed": true}', "speed: true is not a number: use digits, as in 1 or 0.8"),
        (
            '{"text": "a", "speed": 1' + "0" * 400 + "}",
            "speed: 1000000000000000000000000000000000000... is too large: write a smaller number",
        ),
        ('{"text": "a", "speed": "inf"}', 'speed: "inf" is not a number: use digits, as in 1 or 0.8'),
        ('{"text": "a", "emotion": {}}', "emotion: an object is not a string: write a single string"),
        ('{"text": "a", "output": ["b"]}', "output: a list is not a string"),
        ('{"text": "a", "output": "C:/a.mp3"}', 'output: "C:/a.mp3" is an absolute path: write it relative to'),
        ('{"text": "a", "output": "./"}', 'output: "./" is a folder: add the name of a file'),
        (
            '{"text": "a", "output": "M.Results.jsonl"}',
            'output: "M.Results.jsonl" is reserved for results and reports: use another name',
        ),
        (
            '{"text": "a", "voice": "b", "voiceId": "c"}',
            "voice: `voice` and `voiceId` are both read as `voice`: remove or rename one",
        ),
        (
            '{"voice": " ", "text": "a", "voiceId": "b", "voice_id": "c"}',
            "voice: `voiceId` and `voice_id` are both read as",
        ),
        ('{"text": "a", "params": "fast"}', 'params: "fast" is not an object: use one such as {"speed": 0.8}'),
        ('{"text": "a", "params": {"voiceId": "b"}}', "params: `voiceId` cannot be set here: use the `voice` column"),
        ('{"text": "a", "params": {"modelId": "b"}}', "params: `modelId` cannot be set here: use the `voice` column"),
        ('{"text": "a", "speed": 1, "params": {"speed": 1}}', "params: `speed` is also given as a column: remove one"),
        ('{"text": "a", "params": {"speed": "1,5"}}', 'params: `speed`: "1,5" has a decimal comma: write 1.5'),
        ('{"text": "a", "fromat": "wav"}', "fromat: looks like `format` misspelt"),
    ],
)
def test_each_bad_json_line_is_reported_once_and_its_neighbours_read(tmp_path: Path, line: str, fault: str) -> None:
    rows, manifest = read(tmp_path, f'{{"text": "before"}}\n\n{line}\n{{"text": "after"}}\n', "m.jsonl")
    assert {"before", "after"} <= {row.inputs.text for row in rows if row.inputs}
    (said,) = manifest.faults.lines()
    assert said.startswith(f"{tmp_path}/m.jsonl:3: {fault}")


def test_voice_names_are_mapped_and_invalid_voices_reported(tmp_path: Path) -> None:
    """[voices] maps a sheet's names to voice ids, in rows and as the default; a blank voice id is a fault."""
    rows, manifest = read(
        tmp_path,
        "text,voice\na,Mum\nb,\nc,other\nd,none\n",
        voice="Dad",
        voices={"Mum": "v1", "Dad": "v2", "none": " "},
    )
    assert [row.inputs.voice for row in rows if row.inputs] == ["v1", "v2", "other"]
    assert manifest.faults.lines() == [
        f'{tmp_path}/m.csv:5: voice: [voices] maps "none" to a blank: give it a voice id'
    ]


def test_blank_fields_get_defaults(tmp_path: Path) -> None:
    """Voice, model and format come from the rules."""
    content = "id,text,model,take\na,x,,\nb,x,other,1\nc,x,,\n"
    rows, manifest = read(tmp_path, content, model=" m1 ", format=" opus ")
    assert not manifest.faults
    assert [(r.inputs.model, r.inputs.take, r.output) for r in rows if r.inputs] == [
        ("m1", 1, "a.opus"), ("other", 1, "b.opus"), ("m1", 1, "c.opus"),
    ]  # fmt: skip


X, Y = Inputs(text="x", voice="anna"), Inputs(text="y", voice="anna")


@pytest.mark.parametrize(
    ("former", "states", "take"),
    [
        (replace(X, take=3), {}, 3),  # nothing changed
        (replace(X, take=1), {1: State.DONE, 3: State.DONE}, 1),  # the user went back to it
        (replace(Y, take=3), {}, 1),  # a new text
        (Y, {1: State.DONE, 2: State.DONE}, 2),  # a text that the row had before
        (Y, {1: State.DONE, 2: State.IN_DOUBT}, 2),
        (Y, {1: State.DONE, 2: State.PENDING}, 1),  # requested, but the row got another text before it was bought
        (Y, {1: State.DONE, 2: State.FAILED}, 1),
        (Y, {2: State.FAILED}, 2),
        (Y, {4: State.DONE}, 1),  # of another row
    ],
)
def test_a_blank_take_of_a_row_that_has_used_several(
    tmp_path: Path, former: Inputs, states: dict[int, State], take: int
) -> None:
    """It keeps its take, or returns to the latest that was bought, and never requests one that nobody asked for."""
    path = tmp_path / "m.csv"
    path.write_text("id,text\na,x\n")
    manifest = Manifest(path, Rules(batch="m", voice="anna", takes={"a": 3}))
    found = {"a": Former("a.mp3", former.key(), take=former.take, bought=True)}
    known = {replace(X, take=one).key(): state for one, state in states.items()}
    (row,) = manifest.rows(found.get, known.get)
    assert row.inputs == replace(X, take=take)
    assert row.output == "a.mp3"


def test_params_merge_with_columns(tmp_path: Path) -> None:
    """Null means not given; unknown names are passed on to the API."""
    params = '{"speed": " 1.5 ", "emotion": "", "volume": null, "seed": 7, "deep": {"x": [1]}}'
    line = f'{{"text": "a", "pitch": " 2 ", "params": {params}}}'
    rows, manifest = read(tmp_path, line, "m.jsonl")
    assert not manifest.faults
    assert rows[0].inputs is not None
    assert rows[0].inputs.params == {"pitch": 2, "speed": 1.5, "seed": 7, "deep": {"x": [1]}}


def test_skipped_invalid_rows_are_yielded_with_every_reason(tmp_path: Path) -> None:
    """None of the errors is fatal."""
    content = "id,text,take,speed,n\na,x,,,1\nb,,0,fast,2\nc,y,,,3\nd,z,,,4,5\n"
    rows, manifest = read(tmp_path, content, skip_invalid=True)
    assert [(r.number, r.id, r.skipped) for r in rows] == [
        (2, "a", None), (3, "b", "invalid"), (4, "c", None), (5, "000005", "invalid"),
    ]  # fmt: skip
    assert rows[1].inputs is None
    assert rows[1].extra == {"n": "2"}
    assert rows[1].output == "b.mp3"
    assert rows[1].reason == (
        'take: "0" is not a take: use 1, 2, 3, ...; speed: "fast" is not a number: use digits, as in 1 or 0.8; '
        "text: the text is empty: write one, or skip such rows with --skip-empty"
    )
    assert manifest.faults.count == 4
    assert not manifest.faults.fatal


def test_a_skipped_empty_row_is_no_error(tmp_path: Path) -> None:
    """Regardless of what else it lacks."""
    for name, content in (
        ("m.csv", "id,text,speed\na, ,fast\nb,x,fast\n"),
        ("m.jsonl", '{"id": "a", "text": " ", "speed": "fast"}\n{"id": "b", "text": "x", "speed": "fast"}'),
    ):
        rows, manifest = read(tmp_path, content, name, voice=None, skip_empty=True)
        assert [(r.id, r.skipped, r.inputs, r.output) for r in rows] == [("a", "empty", None, "a.mp3")]
        assert rows[0].reason == "the text is empty"
        assert manifest.faults.count == 2


def test_an_empty_row_with_stray_values_is_an_error(tmp_path: Path) -> None:
    """Its text may have slipped into another column."""
    for content in ("id,,text\na,Hello,\n", "id,text\na,,Hello\n"):
        rows, manifest = read(tmp_path, content, skip_empty=True)
        assert rows == []
        assert manifest.faults


def test_ids_names_and_paths_are_accepted_up_to_their_limits(tmp_path: Path) -> None:
    """200 characters, 249 bytes in a name and 1000 in the path, 32 folders."""
    long = "/".join(["x" * 240] * 4)
    fine = [f"{'é' * 122}n.mp3", f"{long}/{'y' * 32}.mp3", f"{'x/' * 32}y.mp3"]
    ids = [f"a,{'i' * length}," for length in (200, 201)]
    outputs = [f"a,,{output}" for output in (*fine, f"n{fine[0]}", f"{long}/{'y' * 33}.mp3", f"x/{fine[2]}")]
    rows, manifest = read(tmp_path, "\n".join(["text,id,output", *ids, *outputs]))
    assert [row.output for row in rows] == ["i" * 200 + ".mp3", *fine]
    assert manifest.faults.count == 4


def test_no_row_may_take_the_name_of_a_results_file(tmp_path: Path) -> None:
    """In any case; within another folder it may."""
    rows, manifest = read(
        tmp_path, "text,output\na,BIG.results.csv\na,big.RESULTS.jsonl\na,d/Big.results.csv\n", batch="Big"
    )
    assert [row.output for row in rows] == ["d/Big.results.csv.mp3"]
    assert manifest.faults.count == 2


@pytest.mark.parametrize(
    ("template", "output"),
    [
        ("{id}.{format}", "a_b_.mp3"),
        ("{batch}/{row:06d}-t{take:02d}.{format}", "ba_tch/000002-t02.mp3"),
        ("./x//{voice}.wav", "x/_hidden.wav"),
        ("all.mp3", "all.mp3"),
        ("e\u0301.mp3", "é.mp3"),
    ],
)
def test_a_value_in_a_template_makes_no_folder_or_hidden_file(tmp_path: Path, template: str, output: str) -> None:
    """The path is normalised."""
    rows, manifest = read(tmp_path, "id,text,voice,take\na/b?,x,..hidden,2\n", batch="ba/tch", filename=template)
    assert manifest.faults.lines() == []
    assert rows[0].output == output


def test_a_template_may_use_the_items_key(tmp_path: Path) -> None:
    (row,), _ = read(tmp_path, "text\na\n", filename="{key}.{format}")
    assert row.inputs is not None
    assert row.output == f"{row.inputs.key()}.mp3"


@pytest.mark.parametrize(
    "template", ["{title}", "{}", "{0}", "{id.upper}", "{id", "id}", "{id:06d}", "{id:{row}}", "{row!x}"]
)
def test_a_broken_template_is_one_fatal_error(tmp_path: Path, template: str) -> None:
    """However many rows there are."""
    _, manifest = read(tmp_path, "text\na\nb\n", filename=template)
    (said,) = manifest.faults.lines()
    assert said.startswith(f'{tmp_path}/m.csv: --filename "{template}" cannot be used: ')
    assert said.endswith("the fields are id, row, voice, take, format, batch, key")
    assert manifest.faults.fatal


def test_a_template_that_leaves_the_folder_is_one_error(tmp_path: Path) -> None:
    rows, manifest = read(tmp_path, "text\na\nb\n", filename="../{id}.mp3")
    assert rows == []
    assert manifest.faults.lines() == [
        f'{tmp_path}/m.csv:2: output: "../000002.mp3" leaves the output folder: remove the .. (and 1 more row: line 3)'
    ]


@pytest.mark.parametrize(("output", "plain"), [("a//b.mp3", "a/b.mp3"), ("./a.mp3", "a.mp3"), ("d/é .wav", "d/é .wav")])
def test_given_outputs_are_normalised(tmp_path: Path, output: str, plain: str) -> None:
    assert [row.output for row in read(tmp_path, f"text,output\na,{output}\n")[0]] == [plain]
