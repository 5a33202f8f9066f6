"""What a person decides: doubts settled with `resolve`, another try with `retry`, on the real program."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from batcher.maintenance.decisions import person
from tests.conftest import Project
from tests.support.fake_tts import FakeTTS, Twist, refusal
from tests.support.processes import Ended

CHARGED_AND_DROPPED = Twist(charge=True)


def _decide(project: Project, *arguments: str | Path) -> Ended:
    return project.batcher(*arguments, "--ledger", project.ledger, "--api-url", project.provider.url)


def _doubt(project: Project, provider: FakeTTS) -> Path:
    """Three rows, of which the second's create was charged and its answer lost."""
    provider.on_create = lambda create: CHARGED_AND_DROPPED if create.text == "Line number 2 of the script." else None
    manifest = project.manifest(3)
    assert project.run(manifest).exit_code == 3
    provider.on_create = lambda _: None
    return manifest


def test_a_doubt_is_listed_with_what_is_known(project: Project, provider: FakeTTS) -> None:
    """`resolve` without a decision names the row, when it was sent and what came back, and changes nothing."""
    _doubt(project, provider)
    told = _decide(project, "resolve")
    assert "r2 of lines" in told.out
    assert ": sent at 20" in told.out
    (case,) = _decide(project, "resolve", "--json").report
    assert case["attempt"] == 1
    assert case["account"] == "user-1"
    assert project.states() == {"done": 2, "in_doubt": 1}


def test_a_doubt_is_adopted(project: Project, provider: FakeTTS) -> None:
    """An adopted task is collected by the next run, and nothing is bought."""
    manifest = _doubt(project, provider)
    (lost,) = provider.paid["Line number 2 of the script."]
    assert _decide(project, "resolve", "r2", "--adopt", lost).exit_code == 0
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"]) == (0, 0)
    assert len(provider.creates) == 3
    project.assert_whole(project.rows(3))


@pytest.mark.parametrize(
    ("task_id", "why"), [("task_999", "has no task task_999"), ("task_1", "belongs to another item")]
)
def test_only_a_fitting_task_is_adopted(project: Project, provider: FakeTTS, task_id: str, why: str) -> None:
    """A task that the API does not know, or that another item has, is refused and the doubt stays."""
    _doubt(project, provider)
    refused = _decide(project, "resolve", "r2", "--adopt", task_id)
    assert refused.exit_code == 2
    assert why in refused.err
    assert project.states() == {"done": 2, "in_doubt": 1}


@pytest.mark.parametrize("known", [False, True])
def test_another_account_cannot_adopt(project: Project, provider: FakeTTS, known: bool) -> None:
    """A task is adopted only with a token of the account that sent the create, not with another that has been used."""
    _doubt(project, provider)
    provider.user_id = "user-2"
    if known:
        assert project.run(project.manifest(project.rows(1, first=9), "more.csv")).exit_code == 0
    (lost,) = provider.paid["Line number 2 of the script."]
    assert _decide(project, "resolve", "r2", "--adopt", lost).exit_code == 5
    assert project.states() == {"done": 2 + known, "in_doubt": 1}


def test_a_doubt_is_bought_again(project: Project, provider: FakeTTS) -> None:
    """Only after a person has accepted it is an item in doubt created a second time, once."""
    manifest = _doubt(project, provider)
    assert project.run(manifest).report["created"] == 0
    assert _decide(project, "resolve", "--all", "--buy-again").exit_code == 0
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"]) == (0, 1)
    assert provider.asked.count("Line number 2 of the script.") == 2
    project.assert_whole(project.rows(3))


def test_a_doubt_is_abandoned(project: Project, provider: FakeTTS) -> None:
    """An abandoned item is settled: the run exits 0 and never creates it."""
    manifest = _doubt(project, provider)
    assert _decide(project, "resolve", "r2", "--abandon").exit_code == 0
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"], "1 abandoned" in ended.err) == (0, 0, True)
    assert project.states() == {"done": 2, "abandoned": 1}


def test_an_unclear_decision_changes_nothing(project: Project, provider: FakeTTS) -> None:
    """Without a name, with two decisions, for too many, or for an item that is not there, nothing is decided."""
    provider.on_create = lambda _: CHARGED_AND_DROPPED
    project.run(project.manifest(2))
    for arguments in ("--buy-again", "r2 --buy-again --abandon", "--all --adopt x", "nobody --abandon"):
        assert _decide(project, "resolve", *arguments.split()).exit_code == 2, arguments
    assert project.states() == {"in_doubt": 2}


