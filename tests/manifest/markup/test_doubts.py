"""Doubts about a manifest's texts: grouped by type, with examples and row numbers; speakers only where likely."""

from __future__ import annotations

import pytest

from batcher.manifest.markup.doubts import Doubts
from batcher.manifest.markup.speakers import speaker_of


def doubts(*texts: str, voices: tuple[str, ...] = ()) -> list[str]:
    """The doubts about these texts, which are on lines 2, 3, …, as a person reads them."""
    collected = Doubts(voices)
    for number, text in enumerate(texts, 1):
        collected.add(number, number + 1, text)
    return [doubt.line_in("m.csv") for doubt in collected.found()]


def test_rows_with_the_same_type_are_one_doubt() -> None:
    """It has the number of rows, three examples, and ranges of rows."""
    texts = ["<b>A</b>", "plain", "<i>B</i>", "<i>C</i>", "Hi {name}", "<em>D</em>"]
    assert doubts(*texts) == [
        'm.csv:2: html: 4 rows with HTML tags or entities that would be spoken: "<b>", "</b>", "<i>" (rows 1, 3-4, 6)',
        'm.csv:6: braces: 1 row with text in braces that would be spoken: "{name}" (row 5)',
    ]
    many = doubts(*["<b>A</b>", "plain"] * 50)
    assert many[0].endswith("(rows 1, 3, 5, 7, 9 ... 99)")


def test_names_that_several_rows_begin_with_are_speakers() -> None:
    script = ["Anna: Hello.", "Ben: Hi.", "Anna: Well?", "Ben (laughing): Yes.", "They leave."]
    assert doubts(*script) == [
        'm.csv:2: speaker: 4 rows with speaker names that would be spoken: "Anna:", "Ben:" (rows 1-4)'
    ]
    assert doubts("SPEAKER_00: One.", "SPEAKER_00: Two.")


def test_beside_other_markup_a_single_row_is_enough_for_a_speaker() -> None:
    """Such a manifest is refused anyway, so the name costs nothing more."""
    texts = ["Anna: I told you so.", *(f"Line {number}." for number in range(20))]
    assert doubts(*texts) == []
    assert [line.split(":")[2].strip() for line in doubts(*texts, "<b>Now</b>")] == ["html", "speaker"]


def test_a_name_that_is_a_voice_is_a_speaker_wherever_it_occurs() -> None:
    """In any case."""
    texts = ["anna: Hello.", *["Said."] * 50]
    assert doubts(*texts, voices=("Anna",))[0].endswith('"anna:" (row 1)')
    assert doubts(*texts) == []


@pytest.mark.parametrize(
    "texts",
    [
        ["Dr. Who: the film", "It is late.", "Yes."],
        ["Note: bring water.", "Note: and bread.", "Warning: hot."],
        ["Chapter 1: The sea", "Chapter 2: The land", "Chapter 1: again"],
        ["Q: Why?", "A: Because.", "Q: When?", "A: Now."],
        ["10:30: the train", "10:30: the bus"],
        ["Monday: closed", "Monday: open", "Tuesday: open"],
        ["Ladies and gentlemen: welcome", "Ladies and gentlemen: goodbye"],
        ["Paris: 12 degrees", "Rome: 20 degrees", "Oslo: 3 degrees"],
        ["Paris: 12 degrees", "Paris: 20 degrees", *["A sentence."] * 20],
        ["https://example.org", "https://example.org/2"],
    ],
)
def test_headings_labels_and_times_are_no_speakers(texts: list[str]) -> None:
    assert doubts(*texts) == []


@pytest.mark.parametrize(
    ("text", "name", "rest"),
    [
        ("Anna: I told you so.", "Anna", "I told you so."),
        ("Mary Ann Lee: Yes.", "Mary Ann Lee", "Yes."),
        ("Anna (softly): No: never.", "Anna", "No: never."),
        ("Anna : oui", "Anna", "oui"),
        ("安娜\uff1a你好", "安娜", "你好"),
    ],
)
def test_a_speaker_is_what_stands_before_the_first_colon(text: str, name: str, rest: str) -> None:
    assert speaker_of(text) == (name, rest)


def test_a_script_of_very_many_names_needs_little_memory() -> None:
    collected = Doubts(())
    for number in range(3000):
        name = f"{number:o}".translate(str.maketrans("01234567", "abcdefgh")).capitalize()
        collected.add(number, number, f"{name}: hello")
    assert len(collected._speakers) == 1000
