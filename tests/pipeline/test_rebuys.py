"""What is paid for is not bought again unseen: changed defaults and mass edits want a person's word."""

from __future__ import annotations

import pytest

from tests.conftest import Project
from tests.support.fake_tts import FakeTTS

Rows = list[dict[str, str]]


def _voiceless(project: Project, number: int) -> Rows:
    return [{"id": row["id"], "text": row["text"]} for row in project.rows(number)]


def test_a_changed_default_is_refused(project: Project, provider: FakeTTS) -> None:
    """Another --voice over paid rows creates nothing and names the change, the number and the cost; --rebuy allows."""
    manifest = project.manifest(_voiceless(project, 4))
    assert project.run(manifest, "--voice", "anna").exit_code == 0
    refused = project.run(manifest, "--voice", "ben")
    assert refused.exit_code == 2
    assert "4 rows whose audio may be paid for would be bought again" in refused.err
    assert "voice from anna to ben" in refused.err
    assert "about 4 credits" in refused.err
    assert "--rebuy" in refused.err
    assert len(provider.creates) == 4
    assert project.run(manifest, "--voice", "anna").report["created"] == 0
    assert project.run(manifest, "--voice", "ben", "--rebuy").report["created"] == 4


def test_consent_is_given_on_the_command_line_alone(project: Project, provider: FakeTTS) -> None:
    """Neither the environment nor batcher.toml can agree to buying again."""
    manifest = project.manifest(_voiceless(project, 1))
    project.run(manifest, "--voice", "anna")
    agreed = project.run(manifest, "--voice", "ben", environment={"BATCHER_REBUY": "1"})
    assert agreed.exit_code == 2
    (project.folder / "batcher.toml").write_text("rebuy = true\n")
    assert project.run(manifest, "--voice", "anna").exit_code == 2
    assert len(provider.creates) == 1


def test_a_changed_configuration_is_refused(project: Project, provider: FakeTTS) -> None:
    """A voice that the configuration maps elsewhere is no edit of the rows: it is refused, however few they are."""
    settings = project.folder / "batcher.toml"
    settings.write_text('[voices]\nanna = "voice-1"\n')
    manifest = project.manifest(3)
    assert project.run(manifest).exit_code == 0
    settings.write_text('[voices]\nanna = "voice-2"\n')
    assert project.run(manifest).exit_code == 2
    assert len(provider.creates) == 3


@pytest.mark.parametrize(("edited", "code"), [(20, 0), (21, 2)])
@pytest.mark.slow
def test_edited_rows(project: Project, provider: FakeTTS, edited: int, code: int) -> None:
    """Some corrections are bought as they are; more than twenty and a tenth of the paid rows want --rebuy."""
    rows = project.rows(40)
    assert project.run(project.manifest(rows), "--concurrency", "40").exit_code == 0
    for row in rows[:edited]:
        row["text"] = row["text"].replace("Line", "Verse")
    ended = project.run(project.manifest(rows), "--concurrency", "40")
    assert ended.exit_code == code
    assert len(provider.creates) == 40 + (edited if code == 0 else 0)


def test_a_renamed_batch_is_recognised_by_its_texts(project: Project, provider: FakeTTS) -> None:
    """The same texts under other ids, another batch and another default voice are still found to be paid for."""
    assert project.run(project.manifest(_voiceless(project, 3)), "--voice", "anna").exit_code == 0
    renamed = [row | {"id": f"new-{row['id']}"} for row in _voiceless(project, 3)]
    assert project.run(project.manifest(renamed, "other.csv"), "--voice", "ben").exit_code == 2
    assert len(provider.creates) == 3


def test_what_was_meant_is_not_questioned(project: Project, provider: FakeTTS) -> None:
    """Another speaker with the same words, a second take, and the rest of an allowed purchase need no word."""
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


def test_open_tasks_are_collected_although_the_rest_is_refused(project: Project, provider: FakeTTS) -> None:
    """A refused purchase does not keep paid tasks from being collected."""
    manifest = project.manifest(_voiceless(project, 2))
    assert project.run(manifest, "--voice", "anna", "--no-wait").exit_code == 6
    refused = project.run(manifest, "--voice", "ben")
    assert (refused.exit_code, refused.report["created"], refused.report["collected"]) == (2, 0, 2)
    assert len(provider.creates) == 2
