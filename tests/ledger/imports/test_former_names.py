"""A ledger of an earlier version, which named files without regard to their format, is not bought or named anew."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.errors import ManifestError
from tests.support.ledger_kit import Book

EARLIER = "id,format,output,text\na,mp3,9877.mp3,one\nb.mp3,mp3,,two\nc,mp3,9879.mp3,three\n"
PRESENT = "id,output,text\na,9877.wav,one\nb.mp3,,two\nc,9879,three\n"


def rows(book: Book) -> list[tuple[Any, ...]]:
    """Id, output and format of each row."""
    query = "SELECT id, output, format FROM rows JOIN items ON key = item_key WHERE is_current = 1 ORDER BY number"
    return [tuple(row.values()) for row in book.all(query)]


def earlier(book: Book) -> None:
    """The batch as an earlier version imported `PRESENT`."""
    book.take_in(EARLIER)
    outputs = [("9877.wav", "a"), ("b.mp3.mp3", "b.mp3"), ("9879", "c")]
    for one in outputs:
        book.execute("UPDATE rows SET output = ? WHERE id = ?", *one)


def test_bought_rows_keep_format_and_name(book: Book) -> None:
    """Nothing is bought again, and no file gets another name."""
    earlier(book)
    for task in ("t1", "t2", "t3"):
        book.submitted(task)
    before = rows(book)
    book.take_in(PRESENT)
    assert rows(book) == before
    assert book.claim_anew(3) == []


def test_rows_that_are_not_bought_yet_get_the_format_that_their_name_promises(book: Book) -> None:
    """They keep their names."""
    earlier(book)
    book.take_in(PRESENT)
    assert rows(book) == [("a", "9877.wav", "wav"), ("b.mp3", "b.mp3.mp3", "mp3"), ("c", "9879", "mp3")]


def test_an_edited_row_keeps_its_name(book: Book) -> None:
    earlier(book)
    for task in ("t1", "t2", "t3"):
        book.submitted(task)
    book.take_in(PRESENT.replace("two", "deux").replace("three", "trois"))
    assert rows(book) == [("a", "9877.wav", "mp3"), ("b.mp3", "b.mp3.mp3", "mp3"), ("c", "9879", "mp3")]


def test_paid_texts_in_another_batch_are_not_bought_in_the_new_format_without_consent(book: Book) -> None:
    earlier(book)
    book.submitted("t1")
    with pytest.raises(ManifestError) as caught:
        book.take_in("id,output,text\nx,2/9877.wav,one\n", batch="other")
    assert caught.value.faults[0].endswith("row x: a default or setting changed its format from mp3 to wav")
