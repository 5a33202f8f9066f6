"""A manifest's way into a real ledger: versions, shared items, repeats, all or nothing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batcher.errors import ManifestError
from batcher.item import Event
from batcher.ledger.imports import importer
from batcher.ledger.lifecycle import collection
from batcher.ledger.queries import item_counts
from batcher.manifest.reader import Manifest
from batcher.manifest.rows import Rules
from tests.support.ledger_kit import Book, book_in, sheet


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with book_in(tmp_path) as made:
        yield made


def rows(book: Book, batch: str = "m") -> list[dict[str, Any]]:
    """The batch's rows as they read now."""
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
    """What is wrong with a manifest that is refused, without the folder's name."""
    with pytest.raises(ManifestError) as caught:
        book.take_in(content, **how)
    return [line.removeprefix(f"{book.path.parent}/") for line in caught.value.faults]


def test_rows_and_items(book: Book) -> None:
    """Every row is kept with its place, its output, its item and what it carries; items start out pending."""
    wanted = book.take_in("id,text,voice,mood,speed\na,Hällo 世界,zoë,sad,1.5\n")
    assert (wanted.name, wanted.version) == ("m", 1)
    (row,) = rows(book)
    assert (row["id"], row["number"], row["line"], row["take"], row["output"]) == ("a", 1, 2, 1, "a.mp3")
    assert (row["extra"], row["skipped"]) == ('{"mood": "sad"}', None)
    item = book.item(row["item_key"])
    assert (item["text"], item["voice"], item["params"]) == ("Hällo 世界", "zoë", '{"speed": 1.5}')
    assert (item["state"], item["attempt"], item["task_id"]) == ("pending", 0, None)


def test_the_same_file_is_the_same_version(book: Book) -> None:
    """Importing an unchanged manifest again changes nothing but when it was read."""
    first = book.take_in(sheet("one", "two"))
    before = rows(book), book.all("SELECT * FROM items")
    assert book.take_in(sheet("one", "two"), at=1.0) == first
    assert (rows(book), book.all("SELECT * FROM items")) == before


@pytest.mark.parametrize("how", [{"voice": "bert"}, {"filename": "x-{id}.{format}"}, {"format": "wav"}])
def test_other_rules_are_another_version(book: Book, how: dict[str, Any]) -> None:
    """The same file read by other rules is the batch's next version."""
    assert book.take_in(sheet("one")).version == 1
    assert book.take_in(sheet("one"), **how).version == 2
    assert book.take_in(sheet("one"), **how).version == 2


def test_a_changed_file_is_the_next_version(book: Book) -> None:
    """Rows that are gone are no longer current, kept rows keep their item, new text is a new item."""
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


def test_a_row_that_comes_back(book: Book) -> None:
    """A row that was gone for a version stands for the item that it had: nothing is bought anew."""
    book.take_in(sheet("one", "two"))
    task = book.submitted("t1")
    book.take_in("id,text\nb,two\n")
    book.take_in(sheet("one", "two"))
    assert rows(book)[0]["item_key"] == task.key
    assert book.state(task.key) == "submitted"
    assert item_count(book) == 2


def test_an_import_leaves_items_in_their_state(book: Book) -> None:
    """Whatever has happened to an item, reading its manifest again does not touch it."""
    book.take_in(sheet("one", "two", "three", "four"))
    book.submitted("t1")
    for event in (Event.LOST, Event.REJECTED):
        (claimed,) = book.claim()
        book.record(book.answer(claimed, event))
    before = book.all("SELECT * FROM items ORDER BY key")
    book.take_in(sheet("one", "two", "three", "four") + "e,five\n", at=2.0)
    after = [row for row in book.all("SELECT * FROM items ORDER BY key") if row["text"] != "five"]
    assert after == before


def test_rows_share_items(book: Book) -> None:
    """Rows with the same inputs share one item, across manifests too; another take is another item."""
    book.take_in("id,text,take\na,same,\nb,same,1\nc,same,2\n", batch="first")
    book.take_in("id,text\nx,same\n", batch="second")
    keys = [row["item_key"] for row in rows(book, "first") + rows(book, "second")]
    assert keys[0] == keys[1] == keys[3] != keys[2]
    assert item_count(book) == 2


def test_takes_are_kept(book: Book) -> None:
    """A row's take is remembered for imports that do not name it, where it is not the first."""
    book.take_in("id,text,take\na,one,3\nb,two,\nc,three,2\n")
    takes = book.do(importer.latest_takes, "m")
    assert takes == {"a": 3, "c": 2}
    before = {row["id"]: row["item_key"] for row in rows(book)}
    book.take_in(sheet("one", "two", "three"), takes=takes)
    assert {row["id"]: row["item_key"] for row in rows(book)} == before
    assert book.do(importer.latest_takes, "other") == {}


@pytest.mark.parametrize(
    ("content", "how", "fault"),
    [
        (
            "id,text,output\na,one,1.mp3\n\nb,two,2.mp3\na,three,3.mp3\n",
            {},
            "m.csv:5: id: 'a' is taken by line 2",
        ),
        (
            "id,text,output\na,one,x.mp3\nb,two,y.mp3\nc,three,./x.mp3\n",
            {},
            "m.csv:4: output: 'x.mp3' is taken by line 2",
        ),
        (
            "id,text\na,one\nb,two\n",
            {"filename": "same.{format}"},
            "m.csv:3: output: 'same.mp3' is taken by line 2",
        ),
    ],
)
def test_repeats_name_both_lines(book: Book, content: str, how: dict[str, Any], fault: str) -> None:
    """An id or an output used twice is reported with the line of the second and of the first."""
    assert faults(book, content, **how) == [fault]


