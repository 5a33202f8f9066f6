"""Audio in an object store: the program is killed and cut off around each step, then run again. Nothing is bought twice
and nothing paid for is lost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.request import urlopen

import pytest

from tests.support.fake_tts import FakeTTS, audio_of, different_takes, take_audio
from tests.support.object_store import URL, Fault, ObjectStore, serving
from tests.support.processes import killed

if TYPE_CHECKING:
    from tests.conftest import Project

ROWS: Final = 4


@pytest.fixture
def store(tmp_path: Path, project: Project) -> Iterator[ObjectStore]:
    """An object store that every command of the project can reach."""
    with serving(tmp_path / "store") as store:
        project.environment |= store.environment
        yield store


def run(project: Project, manifest: Path, *options: str) -> Any:
    """Run into the store to the end."""
    return project.run(manifest, "--out-dir", URL, *options)


def assert_whole(store: ObjectStore, rows: Sequence[dict[str, str]]) -> None:
    """Check that each row and each item has its audio, and that there is nothing else."""
    found = store.objects()
    items = [content for key, content in found.items() if key.startswith(".items/")]
    outputs = {key: content for key, content in found.items() if not key.startswith(".items/") and "results" not in key}
    assert outputs == {f"{row['id']}.mp3": audio_of(row["text"], "mp3") for row in rows}
    assert sorted(items) == sorted(outputs.values())


def results(store: ObjectStore) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.objects()["lines.results.jsonl"].splitlines()]


def test_a_batch_is_delivered_into_an_object_store(project: Project, store: ObjectStore) -> None:
    """With its results; a second run creates nothing and writes nothing. No file is left on disk."""
    rows = project.rows(ROWS)
    manifest = project.manifest(rows)
    first = run(project, manifest)
    assert (first.exit_code, first.report["created"], first.report["out_dir"]) == (0, ROWS, URL), first
    assert_whole(store, rows)
    assert [line["output"] for line in results(store)] == [f"{row['id']}.mp3" for row in rows]
    store.requests.clear()
    again = run(project, manifest)
    assert (again.exit_code, again.report["created"]) == (0, 0), again
    assert {method for method, _ in store.requests} == {"GET", "HEAD"}
    assert sorted(path.name for path in project.folder.iterdir()) == ["batcher.db", "batcher.db.lock", "lines.csv"]
    assert project.batcher("verify").exit_code == 0


POINTS: Final = (
    "before batcher.audio.bucket:Bucket.prepare 1",
    "after batcher.audio.folder_mark:sign 1",
    "before batcher.audio.bucket:Bucket.publish 2",
    "after batcher.audio.objects:create 3",
    "after batcher.audio.objects:create 4",
    "after batcher.audio.bucket:Bucket.publish 2",
    "before batcher.audio.bucket:Bucket.link 3",
    "after batcher.audio.bucket:Bucket.link 3",
    "after batcher.ledger.lifecycle.collection:record_saved 3",
    "after batcher.audio.objects:write 2",
)
"""Where runs are killed: two objects are created for the probe, then two for each row."""


CORE: Final = POINTS[3:5]
"""Points that are tried by default."""


@pytest.mark.parametrize("point", [pytest.param(one, marks=[pytest.mark.slow] * (one not in CORE)) for one in POINTS])
def test_a_kill_around_publishing_loses_nothing_and_buys_nothing_twice(
    project: Project, provider: FakeTTS, store: ObjectStore, point: str
) -> None:
    """What is in the store already is not downloaded again."""
    rows = project.rows(ROWS)
    manifest = project.manifest(rows)
    options = ["--api-url", provider.url, "--json", "--out-dir", URL]
    killed(point, ["run", str(manifest), *options], project.folder, project.environment)
    there = sum(key.startswith(".items/") for key in store.objects())
    before = sum(job.downloads for job in provider.jobs.values())
    again = run(project, manifest)
    doubts = {text for (text,) in project.query("SELECT text FROM items WHERE state = 'in_doubt'")}
    assert again.exit_code == (3 if doubts else 0), again
    assert_whole(store, [row for row in rows if row["text"] not in doubts])
    assert max(Counter(provider.asked).values()) == 1
    after = sum(job.downloads for job in provider.jobs.values())
    assert after - before <= ROWS - there
    assert run(project, manifest).report["created"] == 0


@pytest.mark.parametrize(
    "fault", [Fault.LOST, *(pytest.param(one, marks=pytest.mark.slow) for one in (Fault.BUSY, Fault.DOWN))]
)
def test_requests_that_fail_now_and_then_do_no_harm(project: Project, store: ObjectStore, fault: Fault) -> None:
    """Every third write loses its answer, or is not made."""
    rows = project.rows(ROWS)
    writes = iter(range(10_000))
    store.faults = lambda method, _: fault if method == "PUT" and next(writes) % 3 == 1 else None
    done = run(project, project.manifest(rows))
    assert done.exit_code == 0, done
    assert_whole(store, rows)


def test_a_store_that_fails_for_a_while_holds_up_downloads_only(
    project: Project, provider: FakeTTS, store: ObjectStore
) -> None:
    """The run waits for it, and each audio is downloaded once."""
    rows = project.rows(ROWS)
    is_down = [True]
    store.faults = lambda _, key: Fault.DOWN if is_down[0] and key.endswith(".mp3") and ".items" in key else None
    started = project.start_run(project.manifest(rows), "--out-dir", URL)
    started.until_says("downloads wait for it")
    is_down.clear()
    is_down.append(False)
    ended = started.end()
    assert ended.exit_code == 0, ended
    assert f"{URL} can be written again" in ended.err
    assert_whole(store, rows)
    assert max(job.downloads for job in provider.jobs.values()) == 1


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [(Fault.DENIED, 2, "AccessDenied"), (Fault.DOWN, 8, "Run it again later")],
)
def test_nothing_is_bought_for_a_store_that_cannot_be_written(
    project: Project, provider: FakeTTS, store: ObjectStore, fault: Fault, code: int, words: str
) -> None:
    store.faults = lambda method, _: fault if method == "PUT" else None
    ended = run(project, project.manifest(2))
    assert ended.exit_code == code, ended
    assert f"cannot write to {URL}" in ended.err
    assert words in ended.err
    assert not provider.creates


@pytest.mark.parametrize(("fault", "code"), [(Fault.DENIED, 2), (Fault.DOWN, 8)])
def test_a_store_that_fails_while_outputs_are_looked_up_ends_the_run(
    project: Project, provider: FakeTTS, store: ObjectStore, fault: Fault, code: int
) -> None:
    """With a message, and before anything is bought."""
    store.faults = lambda _, key: fault if key.endswith(".mp3") else None
    ended = run(project, project.manifest(2))
    assert ended.exit_code == code, ended
    assert f"cannot use {URL}/r1.mp3: " in ended.err
    assert not provider.creates


def test_items_are_shown_although_their_store_is_out_of_reach(project: Project, store: ObjectStore) -> None:
    assert run(project, project.manifest(1)).exit_code == 0
    store.faults = lambda *_: Fault.DOWN
    shown = project.batcher("show", "r1")
    assert shown.exit_code == 0, shown
    assert "take 1" in shown.out or "saved" in shown.out


def test_a_store_that_overwrites_is_refused_before_anything_is_bought(
    project: Project, provider: FakeTTS, tmp_path: Path
) -> None:
    """A real server that ignores the condition."""
    (tmp_path / "nanio" / "bucket").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    keys = {"NANIO_ACCESS_KEY": "access", "NANIO_SECRET_KEY": "secret-of-tests"}
    command = [sys.executable, "-m", "nanio", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--data-dir", str(tmp_path / "nanio")], env=os.environ | keys, stderr=subprocess.DEVNULL
    ) as server:
        try:
            project.environment |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1"}
            project.environment |= {"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": "secret-of-tests"}
            wait_for(port)
            ended = run(project, project.manifest(2))
            checked = project.batcher("doctor", "--out-dir", URL, "--api-url", provider.url)
        finally:
            server.terminate()
    assert ended.exit_code == 2, ended
    assert f"{URL} overwrites objects" in ended.err
    assert not provider.creates
    assert "overwrites objects" in checked.out


def wait_for(port: int) -> None:
    """Wait until a server answers there."""
    for _ in range(500):
        try:
            with urlopen(f"http://127.0.0.1:{port}/"):
                return
        except OSError as error:
            if hasattr(error, "code"):  # it answers
                return
            time.sleep(0.02)


def test_a_foreign_object_stops_the_run_before_anything_is_bought(
    project: Project, provider: FakeTTS, store: ObjectStore
) -> None:
    store.put("r2.mp3", b"mine")
    ended = run(project, project.manifest(3))
    assert ended.exit_code == 2, ended
    assert f"row r2: {URL}/r2.mp3 exists and is not an object of this ledger" in ended.err
    assert not provider.creates
    assert store.objects()["r2.mp3"] == b"mine"


def test_a_new_ledger_beside_audio_in_a_store_buys_nothing_again(
    project: Project, provider: FakeTTS, store: ObjectStore
) -> None:
    """Its mark shows that another ledger bought there; the results files there bring the purchases back."""
    rows = project.rows(ROWS)
    manifest = project.manifest(rows)
    assert run(project, manifest).exit_code == 0
    for path in project.folder.glob("batcher.db*"):
        path.unlink()
    refused = run(project, manifest)
    assert refused.exit_code == 2
    assert "another ledger bought the audio" in refused.err
    for path in project.folder.glob("batcher.db*"):
        path.unlink()
    restored = run(project, manifest, "--restored")
    assert (restored.exit_code, restored.report["created"]) == (0, 0), restored
    assert len(provider.creates) == ROWS
    assert_whole(store, rows)


def test_damaged_and_missing_objects_are_healed_at_no_cost(
    project: Project, provider: FakeTTS, store: ObjectStore
) -> None:
    """From a copy in the store, else from the provider."""
    rows = project.rows(3)
    manifest = project.manifest(rows)
    assert run(project, manifest).exit_code == 0
    keys = dict(project.query("SELECT rows.id, path FROM rows JOIN files USING (item_key)"))
    store.path("r1.mp3").unlink()
    store.path(keys["r2"]).write_bytes(b"damaged")
    store.path(keys["r3"]).unlink()
    store.path("r3.mp3").unlink()
    found = project.batcher("verify", "--json")
    assert found.exit_code == 3, found
    assert len(found.report["faults"]) == 4
    healed = project.batcher("verify", "--heal", "--api-url", provider.url)
    assert healed.exit_code == 0, healed
    assert project.batcher("verify").exit_code == 0
    assert len(provider.creates) == 3
    assert b"damaged" in store.objects().values()  # kept beside it


def test_a_retake_replaces_the_rows_object_and_keeps_the_first_take(
    project: Project, provider: FakeTTS, store: ObjectStore
) -> None:
    different_takes(provider)
    rows = project.rows(1)
    manifest = project.manifest(rows)
    assert run(project, manifest).exit_code == 0
    first = store.objects()["r1.mp3"]
    assert project.batcher("retake", "r1").exit_code == 0
    assert run(project, manifest).report["created"] == 1
    second = store.objects()["r1.mp3"]
    assert {first, second} == {take_audio(rows[0]["text"], number) for number in (1, 2)}
    assert project.batcher("retake", "r1", "--take", "1").exit_code == 0
    assert store.objects()["r1.mp3"] == first
    assert project.batcher("verify").exit_code == 0


@pytest.mark.slow
def test_a_batch_moves_from_a_folder_to_a_store_without_being_bought_again(
    project: Project, provider: FakeTTS, store: ObjectStore
) -> None:
    rows = project.rows(ROWS)
    manifest = project.manifest(rows)
    assert project.run(manifest).exit_code == 0
    moved = run(project, manifest)
    assert (moved.exit_code, moved.report["created"]) == (0, 0), moved
    for row in rows:
        assert store.objects()[f"{row['id']}.mp3"] == audio_of(row["text"], "mp3")
    back = project.run(manifest)
    assert (back.exit_code, back.report["created"]) == (0, 0), back
    project.assert_whole(rows)


def test_a_page_links_to_the_store(project: Project, store: ObjectStore) -> None:
    """Signed on request; the page itself is beside the ledger, and may play from the store only."""
    rows = project.rows(2)
    assert run(project, project.manifest(rows)).exit_code == 0
    address = store.environment["AWS_ENDPOINT_URL"]
    assert project.batcher("report").exit_code == 0
    page = (project.folder / "lines.report.html").read_text()
    assert f'"{address}/bucket/book/r1.mp3"' in page
    assert f"media-src &#39;self&#39; file: data: {address};" in page
    assert project.batcher("report", "--link-hours", "2", "--output", "signed.html").exit_code == 0
    signed = (project.folder / "signed.html").read_text()
    link = signed.partition(f'"{address}/bucket/book/r1.mp3?')[2].partition('"')[0]
    assert "X-Amz-Expires=7200" in link
    with urlopen(f"{address}/bucket/book/r1.mp3?{link}") as answer:
        assert answer.read() == audio_of(rows[0]["text"], "mp3")
