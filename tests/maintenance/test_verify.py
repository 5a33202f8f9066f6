"""`verify`: what is wrong on disk is found, and put back at no cost without touching what is the user's own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from tests.support.fake_tts import FakeTTS, Twist, audio_of, refusal
from tests.support.processes import killed

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.processes import Ended


def made(project: Project, number: int) -> list[dict[str, str]]:
    """Rows whose audio is made."""
    assert project.run(project.manifest(number)).exit_code == 0
    return project.rows(number)


def item(project: Project, row: str) -> Path:
    """The item's own file behind a row."""
    [(path,)] = project.query(f"SELECT path FROM files JOIN rows USING (item_key) WHERE rows.id = '{row}'")
    return project.audio / str(path)


def verify(project: Project, *arguments: str, **how: Any) -> Ended:
    """`batcher verify --json`, against the provider."""
    return project.batcher("verify", *arguments, "--json", "--api-url", project.provider.url, **how)


def kinds(ended: Ended) -> dict[str, str]:
    """What is wrong, by the file's name; an item's file goes by `item`."""
    return {Path(one["path"]).name if one["id"] else "item": one["kind"] for one in ended.report["faults"]}


def cut(path: Path) -> None:
    """Leave only the beginning of a file, in a file of its own."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-10])


def test_all_is_well(project: Project, provider: FakeTTS) -> None:
    """Right after a run nothing is wrong, and nobody is asked: exit 0, in words and in JSON."""
    made(project, 2)
    asked = len(provider.api_headers)
    ended = verify(project)
    assert (ended.exit_code, ended.report["items"], ended.report["outputs"], kinds(ended)) == (0, 2, 2, {})
    assert "Checked 2 items and 2 outputs: all are intact" in project.batcher("verify").out
    assert len(provider.api_headers) == asked


def test_each_kind_is_told_and_changes_nothing(project: Project, provider: FakeTTS) -> None:
    """Missing, truncated, replaced and changed files are each named by what they are, exit 3, and stay as they are."""
    made(project, 4)
    (project.audio / "r1.mp3").unlink()
    cut(project.audio / "r2.mp3")
    (project.audio / "r3.mp3").unlink()
    (project.audio / "r3.mp3").write_bytes(b"my own recording")
    item(project, "r4").write_bytes(b"edited in its place" * 99)
    before = {path: path.read_bytes() for path in project.audio.rglob("*.mp3")}
    ended = verify(project)
    expected = {"r1.mp3": "missing", "r2.mp3": "truncated", "r3.mp3": "replaced", "r4.mp3": "changed"}
    assert (ended.exit_code, kinds(ended)) == (3, expected | {"item": "changed"})
    assert {path: path.read_bytes() for path in project.audio.rglob("*.mp3")} == before
    assert all(one["healed"] is None for one in ended.report["faults"])


def test_outputs_are_linked_again(project: Project, provider: FakeTTS) -> None:
    """Outputs come back from the item's own file without a request; what lay there is kept beside them."""
    rows = made(project, 2)
    asked = len(provider.api_headers)
    (project.audio / "r1.mp3").unlink()
    cut(project.audio / "r2.mp3")
    rest = (project.audio / "r2.mp3").read_bytes()
    ended = verify(project, "--heal")
    assert (ended.exit_code, len(ended.report["faults"]), len(provider.api_headers)) == (0, 2, asked)
    project.assert_whole(rows)
    assert (project.audio / "r2.mp3").samefile(item(project, "r2"))
    assert rest in [path.read_bytes() for path in project.audio.glob("r2.*.mp3")]
    assert verify(project).exit_code == 0


def test_what_is_the_users_own_is_left_alone(project: Project, provider: FakeTTS) -> None:
    """A file of the user's at an output is never touched by healing, nor a folder: they are told to move it, exit 3."""
    made(project, 2)
    for name in ("r1.mp3", "r2.mp3"):
        (project.audio / name).unlink()
    (project.audio / "r1.mp3").write_bytes(b"my own recording")
    (project.audio / "r2.mp3").mkdir()
    ended = verify(project, "--heal")
    assert (ended.exit_code, kinds(ended)) == (3, {"r1.mp3": "replaced", "r2.mp3": "replaced"})
    assert (project.audio / "r1.mp3").read_bytes() == b"my own recording"
    assert (project.audio / "r2.mp3").is_dir()
    assert {one["hint"] for one in ended.report["faults"]} == {"Move it away, then run `batcher verify --heal` again."}


