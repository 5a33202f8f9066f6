"""Trouble around the program: closed streams, unwritable folders, an unreadable profile, proxies."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batcher.formatting import plain_error
from tests.support.fake_tts import FakeTTS, Twist, refusal

if TYPE_CHECKING:
    from tests.conftest import Project


def _shell(project: Project, manifest: Path, redirections: str) -> int:
    command = f"{sys.executable} -m batcher run {manifest} --api-url {project.provider.url} {redirections}"
    return subprocess.run(["/bin/sh", "-c", command], env=project.environment, check=False, timeout=60).returncode


@pytest.mark.parametrize(
    "redirections", ["2>/dev/full", pytest.param("2>&1 | head -n 1 >/dev/null", marks=pytest.mark.slow)]
)
def test_a_standard_error_that_takes_nothing_stops_no_run(
    project: Project, provider: FakeTTS, redirections: str
) -> None:
    assert _shell(project, project.manifest(2), redirections) == 0
    project.assert_whole(project.rows(2))


def test_a_closed_standard_input_exits_2(project: Project, provider: FakeTTS) -> None:
    assert _shell(project, Path("-"), "--voice anna <&- 2>/dev/null") == 2
    assert provider.creates == []


def test_a_closed_terminal_stops_a_run_like_a_first_signal(project: Project, provider: FakeTTS) -> None:
    """Creates in flight are answered; nothing is in doubt."""
    provider.create_seconds = 0.3
    started = project.start_run(project.manifest(30), "--concurrency", "5")
    provider.until(lambda: len(provider.creates) >= 5)
    started.send(signal.SIGHUP)
    ended = started.end()
    assert ended.exit_code == 6
    assert "exit 6: stopped by a signal; run it again to continue\n" in ended.err
    assert "in_doubt" not in project.states()
    assert project.run(project.folder / "lines.csv", "--concurrency", "30").exit_code == 0
    assert len(provider.creates) == 30


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that nobody can write to")
def test_with_an_unwritable_output_folder_nothing_is_bought(project: Project, provider: FakeTTS) -> None:
    ended = project.run(project.manifest(2), "--out-dir", "/proc/nowhere")
    assert (ended.exit_code, provider.creates) == (2, [])
    assert "/proc/nowhere" in ended.err


@pytest.mark.slow
def test_without_a_profile_tasks_are_collected_but_not_created(project: Project, provider: FakeTTS) -> None:
    """The account is known by its token."""
    manifest = project.manifest(2)
    assert project.run(manifest, "--no-wait").exit_code == 6
    provider.on_profile = lambda _: refusal(500, "oops")
    ended = project.run(project.manifest(3))
    assert (ended.exit_code, ended.report["created"], ended.report["collected"]) == (8, 0, 2)
    assert len(provider.creates) == 2


def test_a_halt_met_with_an_unreadable_balance_ends_after_a_top_up(project: Project, provider: FakeTTS) -> None:
    """Once the balance has been read and has risen."""
    provider.credits, provider.hidden = 1, ("credits", "api_quota_remaining")
    manifest = project.manifest(3)
    assert project.run(manifest, "--concurrency", "1").exit_code == 4
    provider.hidden = ()
    assert project.run(manifest).exit_code == 4
    provider.credits = 100
    assert project.run(manifest).exit_code == 0
    assert max(map(len, provider.paid.values())) == 1


def test_an_api_on_this_machine_is_reached_without_the_proxy(project: Project, provider: FakeTTS) -> None:
    """The token would go there."""
    proxied = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    assert project.run(project.manifest(1), environment=proxied).exit_code == 0


def test_with_no_wait_a_run_sends_its_probe_and_ends(project: Project, provider: FakeTTS) -> None:
    """A task had failed for lack of credits before."""
    provider.ending = lambda _: {"status": "failed", "error": {"code": "insufficient_credits"}, "creditsUsed": 0}
    manifest = project.manifest(2)
    assert project.run(manifest, "--concurrency", "1").exit_code == 4
    provider.ending = lambda _: {}
    provider.credits += 50
    provider.on_read = lambda job: (
        Twist(
            status=200,
            body={"id": job.id, "status": "failed", "error": {"code": "insufficient_credits"}, "creditsUsed": 0},
        )
        if job.id == "task_1"
        else None
    )
    assert project.run(manifest, "--no-wait").exit_code in (4, 6)
    assert len(provider.creates) == 2
    assert project.run(manifest).exit_code == 0
    assert len(provider.creates) == 3


def test_foreign_results_and_other_batches_outputs_are_never_overwritten(project: Project, provider: FakeTTS) -> None:
    project.audio.mkdir()
    theirs = project.audio / "lines.results.csv"
    theirs.write_text("mine")
    assert project.run(project.manifest(1)).exit_code == 2
    assert theirs.read_text() == "mine"
    theirs.unlink()
    rows = project.rows(1)
    nested = [rows[0] | {"output": "sub/r1.mp3"}]
    assert project.run(project.manifest(nested, "a.csv")).exit_code == 0
    inside = project.manifest([rows[0] | {"text": "Another."}], "b.csv")
    assert project.run(inside, "--out-dir", project.audio / "sub").exit_code == 2
    assert provider.asked == [rows[0]["text"]]


def test_rows_may_swap_their_outputs_at_no_cost(project: Project, provider: FakeTTS) -> None:
    """Both files are the ledger's own."""
    rows = [row | {"output": f"{row['id']}.mp3"} for row in project.rows(2)]
    assert project.run(project.manifest(rows)).exit_code == 0
    before = [(project.audio / row["output"]).read_bytes() for row in rows]
    rows[0]["output"], rows[1]["output"] = rows[1]["output"], rows[0]["output"]
    assert project.run(project.manifest(rows)).exit_code == 0
    assert [(project.audio / row["output"]).read_bytes() for row in rows] == before
    assert len(provider.creates) == 2


