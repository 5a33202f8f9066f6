"""Audio in an object store: created once, whole, and never over what is not ours. Against a real server."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from batcher.audio import folder_mark, objects
from batcher.audio.bucket import Bucket
from batcher.audio.content import digest
from batcher.audio.folder import Folder
from batcher.audio.folder_mark import Owner
from batcher.audio.io_threads import Disk
from batcher.audio.objects import OutageError
from batcher.audio.store import Difference, Kind, Store
from batcher.audio.stores import Stores
from batcher.errors import StorageError, UsageError
from batcher.ledger.lifecycle.repairs import SavedFile
from batcher.ledger.records import Output
from tests.support.object_store import SLOW_SECONDS, URL, Fault, ObjectStore, reached

KEY = "ab" + "0" * 62
OTHER = "cd" + "1" * 62
OURS = b"speech " * 50
OLD = b"earlier speech " * 50


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with reached(tmp_path / "store", monkeypatch) as store:
        yield store


@pytest.fixture
def store(tmp_path: Path, server: ObjectStore) -> Bucket:
    return Bucket(tmp_path / "home", URL)


def publish(store: Store, content: bytes = OURS, key: str = KEY) -> tuple[str, str]:
    """Publish an item's audio: its path, and its hash."""
    path = store.item_path(key, "mp3")
    part = store.part(path)
    part.write_bytes(content)
    sha256 = digest(part)
    store.publish(path)
    part.unlink(missing_ok=True)
    return path, sha256


def output(store: Store, name: str = "a.mp3", *, linked: tuple[str, str, str] | None = None, **changes: Any) -> Output:
    """A row whose audio is saved. `linked`: output, source and hash of the last link."""
    path, sha256 = publish(store)
    values: dict[str, Any] = {"batch_id": 1, "row_id": "a", "number": 1, "key": KEY, "out_dir": store.out_dir}
    values |= {"output": name, "saved": True, "source": f"{store.out_dir}/{path}", "sha256": sha256, "linked": False}
    values |= dict(zip(("linked_output", "linked_source", "linked_sha256"), linked or (None,) * 3, strict=True))
    return Output(**(values | changes))


def once(fault: Fault, method: str, ending: str = "") -> Any:
    """A fault of the first request with this method whose key ends so."""
    left = [fault]
    return lambda used, key: left.pop() if left and used == method and key.endswith(ending) else None


# --- publishing


def test_an_item_is_one_object_under_its_key(server: ObjectStore, store: Bucket) -> None:
    path, sha256 = publish(store)
    assert server.objects() == {path: OURS}
    assert server.sha256s == {f"book/{path}": sha256}
    assert store.holds(path, sha256)
    assert not store.holds(path, "0" * 64)


@pytest.mark.parametrize("has_attributes", [True, False])
def test_publishing_the_same_content_twice_makes_one_object(
    server: ObjectStore, store: Bucket, has_attributes: bool
) -> None:
    """Its own attribute shows that it is the same; or its content, where attributes are lost."""
    path, _ = publish(store)
    if not has_attributes:
        server.sha256s.clear()
    publish(store)
    assert server.objects() == {path: OURS}


def test_a_put_whose_answer_is_lost_is_recognised_as_our_own(server: ObjectStore, store: Bucket) -> None:
    """The library repeats it, and the store then says that it exists."""
    server.faults = once(Fault.LOST, "PUT")
    path, _ = publish(store)
    assert [method for method, _ in server.requests] == ["PUT", "PUT", "HEAD"]
    assert server.objects() == {path: OURS}


def test_a_store_that_is_busy_with_the_name_is_asked_again(server: ObjectStore, store: Bucket) -> None:
    """Though the library reports that the object exists."""
    server.faults = once(Fault.BUSY, "PUT")
    path, _ = publish(store)
    assert server.objects() == {path: OURS}


def test_other_content_at_an_items_path_is_set_aside(server: ObjectStore, store: Bucket) -> None:
    """It is audio of the item that was paid for."""
    publish(store, OLD)
    path, _ = publish(store)
    assert server.objects()[path] == OURS
    assert sorted(server.objects().values()) == sorted([OLD, OURS])


def test_an_unreachable_store_is_an_outage_and_loses_nothing(server: ObjectStore, store: Bucket) -> None:
    server.faults = lambda *_: Fault.DOWN
    with pytest.raises(OutageError) as caught:
        publish(store)
    assert (caught.value.errno, str(caught.value.filename).startswith(URL)) == (errno.EIO, True)
    assert store.part(store.item_path(KEY, "mp3")).read_bytes() == OURS


