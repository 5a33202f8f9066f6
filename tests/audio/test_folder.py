"""Audio on disk: whole or absent, and never written over foreign files. Against real files."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from batcher.audio import folder_mark, placing
from batcher.audio.content import digest
from batcher.audio.fingerprints import AddedNames
from batcher.audio.folder import Folder
from batcher.audio.folder_mark import Owner
from batcher.audio.store import BAD, ITEMS, Difference, Kind
from batcher.clock import Clock
from batcher.errors import BatcherError, StorageError, UsageError
from batcher.ledger.ledger import open_ledger
from batcher.ledger.lifecycle import collection
from batcher.ledger.lifecycle.repairs import SavedFile
from batcher.ledger.records import FileRecord, Output
from batcher.pipeline.delivery import Delivery
from batcher.settings import Settings
from tests.support.ledger_kit import book_in, ending, run_context, sheet

KEY = "ab" + "0" * 62
OTHER = "cd" + "1" * 62
OURS = b"speech " * 50
OLD = b"earlier speech " * 50


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Folder:
    return Folder(home, home / "audio")


def saved(home: Path, key: str = KEY, content: bytes = OURS) -> tuple[str, str]:
    """An item's saved audio: path below the ledger's folder, and hash."""
    store = Folder(home, home / "audio")
    path = store.item_path(key, "mp3")
    store.part(path).write_bytes(content)
    store.publish(path)
    return f"audio/{path}", digest(home / "audio" / path)


def output(home: Path, name: str = "a.mp3", *, linked: tuple[str, str, str] | None = None, **changes: Any) -> Output:
    """A row whose audio is saved. `linked`: output, source and hash of the last link."""
    source, sha256 = saved(home)
    values: dict[str, Any] = {"batch_id": 1, "row_id": "a", "number": 1, "key": KEY, "out_dir": "audio", "output": name}
    values |= {"saved": True, "source": source, "sha256": sha256, "linked": False}
    values |= dict(zip(("linked_output", "linked_source", "linked_sha256"), linked or (None,) * 3, strict=True))
    return Output(**(values | changes))


def target(home: Path, name: str = "a.mp3") -> Path:
    return home / "audio" / name


# --- items


def test_the_ledger_records_the_output_folder_relative_to_itself(tmp_path: Path) -> None:
    """Ledger and audio can move together."""
    assert Folder(tmp_path / "home", tmp_path / "home" / "audio").out_dir == "audio"
    assert Folder(tmp_path / "home", tmp_path / "else").out_dir == "../else"


def test_unfinished_audio_lies_under_a_hidden_name(home: Path, store: Folder) -> None:
    """In the folder of its final path, which does not exist yet."""
    path = store.item_path(KEY, "mp3")
    assert path == f".items/ab/{KEY}.mp3"
    part = store.part(path)
    assert part.parent == target(home, path).parent
    assert part.parent.is_dir()
    assert part.name.startswith(".")
    part.write_bytes(OURS)
    assert not store.holds(path, digest(part))
    for name in ("a.part", ".a.mp3", "b"):
        part.with_name(name).write_bytes(OURS)
    part.with_name(".folder.part").mkdir()
    (link := part.with_name(".link.part")).symlink_to(part.parent)
    assert set(store.leftovers()) == {part, link}


def test_publishing_moves_the_whole_part_to_its_path(home: Path, store: Folder) -> None:
    """Nothing is left over."""
    path = store.item_path(KEY, "mp3")
    part = store.part(path)
    part.write_bytes(OURS)
    store.publish(path)
    assert target(home, path).read_bytes() == OURS
    assert store.holds(path, digest(target(home, path)))
    assert not store.holds(path, "0" * 64)
    assert list(store.leftovers()) == []


def test_publishing_moves_other_content_aside(home: Path, store: Folder) -> None:
    """It is audio of the item that was paid for."""
    path = store.item_path(KEY, "mp3")
    for content in (OLD, OURS):
        store.part(path).write_bytes(content)
        store.publish(path)
    folder = target(home, path).parent
    assert {file.read_bytes() for file in folder.iterdir()} == {OLD, OURS}
    assert target(home, path).read_bytes() == OURS


def test_publishing_tells_what_it_moved_aside_and_forgets_unusable_audio(home: Path, store: Folder) -> None:
    """A link in the way is moved, and what it points to stays."""
    path = store.item_path(KEY, "mp3")
    store.part(path).write_bytes(b"<html>")
    store.part(path).chmod(0o666)
    assert [target(home, store.keep_bad(path))] == list(map(Path, store.bad(KEY)))
    assert stat.S_IMODE(Path(store.bad(KEY)[0]).stat().st_mode) == 0o600
    foreign = home / "mine.txt"
    foreign.write_bytes(OURS)
    target(home, path).symlink_to(home / "nowhere")
    store.part(path).write_bytes(OURS)
    aside = store.publish(path)
    assert aside is not None
    assert Path(aside).is_symlink()
    assert (store.bad(KEY), target(home, path).read_bytes()) == ([], OURS)
    store.part(path).write_bytes(OURS)
    assert store.publish(path) is None


@pytest.mark.parametrize("at_item", [None, OURS, OLD])
@pytest.mark.parametrize("at_output", [None, OURS, OLD])
def test_audio_is_kept_at_the_items_path_from_a_rows_output(
    home: Path, store: Folder, at_item: bytes | None, at_output: bytes | None
) -> None:
    """None is made of other content, and none is lost."""
    path = store.item_path(KEY, "mp3")
    for place, content in ((path, at_item), ("a.mp3", at_output)):
        target(home, place).parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            target(home, place).write_bytes(content)
    sha256 = hashlib.sha256(OURS).hexdigest()
    kept = store.keep("a.mp3", KEY, "mp3", sha256)
    assert kept == (path if OURS in (at_item, at_output) else None)
    assert store.holds(path, sha256) == (kept is not None)
    found = {file.read_bytes() for file in target(home, path).parent.iterdir()}
    assert found >= ({at_item} - {None})
    assert store.digest_at("a.mp3") == (None if at_output is None else hashlib.sha256(at_output).hexdigest())


@pytest.mark.parametrize("lost", [False, True])
def test_earlier_audio_whose_only_copy_is_at_the_output_is_kept_by_its_item(
    home: Path, store: Folder, lost: bool
) -> None:
    """Before the row's new audio replaces it; other content at the item's path is moved aside."""
    old_source, old_sha256 = saved(home, OTHER, OLD)
    assert store.link(output(home, source=old_source, sha256=old_sha256, key=OTHER)) is None
    if lost:
        (home / old_source).unlink()
        (home / old_source).write_bytes(b"edited")
    row = output(home, linked=("a.mp3", old_source, old_sha256))
    assert store.link(row) is None
    assert target(home).read_bytes() == OURS
    assert {file.read_bytes() for file in (home / old_source).parent.iterdir()} == {OLD, *[b"edited"] * lost}
    assert (home / old_source).read_bytes() == OLD


@pytest.mark.parametrize("owned", [False, True])
def test_audio_at_an_output_is_preserved_for_one_of_its_owners(home: Path, store: Folder, owned: bool) -> None:
    """Unless one of them has it."""
    row = output(home)
    target(home).write_bytes(OLD)
    if owned:
        saved(home, OTHER, OLD)
    assert store.preserve(row, [("audio", KEY, "mp3"), ("audio", OTHER, "mp3")], digest(target(home)))
    assert (home / (row.source or "")).read_bytes() == (OURS if owned else OLD)
    folder = (home / (row.source or "")).parent
    assert {file.read_bytes() for file in folder.iterdir()} == ({OURS} if owned else {OURS, OLD})


def test_audio_that_another_run_puts_at_an_output_meanwhile_is_not_kept_as_the_owners(
    home: Path, store: Folder
) -> None:
    """The owners of what was there before keep their own."""
    old_source, old_sha256 = saved(home, OTHER, OLD)
    row = output(home)
    assert store.link(row) is None  # by the other run
    assert not store.preserve(row, [("audio", OTHER, "mp3")], old_sha256)
    assert [file.read_bytes() for file in (home / old_source).parent.iterdir()] == [OLD]
    target(home).unlink()
    assert not store.preserve(row, [("audio", OTHER, "mp3")], None)


def test_two_runs_that_prepare_a_folder_and_link_the_same_row_are_not_in_each_others_way(home: Path) -> None:
    row = output(home)

    def work() -> None:
        for _ in range(300):
            store = Folder(home, home / "audio")
            store.prepare()
            placing.place(home / (row.source or ""), target(home))

    with ThreadPoolExecutor(2) as both:
        for one in [both.submit(work), both.submit(work)]:
            one.result()
    assert target(home).read_bytes() == OURS
    assert [path for path in (home / "audio").rglob("*") if path.name.endswith(".part")] == []


def test_audio_is_not_kept_through_a_link_that_leads_out_of_the_folder(home: Path, store: Folder) -> None:
    elsewhere = home / "elsewhere"
    elsewhere.mkdir(parents=True)
    store.place.mkdir()
    target(home).write_bytes(OURS)
    (store.place / ITEMS).symlink_to(elsewhere)
    for write in (lambda: store.keep("a.mp3", KEY, "mp3", digest(target(home))), lambda: store.part(f"{ITEMS}/ab/a")):
        with pytest.raises(StorageError, match="leads out of the output folder"):
            write()
    assert list(elsewhere.iterdir()) == []


def test_earlier_audio_that_its_item_also_has_is_not_stored_twice(home: Path, store: Folder) -> None:
    """As where the output is a copy."""
    old_source, old_sha256 = saved(home, OTHER, OLD)
    target(home).write_bytes(OLD)
    assert store.link(output(home, linked=("a.mp3", old_source, old_sha256))) is None
    assert [file.read_bytes() for file in (home / old_source).parent.iterdir()] == [OLD]


def test_earlier_audio_survives_a_power_cut(home: Path, store: Folder, disk_calls: list[tuple[str, int]]) -> None:
    """It is durable at its item's path before the output is replaced."""
    old_source, old_sha256 = saved(home, OTHER, OLD)
    (home / old_source).unlink()
    row = output(home, linked=("a.mp3", old_source, old_sha256))
    target(home).write_bytes(OLD)
    disk_calls.clear()
    assert store.link(row) is None
    at_item = disk_calls.index(("sync", (home / old_source).parent.stat().st_ino))
    at_output = disk_calls.index(("rename", target(home).stat().st_ino))
    assert at_item < at_output