def test_an_item_comes_back_from_a_rows_output(project: Project, provider: FakeTTS) -> None:
    """An item's file that is lost is put back from a row's output of the same content, without a request."""
    rows = made(project, 1)
    asked = len(provider.api_headers)
    item(project, "r1").unlink()
    ended = verify(project, "--heal")
    assert (ended.exit_code, kinds(ended), len(provider.api_headers)) == (0, {"item": "missing"}, asked)
    project.assert_whole(rows)
    assert item(project, "r1").samefile(project.audio / "r1.mp3")


def test_an_edit_in_place_is_downloaded_again(project: Project, provider: FakeTTS) -> None:
    """With no good copy left the audio comes from the task that was paid for; the edit is kept beside the output."""
    rows = made(project, 2)
    edit = b"edited in its place" * 99
    (project.audio / "r1.mp3").write_bytes(edit)
    ended = verify(project, "--heal")
    assert (ended.exit_code, kinds(ended)) == (0, {"item": "changed", "r1.mp3": "changed"}), ended
    project.assert_whole(rows)
    assert [path.read_bytes() for path in project.audio.glob("r1.*.mp3")] == [edit]
    assert (len(provider.creates), project.states()) == (2, {"done": 2})


@pytest.mark.parametrize(
    "point",
    [
        "before batcher.ledger.lifecycle.repairs:record_fetched 1",
        "before batcher.audio.store:Store.publish 1",
        "after batcher.audio.store:set_aside 1",
        "after batcher.audio.store:Store.publish 1",
        "after batcher.maintenance.heal:set_aside 1",
        "before batcher.ledger.lifecycle.collection:record_links 1",
    ],
)
@pytest.mark.slow
def test_killed_while_healing(project: Project, provider: FakeTTS, point: str) -> None:
    """Wherever healing is killed, the user's edit is still on disk, and healing again comes to the same end."""
    rows = made(project, 1)
    edit = b"edited in its place" * 99
    (project.audio / "r1.mp3").write_bytes(edit)
    heal = ["verify", "--heal", "--api-url", provider.url]
    killed(point, heal, project.folder, project.environment)
    assert edit in [path.read_bytes() for path in project.audio.rglob("*.mp3")]
    assert verify(project, "--heal").exit_code == 0
    project.assert_whole(rows)
    assert edit in [path.read_bytes() for path in project.audio.rglob("*.mp3")]
    assert len(provider.creates) == 1


def test_a_folder_that_is_gone(project: Project, provider: FakeTTS) -> None:
    """An output folder that is not there may only be unmounted: nothing is made in its place, until it is there."""
    rows = made(project, 2)
    shutil.rmtree(project.audio)
    ended = verify(project, "--heal")
    assert (ended.exit_code, project.audio.exists()) == (3, False)
    assert all("Mount its disk" in one["hint"] for one in ended.report["faults"])
    project.audio.mkdir()
    assert verify(project, "--heal").exit_code == 0
    project.assert_whole(rows)
    assert len(provider.creates) == 2


@pytest.mark.slow
def test_a_folder_that_cannot_be_written(project: Project, provider: FakeTTS) -> None:
    """What the disk refuses is told with its place, exit 8, and the rest is mended all the same."""
    rows = made(project, 2)
    for row in rows:
        (project.audio / f"{row['id']}.mp3").unlink()
    (project.audio / ".r1.mp3.part").mkdir()
    ended = verify(project, "--heal")
    assert (ended.exit_code, [one["healed"] for one in ended.report["faults"]]) == (8, [False, True])
    assert "r1.mp3.part" in ended.report["faults"][0]["how"]
    (project.audio / ".r1.mp3.part").rmdir()
    assert verify(project, "--heal").exit_code == 0
    project.assert_whole(rows)


