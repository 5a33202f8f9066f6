"""Names of outputs: their extension is always that of their format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batcher.item import Inputs
from batcher.manifest.reader import Manifest
from batcher.manifest.rows import Former, Row
from batcher.manifest.rules import Rules


def read(folder: Path, content: str, former: dict[str, Former] | None = None, **changes: Any) -> tuple[list[Row], Any]:
    path = folder / "m.csv"
    path.write_text(content)
    manifest = Manifest(path, Rules(**({"batch": "m", "voice": "anna"} | changes)))
    return list(manifest.rows((former or {}).get)), manifest.faults.lines()


def named(folder: Path, header: str, value: str, **changes: Any) -> tuple[str, str]:
    """Format and output of a row with this value."""
    (row,), faults = read(folder, f"text,{header}\na,{value}\n", **changes)
    assert faults == []
    assert row.inputs is not None
    return row.inputs.format, row.output


@pytest.mark.parametrize(
    ("output", "audio_format", "path"),
    [
        ("9877.wav", "wav", "9877.wav"),
        ("d/9877.WAV", "wav", "d/9877.WAV"),
        ("a.opus", "opus", "a.opus"),
        ("a.oga", "ogg", "a.oga"),
        ("a.raw", "pcm", "a.raw"),
        ("9877", "mp3", "9877.mp3"),
        ("v1.2", "mp3", "v1.2.mp3"),
        ("d.wav/a", "mp3", "d.wav/a.mp3"),
        ("script.txt", "mp3", "script.txt.mp3"),
    ],
)
def test_the_extension_names_the_format_or_is_added(tmp_path: Path, output: str, audio_format: str, path: str) -> None:
    assert named(tmp_path, "output", output) == (audio_format, path)


@pytest.mark.parametrize(
    ("row_id", "given", "audio_format", "path"),
    [
        ("intro.mp3", None, "mp3", "intro.mp3"),
        ("intro.wav", None, "wav", "intro.wav"),
        ("intro.wav", "wav", "wav", "intro.wav"),
        ("intro.wav", "mp3", "mp3", "intro.wav.mp3"),
        ("intro.m4a", None, "mp3", "intro.m4a.mp3"),
        ("intro.ogg", "opus", "opus", "intro.opus"),
        ("Mr. X", None, "mp3", "Mr. X.mp3"),
        (".mp3", None, "mp3", "_mp3.mp3"),
    ],
)
def test_an_extension_that_the_id_has_is_not_repeated(
    tmp_path: Path, row_id: str, given: str | None, audio_format: str, path: str
) -> None:
    """It names the format where none is given; where another is given, the file gets that extension."""
    assert named(tmp_path, "id", row_id, format=given) == (audio_format, path)


@pytest.mark.parametrize(
    ("template", "row_id", "result"),
    [
        ("{id}", "a", ("mp3", "a.mp3")),
        ("{id}", "a.wav", ("wav", "a.wav")),
        ("{id}.wav", "a", ("wav", "a.wav")),
        ("{id}-{take}.{format}", "a.mp3", ("mp3", "a-1.mp3")),
        ("{batch}/{row:03d}.{format}", "a.wav", ("mp3", "m/002.mp3")),
    ],
)
def test_a_template_follows_the_same_rules(tmp_path: Path, template: str, row_id: str, result: tuple[str, str]) -> None:
    assert named(tmp_path, "id", row_id, filename=template) == result


def test_a_later_take_has_the_same_name(tmp_path: Path) -> None:
    assert named(tmp_path, "id,take", "a.mp3,2") == ("mp3", "a.mp3")
    assert named(tmp_path, "id,output,take", "a,b,2") == ("mp3", "b.mp3")


@pytest.mark.parametrize(
    ("content", "changes", "fault"),
    [
        (
            "text,output\na,x.wav\n",
            {"format": "mp3"},
            '"x.wav" ends in .wav, but the format is mp3: change one of them',
        ),
        ("text,output,format\na,x.opus,ogg\n", {}, '"x.opus" ends in .opus, but the format is ogg'),
        (
            "text,output\na,x.m4a\n",
            {},
            '"x.m4a" ends in .m4a, which the API does not make: use .mp3, .wav, .opus, .ogg or',
        ),
        ("text\na\n", {"filename": "{id}.wav", "format": "mp3"}, '"000002.wav" ends in .wav, but the format is mp3'),
    ],
)
def test_an_extension_that_contradicts_the_format_is_a_fault(
    tmp_path: Path, content: str, changes: dict[str, Any], fault: str
) -> None:
    rows, faults = read(tmp_path, content, **changes)
    assert rows == []
    assert faults[0].startswith(f"{tmp_path}/m.csv:2: output: {fault}")


def test_a_row_that_an_earlier_version_bought_keeps_format_and_name(tmp_path: Path) -> None:
    """Even if they contradict each other. With another text it is bought by the present rules, under its old name."""
    (mp3,), _ = read(tmp_path, "text,id\na,x\n")
    assert mp3.inputs is not None
    key = mp3.inputs.key()
    for header, value, output in (
        ("id,output", "x,9877.wav", "9877.wav"),
        ("id,output", "x,9877.m4a", "9877.m4a"),
        ("id,output", "x,9877", "9877"),
        ("id", "x.mp3", "x.mp3.mp3"),
    ):
        former = {value.split(",")[0]: Former(output, key, take=1, bought=True)}
        (row,), faults = read(tmp_path, f"text,{header}\na,{value}\n", former)
        assert (row.inputs, row.output, faults) == (mp3.inputs, output, [])
        edited, faults = read(tmp_path, f"text,{header}\nb,{value}\n", former)
        if output.startswith("9877."):
            assert [one.inputs.format for one in edited if one.inputs] == (["wav"] if "wav" in output else [])
        else:
            assert [one.output for one in edited] == [output]


def test_a_row_that_an_earlier_version_took_again_keeps_its_format_and_gets_its_plain_name(tmp_path: Path) -> None:
    content = "text,id,output\na,x,9877.wav\n"
    bought = Inputs(text="a", voice="anna", take=2)
    former = {"x": Former("9877.take2.wav", bought.key(), take=2, bought=True)}
    (row,), faults = read(tmp_path, content, former, takes={"x": 2})
    assert (row.inputs, row.output, faults) == (bought, "9877.wav", [])


@pytest.mark.parametrize("voice", ["voices/anna", "https://example.org/anna", "anna.mp3", "anna.M4A"])
def test_a_voice_that_is_a_path_or_an_audio_file_is_a_fault(tmp_path: Path, voice: str) -> None:
    """Unless an earlier version has bought the row with it."""
    content = f"id,text,voice\nx,a,{voice}\n"
    rows, faults = read(tmp_path, content)
    assert rows == []
    assert faults[0].startswith(f'{tmp_path}/m.csv:2: voice: "{voice}" is the name of a file or a path, not a voice')
    _, faults = read(tmp_path, "id,text\nx,a\n", voice=voice)
    assert len(faults) == 1
    bought = Inputs(text="a", voice=voice)
    (row,), faults = read(tmp_path, content, {"x": Former("x.mp3", bought.key(), take=1, bought=True)})
    assert (row.inputs, faults) == (bought, [])