def test_a_draft_of_a_link_that_is_there_already_is_removed(home: Path, store: Folder) -> None:
    row = output(home)
    assert store.link(row) is None
    target(home, ".a.mp3.part").write_bytes(b"half")
    assert store.link(row) is None
    assert sorted(file.name for file in store.place.iterdir()) == [ITEMS, "a.mp3"]


def test_a_foreign_file_is_replaced_only_on_request(home: Path, store: Folder) -> None:
    """It is not taken for the row's earlier audio, which is lost. A name that is new in its folder is noted."""
    old_source, old_sha256 = saved(home, OTHER, OLD)
    (home / old_source).unlink()
    row = output(home, linked=("a.mp3", old_source, old_sha256))
    target(home).write_bytes(b"mine")
    assert store.link(row) is not None
    assert store.link(row, replace=True) is None
    assert target(home).samefile(home / (row.source or ""))
    assert not (home / old_source).exists()
    assert store.added.checksums == {}
    assert store.link(output(home, "b.mp3")) is None
    assert list(store.added.checksums) == ["audio"]


def test_publishing_the_same_content_twice_makes_one_file(home: Path, store: Folder) -> None:
    path = store.item_path(KEY, "mp3")
    for _ in range(2):
        store.part(path).write_bytes(OURS)
        store.publish(path)
    assert [file.name for file in target(home, path).parent.iterdir()] == [f"{KEY}.mp3"]


