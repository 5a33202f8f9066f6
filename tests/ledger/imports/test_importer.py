"""Importing manifests into a real ledger: versions, shared items, conflicts, all or nothing."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from batcher.errors import ManifestError
from batcher.item import Event
from batcher.ledger.imports import importer
from batcher.ledger.imports.preview import ImportPreview
from batcher.ledger.ledger import open_readonly
from batcher.ledger.lifecycle import collection
from batcher.ledger.queries import item_counts
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from tests.support.ledger_kit import Book, sheet


def rows(book: Book, batch: str = "m") -> list[dict[str, Any]]:
    """The batch's current rows."""
    return book.all(
        "SELECT rows.* FROM rows JOIN batches ON batches.id = batch_id WHERE name = ? AND is_current = 1 "
        "ORDER BY number",
        batch,
    )


def ids(book: Book, batch: str = "m") -> list[str]:
    return [row["id"] for row in rows(book, batch)]


def item_count(book: Book) -> int:
    return int(book.one("SELECT count(*) AS n FROM items")["n"])


def faults(book: Book, content: str, **how: Any) -> list[str]:
    """The faults of a manifest that is refused, without the folder's name."""
    with pytest.raises(ManifestError) as caught:
        book.take_in(content, **how)
    return [line.removeprefix(f"{book.folder}/") for line in caught.value.faults]


def test_a_row_is_stored_with_its_output_its_item_and_the_carried_columns(book: Book) -> None:
    """Items start as pending."""
    wanted = book.take_in("id,text,voice,mood,speed\na,Hällo 世界,zoë,sad,1.5\n")
    assert (wanted.name, wanted.version) == ("m", 1)
    (row,) = rows(book)
    assert (row["id"], row["number"], row["line"], row["take"], row["output"]) == ("a", 2, 2, 1, "a.mp3")
    assert (row["extra"], row["skipped"]) == ('{"mood": "sad"}', None)
    item = book.item(row["item_key"])
    assert (item["text"], item["voice"], item["params"]) == ("Hällo 世界", "zoë", '{"speed": 1.5}')
    assert (item["state"], item["attempt"], item["task_id"]) == ("pending", 0, None)


def test_an_unchanged_file_is_the_same_version(book: Book) -> None:
    """Importing an unchanged manifest again only changes the time of the import."""
    first = book.take_in(sheet("one", "two"))
    before = rows(book), book.all("SELECT * FROM items")
    assert book.take_in(sheet("one", "two"), at=1.0) == first
    assert (rows(book), book.all("SELECT * FROM items")) == before


@pytest.mark.parametrize("how", [{"voice": "bert"}, {"filename": "x-{id}.{format}"}, {"format": "wav"}])
def test_other_rules_are_another_version(book: Book, how: dict[str, Any]) -> None:
    """The same file imported by other rules is the batch's next version."""
    assert book.take_in(sheet("one")).version == 1
    assert book.take_in(sheet("one"), **how).version == 2
    assert book.take_in(sheet("one"), **how).version == 2


def test_a_changed_file_is_the_next_version(book: Book) -> None:
    """Missing rows are no longer current, unchanged rows keep their item, and a new text is a new item."""
    book.take_in(sheet("one", "two", "three"))
    old = {row["id"]: row["item_key"] for row in rows(book)}
    wanted = book.take_in("id,text\nc,three\na,changed\n")
    assert wanted.version == 2
    now = {row["id"]: row["item_key"] for row in rows(book)}
    assert list(now) == ["c", "a"]
    assert now["c"] == old["c"]
    assert now["a"] not in old.values()
    assert book.do(item_counts.count, [wanted]).rows == 2
    assert book.item(old["b"])["state"] == "pending"


def test_a_row_that_comes_back_uses_its_old_item(book: Book) -> None:
    """A row that was missing in one version is not bought again."""
    book.take_in(sheet("one", "two"))
    task = book.submitted("t1")
    book.take_in("id,text\nb,two\n")
    book.take_in(sheet("one", "two"))
    assert rows(book)[0]["item_key"] == task.key
    assert book.state(task.key) == "submitted"
    assert item_count(book) == 2


def test_an_import_does_not_change_existing_items(book: Book) -> None:
    """Importing its manifest again changes no item, in any state."""
    book.take_in(sheet("one", "two", "three", "four"))
    book.submitted("t1")
    for event in (Event.LOST, Event.REJECTED):
        (claimed,) = book.claim()
        book.record(book.answer(claimed, event))
    before = book.all("SELECT * FROM items ORDER BY key")
    book.take_in(sheet("one", "two", "three", "four") + "e,five\n", at=2.0)
    after = [row for row in book.all("SELECT * FROM items ORDER BY key") if row["text"] != "five"]
    assert after == before


def test_rows_with_the_same_inputs_share_one_item(book: Book) -> None:
    """Also across manifests; another take is another item."""
    book.take_in("id,text,take\na,same,\nb,same,1\nc,same,2\n", batch="first")
    book.take_in("id,text\nx,same\n", batch="second")
    keys = [row["item_key"] for row in rows(book, "first") + rows(book, "second")]
    assert keys[0] == keys[1] == keys[3] != keys[2]
    assert item_count(book) == 2


