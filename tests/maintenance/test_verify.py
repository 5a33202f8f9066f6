"""`verify` finds damaged files and restores them at no cost, without touching the user's own."""

from __future__ import annotations

import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batcher.ledger.storage.lock import owner_lock
from tests.support.fake_tts import FakeTTS, Twist, audio_of, refusal
from tests.support.processes import killed

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.processes import Ended


def made(project: Project, number: int) -> list[dict[str, str]]:
    """Rows whose audio is done."""
    assert project.run(project.manifest(number)).exit_code == 0
    return project.rows(number)


def item(project: Project, row: str) -> Path:
    """The item's own file behind a row."""
    [(path,)] = project.query(f"SELECT path FROM files JOIN rows USING (item_key) WHERE rows.id = '{row}'")
    return project.audio / str(path)


def verify(project: Project, *arguments: str, **how: Any) -> Ended:
    """Run `batcher verify --json` against the provider."""
    return project.batcher("verify", *arguments, "--json", "--api-url", project.provider.url, **how)


def kinds(ended: Ended) -> dict[str, str]:
    """The problems by file name; `item` stands for an item's own file."""
    return {Path(one["path"]).name if one["id"] else "item": one["kind"] for one in ended.report["faults"]}


def cut(path: Path) -> None:
    """Leave only the beginning of a file, as a new file."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-10])


def test_a_foreign_file_is_to_be_moved_away_before_healing(project: Project) -> None:
    """`--heal` leaves it alone, so the advice does not name `--heal` alone for it."""
    made(project, 2)
    for path in (project.audio / "r1.mp3", project.audio / "r2.mp3"):
        path.unlink()
    (project.audio / "r1.mp3").write_bytes(b"mine")
    told = project.batcher("verify")
    assert told.exit_code == 3
    assert f"replaced   {project.audio / 'r1.mp3'} (row r1), foreign\n" in told.out
    assert told.out.endswith(
        "2 files missing or damaged\n"
        "1 foreign file, not written by batcher: --heal leaves it alone.\n"
        "Move it away, then `batcher verify --heal` restores the audio.\n"
        "--heal repairs the others at no cost.\n"
    )
    (project.audio / "r1.mp3").unlink()
    assert "missing or damaged\n--heal repairs them at no cost.\n" in project.batcher("verify").out


def test_after_a_run_nothing_is_wrong(project: Project, provider: FakeTTS) -> None:
    """Exit 0, and the API receives no request."""
    made(project, 2)
    asked = len(provider.api_headers)
    ended = verify(project)
    assert (ended.exit_code, ended.report["items"], ended.report["outputs"], kinds(ended)) == (0, 2, 2, {})
    assert "Checked 2 items and 2 outputs: all are intact" in project.batcher("verify").out
    assert len(provider.api_headers) == asked


def test_each_kind_of_damage_is_reported_and_left(project: Project, provider: FakeTTS) -> None:
    """Missing, truncated, replaced and changed files; exit 3."""
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


def test_a_damaged_output_is_linked_again_without_a_request(project: Project, provider: FakeTTS) -> None:
    """The file that lay there is moved aside."""
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


def test_a_users_file_or_folder_at_an_output_is_left_alone(project: Project, provider: FakeTTS) -> None:
    """Exit 3, with a request to move it."""
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


def test_a_lost_item_file_is_restored_from_an_output(project: Project, provider: FakeTTS) -> None:
    """Without a request."""
    rows = made(project, 1)
    asked = len(provider.api_headers)
    item(project, "r1").unlink()
    ended = verify(project, "--heal")
    assert (ended.exit_code, kinds(ended), len(provider.api_headers)) == (0, {"item": "missing"}, asked)
    project.assert_whole(rows)
    assert item(project, "r1").samefile(project.audio / "r1.mp3")


def test_a_file_without_a_good_copy_is_downloaded_again(project: Project, provider: FakeTTS) -> None:
    """From the task that was paid for. The user's edit is moved aside."""
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
        "before batcher.audio.folder:Folder.publish 1",
        "after batcher.audio.folder:set_aside 1",
        "after batcher.audio.folder:Folder.publish 1",
        "after batcher.audio.folder:Folder.set_aside 1",
        "before batcher.ledger.lifecycle.collection:record_links 1",
    ],
)
@pytest.mark.slow
def test_killed_healing_keeps_the_users_edit_and_can_be_repeated(
    project: Project, provider: FakeTTS, point: str
) -> None:
    """Wherever it is killed."""
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


def test_a_missing_output_folder_is_not_made_anew(project: Project, provider: FakeTTS) -> None:
    """It may only be unmounted."""
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
def test_a_write_error_names_the_folder_and_the_rest_is_healed(project: Project, provider: FakeTTS) -> None:
    """Exit 8."""
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
def test_a_download_that_is_not_the_audio_is_left_for_inspection(
    project: Project, provider: FakeTTS, length: int
) -> None:
    """It is named, until good audio comes."""
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
def test_audio_rendered_anew_by_the_provider_is_accepted(project: Project, provider: FakeTTS) -> None:
    """If it passes the checks."""
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
def test_audio_that_the_provider_has_lost_needs_a_decision(project: Project, provider: FakeTTS) -> None:
    """Nothing is created."""
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
def test_trouble_with_the_provider_has_its_usual_exit_code(
    project: Project, provider: FakeTTS, why: str, exit_code: int
) -> None:
    """All other findings are reported."""
    made(project, 1)
    (project.audio / "r1.mp3").unlink()
    item(project, "r1").unlink()
    lock = owner_lock(project.ledger) if why == "locked" else nullcontext()
    if why == "no token":
        del project.environment["BATCHER_API_TOKEN"]
    elif why == "another account":
        provider.user_id = "user-2"
    elif why == "refused":
        provider.token = "sk-another"
    elif why == "down":
        provider.on_profile = lambda _: refusal(500, "oops")
    with lock:
        ended = verify(project, "--heal")
    assert ended.exit_code == exit_code, ended
    if why != "locked":
        assert [one["healed"] for one in ended.report["faults"]] == [False, False]
    assert len(provider.creates) == 1


def test_an_items_history_records_its_healing(project: Project, provider: FakeTTS) -> None:
    """What, how, by whom and when. The ledger stays consistent."""
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