async def test_saved_audio_survives_a_power_cut(home: Path, store: Folder, disk_calls: list[tuple[str, int]]) -> None:
    """Content, hash, name, folder and output are durable, in this order, before the item is done."""
    home.mkdir()
    with book_in(home) as book:
        book.take_in(sheet("one"))
        task = book.submitted("t1")
        book.do(collection.record_rendered, ending(task))
        path = store.item_path(task.key, "mp3")
        store.part(path).write_bytes(OURS)
        with open_ledger(book.path, "real") as ledger:
            settings = Settings(sources=(), ledger=book.path, out_dir=store.place)
            delivery = Delivery(ctx=run_context(ledger, settings), named=[])
            event.listen(ledger._engine, "commit", lambda _: disk_calls.append(("commit", 0)))
            disk_calls.clear()
            await delivery.deliver(task, FileRecord(path=path, sha256=digest(store.part(path)), bytes=len(OURS)))
        assert book.state(task.key) == "done"
    audio = home / "audio" / path
    file, folder = audio.stat().st_ino, audio.parent.stat().st_ino
    steps = [("sync", file), ("commit", 0), ("rename", file), ("sync", folder), ("rename", file), ("commit", 0)]
    assert disk_calls == steps


def test_recovered_audio_survives_a_power_cut(home: Path, store: Folder, disk_calls: list[tuple[str, int]]) -> None:
    """Found at its path or at a row's output, it is durable before the item is done."""
    (home / "audio").mkdir(parents=True)
    target(home).write_bytes(OURS)
    for _ in range(2):
        disk_calls.clear()
        path = store.keep("a.mp3", KEY, "mp3", digest(target(home)))
        assert path is not None
        assert disk_calls[-1] == ("sync", (home / "audio" / path).parent.stat().st_ino)


