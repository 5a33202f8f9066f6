"""The promises, held against the real program: what was charged, what is on disk, what was said."""

from __future__ import annotations

import csv
import hashlib
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fake_tts import HTML_404, SIGNATURE, TOKEN, Create, FakeTTS, Job, Twist, audio_of, refusal
from tests.support.processes import struck

if TYPE_CHECKING:
    from tests.conftest import Project

DROPPED = Twist()
DROPPED_AFTER_CHARGE = Twist(charge=True)


def assert_nothing_lost(project: Project, provider: FakeTTS) -> list[str]:
    """No text reached the provider twice, and every charge is known by its task id or in doubt; returns the doubts."""
    assert max(Counter(provider.asked).values()) == 1
    recorded = {task_id for (task_id,) in project.query("SELECT task_id FROM tasks")}
    in_doubt = [text for (text,) in project.query("SELECT text FROM items WHERE state = 'in_doubt'")]
    for text, task_ids in provider.paid.items():
        assert recorded.issuperset(task_ids) or text in in_doubt
    return in_doubt


def test_three_hundred_rows(project: Project, provider: FakeTTS) -> None:
    """Each of 300 rows is bought once and gets its own audio, the results say so, and another run asks for nothing."""
    rows = project.rows(300)
    manifest = project.manifest(rows)
    ended = project.run(manifest, "--concurrency", "100")
    assert (ended.exit_code, ended.report["created"], ended.report["collected"]) == (0, 300, 300)
    assert Counter(provider.asked) == Counter(row["text"] for row in rows)
    assert ended.report["credits"] == {"start": 1e6, "end": 1e6 - 300, "spent": 300, "estimated_needed": 0}
    project.assert_whole(rows)
    for row, result in zip(rows, project.results(), strict=True):
        audio = audio_of(row["text"], "mp3")
        assert (result["id"], result["state"], result["output"]) == (row["id"], "done", f"{row['id']}.mp3")
        assert (result["sha256"], result["bytes"]) == (hashlib.sha256(audio).hexdigest(), len(audio))
        assert [result["task_id"]] == provider.paid[row["text"]]
    with (project.audio / "lines.results.csv").open(newline="", encoding="utf-8") as file:
        assert [line["id"] for line in csv.DictReader(file)] == [row["id"] for row in rows]
    requests = len(provider.api_headers) + len(provider.audio_headers)
    again = project.run(manifest)
    assert (again.exit_code, again.report["created"]) == (0, 0)
    assert len(provider.api_headers) + len(provider.audio_headers) == requests


@pytest.mark.parametrize("shape", ["flat", "wrapped"])
def test_shapes(project: Project, provider: FakeTTS, shape: str) -> None:
    """A task is understood in the other two shapes that the API has for it."""
    provider.shape = shape
    rows = project.rows(3)
    assert project.run(project.manifest(rows)).exit_code == 0
    project.assert_whole(rows)


def test_kills(project: Project, provider: FakeTTS) -> None:
    """Five kills with creates on the wire charge no text twice and lose no charge: what is not known is in doubt."""
    rows, exposed = project.rows(300), 0
    manifest = project.manifest(rows)
    provider.create_seconds = 0.1
    for number in (1, 57, 101, 163, 228):
        run = project.start_run(manifest, "--concurrency", "40")
        provider.until(lambda number=number: len(provider.creates) >= number)  # type: ignore[misc]
        run.send(signal.SIGKILL)
        assert run.end().exit_code == -signal.SIGKILL
        on_the_wire = len(project.query("SELECT key FROM items WHERE state = 'submitting'"))
        assert 1 <= on_the_wire <= 40
        exposed += on_the_wire
    last = project.run(manifest, "--concurrency", "40")
    in_doubt = assert_nothing_lost(project, provider)
    assert last.exit_code == (3 if in_doubt else 0)
    assert len(in_doubt) <= exposed
    assert last.report["states"]["done"] == 300 - len(in_doubt)
    project.assert_whole([row for row in rows if row["text"] not in in_doubt])


def test_first_signal_drains(project: Project, provider: FakeTTS) -> None:
    """SIGTERM ends creating and collects what is open; the next run buys just the rest."""
    rows = project.rows(40)
    manifest = project.manifest(rows)
    provider.task_seconds = 0.5  # so that the signal comes long before the end
    run = project.start_run(manifest, "--concurrency", "10")
    provider.until(lambda: len(provider.creates) >= 12)
    run.send(signal.SIGTERM)
    ended = run.end()
    bought = len(provider.creates)
    assert (ended.exit_code, ended.report["outcome"]) == (6, "stopped")
    assert 12 <= bought <= 12 + 10
    assert project.states() == {"done": bought, "pending": 40 - bought}
    assert project.run(manifest, "--concurrency", "40").exit_code == 0
    assert assert_nothing_lost(project, provider) == []
    project.assert_whole(rows)