@pytest.mark.parametrize(
    ("length", "why"),
    [(300, "not audio"), pytest.param(100 << 20, "longer than any speech of its text", marks=pytest.mark.slow)],
)
def test_the_last_bad_download_is_left_for_inspection(
    project: Project, provider: FakeTTS, length: int, why: str
) -> None:
    """It is named, and lies among the items until good audio comes."""
    page = b"<html><h1>Please sign in</h1>".ljust(length, b".")
    good = False
    provider.on_audio = lambda _: None if good else Twist(status=200, body=page, headers={"content-type": "text/html"})
    run = project.start_run(project.manifest(1), "-v")
    run.until(lambda: list(project.audio.glob(".items/*/*.bad")))
    [kept] = project.audio.glob(".items/*/*.bad")
    assert kept.read_bytes() == page[: 1 << 20]
    assert f"unusable download: {kept}" in project.batcher("show", "r1").out
    doctor = project.batcher("doctor", "lines.csv", "--api-url", provider.url).out
    assert f"1 download failed the audio checks; stored for inspection: {kept}" in doctor
    good = True
    ended = run.end()
    assert ended.exit_code == 0
    assert f"{why}; stored as {kept.relative_to(project.audio)} for inspection" in ended.err
    assert not kept.exists()
    project.assert_whole(project.rows(1))
    assert len(provider.creates) == 1


def test_a_refused_token_shows_status_code_message_and_request_id(project: Project, provider: FakeTTS) -> None:
    provider.on_profile = lambda _: refusal(401, "invalid_token")
    ended = project.run(project.manifest(1))
    assert ended.exit_code == 5
    assert "the API rejected the token: HTTP 401 invalid_token: this is invalid_token; request req_0123." in ended.err


@pytest.mark.slow
def test_a_cause_shared_by_many_doubts_is_reported_once(project: Project, provider: FakeTTS) -> None:
    """Without the name of a class, which only the ledger records. Rows that share an item are one."""
    provider.on_create = lambda _: Twist()
    rows = project.rows(3)
    ended = project.run(project.manifest([*rows, rows[1] | {"id": "r4"}]))
    said = "Server disconnected without sending a response"
    assert f"3 items in doubt (may have been bought): r1, r2 (also r4), r3 (3 times: {said})\n" in ended.err
    assert "RemoteProtocolError" not in ended.err
    assert {error for (error,) in project.query("SELECT error_message FROM items")} == {f"RemoteProtocolError: {said}."}
    told = project.batcher("resolve", "--ledger", project.ledger)
    assert (told.out.count(f"answer: {said}"), "RemoteProtocolError" in told.out) == (3, False)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("ReadError: reset by peer: twice", "reset by peer: twice"),
        ("ReadTimeout", "read timeout"),
        ("OSError", "os error"),
        ("no voice: none was named", "no voice: none was named"),
        ("", ""),
    ],
)
def test_the_class_name_of_an_error_is_put_into_words(said: str, words: str) -> None:
    """It is dropped where a message follows it; other messages stay the same."""
    assert plain_error(said) == words


@pytest.mark.parametrize("replaced", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_ledger_deleted_in_mid_run_is_noticed_and_rescued(project: Project, replaced: bool) -> None:
    """Putting the copy back continues without buying anything again."""
    project.provider.task_seconds = 1.0
    started = project.start_run(project.manifest(3))
    started.until(lambda: len(project.provider.creates) == 3)
    project.ledger.rename(project.folder / "moved.db")
    if replaced:
        shutil.copyfile(project.folder / "moved.db", project.ledger)
    ended = started.end()
    assert ended.exit_code == 8
    assert f"{project.ledger} was deleted or replaced during this run" in ended.err
    (rescued,) = project.folder.glob("batcher.db.rescued-*")
    assert stat.S_IMODE(rescued.stat().st_mode) == 0o600
    for aside in project.folder.glob("batcher.db-*"):
        aside.unlink()
    rescued.replace(project.ledger)
    assert project.run("lines.csv").exit_code == 0
    assert len(project.provider.creates) == 3


@pytest.mark.slow
def test_a_ledger_overwritten_in_mid_run_ends_it_like_a_full_disk(project: Project, provider: FakeTTS) -> None:
    """With one line that says what happened and what to do; nothing more is created, then or later."""
    provider.create_seconds, provider.task_seconds = 0.3, 2.0
    started = project.start_run(project.manifest(60), "--concurrency", "5")
    started.until(lambda: len(provider.creates) >= 7)
    for path in project.folder.glob("batcher.db*"):
        if path.suffix in (".db", ".db-wal", ".db-shm"):
            with path.open("r+b") as file:  # a mapped file that was cut off would end the process (SIGBUS)
                file.write(os.urandom(path.stat().st_size))
    ended = started.end()
    created = len(provider.creates)
    (line,) = [line for line in ended.err.splitlines() if line.startswith(("exit ", "batcher: "))]
    assert ended.exit_code == 8
    assert line.startswith(f"exit 8: the ledger {project.ledger} is damaged: ")
    assert "Replace it with a backup and run with --restored; keep the damaged file." in line
    assert created <= 12
    assert project.run("lines.csv").exit_code == 2
    assert len(provider.creates) == created
