"""What is paid for is not bought again silently: changed defaults and mass edits need `--rebuy`."""

from __future__ import annotations

import pytest

from tests.conftest import Project
from tests.support.fake_tts import FakeTTS

Rows = list[dict[str, str]]


def _voiceless(project: Project, number: int) -> Rows:
    return [{"id": row["id"], "text": row["text"]} for row in project.rows(number)]


def test_a_changed_default_is_bought_only_with_rebuy(project: Project, provider: FakeTTS) -> None:
    """Another --voice for paid rows creates nothing and reports the change, the number of rows and the cost."""
    manifest = project.manifest(_voiceless(project, 4))
    assert project.run(manifest, "--voice", "anna").exit_code == 0
    refused = project.run(manifest, "--voice", "ben")
    assert refused.exit_code == 2
    assert "4 rows that may be paid for already would be bought again" in refused.err
    assert "voice from anna to ben" in refused.err
    assert "about 4 credits" in refused.err
    assert "--rebuy" in refused.err
    assert len(provider.creates) == 4
    assert project.run(manifest, "--voice", "anna").report["created"] == 0
    assert project.run(manifest, "--voice", "ben", "--rebuy").report["created"] == 4


def test_only_the_command_line_can_allow_rebuying(project: Project, provider: FakeTTS) -> None:
    """Neither the environment nor batcher.toml can."""
    manifest = project.manifest(_voiceless(project, 1))
    project.run(manifest, "--voice", "anna")
    agreed = project.run(manifest, "--voice", "ben", environment={"BATCHER_REBUY": "1"})
    assert agreed.exit_code == 2
    (project.folder / "batcher.toml").write_text("rebuy = true\n")
    assert project.run(manifest, "--voice", "anna").exit_code == 2
    assert len(provider.creates) == 1


def test_a_changed_voice_mapping_is_refused(project: Project, provider: FakeTTS) -> None:
    """A changed setting is no edit of the rows, so a single row is too many."""
    settings = project.folder / "batcher.toml"
    settings.write_text('[voices]\nanna = "voice-1"\n')
    manifest = project.manifest(3)
    assert project.run(manifest).exit_code == 0
    settings.write_text('[voices]\nanna = "voice-2"\n')
    assert project.run(manifest).exit_code == 2
    assert len(provider.creates) == 3


@pytest.mark.parametrize(("edited", "code"), [(20, 0), (21, 2)])
@pytest.mark.slow
def test_up_to_twenty_edited_rows_are_bought_without_rebuy(
    project: Project, provider: FakeTTS, edited: int, code: int
) -> None:
    """More than twenty edited rows that are more than a tenth of the paid ones need --rebuy."""
    rows = project.rows(40)
    assert project.run(project.manifest(rows), "--concurrency", "40").exit_code == 0
    for row in rows[:edited]:
        row["text"] = row["text"].replace("Line", "Verse")
    ended = project.run(project.manifest(rows), "--concurrency", "40")
    assert ended.exit_code == code
    assert len(provider.creates) == 40 + (edited if code == 0 else 0)


def test_paid_texts_are_recognised_under_other_ids_and_another_batch(project: Project, provider: FakeTTS) -> None:
    """With another default voice they would be bought again."""
    assert project.run(project.manifest(_voiceless(project, 3)), "--voice", "anna").exit_code == 0
    renamed = [row | {"id": f"new-{row['id']}"} for row in _voiceless(project, 3)]
    assert project.run(project.manifest(renamed, "other.csv"), "--voice", "ben").exit_code == 2
    assert len(provider.creates) == 3


@pytest.mark.slow
def test_other_speakers_takes_and_allowed_rebuys_need_no_consent(project: Project, provider: FakeTTS) -> None:
    """Nor does the rest of a purchase that was allowed before."""
    rows: Rows = [{"id": "a", "text": "Yes.", "voice": "anna", "take": ""}]
    assert project.run(project.manifest(rows)).exit_code == 0
    rows += [
        {"id": "b", "text": "Yes.", "voice": "ben", "take": ""},
        {"id": "c", "text": "Yes.", "voice": "anna", "take": "2"},
    ]
    assert project.run(project.manifest(rows)).report["created"] == 2
    plain = project.manifest(_voiceless(project, 4), "plain.csv")
    project.run(plain, "--voice", "anna")
    assert project.run(plain, "--voice", "ben", "--rebuy", "--max-items", "1").report["created"] == 1
    assert project.run(plain, "--voice", "ben").report["created"] == 3


def test_a_refused_import_still_collects_open_tasks(project: Project, provider: FakeTTS) -> None:
    """Tasks that are paid for are polled and downloaded in any case."""
    manifest = project.manifest(_voiceless(project, 2))
    assert project.run(manifest, "--voice", "anna", "--no-wait").exit_code == 6
    refused = project.run(manifest, "--voice", "ben")
    assert (refused.exit_code, refused.report["created"], refused.report["collected"]) == (2, 0, 2)
    assert len(provider.creates) == 2


def test_forgetting_the_id_column_renames_nothing(project: Project, provider: FakeTTS) -> None:
    """Exit 2, and results and files stay; `plan` and `doctor` foresee it. --rename writes files under the new names."""
    rows = [{"key": row["id"], "text": row["text"], "voice": "anna"} for row in project.rows(3)]
    manifest = project.manifest(rows)
    assert project.run(manifest, "--column", "id=key").exit_code == 0
    before = project.results()
    for command in ("run", "plan", "doctor"):
        refused = project.batcher(command, manifest, "--api-url", provider.url)
        assert refused.exit_code == 2
        assert "row 000002: its audio is r1.mp3 (row r1) and would be 000002.mp3" in refused.out + refused.err
    assert project.results() == before
    assert not (project.audio / "000002.mp3").exists()
    assert project.run(manifest, "--rename").exit_code == 0
    assert (project.audio / "000002.mp3").exists()
    assert len(provider.creates) == 3