@pytest.mark.parametrize(("create_seconds", "in_doubt"), [(0.1, 0), (5.0, 10)])
def test_second_signal(project: Project, provider: FakeTTS, create_seconds: float, in_doubt: int) -> None:
    """A second SIGINT ends the run soon; answers that still come are recorded, creates without one are in doubt."""
    manifest = project.manifest(20)
    provider.create_seconds, provider.task_seconds = create_seconds, 60.0
    run = project.start_run(manifest, "--concurrency", "10")
    provider.until(lambda: len(provider.creates) == 10)
    run.send(signal.SIGINT)
    run.until_says("stopping")
    run.send(signal.SIGINT)
    ended = run.end()
    assert (ended.exit_code, ended.report["exit_code"], ended.report["outcome"]) == (130, 130, "interrupted")
    assert ended.report["elapsed_seconds"] < 3.0
    assert len(assert_nothing_lost(project, provider)) == in_doubt
    assert len(provider.creates) == 10
    provider.create_seconds = provider.task_seconds = 0.0
    for job in provider.jobs.values():
        job.ends_at = 0.0
    assert project.run(manifest, "--concurrency", "20").report["states"]["done"] == 20 - in_doubt
    assert len(assert_nothing_lost(project, provider)) == in_doubt


def test_a_bug_cuts_no_create_off(project: Project, provider: FakeTTS) -> None:
    """An error that nobody foresaw ends a run with exit 1, but not before the creates in the air are on record."""
    rows = project.rows(8)
    manifest = project.manifest(rows)

    def slowly(create: Create) -> None:
        provider.create_seconds = 0.0 if create.number <= 4 else 1.0

    provider.on_create = slowly
    provider.on_audio = lambda _: Twist(status=503) if len(provider.creates) < 6 else None
    command = ["run", str(manifest), "--api-url", provider.url, "--concurrency", "4"]
    ended = struck("bug batcher.pipeline.delivery:Delivery._save 1", command, project.folder, project.environment)
    assert (ended.exit_code, "a bug that a test has put here" in ended.err) == (1, True), ended
    assert "submitting" not in project.states()
    provider.create_seconds = 0.0
    provider.on_create = lambda _: None
    assert project.run(manifest).exit_code == 0
    assert assert_nothing_lost(project, provider) == []
    project.assert_whole(rows)


def test_answers_that_say_nothing(project: Project, provider: FakeTTS) -> None:
    """A create whose answer was lost, charged or not, is in doubt and no later run sends it again."""
    twists = {
        2: DROPPED_AFTER_CHARGE,
        4: DROPPED,
        6: Twist(status=500, body={"code": "internal", "message": "sorry"}, charge=True),
        8: Twist(status=200, body=b"<html>hello</html>", charge=True),
    }
    provider.on_create = lambda create: twists.get(create.number)
    manifest = project.manifest(10)
    ended = project.run(manifest, "--concurrency", "10")
    assert (ended.exit_code, ended.report["outcome"]) == (3, "needs_person")
    assert "batcher resolve" in ended.err
    for _ in range(3):
        again = project.run(manifest)
        assert (again.exit_code, again.report["created"]) == (3, 0)
    assert len(provider.creates) == 10
    assert sorted(assert_nothing_lost(project, provider)) == sorted(provider.asked[number - 1] for number in twists)
    assert Counter(result["state"] for result in project.results()) == {"done": 6, "in_doubt": 4}


def test_two_runs_at_once(project: Project, provider: FakeTTS) -> None:
    """A second run on the same ledger, by whatever path, ends at once and says who is at work."""
    provider.task_seconds = 600.0
    manifest = project.manifest(4)
    first = project.start_run(manifest)
    provider.until(lambda: len(provider.creates) == 4)
    (project.folder / "other.db").symlink_to(project.ledger)
    second = project.run(manifest, "--ledger", "other.db")
    assert (second.exit_code, second.report["outcome"]) == (7, "locked")
    assert "pid " in second.report["message"]
    provider.end_tasks()
    assert first.end().exit_code == 0
    assert len(provider.creates) == 4


def _broken(project: Project) -> Path:
    return project.manifest([{"id": "r1", "text": "", "voice": "anna"}])