def test_a_failed_item_is_tried_again_only_by_a_person(project: Project, provider: FakeTTS) -> None:
    """A failed task is not created again by a run; after `retry` it is, once."""
    provider.ending = lambda _: {"status": "failed", "error": {"code": "render_failed", "message": "no luck"}}
    manifest = project.manifest(1)
    assert project.run(manifest).exit_code == 3
    provider.ending = lambda _: {}
    provider.on_read = lambda job: (
        Twist(status=200, body={"id": job.id, "status": "failed"}) if job.id == "task_1" else None
    )
    assert project.run(manifest).report["created"] == 0
    retried = _decide(project, "retry", "r1")
    assert "the next run creates it again" in retried.out
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"]) == (0, 1)


def test_retry_collects_what_ended_well_after_all(project: Project, provider: FakeTTS) -> None:
    """A task that was read as failed and now says completed is collected by the next run, not bought again."""
    provider.ending = lambda _: {"status": "failed"}
    manifest = project.manifest(1)
    assert project.run(manifest).exit_code == 3
    provider.ending = lambda _: {}
    assert "after all" in _decide(project, "retry", "--state", "failed").out
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"]) == (0, 0)
    assert len(provider.creates) == 1
    project.assert_whole(project.rows(1))


def test_retry_changes_nothing_while_the_task_cannot_be_read(project: Project, provider: FakeTTS) -> None:
    """If the old task gives no clear answer, its item stays failed: it might have ended well."""
    provider.ending = lambda _: {"status": "failed"}
    project.run(project.manifest(1))
    provider.on_read = lambda _: refusal(500, "oops")
    assert _decide(project, "retry", "r1").exit_code == 8
    assert project.states() == {"failed": 1}


def test_a_rejected_row_is_retried_without_a_task(project: Project, provider: FakeTTS) -> None:
    """A row that the API refused is named, and can be sent again as it is."""
    provider.on_create = lambda _: refusal(400, "invalid_voice")
    manifest = project.manifest(1)
    ended = project.run(manifest)
    assert ended.exit_code == 3
    assert "invalid_voice" in ended.err
    provider.on_create = lambda _: None
    assert project.run(manifest).report["created"] == 0
    _decide(project, "retry", "--state", "rejected")
    assert project.run(manifest).exit_code == 0


def test_a_retake_is_another_output_beside_the_first(project: Project, provider: FakeTTS) -> None:
    """`retake` has the next run buy a second output of the row, once, with a file of its own; the first stays."""
    rows = project.rows(3)
    manifest = project.manifest(rows)
    project.run(manifest)
    first = (project.audio / "r2.mp3").stat().st_ino
    assert "take 2: the next run creates and pays for it" in _retake(project, "r2").out
    assert project.states() == {"done": 2, "pending": 1}
    assert "not done yet; skipped" in _retake(project, "r2").out  # it was asked for already
    for created in (1, 0):
        ended = project.run(manifest)
        assert (ended.exit_code, ended.report["created"]) == (0, created)
    assert provider.asked.count("Line number 2 of the script.") == 2
    assert (project.audio / "r2.mp3").stat().st_ino == first
    assert (project.audio / "r2.take2.mp3").stat().st_ino != first
    line = project.results()[1]
    assert (line["take"], line["output"], line["state"]) == (2, "r2.take2.mp3", "done")
    _retake(project, "r2")
    project.run(manifest)
    assert project.results()[1]["output"] == "r2.take3.mp3"
    told = [line for line in project.batcher("show", "r2").out.splitlines() if "earlier: take" in line]
    assert [line.partition(", key ")[0].strip() for line in told] == ["earlier: take 1", "earlier: take 2"]
    assert (project.folder / told[0].partition(", path ")[2]).stat().st_ino == first
    project.assert_whole(rows)


def test_the_whole_story_of_an_item(project: Project, provider: FakeTTS) -> None:
    """`show ID` tells the inputs, every attempt with its answer, the task, the file and who decided what."""
    provider.on_create = lambda create: refusal(400, "invalid_voice") if create.number == 1 else None
    manifest = project.manifest(1)
    project.run(manifest)
    _decide(project, "retry", "r1")
    project.run(manifest)
    told = project.batcher("show", "r1", "--ledger", project.ledger).out
    for part in ("Line number 1", "outcome rejected", "http_status 400", "retry -> pending (by ", "task_2", "sha256"):
        assert part in told


def _retake(project: Project, name: str) -> Ended:
    return project.batcher("retake", name, "--ledger", project.ledger)