def test_all_repeats_are_told(book: Book) -> None:
    """Every repeated id is reported, and those of one id on one line."""
    told = faults(book, "id,text,output\na,1,1\nb,2,2\na,3,3\nb,4,4\na,5,5\n")
    assert len(told) == 2
    assert told[0].startswith("m.csv:4: id: 'a' is taken by line 2")
    assert told[0].endswith("line 6)")
    assert told[1] == "m.csv:5: id: 'b' is taken by line 3"


def test_outputs_of_another_batch(book: Book) -> None:
    """An output that another batch has in the same folder is refused with that batch's name and the ways out."""
    book.take_in(sheet("one", "two"), batch="first")
    (told,) = faults(book, "id,text\nz,zero\nb,other\n", batch="second")
    assert told.startswith("second.csv:3: output: 'b.mp3' belongs to batch 'first'")
    assert "--filename" in told
    assert ids(book, "second") == []
    book.take_in("id,text\nz,zero\nb,other\n", batch="second", out_dir="elsewhere")


def test_outputs_that_were_given_up(book: Book) -> None:
    """An output that another batch no longer has is free."""
    book.take_in(sheet("one", "two"), batch="first")
    book.take_in(sheet("one"), batch="first")
    book.take_in("id,text\nb,other\n", batch="second")
    assert ids(book, "second") == ["b"]


def test_skip_invalid(book: Book) -> None:
    """With invalid rows skipped the good ones go in, and the others are kept with the reason."""
    book.take_in("id,text\nc,taken\n", batch="other")
    content = "id,text,speed\na,one,\nb,two,fast\na,three,\nc,four,\nd,,\n"
    wanted = book.take_in(content, skip_invalid=True)
    found = rows(book)
    assert [row["number"] for row in found] == [1, 2, 3, 4, 5]
    assert [row["skipped"] for row in found] == [None, "invalid", "invalid", "invalid", "invalid"]
    assert '"fast" is not a number' in found[1]["reason"]
    assert found[2]["reason"] == "'a' is taken by line 2"
    assert "belongs to batch 'other'" in found[3]["reason"]
    assert "text is empty" in found[4]["reason"]
    assert {row["item_key"] is None for row in found[1:]} == {True}
    counts = book.do(item_counts.count, [wanted])
    assert (counts.rows, counts.items, counts.invalid) == (5, 1, 4)


@pytest.mark.parametrize("order", [("a", "a", "a#2"), ("a#3", "a", "a"), ("a", "a#3", "a")])
def test_no_row_is_swallowed(book: Book, order: tuple[str, str, str]) -> None:
    """However ids look, a skipped repeat never takes a good row's place: all rows are there, the good ones to buy."""
    content = "id,text,output\n" + "".join(f"{id_},text {n},{n}.mp3\n" for n, id_ in enumerate(order))
    wanted = book.take_in(content, skip_invalid=True)
    counts = book.do(item_counts.count, [wanted])
    assert (counts.rows, counts.items, counts.invalid) == (3, 2, 1)


def test_empty_rows_are_skipped_on_demand(book: Book) -> None:
    """Rows without text are kept as empty when that was asked for, and are a fault otherwise."""
    assert len(faults(book, "id,text\na,one\nb,\n")) == 1
    wanted = book.take_in("id,text\na,one\nb,\n", skip_empty=True)
    counts = book.do(item_counts.count, [wanted])
    assert (counts.rows, counts.items, counts.empty, counts.invalid) == (2, 1, 1, 0)


@pytest.mark.parametrize("last", ['z,"never closed\n', "a,again\n", "z,\n", "z,one,too,many\n"])
def test_all_or_nothing(book: Book, last: str) -> None:
    """A fault in the last of many rows leaves the ledger as it was, and the mended file goes in."""
    book.take_in(sheet("old"))
    good = "id,text\n" + "".join(f"a{number},text {number}\n" for number in range(1200)) + "a,old\n"
    before = book.dump()
    assert faults(book, good + last)
    assert book.dump() == before
    assert book.take_in(good).version == 2
    assert len(rows(book)) == 1201


def test_another_output_folder_forgets_links(book: Book) -> None:
    """When a batch's files go elsewhere, its rows are to be linked there again."""
    book.take_in(sheet("one"))
    (row,) = rows(book)
    book.do(collection.record_links, [(row["batch_id"], "a", row["item_key"], "a.mp3")])
    book.take_in(sheet("one"))
    assert rows(book)[0]["linked_key"] == row["item_key"]
    book.take_in(sheet("one"), out_dir="elsewhere")
    assert (rows(book)[0]["linked_key"], rows(book)[0]["linked_output"]) == (None, None)


def _peak(book: Book, number: int) -> int:
    """Bytes of Python's memory at the peak of an import of `number` rows."""
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
    """A hundred texts of 200 kB each are not held together."""
    content = "text\n" + "".join(f"{line} {'word ' * 40_000}\n" for line in range(100))
    book.path.with_name("m.csv").write_text(content)
    size = len(content)
    del content
    rules = Rules(batch="m", voice="anna")
    manifest = Manifest(book.path.with_name("m.csv"), rules)
    tracemalloc.start()
    try:
        book.do(importer.import_manifest, manifest, rules, source="m.csv", out_dir="audio", at=1.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 2


def test_memory_does_not_grow_with_the_manifest(book: Book) -> None:
    """Ten times the rows take about the same memory."""
    small = _peak(book, 5_000)
    large = _peak(book, 25_000)
    assert large < 1.2 * small + 200_000
