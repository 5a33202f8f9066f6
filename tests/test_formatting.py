"""Lines for people: wrapped between words, whatever they contain."""

from __future__ import annotations

import pytest

from batcher.formatting import coloured, columns_of, listed, wrapped


def test_lines_are_wrapped_between_words_and_indented_like_their_beginning() -> None:
    assert wrapped("  Fix them, or pass --skip-invalid.", 16) == "  Fix them, or\n  pass\n  --skip-invalid."
    assert wrapped("one two three", 8, hanging=2) == "one two\n  three"
    assert wrapped("short", 80) == "short"
    assert wrapped("of any length " * 20, None) == "of any length " * 20


@pytest.mark.parametrize(
    "line", ["    batcher resolve --ledger /srv/a/b", "  mv /srv/one /srv/two/three", "/srv/" + "x" * 50]
)
def test_commands_and_long_words_stay_whole(line: str) -> None:
    """So that they can be copied."""
    assert wrapped(line, 20) == line


def test_columns_count_what_a_terminal_shows() -> None:
    """Wide characters take two, styles and combining characters none."""
    assert columns_of(coloured("in doubt", "yellow")) == 8
    assert columns_of("\u65e5\u672c\u8a9e") == 6
    assert columns_of("e\u0301") == 1
    assert wrapped(f"{coloured('one two', 'red')} three", 7) == f"{coloured('one two', 'red')}\nthree"


def test_a_list_of_names_ends_with_the_number_of_the_others() -> None:
    assert (listed("abc", 3), listed("abcd", 3)) == ("a, b, c", "a, b, c, … (1 more)")