def test_later_imports_use_the_latest_take_of_a_row(book: Book) -> None:
    """Imports of a manifest without takes use the latest take of each row, where it is not the first."""
    book.take_in("id,text,take\na,one,3\nb,two,\nc,three,2\n")
    takes = book.do(importer.highest_takes, "m")
    assert takes == {"a": 3, "c": 2}
    before = {row["id"]: row["item_key"] for row in rows(book)}
    book.take_in(sheet("one", "two", "three"), takes=takes)
    assert {row["id"]: row["item_key"] for row in rows(book)} == before
    assert book.do(importer.highest_takes, "other") == {}


@pytest.mark.parametrize(
    ("content", "how", "fault"),
    [
        (
            "id,text,output\na,one,1.mp3\n\nb,two,2.mp3\na,three,3.mp3\n",
            {},
            'm.csv:5: id: "a" is taken by line 2',
        ),
        (
            "id,text,output\na,one,x.mp3\nb,two,y.mp3\nc,three,./x.mp3\n",
            {},
            'm.csv:4: output: "x.mp3" is taken by line 2',
        ),
        (
            "id,text\na,one\nb,two\n",
            {"filename": "same.{format}"},
            'm.csv:3: output: "same.mp3" is taken by line 2',
        ),
    ],
)
def test_a_repeated_id_or_output_is_a_fault_of_the_later_row(
    book: Book, content: str, how: dict[str, Any], fault: str
) -> None:
    """The fault names the line of the second row and of the first."""
    assert faults(book, content, **how) == [fault]


def test_every_repeated_id_is_reported(book: Book) -> None:
    """Repeats of the same id are reported on one line."""
    found = faults(book, "id,text,output\na,1,1\nb,2,2\na,3,3\nb,4,4\na,5,5\n")
    assert len(found) == 2
    assert found[0].startswith('m.csv:4: id: "a" is taken by line 2')
    assert found[0].endswith("line 6)")
    assert found[1] == 'm.csv:5: id: "b" is taken by line 3'


def test_an_output_of_another_batch_is_a_fault(book: Book) -> None:
    """The fault names the other batch and the options to change; in another folder the output is free."""
    book.take_in(sheet("one", "two"), batch="first")
    (fault,) = faults(book, "id,text\nz,zero\nb,other\n", batch="second")
    assert fault.startswith('second.csv:3: output: "b.mp3" belongs to batch "first"')
    assert "--filename" in fault
    assert ids(book, "second") == []
    book.take_in("id,text\nz,zero\nb,other\n", batch="second", out_dir="elsewhere")


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (("audio", "sub/x.mp3"), ("audio/sub", "x.mp3"), True),
        (("audio/sub", "x.mp3"), ("audio", "sub/x.mp3"), True),
        (("audio", "x.mp3"), ("audio/sub", "x.mp3"), False),
        (("audio/sub", "x.mp3"), ("audio", "x.mp3"), False),
        (("audio/one", "x.mp3"), ("audio/two", "x.mp3"), False),
    ],
)
def test_outputs_are_compared_as_files_if_one_output_folder_is_inside_the_other(
    book: Book, first: tuple[str, str], second: tuple[str, str], clash: bool
) -> None:
    """The same file under two output folders is a fault; the same name in two folders is none."""
    book.take_in(f"id,text,output\na,one,{first[1]}\n", batch="first", out_dir=first[0])
    content = f"id,text,output\nz,zero,z.mp3\nb,two,{second[1]}\n"
    if clash:
        (fault,) = faults(book, content, batch="second", out_dir=second[0])
        assert fault.startswith(f'second.csv:3: output: "{second[1]}" belongs to batch "first"')
    else:
        book.take_in(content, batch="second", out_dir=second[0])


def test_an_output_that_another_batch_gave_up_is_free(book: Book) -> None:
    """The other batch's rows that are no longer current do not count."""
    book.take_in(sheet("one", "two"), batch="first")
    book.take_in(sheet("one"), batch="first")
    book.take_in("id,text\nb,other\n", batch="second")
    assert ids(book, "second") == ["b"]


@pytest.mark.parametrize(
    "content",
    [
        "id,text\na,one\n\nc,three\nd,four\n",
        "id,text\n\nb,two\n,\nd,four\n",
        "id,text\n\n\n\nb,two\nd,four\n",
        "id,text\nd,four\n\n\n\nb,two\nx,new\n",
        "id,text\n\n\n\n\n\n\nb,two\n",
    ],
)
def test_a_row_that_was_blanked_is_no_longer_current(book: Book, content: str) -> None:
    """Numbers have gaps, and the old row in a gap is neither kept nor bought. A plan foresees it."""
    book.take_in("id,text\na,one\nb,two\nc,three\nd,four\n")
    expected = [line.split(",")[0] for line in content.splitlines()[1:] if line.strip(",")]
    (book.folder / "m.csv").write_text(content)
    rules = Rules(batch="m", voice="anna")
    with open_readonly(book.address, "real") as conn:
        preview = ImportPreview(conn)
        preview.add(Manifest(book.folder / "m.csv", rules), rules, out_dir="audio", at=1.0)
        assert preview.counts().rows == len(expected)
    book.take_in(content)
    assert ids(book) == expected
    assert [row["number"] for row in rows(book)] == [
        number for number, line in enumerate(content.splitlines(), 1) if line.strip(",") and number > 1
    ]


