"""Which imports would buy paid audio again, and are therefore refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from batcher.errors import ManifestError
from batcher.ledger.imports import importer, rebuys
from batcher.ledger.lifecycle import collection, restored_rows
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from tests.support.ledger_kit import AT, Book, book_in, ending, sheet


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with book_in(tmp_path) as made:
        yield made


def refusal(book: Book, content: str, **how: Any) -> ManifestError | None:
    """Why this import is refused; it then changes nothing. None if it is not."""
    before = book.dump()
    try:
        book.take_in(content, **how)
    except ManifestError as error:
        assert book.dump() == before
        error.message, *error.faults = (line.removeprefix(f"{book.folder}/") for line in (error.message, *error.faults))
        return error
    return None


def voiced(number: int, voice: str, *, edited: int = 0, ids: str = "r") -> str:
    """Rows of this voice, the first `edited` of which have another."""
    rows = [f"{ids}{n},text {n},{'ben' if n < edited else voice}" for n in range(number)]
    return "\n".join(["id,text,voice", *rows]) + "\n"


@pytest.mark.parametrize("stage", ["submitting", "submitted", "rendered"])
def test_another_default_for_a_single_paid_row_is_refused(book: Book, stage: str) -> None:
    """However far its task is. Rows that are not paid for do not count."""
    book.take_in(sheet("one", "two", "three"))
    if stage == "submitting":
        book.claim()
    else:
        task = book.submitted("t1")
        if stage == "rendered":
            book.do(collection.record_rendered, ending(task, credits=3.0))
    error = refusal(book, sheet("one", "two", "three"), voice="ben")
    assert error is not None
    assert error.message == "m.csv: 1 row that may be paid for already would be bought again; nothing was created"
    assert error.faults == ["m.csv:2: row a: a default or setting changed its voice from anna to ben"]
    assert ("about 3 credits" if stage == "rendered" else "an unknown number of credits") in error.hint
    assert error.suggestion is None


def test_another_default_for_unpaid_rows_is_accepted(book: Book) -> None:
    """A rejected item was not bought either."""
    book.take_in(sheet("one", "two"))
    (claimed,) = book.claim()
    book.execute("UPDATE items SET state = 'rejected' WHERE key = ?", claimed.key)
    assert refusal(book, sheet("one", "two"), voice="ben") is None


@pytest.mark.parametrize(
    ("ids", "rows", "paid", "edited", "allowed"),
    [
        ("r", 30, 30, 20, True),
        ("r", 30, 30, 21, False),
        ("s", 30, 30, 21, False),
        ("r", 230, 230, 23, True),
        ("r", 230, 230, 24, False),
        ("r", 230, 30, 21, False),
    ],
    ids=["few", "many", "many with new ids", "a tenth", "more than a tenth", "a tenth of all rows"],
)
def test_more_than_a_few_edited_rows_are_refused(
    book: Book, ids: str, rows: int, paid: int, edited: int, allowed: bool
) -> None:
    """Up to twenty or a tenth of the paid rows are a day's corrections. The first five are listed."""
    book.take_in(voiced(rows, "anna"))
    assert len(book.claim(paid)) == paid
    error = refusal(book, voiced(rows, "anna", edited=edited, ids=ids))
    assert (error is None) == allowed
    if error is not None:
        assert error.message.startswith(f"m.csv: {edited} rows that may be paid for already")
        first = [f"m.csv:{n + 2}: row {ids}{n}: the row changed its voice from anna to ben" for n in range(5)]
        assert error.faults == first


@pytest.mark.parametrize("other", ["m", "n"])
def test_edits_are_compared_with_the_paid_rows_that_the_batch_has_now(book: Book, other: str) -> None:
    """Not with rows that it had once, nor with those of another batch."""
    book.take_in(voiced(230, "anna"), batch=other)
    assert len(book.claim(230)) == 230
    book.take_in(voiced(30, "anna"), filename="m/{id}")
    assert refusal(book, voiced(30, "anna", edited=21), filename="m/{id}") is not None


