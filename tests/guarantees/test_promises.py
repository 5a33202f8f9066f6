"""The promises, checked on the real program: what was charged, what is on disk, what was printed."""

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
    """Check that no text was sent twice and each charge is recorded or in doubt; return the doubts."""
    assert max(Counter(provider.asked).values()) == 1
    recorded = {task_id for (task_id,) in project.query("SELECT task_id FROM tasks")}
    in_doubt = [text for (text,) in project.query("SELECT text FROM items WHERE state = 'in_doubt'")]
    for text, task_ids in provider.paid.items():
        assert recorded.issuperset(task_ids) or text in in_doubt
    return in_doubt


def test_three_hundred_rows_are_bought_once_and_reported(project: Project, provider: FakeTTS) -> None:
    """Each gets its audio, and another run sends no request."""
    rows = project.rows(300)
    manifest = project.manifest(rows)
    ended = project.run(manifest, "--concurrency", "100")
    assert (ended.exit_code, ended.report["created"], ended.report["collected"]) == (0, 300, 300)
    assert Counter(provider.asked) == Counter(row["text"] for row in rows)
    assert ended.report["credits"] == {
        "start": 1e6,
        "end": 1e6 - 300,
        "spent": 300,
        "estimated_needed": 0,
        "topped_up": 0,
    }
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
def test_the_flat_and_the_wrapped_shape_of_a_task_are_understood(
    project: Project, provider: FakeTTS, shape: str
) -> None:
    provider.shape = shape
    rows = project.rows(3)
    assert project.run(project.manifest(rows)).exit_code == 0
    project.assert_whole(rows)


@pytest.mark.slow
def test_five_kills_buy_nothing_twice_and_lose_no_charge(project: Project, provider: FakeTTS) -> None:
    """Creates without an answer are in doubt."""
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


def test_the_first_signal_stops_creating_and_collects(project: Project, provider: FakeTTS) -> None:
    """The next run buys only the rest."""
    rows = project.rows(40)
    manifest = project.manifest(rows)
    provider.task_seconds = 0.5  # the signal comes long before the end
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


@pytest.mark.parametrize(("create_seconds", "in_doubt"), [(0.1, 0), (50.0, 10)])
def test_the_second_signal_ends_the_run_soon(
    project: Project, provider: FakeTTS, create_seconds: float, in_doubt: int
) -> None:
    """Answers that still come are recorded; creates without one are in doubt."""
    manifest = project.manifest(20)
    provider.create_seconds, provider.task_seconds = create_seconds, 60.0
    run = project.start_run(manifest, "--concurrency", "10")
    provider.until(lambda: len(provider.creates) == 10)
    run.send(signal.SIGINT)
    run.until_says("stopping")
    run.send(signal.SIGINT)
    ended = run.end()
    assert (ended.exit_code, ended.report["exit_code"], ended.report["outcome"]) == (130, 130, "interrupted")
    assert ended.report["elapsed_seconds"] < 30.0
    assert len(assert_nothing_lost(project, provider)) == in_doubt
    assert len(provider.creates) == 10
    provider.create_seconds = provider.task_seconds = 0.0
    for job in provider.jobs.values():
        job.ends_at = 0.0
    assert project.run(manifest, "--concurrency", "20").report["states"]["done"] == 20 - in_doubt
    assert len(assert_nothing_lost(project, provider)) == in_doubt


def test_an_unexpected_error_waits_for_creates_in_flight(project: Project, provider: FakeTTS) -> None:
    """It ends the run with exit 1."""
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


def test_a_create_whose_answer_was_lost_is_never_sent_again(project: Project, provider: FakeTTS) -> None:
    """It is in doubt, charged or not."""
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


@pytest.mark.file_ledger
def test_a_second_run_on_a_ledger_ends_at_once(project: Project, provider: FakeTTS) -> None:
    """Regardless of the path; it names the process that holds the lock."""
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
def test_an_unreadable_manifest_is_refused_and_its_tasks_collected(
    project: Project, provider: FakeTTS, spoil: Callable[[Project], Path]
) -> None:
    rows = project.rows(5)
    assert project.run(project.manifest(rows), "--no-wait").exit_code == 6
    ended = project.run(spoil(project))
    assert (ended.exit_code, ended.report["outcome"], ended.report["collected"]) == (2, "refused", 5)
    project.assert_whole(rows)
    assert len(provider.creates) == 5


def test_tasks_of_removed_and_changed_rows_are_collected(project: Project, provider: FakeTTS) -> None:
    """Only the manifest's current rows are bought."""
    rows = project.rows(5)
    assert project.run(project.manifest(rows), "--no-wait").exit_code == 6
    now = [rows[0], rows[1] | {"text": "Something else."}]
    ended = project.run(project.manifest(now))
    assert (ended.exit_code, ended.report["rows"], ended.report["states"]["done"]) == (0, 2, 2)
    project.assert_whole(now)
    assert provider.asked[5:] == ["Something else."]
    kept = {path.read_bytes() for path in (project.audio / ".items").rglob("*.mp3")}
    assert kept == {audio_of(text, "mp3") for text in provider.asked}


