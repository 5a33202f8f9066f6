"""`--only` and `--sample` limit what a run creates; everything else of a run stays as it is."""

from __future__ import annotations

import shlex
from typing import Any

from batcher.address import Server
from tests.conftest import Project
from tests.support.fake_tts import FakeTTS, refusal


def _plan(project: Project, *arguments: Any) -> Any:
    return project.batcher("plan", *arguments, "--api-url", project.provider.url, "--json").report


def test_only_the_named_rows_are_created(project: Project, provider: FakeTTS) -> None:
    """The run ends with exit 0 when they are done, its counts are theirs, and a later run creates the rest."""
    rows = project.rows(6)
    manifest = project.manifest(rows)
    planned = _plan(project, manifest, "--only", "r2,r5", "--only", "r3")
    assert (planned["rows"], planned["new"], planned["not_selected"]) == (3, 3, 3)
    ended = project.run(manifest, "--only", "r2,r5", "--only", "r3")
    assert (ended.exit_code, ended.report["message"]) == (0, "all selected rows are done or settled")
    assert (ended.report["rows"], ended.report["states"]["pending"], ended.report["not_selected"]) == (3, 0, 3)
    assert "3 other rows of the manifest are not part of this run" in ended.err
    assert sorted(provider.asked) == sorted(row["text"] for row in (rows[1], rows[2], rows[4]))
    assert [one["state"] for one in project.results()] == ["pending", "done", "done", "pending", "done", "pending"]
    assert project.run(manifest).report["created"] == 3
    assert len(provider.creates) == 6


def test_an_unknown_id_buys_nothing(project: Project, provider: FakeTTS) -> None:
    """Neither the other rows named with it; `plan` refuses as well."""
    manifest = project.manifest(3)
    for refused in (project.run(manifest, "--only", "r1,r9"), project.batcher("plan", manifest, "--only", "r1,r9")):
        assert refused.exit_code == 2
        assert "--only: 1 ID that no row has: r9; nothing was created" in refused.err
    assert provider.creates == []


def test_rows_that_share_an_item_are_selected_together(project: Project, provider: FakeTTS) -> None:
    """Each gets its file, and the item is bought once."""
    rows = project.rows(3)
    rows.append(rows[0] | {"id": "twin"})
    manifest = project.manifest(rows)
    planned = _plan(project, manifest, "--only", "twin")
    assert (planned["rows"], planned["items"], planned["shared"], planned["not_selected"]) == (2, 1, 1, 2)
    ended = project.run(manifest, "--only", "twin")
    assert (ended.exit_code, ended.report["rows"], ended.report["items"]) == (0, 2, 1)
    project.assert_whole([rows[0], rows[3]])
    assert len(provider.creates) == 1


def test_what_is_bought_is_collected_although_it_is_not_selected(project: Project, provider: FakeTTS) -> None:
    rows = project.rows(3)
    manifest = project.manifest(rows)
    assert project.run(manifest, "--only", "r1", "--no-wait").exit_code == 6
    ended = project.run(manifest, "--only", "r2")
    assert (ended.exit_code, ended.report["created"], ended.report["collected"]) == (0, 1, 2)
    project.assert_whole(rows[:2])


def test_a_rejected_row_concerns_only_a_run_that_it_is_part_of(project: Project, provider: FakeTTS) -> None:
    rows = project.rows(3)
    manifest = project.manifest(rows)
    provider.on_create = lambda create: refusal(422, "bad_text") if create.text == rows[1]["text"] else None
    rejected = project.run(manifest, "--only", "r1,r2")
    assert rejected.exit_code == 3
    assert "rejected by the API; fix the rows, or retry them unchanged: r2 (" in rejected.err
    assert project.run(manifest, "--only", "r1").exit_code == 0
    assert project.run(manifest, "--only", "r3").exit_code == 0
    assert project.run(manifest).exit_code == 3


def test_an_invalid_row_is_reported_by_the_run_that_names_it(project: Project) -> None:
    rows = project.rows(3)
    rows[1]["text"] = ""
    manifest = project.manifest(rows)
    assert project.run(manifest, "--skip-invalid", "--only", "r1").exit_code == 0
    assert project.run(manifest, "--skip-invalid", "--only", "r2").exit_code == 3


def test_a_sample_is_the_same_each_time_and_part_of_the_whole(project: Project, provider: FakeTTS) -> None:
    """`plan` shows it, a second run creates nothing, and the full run only what is missing; then it prints how to
    listen."""
    rows = project.rows(12)
    for row in rows[9:]:
        row["voice"] = "ben"
    manifest = project.manifest(rows)
    planned = _plan(project, manifest, "--sample", "4")
    assert (planned["new"], planned["not_selected"], set(planned["voices"])) == (4, 8, {"anna", "ben"})
    first = project.run(manifest, "--sample", "4")
    assert sum(map(len, provider.asked)) == planned["characters"]
    assert (first.exit_code, first.report["created"], first.report["not_selected"]) == (0, 4, 8)
    ledger = project.ledger if project.server is None else Server(project.server, project.folder)
    assert f"\n    batcher report --batch lines --ledger {shlex.quote(str(ledger))}\n" in first.err
    assert project.run(manifest, "--sample", "4").report["created"] == 0
    assert project.run(manifest).report["created"] == 8
    assert len(set(provider.asked)) == len(provider.creates) == 12


def test_a_selection_is_neither_a_setting_nor_combined_with_another(project: Project, provider: FakeTTS) -> None:
    """In a file or the environment, it would keep later runs from creating the other rows."""
    manifest = project.manifest(2)
    settings = project.folder / "batcher.toml"
    for contents in ('only = ["r1"]\n', "sample = 1\n"):
        settings.write_text(contents)
        assert project.run(manifest).exit_code == 2
    settings.unlink()
    assert project.run(manifest, "--only", "r1", "--sample", "1").exit_code == 2
    assert project.run(manifest, "--sample", "1", "--collect-only").exit_code == 2
    ended = project.run(manifest, environment={"BATCHER_ONLY": "r1", "BATCHER_SAMPLE": "1"})
    assert ended.report["created"] == 2


def test_the_voices_of_other_rows_are_not_asked_for(project: Project, provider: FakeTTS) -> None:
    """An unknown one among them is reported by the run that would buy it."""
    rows = [*project.rows(2), {"id": "r3", "text": "Three.", "voice": "carl"}]
    manifest = project.manifest(rows)
    provider.voices = ("anna",)
    provider.publish_direct_reads()
    assert project.run(manifest, "--only", "r1").exit_code == 0
    assert project.run(manifest).exit_code == 2
    assert len(provider.creates) == 1