@pytest.mark.parametrize(("rows", "allowed"), [(21, False), (230, True)])
def test_edits_in_a_new_batch_are_compared_with_its_own_size(book: Book, rows: int, allowed: bool) -> None:
    """It has no paid rows yet; and a row counts once, however often its text is paid for."""
    for voice in ("anna", "cara"):
        book.take_in(voiced(21, voice), batch=voice, filename=f"{voice}/{{id}}")
    assert len(book.claim(42)) == 42
    error = refusal(book, voiced(rows, "anna", edited=21), batch="n", filename="n/{id}")
    assert (error is None) == allowed
    if error is not None:
        assert error.message.startswith("n.csv: 21 rows")


def test_a_changed_default_is_listed_rather_than_edits(book: Book) -> None:
    """A single one is refused."""
    content = "id,text,voice\na,one,anna\nb,two,anna\nc,three,\n"
    book.take_in(content)
    book.claim(3)
    error = refusal(book, content.replace("one,anna", "one,eva"), voice="ben")
    assert error is not None
    assert error.message.startswith("m.csv: 2 rows")
    assert error.faults == ["m.csv:4: row c: a default or setting changed its voice from anna to ben"]


def test_a_row_that_is_edited_while_its_default_changes_is_no_mere_edit(book: Book) -> None:
    book.take_in(sheet("one"))
    book.claim()
    error = refusal(book, sheet("uno"), voice="ben")
    assert error is not None
    assert error.faults == ["m.csv:2: row a: a default or setting changed its text and voice from anna to ben"]


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ({"voices": {"anna": "v1"}}, {"voices": {"anna": "v2"}}, "voice from v1 to v2"),
        ({}, {"columns": {"voice": "speaker"}}, "voice from anna to ben"),
        ({}, {"columns": {"speed": "tempo"}}, 'params from {} to {"speed": 1.5}'),
        ({}, {"model": "m1"}, "model from none to m1"),
        ({}, {"format": "wav"}, "format from mp3 to wav"),
        ({}, {"model": "m1", "format": "wav"}, "model and format from none to m1"),
    ],
    ids=["what a name stands for", "another column", "a parameter", "the model", "the format", "two of them"],
)
def test_a_changed_setting_is_no_edit_although_the_row_has_its_own_value(
    book: Book, before: dict[str, Any], after: dict[str, Any], why: str
) -> None:
    """The manifest is the same, so what changed are the settings."""
    content = "id,text,voice,speaker,tempo\na,one,anna,ben,1.5\n"
    book.take_in(content, **before)
    book.claim()
    error = refusal(book, content, **after)
    assert error is not None
    assert error.faults == [f"m.csv:2: row a: a default or setting changed its {why}"]


def test_an_item_that_is_paid_for_already_costs_nothing(book: Book) -> None:
    """The row may change to it. And a row of another batch with the same id is another row."""
    book.take_in(sheet("one"))
    book.take_in(sheet("one"), batch="n", filename="n/{id}", voice="ben")
    assert len(book.claim(5)) == 2
    assert refusal(book, sheet("one"), voice="ben") is None
    assert refusal(book, sheet("two"), batch="o", filename="o/{id}", voice="cara") is None


def test_changed_rows_are_listed_by_what_changed(book: Book) -> None:
    """Paid for or not."""
    book.take_in(sheet("one", "two", "three", "four", "five"))
    rows = ("a,one,ben,,,", "b,other,ben,,,", "c,three,,,,", "d,four,,wav,2,", "e,five,,,,1.5", "f,new,,,,")
    (book.folder / "m.csv").write_text("\n".join(["id,text,voice,format,take,speed", *rows]) + "\n")
    rules = Rules(batch="m", voice="anna")

    def changed(conn: Connection) -> dict[str, list[str]]:
        staging = importer.stage(conn, Manifest(book.folder / "m.csv", rules), rules, "audio", AT)
        return rebuys.changed_rows(conn, staging)

    assert book.do(changed) == {
        "voice": ["a", "b"],
        "text": ["b"],
        "format": ["d"],
        "take": ["d"],
        "params": ["e"],
    }


