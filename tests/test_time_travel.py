"""Ledgers that do not know all that was bought: copies, older states, new ones beside old audio. None buys twice."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fake_tts import FakeTTS
from tests.killing import killed

if TYPE_CHECKING:
    from tests.conftest import Ended, Project

ROWS = 9


def _backup(project: Project) -> Path:
    target = project.folder / "kept.db"
    made = project.batcher("ledger", "backup", target, "--ledger", project.ledger)
    assert made.exit_code == 0, made.err
    return target


def _go_back(project: Project, copy: Path) -> None:
    """Put a copy in the ledger's place."""
    for ending in ("", "-wal", "-shm", ".spill"):
        project.ledger.with_name(project.ledger.name + ending).unlink(missing_ok=True)
    shutil.copy(copy, project.ledger)


def _bought_since(project: Project) -> tuple[Path, Path]:
    """A manifest of which a part was bought before a backup was made, and the rest after it."""
    manifest = project.manifest(ROWS)
    assert project.run(manifest, "--max-items", "4").exit_code == 6
    copy = _backup(project)
    assert project.run(manifest).exit_code == 0
    return manifest, copy


def assert_refused(project: Project, provider: FakeTTS, manifest: Path, why: str) -> None:
    """Without a word from a person nothing is created, and the results files stay as they are."""
    results = (project.audio / "lines.results.jsonl").read_bytes()
    creates = len(provider.creates)
    ended = project.run(manifest)
    assert (ended.exit_code, len(provider.creates)) == (2, creates)
    assert why in ended.err
    assert "--restored" in ended.err
    assert (project.audio / "lines.results.jsonl").read_bytes() == results


def assert_restored(project: Project, provider: FakeTTS, ended: Ended) -> None:
    """Everything is taken over and nothing bought; the next run is as any other."""
    assert (ended.exit_code, len(provider.creates)) == (0, ROWS), ended.err
    project.assert_whole(project.rows(ROWS))
    assert project.states() == {"done": ROWS}


def test_a_backup_put_to_use_again(project: Project, provider: FakeTTS) -> None:
    """A backup wants a word first; then what the results files tell is taken over, files and all."""
    manifest, copy = _bought_since(project)
    _go_back(project, copy)
    assert_refused(project, provider, manifest, "is a copy, made at")
    downloads = sum(job.downloads for job in provider.jobs.values())
    assert_restored(project, provider, project.run(manifest, "--restored"))
    assert sum(job.downloads for job in provider.jobs.values()) == downloads
    assert_restored(project, provider, project.run(manifest))


def test_an_older_state_that_nobody_marked(project: Project, provider: FakeTTS) -> None:
    """That a ledger was copied by other means and put back shows by the audio beside it."""
    manifest = project.manifest(ROWS)
    project.run(manifest, "--max-items", "4")
    shutil.copy(project.ledger, project.folder / "plain.db")
    project.run(manifest)
    _go_back(project, project.folder / "plain.db")
    assert_refused(project, provider, manifest, "is older than the audio")
    assert_restored(project, provider, project.run(manifest, "--restored"))


def test_a_lost_ledger(project: Project, provider: FakeTTS) -> None:
    """A new ledger beside old audio buys nothing of it again, once it is told to take that over."""
    manifest = project.manifest(ROWS)
    project.run(manifest)
    project.ledger.unlink()
    assert_refused(project, provider, manifest, "another ledger has bought")
    assert_restored(project, provider, project.run(manifest, "--restored"))


def test_without_results_all_is_in_doubt(project: Project, provider: FakeTTS) -> None:
    """Where nothing tells what was bought since, every item that would be created is put in doubt instead."""
    manifest, copy = _bought_since(project)
    _go_back(project, copy)
    for path in project.audio.glob("*.results.*"):
        path.unlink()
    ended = project.run(manifest, "--restored")
    assert (ended.exit_code, len(provider.creates)) == (3, ROWS)
    assert project.states() == {"done": 4, "in_doubt": ROWS - 4}
    assert project.run(manifest).report["created"] == 0


def test_results_that_a_kill_left_behind_tell_not_all(project: Project, provider: FakeTTS) -> None:
    """When the last run ended without writing its results, what they do not name is in doubt."""
    manifest = project.manifest(ROWS)
    project.run(manifest, "--max-items", "2")
    copy = _backup(project)
    project.run(manifest, "--max-items", "3")
    run = project.start_run(manifest)
    provider.until(lambda: len(provider.jobs) >= 7)
    run.send(signal.SIGKILL)
    run.end()
    made = len(provider.jobs)
    _go_back(project, copy)
    ended = project.run(manifest, "--restored")
    assert (ended.exit_code, len(provider.jobs)) == (3, made)
    assert project.states() == {"done": 5, "in_doubt": ROWS - 5}