def test_the_mark_of_a_folder_survives_a_power_cut(
    home: Path, store: Folder, disk_calls: list[tuple[str, int]]
) -> None:
    """It is durable before the run buys anything."""
    folder_mark.sign(store, Owner(ledger_id="l", run_id="r", batches={}))
    items = home / "audio" / ITEMS
    (mark,) = items.iterdir()
    file = mark.stat().st_ino
    assert disk_calls == [("sync", file), ("rename", file), ("sync", items.stat().st_ino)]


def test_a_store_without_a_folder_has_no_leftovers(store: Folder) -> None:
    assert list(store.leftovers()) == []


# --- outputs


def test_an_output_is_a_hard_link_to_the_items_audio(home: Path, store: Folder) -> None:
    """Missing folders are made."""
    row = output(home, "sub/folder/a.mp3")
    assert not store.is_there(row.output)
    assert store.conflict(row) is None
    assert store.link(row) is None
    assert target(home, "sub/folder/a.mp3").samefile(home / (row.source or ""))
    assert store.is_there(row.output)
    assert sorted(target(home, "sub/folder").iterdir()) == [target(home, "sub/folder/a.mp3")]


def test_linking_twice_changes_nothing(home: Path, store: Folder) -> None:
    row = output(home)
    assert store.link(row) is None
    before = target(home).stat()
    assert store.link(row) is None
    assert target(home).stat().st_ctime_ns == before.st_ctime_ns


def test_a_copy_of_the_right_audio_becomes_a_link(home: Path, store: Folder) -> None:
    """Whoever put it there."""
    row = output(home)
    target(home).write_bytes(OURS)
    assert store.conflict(row) is None
    assert store.link(row) is None
    assert target(home).samefile(home / (row.source or ""))


@pytest.mark.parametrize("there", ["file", "empty", "folder", "link", "dangling"])
def test_a_foreign_file_is_never_replaced(home: Path, store: Folder, there: str) -> None:
    """The reason names the file and how to resolve the conflict."""
    row = output(home)
    foreign = home / "mine.txt"
    foreign.write_bytes(b"mine")
    match there:
        case "file" | "empty":
            target(home).write_bytes(b"mine" if there == "file" else b"")
        case "folder":
            target(home).mkdir()
        case "link" | "dangling":
            target(home).symlink_to(foreign if there == "link" else home / "nowhere")
    before = os.lstat(target(home))
    for why in (store.conflict(row), store.link(row)):
        assert why is not None
        assert str(target(home)) in why
        assert "choose another output" in why
    after = os.lstat(target(home))
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert foreign.read_bytes() == b"mine"