def test_skip_invalid_imports_the_valid_rows_and_stores_why_others_are_not(book: Book) -> None:
    """Valid rows are imported; invalid ones are stored with the reason and have no item."""
    book.take_in("id,text\nc,taken\n", batch="other")
    content = "id,text,speed\na,one,\nb,two,fast\na,three,\nc,four,\nd,,\n"
    wanted = book.take_in(content, skip_invalid=True)
    found = rows(book)
    assert [row["number"] for row in found] == [2, 3, 4, 5, 6]
    assert [row["skipped"] for row in found] == [None, "invalid", "invalid", "invalid", "invalid"]
    assert '"fast" is not a number' in found[1]["reason"]
    assert found[2]["reason"] == '"a" is taken by line 2'
    assert 'belongs to batch "other"' in found[3]["reason"]
    assert "text is empty" in found[4]["reason"]
    assert {row["item_key"] is None for row in found[1:]} == {True}
    counts = book.do(item_counts.count, [wanted])
    assert (counts.rows, counts.items, counts.invalid) == (5, 1, 4)


@pytest.mark.parametrize("order", [("a", "a", "a#2"), ("a#3", "a", "a"), ("a", "a#3", "a")])
def test_a_rejected_repeat_never_replaces_a_valid_row(book: Book, order: tuple[str, str, str]) -> None:
    """Regardless of the form of the ids, all rows are stored and the valid ones are to buy."""
    content = "id,text,output\n" + "".join(f"{id_},text {n},{n}.mp3\n" for n, id_ in enumerate(order))
    wanted = book.take_in(content, skip_invalid=True)
    counts = book.do(item_counts.count, [wanted])
    assert (counts.rows, counts.items, counts.invalid) == (3, 2, 1)


def test_rows_without_text_are_faults_unless_skip_empty_is_set(book: Book) -> None:
    """With `skip_empty` they are stored as empty."""
    assert len(faults(book, "id,text\na,one\nb,\n")) == 1
    wanted = book.take_in("id,text\na,one\nb,\n", skip_empty=True)
    counts = book.do(item_counts.count, [wanted])
    assert (counts.rows, counts.items, counts.empty, counts.invalid) == (2, 1, 1, 0)


@pytest.mark.parametrize("last", ['z,"never closed\n', "a,again\n", "z,\n", "z,one,too,many\n"])
def test_a_fault_in_the_last_row_leaves_the_ledger_unchanged(book: Book, last: str) -> None:
    """The import stores all rows or none; the corrected file is imported."""
    book.take_in(sheet("old"))
    good = "id,text\n" + "".join(f"a{number},text {number}\n" for number in range(1200)) + "a,old\n"
    before = book.dump()
    assert faults(book, good + last)
    assert book.dump() == before
    assert book.take_in(good).version == 2
    assert len(rows(book)) == 1201


def test_another_output_folder_clears_the_links(book: Book) -> None:
    """The rows have to be linked again in the new folder."""
    book.take_in(sheet("one"))
    (row,) = rows(book)
    book.do(collection.record_links, [(row["batch_id"], "a", row["item_key"], "a.mp3")], at=1.0)
    book.take_in(sheet("one"))
    assert rows(book)[0]["linked_key"] == row["item_key"]
    book.take_in(sheet("one"), out_dir="elsewhere")
    assert (rows(book)[0]["linked_key"], rows(book)[0]["linked_output"]) == (None, None)


def _peak(book: Book, number: int) -> int:
    """Peak memory of an import of `number` rows, in bytes."""
    content = "text\n" + "".join(f"sentence {line} of {number}\n" for line in range(number))
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        book.take_in(content, batch=f"rows{number}", filename="{batch}-{row}.{format}")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before


def test_memory_does_not_grow_with_long_texts(book: Book) -> None:
    """A hundred texts of 200 kB are not in memory at the same time."""
    content = "text\n" + "".join(f"{line} {'word ' * 40_000}\n" for line in range(100))
    (book.folder / "m.csv").write_text(content)
    size = len(content)
    del content
    rules = Rules(batch="m", voice="anna")
    manifest = Manifest(book.folder / "m.csv", rules)
    tracemalloc.start()
    try:
        book.do(importer.import_manifest, manifest, rules, source="m.csv", out_dir="audio", at=1.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 2


@pytest.mark.slow
def test_memory_does_not_grow_with_the_manifest(book: Book) -> None:
    """Five times the rows take about the same memory."""
    small = _peak(book, 2_000)
    large = _peak(book, 10_000)
    assert large < 1.2 * small + 200_000