def test_a_copied_folder_tells_not_all(project: Project, provider: FakeTTS) -> None:
    """An output folder that is itself a copy may be as old as the ledger's: what it does not tell is in doubt."""
    manifest = project.manifest(ROWS)
    project.run(manifest, "--max-items", "4")
    copy = _backup(project)
    shutil.copytree(project.audio, project.folder / "old")
    project.run(manifest)
    _go_back(project, copy)
    shutil.rmtree(project.audio)
    (project.folder / "old").rename(project.audio)
    ended = project.run(manifest, "--restored")
    assert (ended.exit_code, len(provider.creates)) == (3, ROWS)
    assert project.states() == {"done": 4, "in_doubt": ROWS - 4}


def test_results_kept_elsewhere(project: Project, provider: FakeTTS) -> None:
    """`ledger recover` takes results files from anywhere: tasks are collected again, at no cost."""
    manifest, copy = _bought_since(project)
    shutil.move(project.audio / "lines.results.jsonl", project.folder / "sent-by-mail.jsonl")
    _go_back(project, copy)
    downloads = sum(job.downloads for job in provider.jobs.values())
    assert project.batcher("ledger", "recover", "sent-by-mail.jsonl").exit_code == 0
    ended = project.run(manifest, "--restored")
    assert sum(job.downloads for job in provider.jobs.values()) == downloads + ROWS - 4
    assert_restored(project, provider, ended)


def test_two_ledgers_over_one_folder(project: Project, provider: FakeTTS) -> None:
    """A second ledger does not buy into the output folder of a first, by mistake or for the same rows."""
    manifest = project.manifest(3)
    project.run(manifest)
    ended = project.run(manifest, "--ledger", "other.db")
    assert (ended.exit_code, len(provider.creates)) == (2, 3)
    assert "another ledger" in ended.report["message"]
    assert project.run(manifest).exit_code == 0


def test_a_backup_is_whole_while_a_run_is_at_work(project: Project, provider: FakeTTS) -> None:
    """A copy made in mid-run is a sound ledger of that moment; an existing file is not written over."""
    manifest = project.manifest(40)
    run = project.start_run(manifest)
    provider.until(lambda: len(provider.jobs) >= 10)
    copy = _backup(project)
    assert run.end().exit_code == 0
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert 0 < connection.execute("SELECT count(*) FROM tasks").fetchone()[0] <= 40
    assert project.batcher("ledger", "backup", copy, "--ledger", project.ledger).exit_code == 2
    _go_back(project, copy)
    ended = project.run(manifest, "--restored")
    assert (ended.exit_code, len(provider.creates)) == (0, 40)


def test_a_retake_is_not_forgotten(project: Project, provider: FakeTTS) -> None:
    """A row whose second take was bought after the backup stands for it again, and buys neither."""
    manifest, copy = _bought_since(project)
    project.batcher("retake", "r1", "--ledger", project.ledger)
    assert project.run(manifest).report["created"] == 1
    for lost in (False, True):
        _go_back(project, copy)
        if lost:
            project.ledger.unlink()
        ended = project.run(manifest, "--restored")
        assert (ended.exit_code, ended.report["created"]) == (0, 0)
        assert (project.results()[0]["take"], project.results()[0]["output"]) == (2, "r1.take2.mp3")


@pytest.mark.parametrize(
    "point",
    [
        "after batcher.ledger.recalling:recall 1",
        "after batcher.ledger.recalling:begin 1",
        "after batcher.restoring:recall 1",
        "after batcher.ledger.importing:import_manifest 1",
        "before batcher.restoring:take_up 1",
        "before batcher.ledger.recalling:take_up 3",
        "before batcher.ledger.recalling:finish 1",
        "after batcher.restoring:take_up 1",
    ],
)
@pytest.mark.slow
def test_killed_while_restoring(project: Project, provider: FakeTTS, point: str) -> None:
    """A kill anywhere in the restoring costs nothing: it is asked for again, or goes on by itself."""
    manifest, copy = _bought_since(project)
    _go_back(project, copy)
    arguments = ["run", str(manifest), "--api-url", provider.url, "--restored"]
    killed(point, arguments, project.folder, project.environment)
    ended = project.run(manifest)
    if ended.exit_code == 2:
        ended = project.run(manifest, "--restored")
    assert_restored(project, provider, ended)