def test_a_foreign_file_is_found_before_the_item_is_bought(home: Path, store: Folder) -> None:
    target(home).parent.mkdir(parents=True)
    row = output(home, saved=False, source=None, sha256=None)
    assert store.conflict(row) is None
    target(home).write_bytes(b"mine")
    assert "not a file of this ledger" in (store.conflict(row) or "")


def test_a_file_where_the_output_needs_a_folder_is_named_and_stays(home: Path, store: Folder) -> None:
    row = output(home, "sub/a.mp3")
    (home / "audio" / "sub").write_bytes(b"mine")
    for why in (store.conflict(row), store.link(row)):
        assert f"{home / 'audio' / 'sub'} is in the way" in (why or "")
    assert (home / "audio" / "sub").read_bytes() == b"mine"


def test_a_rows_earlier_audio_is_replaced_at_its_output(home: Path, store: Folder) -> None:
    """The old audio stays where its item keeps it."""
    old_source, old_sha256 = saved(home, OTHER, OLD)
    old = output(home, source=old_source, sha256=old_sha256, key=OTHER)
    assert store.link(old) is None
    row = output(home, linked=("a.mp3", old_source, old_sha256))
    assert store.conflict(row) is None
    assert store.link(row) is None
    assert target(home).read_bytes() == OURS
    assert (home / old_source).read_bytes() == OLD


def test_earlier_audio_that_somebody_replaced_is_a_foreign_file(home: Path, store: Folder) -> None:
    old_source, old_sha256 = saved(home, OTHER, OLD)
    target(home).write_bytes(b"edited")
    row = output(home, linked=("a.mp3", old_source, old_sha256))
    assert store.conflict(row) is not None
    assert store.link(row) is not None
    assert target(home).read_bytes() == b"edited"


def test_a_link_at_another_output_does_not_permit_replacing_this_file(home: Path, store: Folder) -> None:
    old_source, old_sha256 = saved(home, OTHER, OLD)
    target(home).write_bytes(OLD)
    assert store.conflict(output(home, linked=("b.mp3", old_source, old_sha256))) is not None


def test_linking_deleted_audio_is_refused(home: Path, store: Folder) -> None:
    """Nothing is made of it."""
    row = output(home)
    (home / (row.source or "")).unlink()
    for one in (row, replace(row, source=None, sha256=None)):
        assert "is missing" in (store.link(one) or "")
    assert not target(home).exists()


def test_a_link_to_the_items_damaged_audio_is_still_the_ledgers_own(home: Path, store: Folder) -> None:
    row = output(home)
    assert store.link(row) is None
    target(home).write_bytes(b"damaged")
    assert store.conflict(row) is None
    assert store.conflict(replace(row, source=None, sha256=None)) is not None


@pytest.mark.parametrize(
    ("leads_to", "why"), [("..", "sub leads out of the output folder"), ("nowhere", "sub is in the way")]
)
def test_no_output_is_written_through_a_link_that_leads_out_of_the_folder_or_nowhere(
    home: Path, store: Folder, leads_to: str, why: str
) -> None:
    row = output(home, "sub/a.mp3")
    target(home, "sub").symlink_to(leads_to)
    before = sorted(home.rglob("*"))
    for found in (store.conflict(row), store.link(row), store.link(row, replace=True)):
        assert why in (found or "")
    assert not store.is_free(row.output)
    assert sorted(home.rglob("*")) == before


def test_a_link_left_unfinished_by_a_killed_run_is_completed(home: Path, store: Folder) -> None:
    row = output(home)
    target(home, ".a.mp3.part").write_bytes(b"half")
    assert store.link(row) is None
    assert target(home).read_bytes() == OURS
    assert not target(home, ".a.mp3.part").exists()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    places = [path for path in (Path("/dev/shm"), Path(tempfile.gettempdir())) if path.is_dir()]
    others = [path for path in places if path.stat().st_dev != tmp_path.stat().st_dev]
    if not others:
        pytest.skip("there is no second file system to write to")
    with tempfile.TemporaryDirectory(dir=others[0]) as folder:
        yield Path(folder)


