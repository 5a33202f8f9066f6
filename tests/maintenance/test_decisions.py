"""A person's decisions on the real program: `resolve`, `retry`, `abandon`, `retake`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from batcher.maintenance.decisions import person
from tests.conftest import Project
from tests.support.fake_tts import FakeTTS, Twist, different_takes, refusal, take_audio
from tests.support.processes import Ended

CHARGED_AND_DROPPED = Twist(charge=True)


def _decide(project: Project, *arguments: str | Path) -> Ended:
    return project.batcher(*arguments, "--ledger", project.ledger, "--api-url", project.provider.url)


def _doubt(project: Project, provider: FakeTTS) -> Path:
    """A run of three rows: the second's create was charged and its answer lost."""
    provider.on_create = lambda create: CHARGED_AND_DROPPED if create.text == "Line number 2 of the script." else None
    manifest = project.manifest(3)
    assert project.run(manifest).exit_code == 3
    provider.on_create = lambda _: None
    return manifest


def test_resolve_without_a_decision_only_lists_doubts(project: Project, provider: FakeTTS) -> None:
    """Each with its row, the time it was sent and what came back."""
    _doubt(project, provider)
    told = _decide(project, "resolve")
    assert "r2 of lines" in told.out
    assert ": sent at 20" in told.out
    (case,) = _decide(project, "resolve", "--json").report["doubts"]
    assert case["attempt"] == 1
    assert case["account"] == "user-1"
    assert project.states() == {"done": 2, "in_doubt": 1}


@pytest.mark.slow
def test_an_adopted_task_is_collected_and_nothing_bought(project: Project, provider: FakeTTS) -> None:
    manifest = _doubt(project, provider)
    (lost,) = provider.paid["Line number 2 of the script."]
    assert _decide(project, "resolve", "r2", "--adopt", lost).exit_code == 0
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"]) == (0, 0)
    assert len(provider.creates) == 3
    project.assert_whole(project.rows(3))


def test_a_task_unknown_or_owned_by_another_item_is_not_adopted(project: Project, provider: FakeTTS) -> None:
    """The doubt stays."""
    _doubt(project, provider)
    (owned,) = provider.paid["Line number 1 of the script."]
    for task_id, why in (("task_999", "has no task task_999"), (owned, "belongs to another item")):
        refused = _decide(project, "resolve", "r2", "--adopt", task_id)
        assert refused.exit_code == 2
        assert why in refused.err
    assert project.states() == {"done": 2, "in_doubt": 1}