def test_rows_removed_before_they_were_bought_are_never_bought(project: Project, provider: FakeTTS) -> None:
    project.run(project.manifest(6), "--max-items", "1", "--no-wait")
    assert project.run(project.manifest(project.rows(1) + project.rows(2, first=9))).exit_code == 0
    assert sorted(provider.asked) == sorted(row["text"] for row in project.rows(1) + project.rows(2, first=9))


def test_equal_rows_share_a_purchase_unless_their_take_differs(project: Project, provider: FakeTTS) -> None:
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


def test_max_items_limits_each_run(project: Project, provider: FakeTTS) -> None:
    """All runs together buy everything once."""
    rows = project.rows(3)
    manifest = project.manifest(rows)
    for bought, exit_code in ((2, 6), (3, 0)):
        ended = project.run(manifest, "--max-items", "2")
        assert (ended.exit_code, len(provider.creates)) == (exit_code, bought)
    assert_nothing_lost(project, provider)
    project.assert_whole(rows)


def test_max_runtime_leaves_time_to_collect(project: Project, provider: FakeTTS) -> None:
    """Creating ends early enough."""
    manifest = project.manifest(200)
    ended = project.run(manifest, "--max-runtime", "3s")
    assert ended.exit_code == 6
    assert "--max-runtime" in ended.report["message"]
    assert 2.0 < ended.report["elapsed_seconds"] < 10.0
    bought = len(provider.creates)
    assert 0 < bought < 200
    assert project.states() == {"done": bought, "pending": 200 - bought}


def test_collect_only_finishes_what_no_wait_has_created(project: Project, provider: FakeTTS) -> None:
    """It creates nothing and needs no manifest."""
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


def test_no_answer_to_a_poll_leads_to_another_create(project: Project, provider: FakeTTS) -> None:
    """The task is polled again."""
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


def test_an_unknown_status_is_polled_again(project: Project, provider: FakeTTS) -> None:
    provider.on_read = lambda job: (
        Twist(status=200, body={"id": job.id, "status": "pondering"}) if job.reads < 3 else None
    )
    rows = project.rows(2)
    assert project.run(project.manifest(rows)).exit_code == 0
    project.assert_whole(rows)
    assert {job.reads for job in provider.jobs.values()} == {3}


def test_bad_audio_never_becomes_a_file(project: Project, provider: FakeTTS) -> None:
    """Expired, refused, missing, cut off or wrong: the task is polled again."""
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


def test_token_texts_and_signed_addresses_are_never_written(project: Project, provider: FakeTTS) -> None:
    """The token goes to the API alone."""
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


def test_a_foreign_file_stops_the_run_before_it_buys(project: Project, provider: FakeTTS) -> None:
    """It is never replaced."""
    project.audio.mkdir()
    foreign = project.audio / "r2.mp3"
    foreign.write_bytes(b"someone's own recording")
    ended = project.run(project.manifest(3))
    assert (ended.exit_code, provider.creates) == (2, [])
    assert str(foreign) in ended.err
    assert foreign.read_bytes() == b"someone's own recording"


def test_a_file_put_at_an_output_during_the_run_is_not_replaced(project: Project, provider: FakeTTS) -> None:
    """The audio is stored and linked later."""
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


def test_tasks_of_another_account_wait_for_its_token(project: Project, provider: FakeTTS) -> None:
    """Nothing is bought for them on the present account."""
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


def test_unfinished_downloads_go_and_deleted_outputs_return(project: Project, provider: FakeTTS) -> None:
    """At no cost."""
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


def test_a_task_without_a_row_is_collected_beside_a_skipped_row(project: Project, provider: FakeTTS) -> None:
    """A skipped row has no item."""
    rows = project.rows(2)
    project.run(project.manifest(rows), "--no-wait")
    manifest = project.manifest([rows[0], rows[1] | {"text": " "}])
    ended = project.run(manifest, "--skip-invalid")
    assert (ended.exit_code, ended.report["collected"]) == (3, 2)
    assert len(provider.creates) == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ten_kills_and_dropped_answers_charge_each_text_once(project: Project, provider: FakeTTS, seed: int) -> None:
    """500 rows, and one answer in a hundred is dropped. Each doubt is settled correctly."""
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
        where = ("--ledger", project.server or project.ledger, "--api-url", provider.url)
        settled = project.batcher("resolve", row, *decision, *where)
        assert settled.exit_code == 0, settled.err
    assert project.run(manifest, "--concurrency", "50").exit_code == 0
    assert {len(task_ids) for task_ids in provider.paid.values()} == {1}
    assert len(provider.paid) == len(provider.jobs) == 500
    project.assert_whole(rows)