def test_an_output_on_another_file_system_is_a_durable_copy(
    home: Path, elsewhere: Path, disk_calls: list[tuple[str, int]]
) -> None:
    """The next run recognises the copy as the ledger's own."""
    row = output(home, out_dir=os.path.relpath(elsewhere, home))
    store = Folder(home, elsewhere)
    for _ in range(2):
        assert store.link(row) is None
        assert [file.name for file in elsewhere.iterdir()] == ["a.mp3"]
        assert (elsewhere / "a.mp3").read_bytes() == OURS
        assert (elsewhere / "a.mp3").stat().st_nlink == 1
        copy = (elsewhere / "a.mp3").stat().st_ino
        assert disk_calls[-2:] == [("sync", copy), ("rename", copy)]
        assert store.conflict(row) is None


def test_case_is_ignored_where_a_folder_is_also_found_in_the_other_case(tmp_path: Path) -> None:
    """Here by a link; a folder that does not exist yet is judged by the one that will contain it."""
    (tmp_path / "audio").mkdir()
    assert not Folder(tmp_path, tmp_path / "audio").ignores_case()
    (tmp_path / "AUDIO").symlink_to("audio")
    assert Folder(tmp_path, tmp_path / "audio").ignores_case()
    assert Folder(tmp_path, tmp_path / "audio" / "1").ignores_case()
    assert not Folder(Path("/"), Path("/no-such-folder-of-batcher")).ignores_case()
    (tmp_path / "AUDIO").unlink()
    (tmp_path / "AUDIO").mkdir()
    assert not Folder(tmp_path, tmp_path / "audio").ignores_case()


@pytest.mark.parametrize(
    ("there", "name", "out_dir", "path", "same"),
    [
        ([], "a.mp3", "audio", "a.mp3", True),
        ([], "a.mp3", "linked", "a.mp3", True),
        ([], "a.mp3", "audio", "sub/a.mp3", False),
        ([], "a.mp3", "audio", "b.mp3", False),
        (["a.mp3", "A.MP3"], "a.mp3", "audio", "b.mp3", False),
        (["a.mp3"], "a.mp3", "audio", "A.mp3", False),
        (["a.mp3", "A.MP3"], "a.mp3", "linked", "A.mp3", True),
    ],
)
def test_two_names_are_one_entry_by_a_link_to_the_folder_or_on_a_disk_that_ignores_case(
    home: Path, store: Folder, there: list[str], name: str, out_dir: str, path: str, same: bool
) -> None:
    """A hard link under both names stands for a disk that ignores case."""
    row = output(home, name)
    (home / "linked").symlink_to("audio")
    for link in there:
        target(home, link).hardlink_to(home / (row.source or ""))
    assert store.is_same_entry(row, out_dir, path) is same


def test_an_output_is_free_if_nothing_is_there_and_its_folder_can_be_used(home: Path, store: Folder) -> None:
    store.place.mkdir(parents=True)
    target(home).write_bytes(b"mine")
    target(home, "dangling.mp3").symlink_to("nowhere")
    free = ["b.mp3", "c.mp3", "sub/a.mp3"]
    taken = ["a.mp3", "dangling.mp3", "a.mp3/b.mp3", "a.mp3/c.mp3"]
    for names in ([*free, *taken], [*taken, *free], [name for pair in zip(free, taken, strict=False) for name in pair]):
        assert [name for name in names if store.is_free(name)] == [name for name in names if name in free]


def test_an_items_own_file_is_recognised_at_an_output(home: Path, store: Folder) -> None:
    """A copy is not, and neither is an unfinished download."""
    row = output(home)
    assert store.link(row) is None
    target(home, "copy.mp3").write_bytes(OURS)
    store.part(store.item_path(OTHER, "wav")).write_bytes(OURS)
    target(home, "draft.wav").hardlink_to(store.part(store.item_path(OTHER, "wav")))
    names = ("a.mp3", "copy.mp3", "draft.wav", "missing.mp3")
    assert [store.item_at(replace(row, output=name)) for name in names] == [(KEY, "mp3"), None, None, None]