@pytest.mark.parametrize("length", [300, 100 << 20])
def test_what_comes_and_is_not_its_audio_is_kept(project: Project, provider: FakeTTS, length: int) -> None:
    """Healer leaves what it got in place of the audio to be looked at, and names it, until good audio is there."""
    [row] = made(project, 1)
    path = item(project, "r1")
    path.unlink()
    (project.audio / "r1.mp3").unlink()
    page = b"<html>no audio here</html>".ljust(length, b".")
    provider.on_audio = lambda _: Twist(status=200, body=page)
    refused = verify(project, "--heal")
    bad = path.with_suffix(".bad")
    assert (refused.exit_code, bad.read_bytes()) == (3, page[: 1 << 20])
    assert str(bad) in refused.report["faults"][0]["how"]
    (project.audio / "r1.mp3").write_bytes(audio_of(row["text"], "mp3"))
    assert verify(project, "--heal").exit_code == 0
    assert not bad.exists()
    project.assert_whole([row])


@pytest.mark.slow
def test_other_bytes_than_the_first_time(project: Project, provider: FakeTTS) -> None:
    """What the provider renders anew counts from then on, if it passes as audio."""
    made(project, 1)
    shutil.rmtree(project.audio / ".items")
    (project.audio / "r1.mp3").unlink()
    provider.on_audio = lambda _: Twist(status=200, body=b"<html>no audio here</html>" * 9)
    refused = verify(project, "--heal")
    assert (refused.exit_code, (project.audio / "r1.mp3").exists()) == (3, False)
    assert "not its audio" in refused.report["faults"][0]["how"]
    other = audio_of("other samples", "mp3")
    provider.on_audio = lambda _: Twist(status=200, body=other)
    assert verify(project, "--heal").exit_code == 0
    assert (project.audio / "r1.mp3").read_bytes() == other
    assert verify(project).exit_code == 0
    assert not list(project.audio.rglob(".*.part"))


@pytest.mark.slow
def test_no_longer_possible(project: Project, provider: FakeTTS) -> None:
    """When the provider has lost the task, the person is told what else there is; nothing is created."""
    made(project, 1)
    item(project, "r1").unlink()
    (project.audio / "r1.mp3").unlink()
    provider.on_read = lambda _: refusal(404, "task_not_found")
    ended = verify(project, "--heal")
    first = ended.report["faults"][0]
    assert (ended.exit_code, first["healed"]) == (3, False)
    assert "cannot be repaired: the provider no longer has the task" in first["how"]
    assert "batcher retake" in first["hint"]
    assert len(provider.creates) == 1


@pytest.mark.parametrize(
    ("why", "exit_code"), [("no token", 5), ("another account", 3), ("refused", 5), ("down", 8), ("locked", 7)]
)
@pytest.mark.slow
def test_trouble(project: Project, provider: FakeTTS, why: str, exit_code: int) -> None:
    """What keeps healing from the provider has its usual exit code; the rest is told all the same."""
    made(project, 1)
    (project.audio / "r1.mp3").unlink()
    item(project, "r1").unlink()
    lock = FileLock(f"{project.ledger}.lock")
    if why == "no token":
        del project.environment["BATCHER_API_TOKEN"]
    elif why == "another account":
        provider.user_id = "user-2"
    elif why == "refused":
        provider.token = "sk-another"
    elif why == "down":
        provider.on_profile = lambda _: refusal(500, "oops")
    else:
        lock.acquire()
    ended = verify(project, "--heal")
    assert ended.exit_code == exit_code, ended
    if why != "locked":
        assert [one["healed"] for one in ended.report["faults"]] == [False, False]
    assert len(provider.creates) == 1
    lock.release()


def test_the_story_tells_of_the_healing(project: Project, provider: FakeTTS) -> None:
    """What was healed, how, by whom and when stands in the item's story, and the ledger still agrees with itself."""
    made(project, 2)
    (project.audio / "r1.mp3").unlink()
    item(project, "r2").write_bytes(b"edited in its place" * 99)
    assert verify(project, "--heal").exit_code == 0
    stories = {row: project.batcher("show", row).out for row in ("r1", "r2")}
    assert re.search(r"saved -> done \(healed by \S+: audio/r1\.mp3, linked again\)", stories["r1"])
    assert re.search(
        r"healed by \S+: audio/\.items/\S+\.mp3, downloaded again; the file that was there is now ", stories["r2"]
    )
    assert stories["r2"].count("healed by") == 2
    found = project.batcher("doctor", "--json", "--api-url", project.provider.url).report["findings"]
    assert [one["level"] for one in found if one["topic"] == "consistency"] == ["ok"]
