"""Subtitles: SRT and WebVTT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules

SRT = """\ufeff1
00:00:01,000 --> 00:00:03,500
It was raining
that night.

2
00:00:04,000 --> 00:00:06,000 X1:40 X2:600
<i>- Who is it?</i> {\\an8}


7
00:00:06,200 --> 00:00:08,000
3 < 4 &amp; 5
"""
VTT = """WEBVTT - a title
Kind: captions

NOTE
to be ignored

STYLE
::cue { color: red }

intro
00:01.000 --> 00:03.500 align:start
<v.loud Mara Holm>Hello <00:02.000><c.big>there</c>.</v>

01:00:04.000 --> 01:00:06.000
Bye.
"""


def read(folder: Path, name: str, content: str, **changes: Any) -> tuple[list[tuple[Any, ...]], list[str]]:
    (folder / name).write_text(content, encoding="utf-8", newline="")
    manifest = Manifest(folder / name, Rules(**({"batch": "m", "voice": "anna"} | changes)))
    rows = [(row.number, row.line, row.inputs.text, *row.extra.values()) for row in manifest.rows() if row.inputs]
    return rows, [line.removeprefix(f"{folder}/") for line in manifest.faults.lines()]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_each_cue_of_srt_is_a_row_with_its_times(tmp_path: Path, end: str) -> None:
    rows, errors = read(tmp_path, "m.srt", SRT.replace("\n", end))
    assert rows == [
        (1, 1, "It was raining that night.", "00:00:01,000", "00:00:03,500"),
        (2, 6, "- Who is it?", "00:00:04,000", "00:00:06,000"),
        (3, 11, "3 < 4 & 5", "00:00:06,200", "00:00:08,000"),
    ]
    assert errors == []


@pytest.mark.parametrize("name", ["m.vtt", "m"])
def test_webvtt_also_has_speakers_and_its_other_blocks_are_ignored(tmp_path: Path, name: str) -> None:
    rows, errors = read(tmp_path, name, VTT)
    assert [row[2:] for row in rows] == [
        ("Hello there.", "00:01.000", "00:03.500", "Mara Holm"),
        ("Bye.", "01:00:04.000", "01:00:06.000", ""),
    ]
    assert errors == []


def test_a_speaker_may_be_the_voice(tmp_path: Path) -> None:
    (tmp_path / "m.vtt").write_text(VTT)
    rules = Rules(batch="m", voice="anna", columns={"voice": "speaker"}, voices={"Mara Holm": "v1"})
    rows = list(Manifest(tmp_path / "m.vtt", rules).rows())
    assert [row.inputs and row.inputs.voice for row in rows] == ["v1", "anna"]


def test_broken_cues_are_errors_with_their_lines(tmp_path: Path) -> None:
    broken = "\n1\n00:01,000 --> 00:02,000\nOne.\n2\n00:03,000 --> 00:04,000\nTwo.\n\nLost words.\n"
    rows, errors = read(
        tmp_path, "m.srt", broken + "\n4\n00:05,000 --> 00:06,000\nFour.\n\n5\n00:07,000 --> 00:08,000\n"
    )
    assert [row[2] for row in rows] == ["Four."]
    assert errors[:2] == [
        "m.srt:2: contains the times of another cue: insert a blank line between them",
        'm.srt:9: "Lost words." begins no cue: write its times above it, or remove the blank line above',
    ]
    assert errors[2].startswith("m.srt:15: text: the text is empty")


def test_a_file_without_cues_is_an_error(tmp_path: Path) -> None:
    assert read(tmp_path, "m.vtt", "WEBVTT\n\n")[1] == ["m.vtt: empty: there is no cue"]
