"""A batch keeps its `--where`: another one, or none, needs `--refilter`."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.errors import ManifestError
from batcher.ledger.imports import importer
from batcher.ledger.imports.parse_options import last_parse_options, rows_left_out
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from tests.support.ledger_kit import AT, Book

SHEET = "id,text,spoken,part\na,One.,yes,1\nb,,no,1\nc,Three.,yes,2\n"
SPOKEN = ("spoken=yes",)


def import_where(book: Book, *where: str, content: str = SHEET, refilter: bool = False) -> str:
    """Import as a run does; the ids of the batch's rows."""
    path = book.folder / "m.csv"
    path.write_text(content)
    rules = book.do(importer.with_history, Rules(batch="m", voice="anna", where=where))
    how: dict[str, Any] = {"source": str(path), "out_dir": "audio", "at": AT, "refilter": refilter}
    book.wanted = [book.do(importer.import_manifest, Manifest(path, rules), rules, **how)]
    found = book.all("SELECT id FROM rows WHERE is_current = 1 ORDER BY number")
    return "".join(row["id"] for row in found)


@pytest.mark.parametrize("where", [(), ("spoken=no",), ("spoken!=yes",), (*SPOKEN, "part=1")])
def test_another_filter_is_refused_before_the_file_is_read(book: Book, where: tuple[str, ...]) -> None:
    """The empty text of a row that was left out is not reported, and nothing changes."""
    assert import_where(book, *SPOKEN) == "ac"
    before = book.dump()
    with pytest.raises(ManifestError) as caught:
        import_where(book, *where)
    now = " ".join(f"--where {one}" for one in where) or "no --where"
    assert f"the last run of batch m had --where spoken=yes, and this one has {now}" in caught.value.message
    assert caught.value.suggestion is not None
    assert caught.value.suggestion.options == {"--where": ["spoken=yes"]}
    assert "--refilter" in caught.value.hint
    assert book.dump() == before


def test_a_first_filter_of_a_batch_is_refused_too(book: Book) -> None:
    """It would drop paid rows from the results. A command cannot undo what batcher.toml sets."""
    content = SHEET.replace("b,,", "b,Two.,")
    assert import_where(book, content=content) == "abc"
    with pytest.raises(ManifestError, match="had no --where, and this one has --where spoken=yes") as caught:
        import_where(book, *SPOKEN, content=content)
    assert caught.value.suggestion is None
    assert "Remove --where, also from batcher.toml" in caught.value.hint


def test_refilter_accepts_another_filter_which_is_then_the_batchs(book: Book) -> None:
    """Rows that leave the batch are no longer claimed; when they return, their item is the same."""
    assert import_where(book, *SPOKEN) == "ac"
    task = book.submitted("t1")
    assert import_where(book, "part=2", refilter=True) == "c"
    assert book.do(rows_left_out, book.wanted) == 2
    assert import_where(book, "part=2") == "c"
    assert import_where(book, *SPOKEN, refilter=True) == "ac"
    assert book.state(task.key) == "submitted"
    assert len(book.claim_anew(5)) == 1


def test_the_same_filter_in_other_words_needs_no_consent(book: Book) -> None:
    assert import_where(book, "spoken=yes", "part=1", "part=2") == "ac"
    assert import_where(book, "Part=2", "part=1", "Spoken = yes") == "ac"


def test_the_filter_is_a_parse_option_of_the_batch(book: Book) -> None:
    """Other commands read the file with it; without one, nothing counts as left out."""
    import_where(book, *SPOKEN)
    assert list(book.do(last_parse_options, book.wanted[0]).where) == ["spoken=yes"]
    assert book.do(rows_left_out, book.wanted) == 1
    book.take_in("id,text\nx,One.\n", batch="other")
    assert book.do(rows_left_out, book.wanted[1:]) is None
