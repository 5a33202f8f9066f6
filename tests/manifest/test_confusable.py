"""What the eye does not see: invisible characters, and names that look the same."""

from __future__ import annotations

import pytest

from batcher.manifest.confusable import differ_by_case, folded, is_reserved_on_windows, trimmed, without_invisible


@pytest.mark.parametrize(
    ("one", "other", "by_case"),
    [
        ("A.mp3", "a.mp3", True),
        ("Straße", "STRASSE", False),
        ("\ufb01n", "fin", False),
        ("a\u200bb", "ab", False),
        ("a\xadb", "AB", False),
        ("\uff11", "1", False),
        ("é", "e\u0301", True),
        ("ΟΔΟΣ", "οδος", True),
    ],
)
def test_names_that_look_the_same_have_one_folded_form(one: str, other: str, by_case: bool) -> None:
    assert folded(one) == folded(other)
    assert differ_by_case(one, other) == by_case


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("1", "01"), ("a-b", "ab"), ("e", "é"), ("話", "语")])
def test_names_that_look_different_do_not(one: str, other: str) -> None:
    assert folded(one) != folded(other)


@pytest.mark.parametrize("char", "\xa0\u3000\u200b\ufeff\u2060\xad\u200e\u200f\u2800\u3164\u202e\u2069\ufe0f\U000e0041")
def test_invisible_characters_around_a_name_do_not_count(char: str) -> None:
    assert trimmed(f" {char}{char}id{char} ") == "id"
    assert trimmed(char * 3) == ""


def test_characters_that_are_seen_stay() -> None:
    text = "\u0600 a… — ♪ 😀 *** ا"  # noqa: RUF001 - an Arabic number sign has a glyph
    assert trimmed(text) == without_invisible(text) == text


@pytest.mark.parametrize(
    "path", ["CON.mp3", "a/nul/b.mp3", "com1.x.mp3", "Aux", "lpt9.wav", "a./b.mp3", "a /b.mp3", "x."]
)
def test_windows_reserves_names_of_devices_and_trailing_dots(path: str) -> None:
    assert is_reserved_on_windows(path)


@pytest.mark.parametrize("path", ["console.mp3", "a/null.mp3", "com.mp3", "com10.mp3", "x..mp3", ".a", "acon.mp3"])
def test_other_names_are_no_devices(path: str) -> None:
    assert not is_reserved_on_windows(path)
