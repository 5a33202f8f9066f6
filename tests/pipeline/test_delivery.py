"""What a run leaves of delivered audio, and what the next run makes of deliveries that were cut short."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batcher.audio.content import digest
from batcher.errors import StorageError
from batcher.ledger.lifecycle import collection
from batcher.ledger.records import FileRecord, OpenTask
from batcher.ledger.storage import cached_facts
from batcher.pipeline.delivery import SWEPT, Delivery, recover_files, sync_part
from batcher.settings import Settings
from tests.support.fake_tts import audio_of
from tests.support.ledger_kit import AT, Book, ending, run_context
from tests.support.object_store import URL, reached

MP3 = audio_of("one", "mp3")


@pytest.fixture
def delivery(book: Book) -> Iterator[Delivery]:
    with book.ledger() as ledger:
        settings = Settings(sources=(), ledger=book.address, out_dir=book.folder / "audio")
        yield Delivery(ctx=run_context(ledger, settings), named=[book.wanted[0].batch_id])


def rendered(book: Book, task_id: str = "task_1") -> OpenTask:
    """The next item, whose audio is ready."""
    task = book.submitted(task_id)
    book.do(collection.record_rendered, ending(task, word="completed"))
    return task


def downloaded(delivery: Delivery, task: OpenTask, content: bytes = MP3) -> FileRecord:
    """The verified part of the item's audio."""
    path = delivery.ctx.store.item_path(task.key, task.format)
    part = delivery.ctx.store.part(path)
    part.write_bytes(content)
    return FileRecord(path=path, sha256=digest(part), bytes=len(content))


def outputs(book: Book) -> list[str]:
    """The outputs on disk."""
    return sorted(path.name for path in (book.folder / "audio").glob("*.mp3"))


async def test_delivered_audio_is_recorded_linked_and_counted(book: Book, delivery: Delivery) -> None:
    """Its path, content and duration are in the ledger."""
    task = rendered(book)
    file = downloaded(delivery, task)
    await delivery.deliver(task, file)
    assert (book.state(task.key), outputs(book)) == ("done", ["a.mp3"])
    stored = book.one("SELECT path, sha256, bytes, audio_seconds, out_dir FROM files")
    assert stored.pop("audio_seconds") > 0
    assert stored == {"path": file.path, "sha256": file.sha256, "bytes": len(MP3), "out_dir": "audio"}
    assert book.one("SELECT linked_key FROM rows WHERE id = 'a'") == {"linked_key": task.key}
    assert (delivery.ctx.tally.done, delivery.ctx.tally.unwritten) == (1, 0)


def test_making_a_part_durable_leaves_no_file_open(tmp_path: Path) -> None:
    """A run delivers more files than a process may have open."""
    part = tmp_path / "part"
    part.write_bytes(MP3)
    before = os.listdir("/dev/fd")  # noqa: PTH208
    sync_part(part, "mp3")
    assert os.listdir("/dev/fd") == before  # noqa: PTH208


async def test_a_part_that_was_replaced_by_a_link_is_not_delivered(book: Book, delivery: Delivery) -> None:
    """Somebody else's file would become the item's audio."""
    task = rendered(book)
    file = downloaded(delivery, task)
    part = delivery.ctx.store.part(file.path)
    part.replace(book.folder / "mine.mp3")
    part.symlink_to(book.folder / "mine.mp3")
    with pytest.raises(OSError, match="symbolic link"):
        await delivery.deliver(task, file)
    assert (book.state(task.key), outputs(book), book.all("SELECT * FROM files")) == ("rendered", [], [])


