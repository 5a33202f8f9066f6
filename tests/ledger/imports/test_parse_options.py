"""Parse options are remembered with the batch, and rows keep the numbers of the batch's first import."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.ledger.imports import importer
from batcher.ledger.imports.parse_options import counts_records, last_parse_options
from batcher.ledger.lifecycle import restored_rows
from batcher.ledger.queries.batches import current_batches
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from tests.support.ledger_kit import AT, Book


def import_again(book: Book, content: str, **changes: Any) -> list[tuple[int, str, str]]:
    """Import as a run does; number, id and output of the current rows."""
    path = book.folder / "m.csv"
    path.write_text(content)
    rules = book.do(importer.with_history, Rules(**({"batch": "m", "voice": "anna"} | changes)))
    book.do(importer.import_manifest, Manifest(path, rules), rules, source=str(path), out_dir="audio", at=AT)
    found = book.all("SELECT number, id, output FROM rows WHERE is_current = 1 ORDER BY number")
    return [(row["number"], row["id"], row["output"]) for row in found]


def imported_by_the_first_version(book: Book, content: str) -> list[tuple[int, str, str]]:
    """Import with what version 0.1.0 stored: the rows numbered from 1, and no more than two parse options."""
    book.take_in(content, counted=True)
    before = """UPDATE meta SET value = '{"columns": {}, "encoding": null}' WHERE name LIKE 'reading %'"""
    book.execute(before)
    return [
        (row["number"], row["id"], row["output"])
        for row in book.all("SELECT number, id, output FROM rows ORDER BY number")
    ]


def test_a_batch_of_an_older_version_keeps_its_ids_and_outputs(book: Book) -> None:
    """However often it is imported, and when a row is added. A new batch has the numbers of the spreadsheet."""
    content = "text\nOne.\n\nTwo.\n"
    old = imported_by_the_first_version(book, content)
    assert old == [(1, "000001", "000001.mp3"), (2, "000002", "000002.mp3")]
    items = book.all("SELECT key FROM items")
    assert import_again(book, content) == old
    assert import_again(book, content) == old
    assert book.all("SELECT key FROM items") == items
    assert import_again(book, content + "Three.\n") == [*old, (3, "000003", "000003.mp3")]
    assert book.do(counts_records, "m") is True
    assert book.do(counts_records, "another") is False


def test_a_new_batch_has_the_spreadsheets_numbers(book: Book) -> None:
    found = import_again(book, "text\nOne.\n\nTwo.\n")
    assert found == [(2, "000002", "000002.mp3"), (4, "000004", "000004.mp3")]
    assert import_again(book, "text\nOne.\n\nTwo.\n") == found


def test_the_rules_of_an_older_version_are_not_a_new_version_of_the_batch(book: Book) -> None:
    imported_by_the_first_version(book, "text\nOne.\n")
    import_again(book, "text\nOne.\n")
    assert book.one("SELECT version FROM batches")["version"] == 1
    import_again(book, "text\nOne.\n", delimiter=",")
    assert book.one("SELECT version FROM batches")["version"] == 2


@pytest.mark.parametrize(
    ("numbers", "counted"), [([1, 2, 3], True), ([2, 3, 4], False), ([1, 3], False), ([], False), ([None], False)]
)
def test_restored_results_tell_how_a_lost_batch_was_numbered(
    book: Book, numbers: list[int | None], counted: bool
) -> None:
    """Results of older versions begin with row 1 and have no gaps."""
    line = {"batch": "m", "state": "done", "out_dir": "audio", "output": None, "take": 1}
    lines = [line | {"row": number, "id": f"{number}", "key": f"k{number}"} for number in numbers]
    book.do(restored_rows.add, lines, at=AT)
    assert book.do(counts_records, "m") is counted


def test_the_options_of_the_last_import_are_remembered(book: Book) -> None:
    """Other commands read the file with them."""
    how = {"no_header": True, "names": ("id", "_", "text"), "delimiter": "|", "quotes": "off", "encoding": "utf-8"}
    import_again(book, 'a|x|"One.\nb|x|Two.\n', **how)
    (batch,) = book.do(current_batches)
    rules = book.do(last_parse_options, batch)
    assert {name: getattr(rules, name) for name in how} == how | {"names": ["id", "_", "text"]}
    assert rules.counted is False