def _missing(project: Project) -> Path:
    (project.folder / "lines.csv").unlink()
    return project.folder / "lines.csv"


@pytest.mark.parametrize("spoil", [_broken, _missing])
def test_unusable_manifest(project: Project, provider: FakeTTS, spoil: Callable[[Project], Path]) -> None:
    """A manifest that cannot be read any more is refused; the tasks that it once led to are collected all the same."""
    rows = project.rows(5)
    assert project.run(project.manifest(rows), "--no-wait").exit_code == 6
    ended = project.run(spoil(project))
    assert (ended.exit_code, ended.report["outcome"], ended.report["collected"]) == (2, "refused", 5)
    project.assert_whole(rows)
    assert len(provider.creates) == 5


def test_edited_manifest(project: Project, provider: FakeTTS) -> None:
    """Removed and changed rows leave tasks behind that are collected; only what the manifest now says is bought."""
    rows = project.rows(5)
    assert project.run(project.manifest(rows), "--no-wait").exit_code == 6
    now = [rows[0], rows[1] | {"text": "Something else."}]
    ended = project.run(project.manifest(now))
    assert (ended.exit_code, ended.report["rows"], ended.report["states"]["done"]) == (0, 2, 2)
    project.assert_whole(now)
    assert provider.asked[5:] == ["Something else."]
    kept = {path.read_bytes() for path in (project.audio / ".items").rglob("*.mp3")}
    assert kept == {audio_of(text, "mp3") for text in provider.asked}


def test_only_what_is_wanted_now(project: Project, provider: FakeTTS) -> None:
    """Rows that were taken in but not bought, and are gone from the manifest, are never bought."""
    project.run(project.manifest(6), "--max-items", "1", "--no-wait")
    assert project.run(project.manifest(project.rows(1) + project.rows(2, first=9))).exit_code == 0
    assert sorted(provider.asked) == sorted(row["text"] for row in project.rows(1) + project.rows(2, first=9))


def test_shared_items_and_takes(project: Project, provider: FakeTTS) -> None:
    """Rows that agree in everything share one purchase; another take is another."""
    row = {"text": "Twice and then once more.", "voice": "anna"}
    rows = [{"id": "a", "take": ""} | row, {"id": "b", "take": "1"} | row, {"id": "c", "take": "2"} | row]
    ended = project.run(project.manifest(rows))
    assert (ended.exit_code, ended.report["rows"], ended.report["items"]) == (0, 3, 2)
    assert len(provider.creates) == 2
    project.assert_whole(rows)
    a, b, c = (project.audio / f"{name}.mp3" for name in "abc")
    assert a.samefile(b)
    assert not a.samefile(c)
    assert [result["take"] for result in project.results()] == [1, 1, 2]


def test_max_items(project: Project, provider: FakeTTS) -> None:
    """--max-items bounds what one run creates, and the runs together buy everything once."""
    rows = project.rows(3)
    manifest = project.manifest(rows)
    for bought, exit_code in ((2, 6), (3, 0)):
        ended = project.run(manifest, "--max-items", "2")
        assert (ended.exit_code, len(provider.creates)) == (exit_code, bought)
    assert_nothing_lost(project, provider)
    project.assert_whole(rows)


def test_max_runtime(project: Project, provider: FakeTTS) -> None:
    """--max-runtime ends creating early enough for what is open to be collected within it."""
    manifest = project.manifest(200)
    ended = project.run(manifest, "--max-runtime", "3s")
    assert ended.exit_code == 6
    assert "--max-runtime" in ended.report["message"]
    assert 2.0 < ended.report["elapsed_seconds"] < 3.5
    bought = len(provider.creates)
    assert 0 < bought < 200
    assert project.states() == {"done": bought, "pending": 200 - bought}


def test_no_wait_then_collect_only(project: Project, provider: FakeTTS) -> None:
    """--no-wait leaves the tasks to a run that creates nothing and needs no manifest."""
    rows = project.rows(6)
    provider.task_seconds = 60.0
    ended = project.run(project.manifest(rows), "--no-wait", "--concurrency", "2")
    assert (ended.exit_code, ended.report["states"]["submitted"]) == (6, 6)
    for job in provider.jobs.values():
        assert job.reads == 0
        job.ends_at = 0.0
    collected = project.run("--collect-only")
    assert (collected.exit_code, collected.report["collected"], collected.report["created"]) == (0, 6, 0)
    assert len(provider.creates) == 6
    project.assert_whole(rows)
    provider.end_tasks()
    more = project.manifest(9)
    assert project.run(more, "--no-wait", "--max-items", "1").exit_code == 6
    collected = project.run("--collect-only")
    assert (len(provider.creates), collected.report["states"]["pending"]) == (7, 2)


