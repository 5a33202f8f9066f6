"""What a run has made, for builds that only want the new files, and which results files are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Project
from tests.support.contract import checked
from tests.support.fake_tts import FakeTTS, different_takes


def _names(project: Project, *options: str) -> list[str]:
    lines = project.batcher("changes", *options).out.splitlines()
    assert all(Path(line).is_file() for line in lines)
    return [Path(line).name for line in lines]


def test_changes_lists_the_files_of_the_last_run_or_since_a_run(project: Project, provider: FakeTTS) -> None:
    """New rows, edited rows, and rows that take over the audio of another; nothing for a run that made nothing."""
    rows = project.rows(3)
    first = project.run(project.manifest(rows)).report["run_id"]
    assert _names(project) == ["r1.mp3", "r2.mp3", "r3.mp3"]
    rows[0] = {**rows[0], "text": "Edited."}
    rows[1] = {**rows[1], "text": rows[2]["text"]}
    second = project.run(project.manifest([*rows, *project.rows(1, first=4)])).report["run_id"]
    assert _names(project) == _names(project, "--since", second[:8]) == ["r1.mp3", "r2.mp3", "r4.mp3"]
    assert _names(project, "--since", first) == ["r1.mp3", "r2.mp3", "r3.mp3", "r4.mp3"]
    assert project.run(project.folder / "lines.csv").exit_code == 0
    assert _names(project) == []
    found = checked(project.batcher("changes", "--since", second, "--json"), "changes")
    assert (found["since"], [one["id"] for one in found["changes"]]) == (second, ["r1", "r2", "r4"])
    assert [one["sha256"] for one in found["changes"]] == [
        result["sha256"] for result in project.results() if result["id"] in ("r1", "r2", "r4")
    ]


def test_a_take_that_was_switched_back_counts_as_a_change(project: Project, provider: FakeTTS) -> None:
    different_takes(provider)
    manifest = project.manifest(2)
    project.run(manifest)
    project.batcher("retake", "r2")
    project.run(manifest)
    assert _names(project) == ["r2.mp3"]
    assert project.run(manifest).exit_code == 0
    project.batcher("retake", "r2", "--take", "1")
    assert _names(project) == ["r2.mp3"]


def test_a_run_that_does_not_exist_is_exit_2(project: Project) -> None:
    project.run(project.manifest(1))
    found = checked(project.batcher("changes", "--since", "zzz", "--json"), "changes")
    assert (found["exit_code"], found["message"]) == (2, "the ledger has no run 'zzz'")


@pytest.mark.parametrize(("kind", "endings"), [("none", []), ("jsonl", ["jsonl"]), ("csv", ["csv"])])
def test_only_the_chosen_results_files_are_written(project: Project, kind: str, endings: list[str]) -> None:
    """The other ones appear as soon as they are wanted again, although nothing else has changed."""
    manifest = project.manifest(1)
    assert project.run(manifest, "--results", kind).exit_code == 0
    assert sorted(path.suffix[1:] for path in project.audio.glob("lines.results.*")) == endings
    assert project.run(manifest).exit_code == 0
    assert sorted(path.suffix[1:] for path in project.audio.glob("lines.results.*")) == ["csv", "jsonl"]
