"""Links, pipes and folders in place of batcher's own files, as an unpacked archive or another account leaves them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from batcher import settings
from batcher.audio.content import digest
from batcher.audio.folder import Folder
from batcher.audio.store import ITEMS
from batcher.cli.app import explain
from batcher.errors import ManifestError, StorageError, UsageError
from batcher.item import Inputs
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from batcher.pipeline.delivery import sync_part
from batcher.pipeline.downloader import stream
from batcher.provider.answers import Fetched
from tests.conftest import Project

DRAFTS = (
    f"audio/{ITEMS}/.probe.part",
    f"audio/{ITEMS}/..ledger.json.part",
    "audio/.lines.results.jsonl.part",
    "audio/.lines.results.csv.part",
    "audio/.lines.report.html.part",
    ".batcher.prom.part",
    "audio/.r1.mp3.part",
)
"""Every name under which a run, or a report, writes before it renames."""


def _plant_all(project: Project, plant: Any) -> None:
    for name in DRAFTS:
        path = project.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        plant(path)


def test_planted_links_are_replaced_and_not_written_through(project: Project) -> None:
    victim = project.folder / "victim"
    victim.write_text("precious")
    _plant_all(project, lambda path: path.symlink_to(victim))
    assert project.run(project.manifest(2), "--metrics", "batcher.prom").exit_code == 0
    assert project.batcher("report").exit_code == 0
    assert victim.read_text() == "precious"
    made = [project.audio / name for name in ("r1.mp3", "lines.results.csv", "lines.report.html")]
    assert all(path.is_file() and not path.is_symlink() for path in [*made, project.folder / "batcher.prom"])


def test_planted_pipes_block_nothing(project: Project) -> None:
    _plant_all(project, os.mkfifo)
    (project.folder / "audio" / "lines.results.csv").unlink(missing_ok=True)
    assert project.run(project.manifest(2), "--metrics", "batcher.prom").exit_code == 0
    assert project.batcher("report").exit_code == 0


@pytest.mark.parametrize("name", ["audio/.lines.results.csv.part", "batcher.db.spill"])
def test_a_folder_in_the_way_is_named_and_costs_nothing(project: Project, name: str) -> None:
    (project.folder / name).mkdir(parents=True)
    ended = project.run(project.manifest(2))
    assert ended.exit_code in (2, 8)
    assert Path(name).name in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("kind", ["link", "twin", "pipe"])
def test_a_spill_file_that_is_not_ours_is_not_written(project: Project, kind: str) -> None:
    victim, spill = project.folder / "victim", project.folder / "batcher.db.spill"
    victim.write_text("precious")
    {
        "link": lambda: spill.symlink_to(victim),
        "twin": lambda: spill.hardlink_to(victim),
        "pipe": lambda: os.mkfifo(spill),
    }[kind]()
    ended = project.run(project.manifest(2))
    assert (ended.exit_code, len(project.provider.creates)) == (8, 0)
    assert "batcher.db.spill" in ended.err
    assert victim.read_text() == "precious"


KEY = Inputs(text="x", voice="v", format="mp3").key()


class _Client:
    """The part of a client that a download needs."""

    async def fetch(self, _url: str, sink: Any, **_: Any) -> Fetched:
        """Deliver three bytes."""
        sink(b"abc")
        return Fetched(ok=True, bytes=3)


@pytest.mark.anyio
@pytest.mark.parametrize("plant", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd")], ids=["pipe", "link"])
async def test_a_download_writes_into_a_file_of_its_own(tmp_path: Path, plant: Any) -> None:
    """Even if its name was taken in mid-run."""
    store = Folder(tmp_path, tmp_path / "audio")
    part = store.part(store.item_path(KEY, "mp3"))
    plant(part)
    await stream(_Client(), "https://x.test/a", part, 10)  # type: ignore[arg-type]
    assert part.read_bytes() == b"abc"
    part.unlink()
    part.symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        sync_part(part, "mp3")


def test_what_is_at_an_items_path_is_set_aside_whatever_it_is(tmp_path: Path) -> None:
    store = Folder(tmp_path, tmp_path / "audio")
    path = store.item_path(KEY, "mp3")
    for plant in (os.mkfifo, Path.mkdir, lambda final: final.symlink_to("nowhere")):
        store.part(path).write_bytes(b"speech")
        final = tmp_path / "audio" / path
        final.unlink(missing_ok=True)
        plant(final)
        assert store.publish(path) is not None
        assert final.read_bytes() == b"speech"
        assert not final.is_symlink()


def test_a_folder_of_items_that_leads_out_of_the_output_folder_is_refused(tmp_path: Path) -> None:
    store, elsewhere = Folder(tmp_path, tmp_path / "audio"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "audio" / ITEMS).mkdir(parents=True)
    (tmp_path / "audio" / ITEMS / KEY[:2]).symlink_to(elsewhere)
    with pytest.raises(StorageError, match="leads out of the output folder"):
        store.part(store.item_path(KEY, "mp3"))
    (tmp_path / "audio" / ITEMS / KEY[:2]).unlink()
    (tmp_path / "audio" / ITEMS).rmdir()
    (tmp_path / "audio" / ITEMS).symlink_to(elsewhere)
    with pytest.raises(StorageError, match="leads out of the output folder"):
        Folder(tmp_path, tmp_path / "audio").prepare()
    assert list(elsewhere.iterdir()) == []


def test_a_linked_folder_that_leads_out_of_the_output_folder_is_a_conflict(project: Project) -> None:
    """Before anything is bought; one that leads to another folder inside is none."""
    elsewhere = project.folder / "elsewhere"
    for folder in (elsewhere, project.audio / "real"):
        folder.mkdir(parents=True)
    (project.audio / "sub").symlink_to(elsewhere)
    (project.audio / "alias").symlink_to("real")
    rows = [
        row | {"output": f"{name}/{row['id']}.mp3"} for row, name in zip(project.rows(2), ("sub", "alias"), strict=True)
    ]
    ended = project.run(project.manifest(rows))
    assert ended.exit_code == 2
    assert "sub leads out of the output folder" in ended.err
    assert "alias" not in ended.err
    assert (len(project.provider.creates), list(elsewhere.iterdir())) == (0, [])


def test_a_folder_replaced_by_a_link_later_is_not_written_through(project: Project) -> None:
    rows = [row | {"output": f"sub/{row['id']}.mp3"} for row in project.rows(1)]
    assert project.run(project.manifest(rows)).exit_code == 0
    elsewhere = project.folder / "elsewhere"
    (project.audio / "sub").rename(elsewhere)
    (elsewhere / "r1.mp3").unlink()
    (project.audio / "sub").symlink_to(elsewhere)
    ended = project.run("lines.csv", "--rescan")
    assert ended.exit_code != 0
    assert "leads out of the output folder" in ended.err
    assert list(elsewhere.iterdir()) == []


def test_pipes_in_place_of_configuration_files_and_manifests_are_refused_at_once(tmp_path: Path) -> None:
    for name in (settings.FILE_NAME, "token", "lines.csv", "lines.xlsx"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match=r"batcher\.toml: it is not a regular file"):
        settings.read_file(tmp_path)
    with pytest.raises(UsageError, match="token: it is not a regular file"):
        settings.read_token(None, tmp_path / "token")
    for name in ("lines.csv", "lines.xlsx"):
        with pytest.raises(ManifestError, match="it is not a regular file"):
            list(Manifest(tmp_path / name, Rules(batch="lines")).rows())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/x/audio"), 2),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "/x/audio"), 2),
        (OSError(errno.EIO, "Input/output error", "/x/audio"), 8),
        (OSError(errno.EMFILE, "Too many open files"), 8),
        (OSError(errno.ENOSPC, "No space left on device"), 8),
        (OSError(errno.EBADF, "Bad file descriptor"), 1),
    ],
)
def test_an_error_of_the_file_system_is_no_bug(error: OSError, code: int) -> None:
    """Wherever it comes from: it is reported in a line with the file's name."""
    found, message, hint = explain(ExceptionGroup("tasks", [error]))
    assert found == code
    assert code == 1 or (hint and str(error.filename or "file") in message)


@pytest.mark.parametrize("at_once", [True, False])
def test_audio_of_another_row_is_not_replaced_under_a_second_name(project: Project, at_once: bool) -> None:
    """As on a disk that ignores case; here the names are one by a link inside the output folder."""
    (project.audio / "real").mkdir(parents=True)
    (project.audio / "alias").symlink_to("real")
    one, other = project.rows(2)
    rows = [one | {"output": "real/x.mp3"}, other | {"output": "alias/x.mp3"}]
    if not at_once:
        assert project.run(project.manifest(rows[:1])).exit_code == 0
    assert project.run(project.manifest(rows)).exit_code == (8 if at_once else 2)
    first = {result["id"]: result for result in project.results()}["r1"]
    assert digest(project.audio / "real" / "x.mp3") == first["sha256"]
    ended = project.run("lines.csv")
    assert "is one file with the output of row r1 of lines" in ended.err
    assert len(project.provider.creates) == (2 if at_once else 1)