def test_questions_never_buy(project: Project, provider: FakeTTS) -> None:
    """Whatever a poll is answered with, the task is asked about again and its text never created again."""
    rows = project.rows(3)
    answers = [
        refusal(404, "task_not_found"),
        refusal(429, "slow_down", Retry_After="1"),
        Twist(status=402, body={"code": "insufficient_credits"}),
    ]
    by_text = dict(zip((row["text"] for row in rows), answers, strict=True))
    provider.on_read = lambda job: by_text[job.text] if job.reads == 1 else None
    ended = project.run(project.manifest(rows))
    assert (ended.exit_code, ended.report["requests"]["create"]) == (0, 3)
    assert assert_nothing_lost(project, provider) == []
    project.assert_whole(rows)


def test_unknown_status_words(project: Project, provider: FakeTTS) -> None:
    """A status that nobody knows is not an end: the task is looked at until a known one comes."""
    provider.on_read = lambda job: (
        Twist(status=200, body={"id": job.id, "status": "pondering"}) if job.reads < 3 else None
    )
    rows = project.rows(2)
    assert project.run(project.manifest(rows)).exit_code == 0
    project.assert_whole(rows)
    assert {job.reads for job in provider.jobs.values()} == {3}


def test_audio_that_is_not_whole(project: Project, provider: FakeTTS) -> None:
    """Expired, refused, missing, cut off or wrong audio never reaches a file: the task is read again."""
    rows = [row | {"format": "wav"} for row in project.rows(6)]
    wholes = [audio_of(row["text"], "wav") for row in rows]
    twists = [
        Twist(status=403, body=b"<Error>expired</Error>"),
        HTML_404,
        Twist(status=200, body=wholes[2][:60], headers={"content-length": str(len(wholes[2]))}),
        Twist(status=200, body=wholes[3][:60]),
        Twist(status=200, body=b"<html>" + b"please log in " * 20),
    ]
    by_text = dict(zip((row["text"] for row in rows), twists, strict=False))
    provider.on_audio = lambda job: by_text.get(job.text) if job.downloads == 1 else None
    provider.ending = lambda job: {"audioUrl": None} if job.text == rows[5]["text"] and job.reads == 1 else {}
    ended = project.run(project.manifest(rows), "--concurrency", "6")
    assert (ended.exit_code, ended.report["requests"]["create"]) == (0, 6)
    assert [(project.audio / f"{row['id']}.wav").read_bytes() for row in rows] == wholes
    assert {job.reads for job in provider.jobs.values()} == {2}


def test_secrets_stay_home(project: Project, provider: FakeTTS) -> None:
    """The token goes to the API alone and is written nowhere; texts and signed addresses are never said."""
    rows = project.rows(6)
    echo = Twist(status=400, body={"code": "bad", "message": f"Bearer {TOKEN} may not", "requestId": TOKEN})
    twists = {1: echo, 2: DROPPED_AFTER_CHARGE, 3: Twist(status=500, body=TOKEN.encode())}
    provider.on_create = lambda create: twists.get(create.number)
    provider.on_audio = lambda job: Twist(status=403) if job.downloads == 1 else None
    provider.ending = lambda job: _failed(job, f"no {TOKEN}") if job.text == rows[5]["text"] else {}
    ended = project.run(project.manifest(rows), "--debug", "-v", "--concurrency", "6")
    assert ended.exit_code == 3
    said = ended.err + ended.out + project.batcher("show", "--json").out + project.batcher("resolve").out
    for secret in (TOKEN, SIGNATURE, *(row["text"] for row in rows)):
        assert secret not in said
    for path in project.folder.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()
    assert provider.audio_headers
    assert not any(TOKEN in value for headers in provider.audio_headers for value in headers.values())


def _failed(job: Job, message: str) -> dict[str, Any]:
    return {"status": "failed", "audioUrl": None, "error": {"code": "voice_broken", "message": message}}


def test_foreign_file(project: Project, provider: FakeTTS) -> None:
    """A file that the ledger did not make is never replaced: the run is refused before it buys anything."""
    project.audio.mkdir()
    foreign = project.audio / "r2.mp3"
    foreign.write_bytes(b"someone's own recording")
    ended = project.run(project.manifest(3))
    assert (ended.exit_code, provider.creates) == (2, [])
    assert str(foreign) in ended.err
    assert foreign.read_bytes() == b"someone's own recording"


