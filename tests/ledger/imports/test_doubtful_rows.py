"""Importing texts with markup, speakers and unlisted voices: what is refused, accepted, and removed."""

from __future__ import annotations

import pytest

from batcher.errors import DoubtError, ManifestError
from tests.support.ledger_kit import Book

CONTENT = "id,text\na,Hello <b>there</b>.\n"


def test_what_an_earlier_run_accepted_is_not_doubted_again(book: Book) -> None:
    """Neither bought items nor pending ones; only items that are added count, and a refused import adds none."""
    with pytest.raises(DoubtError):
        book.take_in(CONTENT)
    with pytest.raises(DoubtError):
        book.take_in(CONTENT)
    book.take_in(CONTENT, allow={"html"})
    book.take_in(CONTENT + "b,Plain.\n")
    book.take_in("id,text\nmoved,Hello <b>there</b>.\n", batch="other")
    with pytest.raises(DoubtError) as caught:
        book.take_in(CONTENT + "b,Plain.\nc,More <i>here</i>.\nd,{x}\n")
    assert caught.value.types == {"html", "braces"}
    assert "(row 4)" in caught.value.faults[0]
    with pytest.raises(DoubtError) as caught:
        book.take_in(CONTENT + "b,Plain.\nc,More <i>here</i>.\nd,{x}\n", allow={"html"})
    assert caught.value.types == {"braces"}


def test_a_stripped_speaker_becomes_the_voice(book: Book) -> None:
    """If `[voices]` has the name. A row's own voice counts more, and other names are left and reported."""
    voices = {"Anna": "v1", "Ben": "v2"}
    content = "id,text,voice\na,Anna: Hello.,\nb,BEN: Hi.,\nc,Anna: Yes.,Ben\nd,Note: it rains.,\n"
    book.take_in(content, voices=voices, strip=("speaker",), voice="Ben")
    found = book.all("SELECT text, voice FROM rows JOIN items ON key = item_key ORDER BY number")
    assert [tuple(row.values()) for row in found] == [
        ("Hello.", "v1"), ("Hi.", "v2"), ("Yes.", "v2"), ("Note: it rains.", "v2"),
    ]  # fmt: skip
    with pytest.raises(DoubtError) as caught:
        book.take_in("id,text\nx,Carl: No.\ny,Carl: Yes.\n", batch="two", voices=voices, strip=("speaker",))
    assert caught.value.types == {"speaker"}


def test_without_voices_every_likely_speaker_is_stripped(book: Book) -> None:
    book.take_in("id,text\na,Anna: Hello.\nb,Note: it rains.\n", strip=("speaker",))
    assert {row["text"] for row in book.all("SELECT text FROM items")} == {"Hello.", "Note: it rains."}


def test_a_text_of_which_nothing_is_left_counts_as_empty(book: Book) -> None:
    with pytest.raises(ManifestError) as caught:
        book.take_in("id,text\na,TODO\n", strip=("todo",))
    assert caught.value.faults[0].endswith(
        "m.csv:2: text: nothing is left of the text after --strip: write one, or skip such rows with --skip-empty"
    )
    book.take_in("id,text\na,TODO\nb,Said.\n", strip=("todo",), skip_empty=True)
    assert [row["skipped"] for row in book.all("SELECT skipped FROM rows ORDER BY number")] == ["empty", None]


def test_a_name_that_voices_lacks_is_an_error_if_other_rows_use_them(book: Book) -> None:
    """Not if the manifest uses voice ids throughout, nor for the default, an id of the table, or an old row."""
    voices = {"Anna": "v1", "Ben": "v2"}
    with pytest.raises(ManifestError) as caught:
        book.take_in("id,text,voice\na,One.,Anna\nb,Two.,Bem\nc,Three.,Bem\n", voices=voices)
    (fault,) = caught.value.faults
    assert fault.endswith('m.csv:3: voice: "Bem" is not in [voices] (did you mean "Ben"?), in 2 rows')
    book.take_in("id,text,voice\na,One.,Anna\nb,Two.,v2\nc,Three.,\n", voices=voices, voice="raw")
    book.take_in("id,text,voice\nu,Uno.,x1\nv,Dos.,x2\n", batch="ids", voices=voices)
    book.take_in("id,text,voice\nu,Uno.,x1\nv,Dos.,x2\nw,Tres.,Ben\n", batch="ids", voices=voices)
    with pytest.raises(ManifestError):
        book.take_in("id,text,voice\nu,Uno.,x1\nv,Dos.,x2\nw,Tres.,Ben\nd,Cuatro.,x3\n", batch="ids", voices=voices)