@pytest.mark.parametrize("batch", [(), ("--batch", "lines")])
def test_a_name_that_names_no_row_stops_the_others(project: Project, provider: FakeTTS, batch: Sequence[str]) -> None:
    """`retake` and `retry` with a name that is no row's, or no row's of the batch, exit 2 and decide nothing."""
    provider.ending = lambda job: {"status": "failed"} if "number 2" in job.text else {}
    more = project.manifest(project.rows(1, first=9), "more.csv")
    assert project.run(project.manifest(2), more).exit_code == 3
    named = "r9" if batch else "nobody"
    for command in (("retake", "r1", named), ("retry", "r2", named)):
        ended = project.batcher(*command, *batch)
        assert ended.exit_code == 2
        assert named in ended.err
        assert ended.out == ""
    assert project.states() == {"done": 2, "failed": 1}
    project.run(project.manifest(2))  # r9's row is not touched
    (key,) = (item["key"] for item in project.batcher("show", "r9", "--json").report)
    assert project.run(project.manifest(project.rows(1, first=10), "more.csv")).exit_code == 0
    assert project.batcher("retake", "r1", key[:16]).exit_code == 2  # that item has no row any more


def test_nothing_to_decide_is_said(project: Project) -> None:
    """A decision about all creates in doubt says so where there are none, and exits 0 without asking the API."""
    project.run(project.manifest(1))
    ended = project.batcher("resolve", "--all", "--abandon")
    assert (ended.exit_code, ended.out, ended.err) == (0, "", "no items in doubt\n")


OWN_WORD = "Nr,text,voice,Fassung\nr1,One.,anna,1\nr2,Zwölf.,anna,\n"


@pytest.mark.parametrize(
    ("name", "content", "settings", "options"),
    [
        ("lines.csv", "id,text,voice,take\nr1,One.,anna,1\nr2,Two.,anna,\n", "", ()),
        ("lines.csv", OWN_WORD, 'encoding = "cp1252"\n[columns]\ntake = "Fassung"\nid = "Nr"\n', ()),
        ("lines.csv", OWN_WORD, "", ("--column", "take=Fassung", "--column", "id=nr", "--encoding", "cp1252")),
        (
            "lines.jsonl",
            '{"id": "r1", "text": "One.", "take": 1}\n{"id": "r2", "text": "Two."}\n',
            'voice = "anna"',
            (),
        ),
    ],
)
def test_a_take_in_the_manifest_is_left_to_it(
    project: Project, provider: FakeTTS, name: str, content: str, settings: str, options: Sequence[str]
) -> None:
    """A retake that the manifest, however it is read, would undo is not promised: told where to ask, and left alone."""
    (project.folder / "batcher.toml").write_text(settings, encoding="utf-8")
    (project.folder / name).write_text(content, encoding="cp1252")
    assert project.run(name, *options).exit_code == 0
    told = project.batcher("retake", "r1", "r2").out.splitlines()
    assert told[0] == "r1 of lines  the manifest sets take 1; change it there, and the next run creates the new take"
    assert told[1] == "r2 of lines  take 2: the next run creates and pays for it"
    assert project.run(name, *options).report["created"] == 1
    assert [line["take"] for line in project.results()] == [1, 2]


def test_rows_that_share_an_item_share_its_retake(project: Project, provider: FakeTTS) -> None:
    """Two rows of the same inputs that are both retaken get one new output, bought once, and are told so."""
    same = [{"id": name, "text": "The same.", "voice": "anna"} for name in ("a", "b", "c")]
    manifest = project.manifest(same)
    project.run(manifest)
    told = project.batcher("retake", "a", "b").out.splitlines()
    assert told[0].endswith("take 2: the next run creates and pays for it")
    assert told[1].endswith("take 2, shared with another row with the same inputs: the next run creates it once")
    assert project.run(manifest).report["created"] == 1
    assert project.batcher("retake", "c").out.endswith("row with the same inputs: the next run links it\n")
    assert project.run(manifest).report["created"] == 0
    assert [line["output"] for line in project.results()] == ["a.take2.mp3", "b.take2.mp3", "c.take2.mp3"]
    assert project.batcher("retake", "c").out.endswith("take 3: the next run creates and pays for it\n")


@pytest.mark.parametrize("manifest", ["lines.csv", "more.csv"])
def test_a_retake_whose_file_another_row_has(project: Project, provider: FakeTTS, manifest: str) -> None:
    """A name that a row of this or another batch has is found before anything is asked for."""
    mine, rival = project.rows(1)[0], {"id": "r1.take2", "text": "Mine.", "voice": "anna"}
    project.manifest([mine, *[rival] * (manifest == "lines.csv")])
    project.manifest([rival] if manifest == "more.csv" else project.rows(1, first=5), "more.csv")
    assert project.run("lines.csv", "more.csv").exit_code == 0
    batch = manifest.removesuffix(".csv")
    told = _retake(project, "r1").out
    assert told == f"r1 of lines  skipped: the file of take 2, r1.take2.mp3, belongs to row r1.take2 of {batch}\n"
    assert "pending" not in project.states()
    assert project.run("lines.csv", "more.csv").exit_code == 0


def test_a_user_without_a_name_decides_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers run under numbers that no list of users has; decisions can be made there all the same."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)
    assert person() == "uid 4000000001"
    monkeypatch.setenv("LOGNAME", "ada")
    assert person() == "ada"