def test_names_that_cannot_be_outputs_do_not_count_in_the_output_folder(home: Path, store: Folder) -> None:
    """In the folders below it, every name counts."""

    def checksum(folder: str) -> int:
        names = store.names(folder, None, reserved=[".results.csv"], clock=Clock())
        assert names is not None
        return names.checksum

    target(home, "sub").mkdir(parents=True)
    for folder, name in ((".", "a.mp3"), ("sub", "a.mp3")):
        target(home, f"{folder}/{name}").write_bytes(OURS)
    before = checksum("audio")
    assert before == checksum("audio/sub") == checksum(store.folder_of("sub/a.mp3")) != 0
    for folder, name in ((".", "m.results.csv"), (".", ".mark"), ("sub", "m.results.csv")):
        target(home, f"{folder}/{name}").write_bytes(OURS)
    assert checksum("audio/sub") != before == checksum("audio") == checksum(store.folder_of("a.mp3"))


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (errno.ENOSPC, StorageError, "Free some space."),
        (errno.EDQUOT, StorageError, "Free some space."),
        (errno.EROFS, UsageError, "Choose another --out-dir."),
    ],
)
def test_a_folder_that_cannot_be_written_is_reported_before_anything_is_bought(
    store: Folder, monkeypatch: pytest.MonkeyPatch, error: int, kind: type[BatcherError], hint: str
) -> None:
    def refuse(**_: Any) -> Any:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(kind, match=f"cannot write to {store.place}: {os.strerror(error)}") as found:
        store.prepare()
    assert found.value.hint == hint


def test_a_folder_is_tried_with_a_byte_before_anything_is_bought(store: Folder) -> None:
    """On a full disk, an empty file can often still be created."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(UsageError, match="cannot write to"):
            store.prepare()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_new_names_are_noted_where_the_caller_says(home: Path) -> None:
    """All folders of a run share the note."""
    added = AddedNames()
    assert Folder(home, home / "audio", added).link(output(home)) is None
    assert list(added.checksums) == ["audio"]


# --- files beside the audio


def test_files_beside_the_audio_are_replaced_as_a_whole(home: Path, store: Folder) -> None:
    """Missing folders are made."""
    assert (store.exists(), store.identity(), store.read("sub/m.json"), store.stamp("sub/m.json")) == (
        False,
        *[None] * 3,
    )
    with store.replacing("sub/m.json", encoding="utf-8") as file:
        file.write("é")
        file.flush()
        assert store.read("sub/m.json") is None
    assert store.read("sub/m.json") == "é".encode()
    file_path = store.on_disk("sub/m.json", home)
    assert str(file_path) == store.shown("sub/m.json") == str(home / "audio" / "sub" / "m.json")
    found = file_path.stat()
    assert store.stamp("sub/m.json") == [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    for name in ("b.json", "a.json", "a.csv"):
        with store.replacing(name) as file:
            file.write(b"{}")
    assert (store.exists(), store.ending_with(".json"), store.identity()) == (True, ["a.json", "b.json"], None)
    store.prepare()
    assert store.identity() == (store.place / ITEMS).stat().st_ino


# --- verifying


def file_of(row: Output, path: str) -> SavedFile:
    """The record of the item's audio."""
    return SavedFile(
        key=KEY,
        account_id=1,
        user_id="u",
        origin="o",
        task_id="t",
        format="mp3",
        chars=10,
        out_dir="audio",
        path=path,
        sha256=row.sha256 or "",
        bytes=len(OURS),
    )