def test_a_download_that_failed_its_checks_is_stored_for_inspection(server: ObjectStore, store: Bucket) -> None:
    path = store.item_path(KEY, "mp3")
    for content in (b"<html>", b"<html>again"):
        store.part(path).write_bytes(content)
        assert store.keep_bad(path) == f".items/ab/{KEY}.bad"
    assert store.bad(KEY) == [f"{URL}/.items/ab/{KEY}.bad"]
    assert list(server.objects().values()) == [b"<html>again"]


def test_a_store_that_never_answers_is_an_outage_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts connections, and that is all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "key")
        for name in ("REQUEST_SECONDS", "TRANSFER_SECONDS", "RETRY_SECONDS"):
            monkeypatch.setattr(objects, name, 0.2)
        began = time.monotonic()
        with pytest.raises(OutageError):
            publish(Bucket(tmp_path, URL))
        assert time.monotonic() - began < 5


@pytest.mark.anyio
async def test_a_slow_store_holds_up_neither_the_event_loop_nor_other_requests(
    server: ObjectStore, store: Bucket
) -> None:
    server.faults = lambda *_: Fault.SLOW
    disk, gaps = Disk(remote=True), [0.0]

    async def tick() -> None:
        while True:
            before = anyio.current_time()
            await anyio.sleep(0.01)
            gaps.append(anyio.current_time() - before)

    began = anyio.current_time()
    async with anyio.create_task_group() as ticking:
        ticking.start_soon(tick)
        async with anyio.create_task_group() as looking:
            for number in range(4):
                looking.start_soon(disk.do, store.is_there, f"{number}.mp3")
        ticking.cancel_scope.cancel()
    assert anyio.current_time() - began < 3 * SLOW_SECONDS
    assert max(gaps) < SLOW_SECONDS


# --- the probe


def test_a_store_that_refuses_to_create_twice_may_be_used(server: ObjectStore, store: Bucket) -> None:
    """A second run needs one request."""
    store.prepare()
    assert [method for method, _ in server.requests] == ["PUT", "PUT"]
    store.prepare()
    assert [method for method, _ in server.requests] == ["PUT", "PUT", "PUT", "HEAD"]


def test_a_store_that_is_busy_proves_nothing(server: ObjectStore, store: Bucket) -> None:
    """It may overwrite all the same."""
    server.faults = lambda method, _: Fault.BUSY if method == "PUT" else None
    with pytest.raises(StorageError, match="neither has the object nor creates it"):
        store.prepare()


@pytest.mark.parametrize(("fault", "kind"), [(Fault.DENIED, UsageError), (Fault.DOWN, StorageError)])
def test_a_store_that_cannot_be_written_is_reported_before_anything_is_bought(
    server: ObjectStore, store: Bucket, fault: Fault, kind: type[Exception]
) -> None:
    server.faults = lambda *_: fault
    with pytest.raises(kind, match=f"cannot write to {URL}: "):
        store.prepare()


