"""Values are set in a TOML file without touching anything else in it."""

from __future__ import annotations

import random
import tomllib

import pytest

from batcher.cli.toml_edit import set_values
from batcher.errors import UsageError

BOOK = """\
# my book

voice = "en"   # the narrator
no-credits-code = [
  "broke",
]

# the sheet
[columns]
text = "line"  # German

[voices]
Anna = "5f3c"
"""


def test_an_empty_file_gets_the_values() -> None:
    edited = set_values("", {"voice": "en", "number": 5, "rate": 0.5, "quiet": True}, {"columns": {"id": "N #1"}})
    assert edited == 'voice = "en"\nnumber = 5\nrate = 0.5\nquiet = true\n\n[columns]\nid = "N #1"\n'


def test_everything_else_stays() -> None:
    """Comments too, also those on the line of a value that changes. Keys of a table go to that table."""
    edited = set_values(BOOK, {"voice": "de", "model": "s2"}, {"columns": {"id": "Key", "text": "line"}})
    expected = BOOK.replace('voice = "en"', 'voice = "de"').replace("]\n\n# the", ']\nmodel = "s2"\n\n# the')
    assert edited == expected.replace("# German\n", '# German\nid = "Key"\n')


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_values_that_are_set_already_change_nothing(newline: str) -> None:
    text = BOOK.replace("\n", newline)
    assert set_values(text, {"voice": "en", "no-credits-code": ["broke"]}, {"columns": {"text": "line"}}) == text
    assert set_values(text, {"quiet": True}, {}).count("\r\n") == (text.count("\r\n") and text.count("\r\n") + 1)


def test_a_file_of_tables_only_gets_top_level_keys_first() -> None:
    """The comment above a table stays above it."""
    text = '# sheet\n[columns]\ntext = "a"'
    assert set_values(text, {"voice": "x"}, {"columns": {"id": "b"}}) == (
        'voice = "x"\n\n# sheet\n[columns]\ntext = "a"\nid = "b"\n'
    )


@pytest.mark.parametrize(
    "text",
    [
        'columns.text = "a"\n',
        'columns = {text = "a"}\n',
        'strip = [\n  "html",  # from the editor\n]\n',
        "[columns",
    ],
)
def test_what_cannot_be_edited_safely_is_refused(text: str) -> None:
    """With the lines to add."""
    with pytest.raises(UsageError) as caught:
        set_values(text, {"strip": ["html", "braces"]}, {"columns": {"id": "Key"}})
    assert "cannot be edited safely" in caught.value.message
    assert '\nstrip = ["html", "braces"]\n[columns]\nid = "Key"' in caught.value.hint


def test_any_file_means_the_same_afterwards_except_for_the_values_set() -> None:
    dice = random.Random(7)
    parts = [
        'voice = "a" # b\n', "# [columns]\n", "\n", 'x-y = """\n[columns]\nid = "no"\n"""\n', "quiet = true\n",
        'list = [\n  "[voices]", # c\n]\n', "'single' = 1\n", "  # indented\n",
    ]  # fmt: skip
    tables = ['[columns]\nid = "a"\n# d\n', '[ "voices" ]\n"A B" = "c"\n\n', "[columns]\n"]
    checked = 0
    for _ in range(400):
        text = "".join(dict.fromkeys(dice.choices(parts, k=4))) + "".join(dice.sample(tables, 2)[: dice.randint(0, 2)])
        try:
            before = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
        checked += 1
        edited = set_values(text, {"voice": "new", "quiet": False}, {"columns": {"id": "Key", "text": "T"}})
        columns = before.get("columns", {}) | {"id": "Key", "text": "T"}
        assert tomllib.loads(edited) == before | {"voice": "new", "quiet": False, "columns": columns}
        for line in text.splitlines():
            comment = line[line.index("#") :] if "#" in line else ""
            assert comment in edited
    assert checked > 200