GONE, FOREIGN = Difference(Kind.MISSING), Difference(Kind.REPLACED, ours=False)


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (None, GONE),
        ("a folder", FOREIGN),
        ("a broken link", FOREIGN),
        (OURS[:9], Difference(Kind.TRUNCATED)),
        (OURS[:-1] + b"!", Difference(Kind.CHANGED)),
        (OURS + b"!", Difference(Kind.CHANGED)),
        (OURS, None),
    ],
)
def test_an_items_file_is_compared_with_the_ledger(
    home: Path, store: Folder, there: bytes | str | None, found: Difference | None
) -> None:
    row = output(home)
    path = store.item_path(KEY, "mp3")
    file = target(home, path)
    file.unlink()
    if there == "a folder":
        file.mkdir()
    elif there == "a broken link":
        file.symlink_to("nothing")
    elif isinstance(there, bytes):
        file.write_bytes(there)
    assert store.item_fault(file_of(row, path)) == found


@pytest.mark.parametrize(
    ("there", "of_item", "found"),
    [
        (None, None, GONE),
        ("a folder", None, FOREIGN),
        ("a broken link", None, FOREIGN),
        ("a link", None, None),
        ("a link", Difference(Kind.TRUNCATED, ours=False), Difference(Kind.TRUNCATED)),
        ("a link to what was set aside", None, Difference(Kind.CHANGED)),
        (OURS, GONE, None),
        ("a link to what was set aside first", None, Difference(Kind.CHANGED)),
        (OURS[:9], None, Difference(Kind.TRUNCATED)),
        (OURS[:9], Difference(Kind.CHANGED), FOREIGN),
        ("the beginning of what is gone", None, FOREIGN),
        (OURS + b"!", None, FOREIGN),
        (OURS[:-1] + b"!", None, FOREIGN),
        (OURS[:8] + b"!", None, FOREIGN),
        (OLD, None, Difference(Kind.REPLACED, ours=True)),
    ],
)
def test_a_rows_file_is_compared_with_the_ledger(
    home: Path, store: Folder, there: bytes | str | None, of_item: Difference | None, found: Difference | None
) -> None:
    """It shares the faults of the item's file if it is a link to it."""
    row, path = output(home), store.item_path(KEY, "mp3")
    file = target(home)
    if there == "a folder":
        file.mkdir()
    elif there == "a broken link":
        file.symlink_to("nothing")
    elif isinstance(there, bytes):
        file.write_bytes(there)
    elif there == "the beginning of what is gone":
        file.write_bytes(OURS[:9])
        target(home, path).unlink()
    elif there is not None:
        assert store.link(row) is None
        if there != "a link":
            file.write_bytes(b"damaged")  # both names of the file
            assert Path(store.set_aside(path)).is_file()
        if there == "a link to what was set aside first":
            target(home, path).write_bytes(b"damaged again")
            assert Path(store.set_aside(path)).is_file()
    ours = {hashlib.sha256(OLD).hexdigest()}
    assert store.output_fault(row, file_of(row, path), of_item, ours) == found


def test_links_to_outputs_are_relative_to_the_page(home: Path, store: Folder) -> None:
    store.place.mkdir(parents=True)
    assert store.links(["a b.mp3", "c/#.mp3"], store.place / "page.html", None) == ["./a%20b.mp3", "./c/%23.mp3"]
    assert store.links(["a.mp3"], home / "page.html", None) == ["./audio/a.mp3"]
    assert store.links(["a.mp3"], home / "pages" / "page.html", None) == ["./../audio/a.mp3"]
    (home / "deep" / "pages").mkdir(parents=True)
    (home / "pages").symlink_to("deep/pages")
    assert store.links(["a.mp3"], home / "pages" / "page.html", None) == ["./../../audio/a.mp3"]


def test_a_restored_item_replaces_what_is_at_its_path(home: Path, store: Folder) -> None:
    """That is set aside; an unusable download of it is no longer needed."""
    source, _ = saved(home, OTHER)
    path = store.item_path(KEY, "mp3")
    assert store.restore(path, source) is None
    assert target(home, path).read_bytes() == OURS
    target(home, path).unlink()
    target(home, path).write_bytes(OLD)
    target(home, path).with_suffix(BAD).write_bytes(b"<html>")
    aside = store.restore(path, source)
    assert (aside is not None, store.bad()) == (True, [])
    assert aside is not None
    assert (Path(aside).read_bytes(), target(home, path).read_bytes()) == (OLD, OURS)
