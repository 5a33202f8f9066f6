"""Audio gets other file names only by an ordinary edit, or with consent."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.errors import ManifestError
from tests.support.ledger_kit import Book


def content(ids: list[str], header: str = "id") -> str:
    """A manifest whose row n has the n-th id and the text `Text n`."""
    return f"{header},text\n" + "".join(f"{one},Text {number}\n" for number, one in enumerate(ids))


def finished(book: Book, ids: list[str], *, files: int | None = None, **how: Any) -> None:
    """Import rows with these ids, of which the first `files` have their audio at its path."""
    book.take_in(content(ids), **how)
    for number in range(len(ids)):
        book.submitted(f"t{number}")
    shown = len(ids) if files is None else files
    linked = f"UPDATE rows SET linked_key = item_key, linked_output = output WHERE number <= {shown + 1}"
    book.execute(linked)


def names(count: int) -> list[str]:
    return [f"k{number}" for number in range(count)]


def refusal(book: Book, text: str, **how: Any) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        book.take_in(text, **how)
    return caught.value


def test_a_forgotten_column_is_refused_with_what_the_last_run_had(book: Book) -> None:
    book.take_in(content(names(3), "Key"), columns={"id": "Key"})
    for number in range(3):
        book.submitted(f"t{number}")
    book.execute("UPDATE rows SET linked_key = item_key, linked_output = output")
    before = book.dump()
    error = refusal(book, content(names(3), "Key"))
    assert error.message.endswith("m.csv: 3 rows with audio would get another file name; nothing was created")
    assert error.faults[0].endswith("m.csv:2: row 000002: its audio is k0.mp3 (row k0) and would be 000002.mp3")
    assert error.hint.startswith("The last run had --column id=Key. ")
    assert "--rename" in error.hint
    assert book.dump() == before
    book.take_in(content(names(3), "Key"), rename=True)
    assert book.claim_anew(9) == []
    book.take_in(content(names(3), "Key"))


def test_a_retake_is_not_lost_silently(book: Book) -> None:
    """Its row would get the first take again, under another name."""
    finished(book, names(2))
    book.take_in("id,text,take\nk0,Text 0,2\nk1,Text 1,\n")
    book.take_in(content(names(2)), takes={"k0": 2})
    (claimed,) = book.claim_anew()
    book.record(book.accepted(claimed, "retake"))
    book.execute("UPDATE rows SET linked_key = item_key, linked_output = output")
    error = refusal(book, content(names(2)), columns={"id": ""})
    assert error.faults[0].endswith("row 000002: its audio is k0.mp3 (row k0) and would be 000002.mp3")


def test_a_retake_of_an_earlier_version_gets_its_plain_name(book: Book) -> None:
    """No setting changed its name, so it is no rename that the user must agree to."""
    manifest = "id,text,take\na,Text 0,2\n"
    book.take_in(manifest)
    book.submitted("t0")
    legacy = "UPDATE rows SET output = 'a.take2.mp3', linked_output = 'a.take2.mp3', linked_key = item_key"
    book.execute(legacy)
    error = refusal(book, manifest, filename="x-{id}.{format}")
    assert error.faults[0].endswith("row a: its audio is a.take2.mp3 and would be x-a.mp3")
    book.take_in(manifest)


def test_another_template_is_refused(book: Book) -> None:
    """A setting changed, not the file, so a single row is too many."""
    finished(book, ["a"])
    error = refusal(book, content(["a"]), filename="x-{id}.{format}")
    assert error.faults[0].endswith("m.csv:2: row a: its audio is a.mp3 and would be x-a.mp3")
    book.take_in(content(["a"]), filename="x-{id}.{format}", rename=True)


@pytest.mark.parametrize(
    ("rows", "renamed", "allowed"), [(40, 20, True), (40, 21, False), (300, 30, True), (3, 3, False)]
)
def test_few_renamed_rows_are_an_ordinary_edit(book: Book, rows: int, renamed: int, allowed: bool) -> None:
    """More than 20 that are more than a tenth, or all of several, need consent."""
    finished(book, names(rows))
    edited = content([f"new-{one}" for one in names(renamed)] + names(rows)[renamed:])
    if allowed:
        book.take_in(edited)
    else:
        assert f"{renamed} rows with audio" in refusal(book, edited).message


def test_a_batch_of_one_row_may_be_renamed(book: Book) -> None:
    finished(book, ["a"])
    book.take_in(content(["b"]))


def test_rows_without_audio_may_be_renamed(book: Book) -> None:
    finished(book, names(30), files=0)
    book.take_in(content([f"new-{one}" for one in names(30)]))


def test_other_texts_and_moved_rows_are_no_renaming(book: Book) -> None:
    """Nor is a row inserted above rows that are named by their number."""
    finished(book, [f"{number:06d}" for number in range(1, 31)])
    texts = [f"Text {number}" for number in range(30)]
    book.take_in("text\n" + "\n".join(texts) + "\n", columns={"id": ""})
    book.take_in("text\nInserted\n" + "\n".join(texts) + "\n")
    book.take_in("text\n" + "\n".join(f"{text} again" for text in texts) + "\n", batch="other", filename="o{id}.mp3")
    book.take_in("id,text\n" + "".join(f"z{number},New {number}\n" for number in range(30)))