async def test_audio_in_an_object_store_leaves_no_part_on_this_host(
    book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reached(tmp_path / "store", monkeypatch) as server, book.ledger() as ledger:
        delivery = Delivery(ctx=run_context(ledger, Settings(sources=(), ledger=book.address, out_dir=URL)), named=[])
        task = rendered(book)
        file = downloaded(delivery, task)
        await delivery.deliver(task, file)
        assert server.objects()[file.path] == MP3
        assert not delivery.ctx.store.part(file.path).exists()
    assert book.state(task.key) == "done"


@pytest.mark.parametrize(("left", "state"), [("whole", "done"), ("damaged", "rendered"), ("part", "rendered")])
async def test_recorded_audio_that_a_killed_run_left_at_its_path_is_saved_by_the_next(
    book: Book, delivery: Delivery, left: str, state: str
) -> None:
    """Unless it is not what was recorded. An unfinished part is removed; its audio is downloaded again."""
    task, store = rendered(book), delivery.ctx.store
    file = downloaded(delivery, task)
    book.do(collection.record_file, task, file, out_dir=store.out_dir, at=AT)
    if left != "part":
        store.publish(file.path)
    if left == "damaged":
        Path(store.shown(file.path)).write_bytes(MP3[:-1])
    book.execute("UPDATE runs SET ended_at = ?", AT)
    await recover_files(delivery)
    is_saved = state == "done"
    assert (book.state(task.key), outputs(book)) == (state, ["a.mp3"] * is_saved)
    assert book.one("SELECT saved_at IS NOT NULL AS saved FROM files") == {"saved": is_saved}
    assert list(store.leftovers()) == []


@pytest.mark.parametrize(
    ("known", "open_tasks", "others", "remains"),
    [
        (False, False, False, False),
        (True, True, False, False),
        (True, False, False, True),
        (False, False, True, True),
        (True, True, True, True),
    ],
)
async def test_unfinished_parts_are_removed_if_there_may_be_any_and_nobody_is_writing_them(
    book: Book, delivery: Delivery, known: bool, open_tasks: bool, others: bool, remains: bool
) -> None:
    """Open tasks may have parts, and so may other runs; otherwise the ledger shows whether they are all removed."""
    if open_tasks:
        book.submitted("task_1")
    store = delivery.ctx.store
    part = store.part(store.item_path("ab" + "0" * 62, "mp3"))
    part.write_bytes(b"unfinished")
    if others:
        book.begin("run-2")
        book.execute("UPDATE runs SET ended_at = NULL")
    if known:
        book.do(cached_facts.put, SWEPT, "rows", True)
    await recover_files(delivery)
    assert part.exists() == remains
    assert bool(book.do(cached_facts.get, SWEPT)) == (known or not remains)


async def test_parts_that_cannot_be_removed_are_named(
    book: Book, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are not recorded as removed."""
    store = delivery.ctx.store
    part = store.part(store.item_path("ab" + "0" * 62, "mp3"))
    part.touch()

    def refuse(path: Path, **_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StorageError, match=r"cannot clean up .*part: Permission denied"):
        await recover_files(delivery)
    assert not book.do(cached_facts.get, SWEPT)


async def test_only_outputs_of_the_batches_that_the_run_names_count_as_unwritten(
    book: Book, delivery: Delivery, caplog: pytest.LogCaptureFixture
) -> None:
    """Another batch's output with the same audio is linked as well, or its trouble is logged."""
    book.take_in("id,text\nx,one\ny,one\nz,one\n", batch="other", out_dir="audio")
    task = rendered(book)
    file = downloaded(delivery, task)
    for name in ("a.mp3", "x.mp3", "z.mp3"):
        (book.folder / "audio" / name).write_text("mine")
    await delivery.deliver(task, file)
    assert (book.state(task.key), delivery.ctx.tally.unwritten) == ("done", 1)
    assert len([line for line in caplog.messages if line.startswith("output not written")]) == 3
    assert book.all("SELECT id FROM rows WHERE linked_key IS NOT NULL") == [{"id": "y"}]


async def test_saved_audio_is_linked_to_each_output_that_lacks_it(
    book: Book, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps of a limited number of outputs."""
    monkeypatch.setattr("batcher.pipeline.delivery._CHUNK", 2)
    task = rendered(book)
    await delivery.deliver(task, downloaded(delivery, task))
    lines = [json.dumps({"id": name, "text": "one"}) for name in "wxyz"]
    batch = book.take_in("\n".join(lines), batch="lines", suffix="jsonl")
    await delivery.link_saved([batch])
    assert outputs(book) == ["a.mp3", "w.mp3", "x.mp3", "y.mp3", "z.mp3"]
    assert book.one("SELECT count(*) AS n FROM rows WHERE linked_key = ?", task.key) == {"n": 5}