def test_file_that_appears_meanwhile(project: Project, provider: FakeTTS) -> None:
    """A file put at an output's path while the run goes on is not replaced either; the audio is kept for later."""
    foreign = project.audio / "r1.mp3"

    def put_in_the_way(_: Create) -> None:
        foreign.parent.mkdir(exist_ok=True)
        foreign.write_bytes(b"someone's own recording")

    provider.on_create = put_in_the_way
    rows = project.rows(1)
    manifest = project.manifest(rows)
    assert project.run(manifest).exit_code == 8
    assert foreign.read_bytes() == b"someone's own recording"
    foreign.unlink()
    assert project.run(manifest).exit_code == 0
    project.assert_whole(rows)
    assert len(provider.creates) == 1


def test_another_account(project: Project, provider: FakeTTS) -> None:
    """Open tasks of one account are not read with another's token, and nothing is bought on that account for them."""
    rows = project.rows(4)
    manifest = project.manifest(rows)
    project.run(manifest, "--no-wait", "--max-items", "2")
    provider.user_id = "user-2"
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["outcome"]) == (5, "credentials")
    assert [job.reads for job in provider.jobs.values()] == [0, 0]
    assert len(provider.creates) == 2
    provider.user_id = "user-1"
    assert project.run(manifest).exit_code == 0
    project.assert_whole(rows)


def test_leftovers_and_deleted_files(project: Project, provider: FakeTTS) -> None:
    """Unfinished downloads of an earlier run are cleared away; a deleted output comes back at no cost."""
    rows = project.rows(2)
    manifest = project.manifest(rows)
    leftover = project.audio / ".items" / "ab" / ".abcdef.mp3.part"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half of it")
    assert project.run(manifest).exit_code == 0
    project.assert_whole(rows)
    (project.audio / "r1.mp3").unlink()
    requests = len(provider.api_headers) + len(provider.audio_headers)
    assert project.run(manifest).exit_code == 0
    project.assert_whole(rows)
    assert len(provider.api_headers) + len(provider.audio_headers) == requests


def test_a_task_whose_row_is_gone_beside_a_skipped_row(project: Project, provider: FakeTTS) -> None:
    """A task that no row wants any more is collected also when the manifest has rows without an item."""
    rows = project.rows(2)
    project.run(project.manifest(rows), "--no-wait")
    manifest = project.manifest([rows[0], rows[1] | {"text": " "}])
    ended = project.run(manifest, "--skip-invalid")
    assert (ended.exit_code, ended.report["collected"]) == (3, 2)
    assert len(provider.creates) == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_long_night(project: Project, provider: FakeTTS, seed: int) -> None:
    """500 rows, ten kills, one answer in a hundred dropped: each text is charged once, each doubt settled rightly."""
    dice = random.Random(seed)
    rows = project.rows(500)
    manifest = project.manifest(rows)
    provider.create_seconds, provider.task_seconds = 0.02, 0.2

    def drop(_: object) -> Twist | None:
        return dice.choice([DROPPED, DROPPED_AFTER_CHARGE]) if dice.random() < 0.01 else None

    def calm(_: object) -> None:
        """Nothing is dropped any more."""

    provider.on_create = provider.on_read = provider.on_profile = provider.on_audio = drop
    for kill in range(1, 11):
        run = project.start_run(manifest, "--concurrency", "10", "--max-in-doubt", "100")
        seen = len(provider.creates) + dice.randrange(20, 45)
        provider.until(lambda seen=seen: len(provider.creates) >= seen, 30.0)  # type: ignore[misc]
        run.send(signal.SIGKILL)
        assert run.end().exit_code == -signal.SIGKILL, kill
    provider.on_create = provider.on_read = provider.on_profile = provider.on_audio = calm
    ended = project.run(manifest, "--concurrency", "50")
    doubts = assert_nothing_lost(project, provider)
    assert ended.exit_code == 3
    for text in doubts:
        row = next(row["id"] for row in rows if row["text"] == text)
        decision = ("--adopt", *provider.paid[text]) if text in provider.paid else ("--buy-again",)
        where = ("--ledger", project.ledger, "--api-url", provider.url)
        settled = project.batcher("resolve", row, *decision, *where)
        assert settled.exit_code == 0, settled.err
    assert project.run(manifest, "--concurrency", "50").exit_code == 0
    assert {len(task_ids) for task_ids in provider.paid.values()} == {1}
    assert len(provider.paid) == len(provider.jobs) == 500
    project.assert_whole(rows)
