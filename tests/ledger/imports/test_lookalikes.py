"""Outputs whose names look the same, or are one file on some systems, are reported before anything is bought."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.errors import ManifestError
from batcher.ledger.imports import importer
from batcher.ledger.imports.preview import ImportPreview
from batcher.ledger.ledger import open_readonly
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from tests.support.ledger_kit import AT, Book


def _import(book: Book, names: list[str], batch: str = "m", out_dir: str = "audio", **how: Any) -> Manifest:
    """Import rows with these ids; return the manifest."""
    file = book.folder / f"{batch}.csv"
    lines = [f"{name},Text number {number}." for number, name in enumerate(names)]
    file.write_text("\n".join(["id,text", *lines]) + "\n", encoding="utf-8")
    rules = Rules(batch=batch, voice="anna")
    manifest = Manifest(file, rules)
    book.do(importer.import_manifest, manifest, rules, source=str(file), out_dir=out_dir, at=AT, **how)
    return manifest


def test_names_that_differ_by_case_are_a_hint_where_case_counts(book: Book) -> None:
    manifest = _import(book, ["intro", "Intro", "outro"])
    assert manifest.hints == [
        'names that differ only by case are one file on Windows and macOS: "Intro.mp3" and "intro.mp3" of line 2'
    ]


def test_names_that_differ_by_case_are_faults_where_case_does_not_count(book: Book) -> None:
    with pytest.raises(ManifestError) as refused:
        _import(book, ["intro", "Intro", "outro"], ignores_case=True)
    (fault,) = refused.value.faults
    assert 'm.csv:3: output: "Intro.mp3" looks like "intro.mp3" of line 2' in fault


@pytest.mark.parametrize(("one", "other"), [("fine", "\ufb01ne"), ("ab", "a\u2060b"), ("x1", "X\uff11")])
def test_names_that_look_the_same_are_faults_everywhere(book: Book, one: str, other: str) -> None:
    """The first to come keeps its name."""
    for names in ([one, other], [other, one]):
        with pytest.raises(ManifestError, match="1 fault"):
            _import(book, names)
    assert book.all("SELECT * FROM rows") == []


def test_an_added_row_is_compared_with_those_that_did_not_change(book: Book) -> None:
    _import(book, ["fine", "other"])
    with pytest.raises(ManifestError, match="1 fault"):
        _import(book, ["fine", "other", "\ufb01ne"])


def test_invalid_rows_are_compared_with_none(book: Book) -> None:
    book.take_in("id,text,speed\na,One.,x\nA,Two.,1\n", skip_invalid=True)
    assert [row["skipped"] for row in book.all("SELECT skipped FROM rows ORDER BY number")] == ["invalid", None]


def test_names_that_windows_does_not_accept_are_a_hint(book: Book) -> None:
    (hint,) = _import(book, ["con", "aux", "com1", "nul", "fine"]).hints
    assert hint.startswith('Windows does not accept the names of 4 outputs: "con.mp3" in line 2, "aux.mp3" in line 3')
    assert hint.endswith("…")


def test_a_preview_has_the_hints_and_writes_nothing(book: Book) -> None:
    file = book.folder / "m.csv"
    file.write_text("id,text\nnul,One.\nNUL,Two.\n")
    rules = Rules(batch="m", voice="anna")
    manifest = Manifest(file, rules)
    with open_readonly(book.address) as conn:
        ImportPreview(conn).add(manifest, rules, out_dir="audio", at=AT)
    assert len(manifest.hints) == 2


def test_names_that_look_like_those_of_another_batch_in_the_folder_are_hints(book: Book) -> None:
    _import(book, ["intro", "Outro", "fine", "x"], batch="first")
    _import(book, ["OUTRO"], batch="apart", out_dir="elsewhere")
    assert _import(book, ["Intro", "outro", "\ufb01ne", "y"]).hints == [
        "names that differ only by case are one file on Windows and macOS: "
        '"Intro.mp3" and "intro.mp3" of batch first; "outro.mp3" and "Outro.mp3" of batch first',
        'names that look the same are in the same folder: "\ufb01ne.mp3" and "fine.mp3" of batch first',
    ]
    assert _import(book, ["Intro", "outro", "\ufb01ne", "y"]).hints == []
    (hint,) = _import(book, ["Intro", "outro", "\ufb01ne", "y", "X"]).hints
    assert hint.endswith('macOS: "X.mp3" and "x.mp3" of batch first')


def test_a_name_that_is_the_file_of_another_batch_is_a_fault_where_case_does_not_count(book: Book) -> None:
    """Other names that look the same are still hints."""
    _import(book, ["intro", "fine"], batch="first")
    with pytest.raises(ManifestError) as refused:
        _import(book, ["Intro", "outro", "\ufb01ne"], ignores_case=True)
    assert refused.value.faults == [
        f'{book.folder}/m.csv:2: output: "Intro.mp3" is the file "intro.mp3" of batch first here: choose another id'
    ]
    assert len(_import(book, ["outro", "\ufb01ne"], ignores_case=True).hints) == 1


def test_a_preview_compares_with_the_batches_previewed_before(book: Book) -> None:
    with open_readonly(book.address) as conn:
        preview, hints = ImportPreview(conn), []
        for batch, name in (("first", "intro"), ("second", "Intro")):
            file = book.folder / f"{batch}.csv"
            file.write_text(f"id,text\n{name},One.\n")
            rules = Rules(batch=batch, voice="anna")
            manifest = Manifest(file, rules)
            preview.add(manifest, rules, out_dir="audio", at=AT)
            hints += manifest.hints
    assert [hint.rpartition(": ")[2] for hint in hints] == ['"Intro.mp3" and "intro.mp3" of batch first']