def test_a_bucket_that_does_not_exist_is_reported(server: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such bucket"):
        Bucket(tmp_path, "s3://another/book").prepare()


def test_missing_credentials_are_reported_with_their_variables(
    server: ObjectStore, store: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library then asks where a cloud gives credentials to its machines, here to one that has none."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9/169.254.169.254")
    with pytest.raises(UsageError, match=r"no credentials in the environment \(AWS_…\)"):
        store.prepare()


def test_plain_http_to_another_machine_must_be_permitted(
    server: ObjectStore, store: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = server.environment["AWS_ENDPOINT_URL"].replace("127.0.0.1", "127.0.0.2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", elsewhere)
    with pytest.raises(UsageError, match="AWS_ALLOW_HTTP=true permits"):
        store.prepare()
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    with pytest.raises(StorageError, match="error sending request"):
        store.prepare()


def test_incomplete_settings_of_a_store_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(UsageError, match="Account must be specified"):
        Bucket(tmp_path, "az://container/book").prepare()


def test_a_missing_library_is_reported_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UsageError, match=r"needs the objects extra\n.*tts-batcher\[objects\]"):
        Bucket(tmp_path, URL).prepare()


# --- outputs


def test_an_output_is_a_copy_of_the_items_audio(server: ObjectStore, store: Bucket) -> None:
    row = output(store, "sub/a.mp3")
    assert not store.is_there("sub/a.mp3")
    assert store.conflict(row) is None
    assert store.link(row) is None
    assert server.objects()["sub/a.mp3"] == OURS
    assert store.is_there("sub/a.mp3")
    assert store.conflict(row) is None


@pytest.mark.parametrize(
    "name", ["a b.mp3", "x#y?z.mp3", "50%.mp3", "a%20b.mp3", "[1]~^`*.mp3", "日本/語.mp3", 'q".mp3']
)
def test_a_name_in_the_store_is_the_outputs_name(server: ObjectStore, store: Bucket, name: str) -> None:
    """Whatever characters it has."""
    assert store.link(output(store, name)) is None
    assert name in server.objects()
    assert store.is_there(name)
    store.expect(None)
    assert store.is_there(name)


def test_linking_twice_changes_nothing(server: ObjectStore, store: Bucket) -> None:
    row = output(store)
    assert store.link(row) is None
    server.requests.clear()
    assert store.link(row) is None
    assert server.requests == [("HEAD", "book/a.mp3")]


def test_a_foreign_object_is_never_replaced(server: ObjectStore, store: Bucket) -> None:
    row = output(store)
    server.put("a.mp3", b"mine")
    for why in (store.conflict(row), store.link(row)):
        assert f"{URL}/a.mp3 exists and is not an object of this ledger" in (why or "")
    assert server.objects()["a.mp3"] == b"mine"


def test_a_foreign_object_that_appears_meanwhile_is_never_replaced(server: ObjectStore, store: Bucket) -> None:
    """Between the look at what is there and the write."""
    path, sha256 = publish(store, OLD, OTHER)
    server.put("a.mp3", OLD)
    row = output(store, linked=("a.mp3", f"{URL}/{path}", sha256))
    real = objects.replace

    def replace(url: str, *arguments: Any) -> None:
        server.put("a.mp3", b"mine")
        real(url, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "replace", replace)
        assert "was changed meanwhile" in (store.link(row) or "")
    assert server.objects()["a.mp3"] == b"mine"


def test_a_rows_earlier_audio_is_replaced_at_its_output(server: ObjectStore, store: Bucket) -> None:
    """The old audio stays where its item keeps it, and is restored to it if it is missing."""
    path, sha256 = publish(store, OLD, OTHER)
    old = output(store, source=f"{URL}/{path}", sha256=sha256, key=OTHER)
    assert store.link(old) is None
    server.path(path).unlink()
    assert store.link(output(store, linked=("a.mp3", f"{URL}/{path}", sha256))) is None
    assert server.objects()["a.mp3"] == OURS
    assert server.objects()[path] == OLD


def test_a_replacement_whose_answer_is_lost_is_recognised(server: ObjectStore, store: Bucket) -> None:
    """The library repeats it, and the store then says that the version has changed."""
    path, sha256 = publish(store, OLD, OTHER)
    server.put("a.mp3", OLD)
    row = output(store, linked=("a.mp3", f"{URL}/{path}", sha256))
    answers = iter([None, Fault.LOST])
    server.faults = lambda method, key: next(answers, None) if (method, key) == ("PUT", "book/a.mp3") else None
    assert store.link(row) is None
    assert server.objects()["a.mp3"] == OURS


def test_what_a_store_does_not_support_is_not_waited_for(server: ObjectStore, store: Bucket) -> None:
    server.faults = lambda method, _: Fault.UNSUPPORTED if method == "PUT" else None
    with pytest.raises(OSError, match="NotImplemented") as caught:
        publish(store)
    assert not isinstance(caught.value, OutageError)


def test_linking_deleted_audio_is_refused(server: ObjectStore, store: Bucket) -> None:
    row = output(store)
    server.path(store.item_path(KEY, "mp3")).unlink()
    assert "is missing" in (store.link(row) or "")
    assert server.objects() == {}


def test_many_outputs_are_looked_up_by_one_listing(server: ObjectStore, store: Bucket) -> None:
    for number in range(3):
        server.put(f"{number}.mp3", b"x")
    store.expect([f"{number}.mp3" for number in range(1000)])
    assert [store.is_there(f"{number}.mp3") for number in range(5)] == [True] * 3 + [False] * 2
    assert [method for method, _ in server.requests] == ["GET"]


def test_a_few_outputs_are_looked_up_once(server: ObjectStore, store: Bucket) -> None:
    server.put("0.mp3", b"x")
    store.expect(["0.mp3", "1.mp3"])
    assert [store.is_free("0.mp3"), store.is_free("1.mp3")] == [False, True]
    assert [method for method, _ in server.requests] == ["HEAD", "HEAD"]


# --- a folder and a store in one ledger


@pytest.mark.parametrize("direction", ["to the store", "to the folder"])
def test_audio_is_copied_between_a_folder_and_a_store(
    server: ObjectStore, store: Bucket, tmp_path: Path, direction: str
) -> None:
    """A batch may move from one to the other."""
    folder = Folder(tmp_path / "home", tmp_path / "home" / "audio")
    source, target = (folder, store) if direction == "to the store" else (store, folder)
    row = output(source, out_dir=target.out_dir)
    for _ in range(2):
        assert target.link(row) is None
        assert target.conflict(row) is None
    found = server.objects() if target is store else {"a.mp3": (folder.place / "a.mp3").read_bytes()}
    assert found["a.mp3"] == OURS


def test_a_folder_reads_no_object_whose_copy_it_has(server: ObjectStore, store: Bucket, tmp_path: Path) -> None:
    """A missing object is named, and an object that only the folder has is not lost."""
    folder = Folder(tmp_path / "home", tmp_path / "home" / "audio")
    row = output(store, out_dir=folder.out_dir)
    assert folder.link(row) is None
    server.requests.clear()
    assert folder.link(row) is None
    assert server.requests == []
    for path in server.objects():
        server.path(path).unlink()
    (folder.place / "a.mp3").unlink()
    assert folder.link(row) == f"the audio file {row.source} is missing"
    (folder.place / "a.mp3").write_bytes(OURS)
    with pytest.raises(OSError, match="it is the only copy of audio that belongs to"):
        folder._preserve(folder.place / "a.mp3", row.source or "", row.sha256)
    assert (folder.place / "a.mp3").read_bytes() == OURS


def test_output_folders_are_opened_by_the_ledgers_name_for_them(tmp_path: Path) -> None:
    stores = Stores(tmp_path)
    assert isinstance(stores.at(URL), Bucket)
    assert stores.of(URL) is stores.at(URL)
    assert stores.of(tmp_path / "audio") is stores.at("audio")
    assert stores.file(f"{URL}/m.results.jsonl") == (stores.at(URL), "m.results.jsonl")


# --- reading back


def saved(store: Store, path: str, sha256: str, size: int) -> SavedFile:
    return SavedFile(
        key=KEY,
        account_id=1,
        user_id="u",
        origin="o",
        task_id="t",
        format="mp3",
        chars=10,
        out_dir=store.out_dir,
        path=path,
        sha256=sha256,
        bytes=size,
    )


DAMAGES = ((None, Kind.MISSING), (OURS[:9], Kind.TRUNCATED), (OURS[:-1] + b"!", Kind.CHANGED), (OURS, None))


@pytest.mark.parametrize(("there", "kind"), DAMAGES)
def test_verifying_reads_items_back(server: ObjectStore, store: Bucket, there: bytes | None, kind: Kind | None) -> None:
    """Their attribute is not enough."""
    path, sha256 = publish(store)
    if there is None:
        server.path(path).unlink()
    else:
        server.path(path).write_bytes(there)
    found = store.item_fault(saved(store, path, sha256, len(OURS)))
    assert found == (None if kind is None else Difference(kind))


def test_verifying_reads_outputs_back(server: ObjectStore, store: Bucket) -> None:
    row = output(store)
    file = saved(store, store.item_path(KEY, "mp3"), row.sha256 or "", len(OURS))
    assert store.output_fault(row, file, None, set()) == Difference(Kind.MISSING)
    store.link(row)
    assert store.output_fault(row, file, None, set()) is None
    server.put("a.mp3", b"mine")
    assert store.output_fault(row, file, None, set()) == Difference(Kind.REPLACED, ours=False)


# --- the mark and the results


def test_the_mark_tells_a_store_from_its_copy(server: ObjectStore, store: Bucket, tmp_path: Path) -> None:
    assert folder_mark.owner(store) is None
    owner = Owner(ledger_id="l", run_id="r", batches={"m": None})
    folder_mark.sign(store, owner)
    assert folder_mark.owner(store) == owner
    copy = server.bucket / "copy" / ".items"
    copy.mkdir(parents=True)
    (copy / ".ledger.json").write_bytes(server.path(".items/.ledger.json").read_bytes())
    found = folder_mark.owner(Bucket(tmp_path, "s3://bucket/copy"))
    assert found is not None
    assert not found.original


def test_an_unreachable_store_is_not_a_store_without_a_mark(server: ObjectStore, store: Bucket) -> None:
    """A run would otherwise buy again what an older ledger lacks."""
    server.faults = lambda *_: Fault.DOWN
    with pytest.raises(StorageError, match=r"cannot read .*\.ledger\.json"):
        folder_mark.owner(store)


def test_files_beside_the_audio_are_replaced_as_a_whole(server: ObjectStore, store: Bucket, tmp_path: Path) -> None:
    assert store.stamp("m.results.csv") is None
    stamps = set()
    for content in ("a", "b"):
        with store.replacing("m.results.csv", encoding="utf-8") as file:
            file.write(content)
        store.flush()
        stamps.add(store.stamp("m.results.csv"))
        assert store.on_disk("m.results.csv", tmp_path).read_bytes() == content.encode()
    assert len(stamps) == 2
    assert store.ending_with(".results.csv") == ["m.results.csv"]