@pytest.mark.parametrize(
    ("after", "refused"),
    [
        ("id,text\nz,one\n", True),
        ("id,text,voice\nz,one,\na,one,anna\n", False),
        ("id,text,voice\na,one,anna\nz,one,\n", False),
        ("id,text,voice\na,other,ben\n", False),
        ("id,text,voice\na,one,anna\nz,other,\n", False),
    ],
    ids=["new id", "also as before, moved", "also as before", "another text", "an added text"],
)
def test_a_paid_text_under_a_new_id_is_recognised_unless_its_row_is_still_there(
    book: Book, after: str, refused: bool
) -> None:
    """Then the row is a second recording of the text. A row that gets another text is an edit."""
    book.take_in("id,text,voice\na,one,anna\n")
    book.claim()
    assert (refusal(book, after, voice="ben") is not None) == refused


def test_another_take_is_asked_for_knowingly(book: Book) -> None:
    """So it needs no consent, however many rows ask for one."""
    rows = [f"r{n},text {n}" for n in range(30)]
    book.take_in("\n".join(["id,text", *rows]) + "\n")
    book.claim(30)
    assert refusal(book, "\n".join(["id,text,take", *(f"{row},2" for row in rows)]) + "\n") is None


@pytest.mark.parametrize(
    ("column", "batch", "options"),
    [
        ("french", "m", {"--batch": ["french"], "--filename": ["french/{id}.{format}"]}),
        ("text.pt (BR)", "m", {"--batch": ["pt-BR"], "--filename": ["pt-BR/{id}.{format}"]}),
        ("french", "french", None),
        ("!", "m", None),
    ],
)
def test_the_texts_of_another_column_are_offered_a_batch_of_their_own(
    book: Book, column: str, batch: str, options: dict[str, list[str]] | None
) -> None:
    """Every paid row would be bought again, in another language."""
    content = f"id,text,{column}\na,one,un\n"
    book.take_in(content, batch=batch)
    book.claim()
    error = refusal(book, content + "b,two,deux\n", batch=batch, columns={"text": column})
    assert error is not None
    assert error.faults == [f"{batch}.csv:2: row a: a default or setting changed its text"]
    assert (error.suggestion and error.suggestion.options) == options


def test_a_batch_of_another_column_does_not_take_the_output_column(book: Book) -> None:
    """It would name the files of the first batch."""
    content = "id,text,french,output\na,one,un,a.mp3\n"
    book.take_in(content)
    book.claim()
    error = refusal(book, content, columns={"text": "french"})
    assert error is not None
    assert error.suggestion is not None
    assert error.suggestion.options["--column"] == ["text=french", "output="]


def restore(book: Book, key: str, row_id: str = "a", batch: str = "m") -> None:
    """Note that a results file lists the row as bought with the item `key`."""
    line = {"batch": batch, "id": row_id, "row": 1, "key": key, "state": "done", "out_dir": "audio", "output": "a.mp3"}
    assert book.do(restored_rows.add, [line], at=AT) == 1


@pytest.mark.parametrize("case", ["refused", "same inputs", "another batch", "key in use", "bought"])
def test_a_row_that_results_files_list_with_other_inputs_is_refused(book: Book, case: str) -> None:
    """Unless its item is not to be bought, or another row has the listed one."""
    book.take_in(sheet("one", "two", "three"))
    if case == "bought":
        book.claim()
    kept = [row["item_key"] for row in book.all("SELECT item_key FROM rows ORDER BY number")]
    key = {"same inputs": kept[0], "key in use": kept[1]}.get(case, "k" * 64)
    restore(book, key, batch="n" if case == "another batch" else "m")
    error = refusal(book, sheet("uno" if case == "another batch" else "one", "two", "three"))
    assert (error is not None) == (case == "refused")
    if error is not None:
        assert error.message.startswith("m.csv: 1 row that may be paid for already")
        assert error.faults == ["m.csv:2: row a: results files list it with other inputs"]
