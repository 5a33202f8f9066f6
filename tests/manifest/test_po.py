"""gettext PO: translations as rows, their names, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batcher.manifest.reader import Manifest
from batcher.manifest.rows import Row
from batcher.manifest.rules import Rules

HEADER = 'msgid ""\nmsgstr ""\n"Language: de\\n"\n"Content-Type: text/plain; charset=UTF-8\\n"\n\n'


def read(folder: Path, content: str, name: str = "m.po", **changes: Any) -> tuple[list[Row], Manifest]:
    (folder / name).write_text(content, encoding="utf-8")
    manifest = Manifest(folder / name, Rules(**({"batch": "m", "voice": "anna"} | changes)))
    return [row for row in manifest.rows() if row.inputs], manifest


def pairs(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.id, row.inputs.text) for row in rows if row.inputs]


def said(manifest: Manifest) -> list[str]:
    return [line.rpartition("/")[2] for line in manifest.faults.lines()]


def test_a_row_is_a_translation_and_its_number_the_line_of_it(tmp_path: Path) -> None:
    entry = '# By hand\n#. Shown at night\n#: a.c:1 b.c:2\nmsgctxt "menu"\nmsgid "Open"\nmsgstr "Öffnen"\n'
    rows, manifest = read(tmp_path, HEADER + entry)
    assert [(row.number, row.inputs.text) for row in rows if row.inputs] == [(11, "Öffnen")]
    assert rows[0].extra == {
        "msgid": "Open",
        "msgctxt": "menu",
        "plural": "",
        "reference": "a.c:1 b.c:2",
        "comment": "By hand\nShown at night",
    }
    assert (manifest.notes, said(manifest)) == (["the texts are the translations into de"], [])


def test_strings_may_span_lines_and_have_escapes(tmp_path: Path) -> None:
    entry = 'msgid ""\n"a"\nmsgstr "Er sagte: \\"Halt!\\"\\n"\n"C:\\\\x, \\x41\\101\\tEnde.\\q"\n'
    assert pairs(read(tmp_path, HEADER + entry)[0])[0][1] == 'Er sagte: "Halt!"\nC:\\x, AA\tEnde.\\q'


def test_fuzzy_untranslated_and_obsolete_entries_are_left_out_and_counted(tmp_path: Path) -> None:
    entries = (
        '#, c-format, fuzzy\n#| msgid "old"\nmsgid "a"\nmsgstr "x"\n\nmsgid "b"\nmsgstr ""\n\n'
        'msgid "c"\nmsgstr " "\n\nmsgid "d"\nmsgstr "Da."\n\n#~ msgid "e"\n#~ msgstr "Weg."\n'
    )
    rows, manifest = read(tmp_path, HEADER + entries)
    assert [text for _, text in pairs(rows)] == ["Da."]
    assert manifest.notes[1] == "left out: 1 fuzzy, 2 untranslated, 1 obsolete entries"
    rows, _ = read(tmp_path, HEADER + entries, columns={"text": "msgid"})
    assert [text for _, text in pairs(rows)] == ["a", "b", "c", "d"]
    assert rows[3].extra["msgstr"] == "Da."


def test_each_plural_form_is_a_row(tmp_path: Path) -> None:
    entry = 'msgid "one day"\nmsgid_plural "some days"\nmsgstr[0] "ein Tag"\nmsgstr[1] "einige Tage"\n'
    rows, _ = read(tmp_path, entry)
    assert [(row.id[-2:], row.number, row.extra["plural"], row.extra["msgid"]) for row in rows] == [
        (".0", 3, "0", "one day"),
        (".1", 4, "1", "some days"),
    ]
    assert rows[0].id[:-2] == rows[1].id[:-2]


@pytest.mark.parametrize(
    ("context", "original", "name"),
    [
        (None, "MENU_START", "MENU_START"),
        (None, "menu.start", "menu.start"),
        (None, "Well met, traveller!", "well-met-traveller-e702637c"),
        (None, "Grüße, Änne", "grüße-änne-cc3841b0"),
        ("menu", "Open", "open-1dd84c5e"),
        (None, "Open", "open-79043608"),
        ("ST_Talk,Hello_01", "Well met.", "st-talk-hello-01-fb9b4945"),
        (None, "…", "0914e10f"),
    ],
)
def test_an_id_depends_on_context_and_original_alone(
    tmp_path: Path, context: str | None, original: str, name: str
) -> None:
    """So other entries, the order and the translation may change without renaming files."""
    given = f'msgctxt "{context}"\n' if context else ""
    rows, _ = read(tmp_path, f'{given}msgid "{original}"\nmsgstr "x"\n')
    assert rows[0].id == name
    assert rows[0].output == f"{name}.mp3"


def test_the_texts_of_a_template_are_the_originals(tmp_path: Path) -> None:
    rows, manifest = read(tmp_path, HEADER + 'msgid "Hello."\nmsgstr ""\n', "m.pot")
    assert [text for _, text in pairs(rows)] == ["Hello."]
    assert manifest.notes == ["the texts are the originals (msgid)"]


def test_a_file_without_translations_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    content = HEADER + 'msgid "Hello."\nmsgstr ""\n'
    _, manifest = read(tmp_path, content)
    assert said(manifest) == ["m.po: empty: no entry is translated: to speak the originals, pass --column text=msgid"]
    assert pairs(read(tmp_path, content, columns={"text": "msgid"})[0])[0][1] == "Hello."


def test_what_is_no_po_is_an_error_with_its_line(tmp_path: Path) -> None:
    content = HEADER + 'msgid "a"\nmsgstr "b\n\nmsgid "c"\nmsgstr "d"\nmsgstr "e"\n\nmsgid "f"\n'
    rows, manifest = read(tmp_path, content, skip_invalid=True)
    assert said(manifest) == [
        'm.po:7: "msgstr "b" is not valid PO: fix it, for example with msgfmt --check (and 1 more row: line 11)',
        "m.po:13: an entry without a msgstr: is the file complete?",
    ]
    assert manifest.faults.fatal
    assert rows == []
    assert "an entry without a msgid" in said(read(tmp_path, 'msgstr "x"\n')[1])[0]


@pytest.mark.parametrize("name", ["m.txt", "m"])
def test_po_is_recognised_by_its_beginning(tmp_path: Path, name: str) -> None:
    content = f'# German, for the game\n#\n\n{HEADER}msgid "MENU_START"\nmsgstr "Los."\n'
    assert pairs(read(tmp_path, content, name)[0]) == [("MENU_START", "Los.")]