@pytest.mark.parametrize("known", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_task_is_adopted_only_with_its_accounts_token(project: Project, provider: FakeTTS, known: bool) -> None:
    """A token of another account that the ledger knows will not do."""
    _doubt(project, provider)
    provider.user_id = "user-2"
    if known:
        assert project.run(project.manifest(project.rows(1, first=9), "more.csv")).exit_code == 0
    (lost,) = provider.paid["Line number 2 of the script."]
    assert _decide(project, "resolve", "r2", "--adopt", lost).exit_code == 5
    assert project.states() == {"done": 2 + known, "in_doubt": 1}


@pytest.mark.slow
def test_an_item_in_doubt_is_bought_again_once_on_request(project: Project, provider: FakeTTS) -> None:
    manifest = _doubt(project, provider)
    assert project.run(manifest).report["created"] == 0
    assert _decide(project, "resolve", "--all", "--buy-again").exit_code == 0
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"]) == (0, 1)
    assert provider.asked.count("Line number 2 of the script.") == 2
    project.assert_whole(project.rows(3))


def test_an_abandoned_item_is_never_created(project: Project, provider: FakeTTS) -> None:
    """The run exits 0."""
    manifest = _doubt(project, provider)
    assert _decide(project, "resolve", "r2", "--abandon").exit_code == 0
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"], "1 abandoned" in ended.err) == (0, 0, True)
    assert project.states() == {"done": 2, "abandoned": 1}


def test_an_unclear_decision_changes_nothing(project: Project, provider: FakeTTS) -> None:
    """Without a name, with two decisions, for too many items, or for one that does not exist."""
    provider.on_create = lambda _: CHARGED_AND_DROPPED
    project.run(project.manifest(2))
    for arguments in ("--buy-again", "r2 --buy-again --abandon", "--all --adopt x", "nobody --abandon"):
        assert _decide(project, "resolve", *arguments.split()).exit_code == 2, arguments
    assert project.states() == {"in_doubt": 2}


def test_a_failed_item_is_created_again_only_after_retry(project: Project, provider: FakeTTS) -> None:
    """Once."""
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


def test_retry_collects_a_task_that_has_completed_after_all(project: Project, provider: FakeTTS) -> None:
    """It was read as failed before. Nothing is bought."""
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
    """The old task may have completed, so its item stays failed."""
    provider.ending = lambda _: {"status": "failed"}
    project.run(project.manifest(1))
    provider.on_read = lambda _: refusal(500, "oops")
    assert _decide(project, "retry", "r1").exit_code == 8
    assert project.states() == {"failed": 1}


def test_a_rejected_row_can_be_retried(project: Project, provider: FakeTTS) -> None:
    """The API made no task of it."""
    provider.on_create = lambda _: refusal(400, "invalid_voice")
    manifest = project.manifest(1)
    ended = project.run(manifest)
    assert ended.exit_code == 3
    assert "invalid_voice" in ended.err
    provider.on_create = lambda _: None
    assert project.run(manifest).report["created"] == 0
    _decide(project, "retry", "--state", "rejected")
    assert project.run(manifest).exit_code == 0


def test_a_retake_buys_a_second_output_once(project: Project, provider: FakeTTS) -> None:
    """The row's file then holds it, and the first stays among the items."""
    different_takes(provider)
    rows = project.rows(3)
    manifest = project.manifest(rows)
    project.run(manifest, "--concurrency", "1")
    first = (project.audio / "r2.mp3").stat().st_ino
    assert "take 2: the next run creates and pays for it" in _retake(project, "r2").out
    assert project.states() == {"done": 2, "pending": 1}
    assert "not done yet; skipped" in _retake(project, "r2").out  # it was asked for already
    assert (project.audio / "r2.mp3").read_bytes() == take_audio(rows[1]["text"], 2)
    for created in (1, 0):
        ended = project.run(manifest)
        assert (ended.exit_code, ended.report["created"]) == (0, created)
    assert provider.asked.count("Line number 2 of the script.") == 2
    line = project.results()[1]
    assert (line["take"], line["output"], line["state"]) == (2, "r2.mp3", "done")
    assert (project.audio / "r2.mp3").read_bytes() == take_audio(rows[1]["text"], 4)
    _retake(project, "r2")
    project.run(manifest)
    assert (project.audio / "r2.mp3").read_bytes() == take_audio(rows[1]["text"], 5)
    told = [line for line in project.batcher("show", "r2").out.splitlines() if "other take: take" in line]
    assert [line.partition(", key ")[0].strip() for line in told] == ["other take: take 1", "other take: take 2"]
    assert (project.folder / told[0].partition(", path ")[2]).stat().st_ino == first
    assert sorted(path.name for path in project.audio.glob("*.mp3")) == ["r1.mp3", "r2.mp3", "r3.mp3"]
    assert project.batcher("verify").exit_code == 0


@pytest.mark.slow
def test_a_text_that_is_put_back_after_a_retake_of_another_is_not_bought_again(
    project: Project, provider: FakeTTS
) -> None:
    """The row's take counts for the texts that have that take."""
    texts = ["the first text", "the second text"]
    for text in texts:
        project.run(project.manifest([{"id": "a", "text": text, "voice": "anna"}]))
    _retake(project, "a")
    project.run(project.folder / "lines.csv")
    assert provider.asked == [*texts, texts[1]]
    manifest = project.manifest([{"id": "a", "text": texts[0], "voice": "anna"}])
    assert project.run(manifest).report["created"] == 0
    assert project.batcher("verify").exit_code == 0
    (line,) = project.results()
    assert (line["take"], line["state"]) == (1, "done")


@pytest.mark.slow
def test_a_row_returns_to_the_retake_of_a_text_that_it_had_before(project: Project, provider: FakeTTS) -> None:
    """Although its text was changed and put back in between, which has one take only. Nothing is bought again."""
    different_takes(provider)
    texts = ["The first text.", "The second text."]

    def run(text: str) -> int:
        created: int = project.run(project.manifest([{"id": "a", "text": text, "voice": "anna"}])).report["created"]
        return created

    assert [run(texts[1]), run(texts[0])] == [1, 1]
    _retake(project, "a")
    assert [run(texts[0]), run(texts[1]), run(texts[0])] == [1, 0, 0]
    assert (project.audio / "a.mp3").read_bytes() == take_audio(texts[0], 3)
    project.batcher("retake", "a", "--take", "1")
    assert run(texts[0]) == 0
    assert (project.audio / "a.mp3").read_bytes() == take_audio(texts[0], 2)
    assert provider.asked == [texts[1], texts[0], texts[0]]


@pytest.mark.slow
def test_a_new_text_of_a_retaken_row_is_shared_with_other_rows(project: Project, provider: FakeTTS) -> None:
    """It is the text's first take, so a row that gets the same text later buys nothing."""
    row = {"id": "a", "text": "The first text.", "voice": "anna"}
    project.run(project.manifest([row]))
    _retake(project, "a")
    project.run(project.manifest([row]))
    new = row | {"text": "The new text."}
    assert project.run(project.manifest([new])).report["created"] == 1
    assert project.run(project.manifest([new, new | {"id": "b"}])).report["created"] == 0
    assert len(provider.creates) == 3


def test_a_row_switches_back_to_an_earlier_take_at_once(project: Project, provider: FakeTTS) -> None:
    """At no cost, as often as wanted. The next retake is a take that the row never had."""
    different_takes(provider)
    manifest = project.manifest(1)
    text = project.rows(1)[0]["text"]
    project.run(manifest)
    _retake(project, "r1")
    project.run(manifest)
    assert project.batcher("retake", "r1", "--take", "3").out == (
        "r1 of lines  there is no paid take 3 of its text, voice and parameters; skipped\n"
    )
    for take in (1, 1, 2, 1):
        told = project.batcher("retake", "r1", "--take", str(take))
        assert told.out == f"r1 of lines  take {take} is at r1.mp3; nothing is charged\n"
        assert (project.audio / "r1.mp3").read_bytes() == take_audio(text, take)
        assert project.batcher("verify").exit_code == 0
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"]) == (0, 0)
    assert project.results()[0]["take"] == 1
    assert "other take: take 2" in project.batcher("show", "r1").out
    assert "take 3: the next run creates" in _retake(project, "r1").out
    assert project.run(manifest).report["created"] == 1
    assert (project.audio / "r1.mp3").read_bytes() == take_audio(text, 3)
    assert len(provider.creates) == 3


@pytest.mark.slow
def test_a_retake_that_is_taken_back_costs_nothing(project: Project, provider: FakeTTS) -> None:
    """Requested again, it is the same take."""
    manifest = project.manifest(1)
    project.run(manifest)
    _retake(project, "r1")
    assert "no paid take 2" in project.batcher("retake", "r1", "--take", "2").out
    assert project.batcher("retake", "r1", "--take", "1").exit_code == 0
    assert project.run(manifest).report["created"] == 0
    assert "take 2" in _retake(project, "r1").out
    assert project.run(manifest).report["created"] == 1
    assert project.results()[0]["take"] == 2


@pytest.mark.slow
def test_a_row_can_switch_to_a_take_that_is_still_at_the_provider(project: Project, provider: FakeTTS) -> None:
    """The next run collects it; and a take is collected although its row has switched away from it."""
    different_takes(provider)
    manifest = project.manifest(1)
    text = project.rows(1)[0]["text"]
    project.run(manifest)
    _retake(project, "r1")
    assert project.run(manifest, "--no-wait").exit_code == 6
    project.batcher("retake", "r1", "--take", "1")
    told = project.batcher("retake", "r1", "--take", "2").out
    assert told == "r1 of lines  take 2: the next run collects it; nothing is charged\n"
    project.batcher("retake", "r1", "--take", "1")
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"], ended.report["collected"]) == (0, 0, 1)
    assert (project.audio / "r1.mp3").read_bytes() == take_audio(text, 1)
    assert "take 2 is at r1.mp3" in project.batcher("retake", "r1", "--take", "2").out
    assert (project.audio / "r1.mp3").read_bytes() == take_audio(text, 2)


def test_a_retake_never_replaces_a_file_that_was_edited(project: Project, provider: FakeTTS) -> None:
    """Nothing is bought until it is moved away; switching back leaves it alone, too."""
    different_takes(provider)
    manifest = project.manifest(1)
    project.run(manifest)
    _retake(project, "r1")
    project.run(manifest)
    file = project.audio / "r1.mp3"
    edited = file.with_suffix(".edit")
    edited.write_bytes(b"louder")
    edited.replace(file)
    _retake(project, "r1")
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"]) == (2, 0)
    assert "1 output would replace other files" in ended.report["message"]
    told = project.batcher("retake", "r1", "--take", "1").out
    assert "take 1: not linked yet, since" in told
    assert file.read_bytes() == b"louder"
    file.rename(edited)
    assert project.run(manifest).exit_code == 0
    assert file.read_bytes() == take_audio(project.rows(1)[0]["text"], 1)


@pytest.mark.parametrize("lost", [pytest.param("missing", marks=pytest.mark.slow), "damaged"])
def test_audio_that_is_replaced_is_restored_to_its_item(project: Project, provider: FakeTTS, lost: str) -> None:
    """Where the row's file is the last copy of a paid take."""
    different_takes(provider)
    manifest = project.manifest(1)
    text = project.rows(1)[0]["text"]
    project.run(manifest)
    ((path,),) = project.query("SELECT path FROM files")
    item, file = project.audio / path, project.audio / "r1.mp3"
    copy = file.with_suffix(".copy")
    copy.write_bytes(file.read_bytes())
    copy.replace(file)
    if lost == "missing":
        item.unlink()
    else:
        item.write_bytes(b"not what was bought")
    _retake(project, "r1")
    assert project.run(manifest).exit_code == 0
    assert file.read_bytes() == take_audio(text, 2)
    assert item.read_bytes() == take_audio(text, 1)
    if lost == "damaged":
        assert b"not what was bought" in [one.read_bytes() for one in item.parent.iterdir()]  # set aside
    project.batcher("retake", "r1", "--take", "1")
    assert file.read_bytes() == take_audio(text, 1)


def test_a_file_name_with_the_take_changes_in_the_next_run(project: Project, provider: FakeTTS) -> None:
    """A template with `{take}` keeps each take in a file of its own."""
    different_takes(provider)
    manifest = project.manifest(1)
    text = project.rows(1)[0]["text"]
    template = ("--filename", "{id}-{take}.{format}")
    project.run(manifest, *template)
    _retake(project, "r1")
    project.run(manifest, *template)
    told = project.batcher("retake", "r1", "--take", "1").out
    assert told == "r1 of lines  take 1: the next run links it; nothing is charged\n"
    assert project.run(manifest, *template).exit_code == 0
    assert [line["output"] for line in project.results()] == ["r1-1.mp3"]
    for take in (1, 2):
        assert (project.audio / f"r1-{take}.mp3").read_bytes() == take_audio(text, take)


def test_takes_of_the_manifest_keep_their_names(project: Project, provider: FakeTTS) -> None:
    """A changed `take` column replaces the row's file, and cannot be switched by `retake`."""
    different_takes(provider)
    rows = [row | {"take": "1"} for row in project.rows(1)]
    project.run(project.manifest(rows))
    rows[0]["take"] = "2"
    assert project.run(project.manifest(rows)).exit_code == 0
    assert [(line["take"], line["output"]) for line in project.results()] == [(2, "r1.mp3")]
    assert (project.audio / "r1.mp3").read_bytes() == take_audio(rows[0]["text"], 2)
    assert "the manifest sets take 2" in project.batcher("retake", "r1", "--take", "1").out


@pytest.mark.slow
def test_an_abandoned_failure_counts_as_settled_until_it_is_retried(project: Project, provider: FakeTTS) -> None:
    """Runs exit 0; status, results and report show it."""
    provider.ending = lambda job: {"status": "failed", "error": {"code": "odd"}} if "number 2" in job.text else {}
    provider.on_create = lambda create: refusal(400, "bad_text") if "number 3" in create.text else None
    manifest = project.manifest(3)
    assert project.run(manifest).exit_code == 3
    assert _retake(project, "r2").exit_code == 0
    assert project.batcher("abandon").exit_code == 2
    assert "nothing to abandon" in project.batcher("abandon", "r1").err
    told = project.batcher("abandon", "r2", "r3").out.splitlines()
    assert [line.split("  ")[1] for line in told] == ["abandoned; `batcher retry` takes it up again"] * 2
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"], "2 abandoned" in ended.err) == (0, 0, True)
    assert project.states() == {"done": 1, "abandoned": 2}
    assert [line["state"] for line in project.results()] == ["done", "abandoned", "abandoned"]
    assert project.results()[1]["error"]["code"] == "odd"
    assert "2  abandoned" in project.batcher("status").out
    assert project.batcher("report", manifest).exit_code == 0
    assert "batcher retry --state abandoned" in (project.audio / "lines.report.html").read_text(encoding="utf-8")
    provider.on_create = lambda _: None
    assert "may have been bought" not in _decide(project, "retry", "r3").out
    (failed,) = [job.id for job in provider.jobs.values() if "number 2" in job.text]
    provider.on_read = lambda job: Twist(status=404, body={"code": "x"}) if job.id == failed else None
    assert "the next run creates it again and pays for it" in _decide(project, "retry", "r2").out
    provider.ending = lambda _: {}
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"]) == (0, 2)


def test_an_abandoned_doubt_warns_that_a_retry_may_cost_twice(project: Project, provider: FakeTTS) -> None:
    """`abandon` leaves doubts to `resolve`."""
    _doubt(project, provider)
    refused = project.batcher("abandon", "r2")
    assert (refused.exit_code, "batcher resolve --abandon" in refused.err) == (2, True)
    assert _decide(project, "resolve", "r2", "--abandon").exit_code == 0
    assert "it may have been bought before, and cost twice" in _decide(project, "retry", "r2").out


def test_show_has_an_items_whole_history(project: Project, provider: FakeTTS) -> None:
    """Inputs, attempts with their answers, task, file and decisions."""
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


@pytest.mark.parametrize("batch", [pytest.param((), marks=pytest.mark.slow), ("--batch", "lines")])
def test_one_unknown_row_stops_a_retake_or_retry_of_all(
    project: Project, provider: FakeTTS, batch: Sequence[str]
) -> None:
    """Exit 2, and nothing is decided."""
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
    (key,) = (item["key"] for item in project.batcher("show", "r9", "--json").report["items"])
    assert project.run(project.manifest(project.rows(1, first=10), "more.csv")).exit_code == 0
    assert project.batcher("retake", "r1", key[:16]).exit_code == 2  # that item has no row any more


def test_resolve_all_without_doubts_exits_0(project: Project) -> None:
    """It says that nothing is in doubt, without asking the API."""
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
def test_a_retake_that_the_manifest_would_undo_is_refused(
    project: Project, provider: FakeTTS, name: str, content: str, settings: str, options: Sequence[str]
) -> None:
    """The message says where to change the take instead."""
    (project.folder / "batcher.toml").write_text(settings, encoding="utf-8")
    (project.folder / name).write_text(content, encoding="cp1252")
    assert project.run(name, *options).exit_code == 0
    told = project.batcher("retake", "r1", "r2").out.splitlines()
    assert told[0] == "r1 of lines  the manifest sets take 1; change it there, and the next run creates the new take"
    assert told[1] == "r2 of lines  take 2: the next run creates and pays for it"
    assert project.run(name, *options).report["created"] == 1
    assert [line["take"] for line in project.results()] == [1, 2]


def test_rows_that_share_an_item_get_one_retake(project: Project, provider: FakeTTS) -> None:
    """It is bought once, and the message says so."""
    same = [{"id": name, "text": "The same.", "voice": "anna"} for name in ("a", "b", "c")]
    manifest = project.manifest(same)
    project.run(manifest)
    told = project.batcher("retake", "a", "b").out.splitlines()
    assert told[0].endswith("take 2: the next run creates and pays for it")
    assert told[1].endswith("take 2, shared with another row with the same inputs: the next run creates it once")
    assert project.run(manifest).report["created"] == 1
    assert project.batcher("retake", "c").out.endswith("row with the same inputs: the next run links it\n")
    assert project.run(manifest).report["created"] == 0
    assert [line["output"] for line in project.results()] == ["a.mp3", "b.mp3", "c.mp3"]
    assert [line["take"] for line in project.results()] == [2, 2, 2]
    assert project.batcher("retake", "c").out.endswith("take 3: the next run creates and pays for it\n")


def test_a_user_without_a_name_is_recorded_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers, whose user ids are in no list of users."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)
    assert person() == "uid 4000000001"
    monkeypatch.setenv("LOGNAME", "ada")
    assert person() == "ada"
