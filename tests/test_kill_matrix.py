"""The kill matrix: the program is killed at every step that leaves a trace on disk or at the provider, then run again.

Each line of `MATRIX` is a step, and where a kill hits it. After the kill a plain run comes to its end, a second one
finds nothing to create, and a person settles what is in doubt; the promises are held against each of these.

One step is not here: the migration of an older ledger. There is a single migration yet, so no ledger that is older
than the program can be had without inventing one.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from batcher.item import Event
from batcher.ledger.spill import Spill
from tests.fake_tts import FakeTTS, audio_of

if TYPE_CHECKING:
    from tests.conftest import Ended, Project

ROWS: Final = 6
CONCURRENCY: Final = "3"
KILLING: Final = Path(__file__).with_name("killing.py")


class Doubt(Enum):
    """Whether a kill at some step leaves creates in doubt."""

    NEVER = "no create can be under way, or each is on record"
    MAYBE = "the step itself loses none, but a neighbour's create may be under way"
    SURELY = "the very create of the step is without a record"


NEVER, MAYBE, SURELY = Doubt


@dataclass(frozen=True)
class Step:
    """One line of the matrix.

    `runs` are killed one after the other, each at the last of its points; `{n}` stands for each of `nth` in turn.
    A step that is `core` is tried at the first of `nth` in every test run, everything else only among the slow tests.
    """

    name: str
    doubt: Doubt
    nth: tuple[int, ...]
    runs: tuple[str, ...]
    core: bool


def step(name: str, doubt: Doubt, nth: Sequence[int], *runs: str, core: bool = False) -> Step:
    """A line of the matrix; the points of a run are separated by semicolons."""
    return Step(name, doubt, tuple(nth), runs, core)


RECORD: Final = "batcher.ledger.ledger:Ledger.record"
SPILLED: Final = f"full {RECORD} 1; after batcher.ledger.spill:Spill.append 3"
"""The disk is full when the first answers come: all three of them go to the spill file."""

MATRIX: Final = [
    # Before anything can be bought.
    step("ledger-drafted", NEVER, [1], "after batcher.ledger.database:_migrate {n}"),
    step("ledger-not-in-place", NEVER, [1], "before pathlib:Path.replace {n}", core=True),
    step("ledger-in-place", NEVER, [1], "after batcher.ledger.database:create {n}"),
    step("run-noted-not-committed", NEVER, [1], "after batcher.ledger.running:begin_run {n}"),
    step("manifest-half-staged", NEVER, [ROWS // 2], "after batcher.ledger.importing:_stage {n}"),
    step("import-not-committed", NEVER, [1], "after batcher.ledger.importing:import_manifest {n}", core=True),
    step("import-committed", NEVER, [1], "after batcher.intake:Intake._import {n}"),
    step("profile-unread", NEVER, [1], "before batcher.client:Client.profile {n}"),
    step("profile-read", NEVER, [1], "after batcher.client:Client.profile {n}"),
    step("account-not-committed", NEVER, [1], "after batcher.ledger.running:enter_account {n}"),
    step("spill-reserved", NEVER, [1], "after batcher.ledger.spill:Spill.reserve {n}"),
    # The create. Between its intent and the record of its answer, every kill is a doubt.
    step("claim-not-committed", NEVER, [1], "after batcher.ledger.creating:claim {n}", core=True),
    step("claim-not-committed", MAYBE, [2], "after batcher.ledger.creating:claim {n}"),
    step("claim-committed", SURELY, [1, 2], "after batcher.submitter:Submitter._claim {n}", core=True),
    step("create-to-be-sent", SURELY, [1, 4], "before batcher.client:Client.create {n}"),
    step("create-connected", SURELY, [1, 5], "after batcher.submitter:Submitter._hold {n}"),
    step("answer-in-memory", SURELY, [1, 4], f"before {RECORD} {{n}}", core=True),
    step("answer-not-committed", SURELY, [1, 4], "after batcher.ledger.ledger:record_answer {n}", core=True),
    step("answer-committed", MAYBE, [1, 4], f"after {RECORD} {{n}}"),
    step("answer-committed", NEVER, [ROWS], f"after {RECORD} {{n}}"),
    # The spill file, and its way into the ledger.
    step("answer-spilled", MAYBE, [1, 2], f"full {RECORD} 1; after batcher.ledger.spill:Spill.append {{n}}"),
    step("answers-spilled", NEVER, [1], SPILLED, core=True),
    step("replay-not-committed", NEVER, [1, 2], SPILLED, "after batcher.ledger.ledger:record_answer {n}"),
    step("spill-to-be-cleared", NEVER, [1], SPILLED, "before batcher.ledger.spill:Spill.clear {n}"),
    step("spill-cleared", NEVER, [1], SPILLED, "after batcher.ledger.spill:Spill.clear {n}"),
    # Recovery of creates without an answer.
    step("doubts-not-committed", SURELY, [1], f"before {RECORD} 2", "after batcher.ledger.ledger:doubt_unanswered {n}"),
    step("doubts-committed", SURELY, [1], f"before {RECORD} 2", "after batcher.ledger.ledger:Ledger.recover {n}"),
    # The polls.
    step("task-to-be-read", MAYBE, [1, 4], "before batcher.client:Client.read {n}"),
    step("task-read", MAYBE, [1, 4], "before batcher.poller:Poller._read {n}"),
    step("ending-not-committed", MAYBE, [1, 4], "after batcher.ledger.collecting:record_rendered {n}"),
    step("ending-not-committed", NEVER, [ROWS], "after batcher.ledger.collecting:record_rendered {n}"),
    step("ending-committed", MAYBE, [1, 4], "before batcher.downloader:Downloader.add {n}", core=True),
    step(
        "task-of-an-earlier-run-ended",
        NEVER,
        [2],
        f"after {RECORD} {ROWS}",
        "before batcher.downloader:Downloader.add {n}",
    ),
    # From the download to the rows' outputs.
    step("audio-to-be-fetched", MAYBE, [1, 4], "before batcher.client:Client.fetch {n}"),
    step("part-in-buffer", MAYBE, [1, 4], "after batcher.client:Client.fetch {n}"),
    step("part-whole", MAYBE, [1, 4], "before batcher.downloader:Downloader._keep {n}"),
    step("file-not-committed", MAYBE, [1, 4], "after batcher.ledger.collecting:record_file {n}"),
    step("file-to-be-renamed", MAYBE, [4, 1], "before batcher.store:Store.publish {n}", core=True),
    step("folder-not-durable", MAYBE, [1, 4], "before batcher.store:_sync_folder {n}"),
    step("file-in-place", MAYBE, [4, 1], "after batcher.store:Store.publish {n}", core=True),
    step("saved-not-committed", MAYBE, [1, 4], "after batcher.ledger.collecting:record_saved {n}"),
    step("saved-not-committed", NEVER, [ROWS], "after batcher.ledger.collecting:record_saved {n}"),
    step("output-to-be-linked", MAYBE, [1, 4], "before batcher.store:Store.link {n}"),
    step("output-drafted", MAYBE, [1, 4], "after pathlib:Path.hardlink_to {n}", core=True),
    step("output-linked", MAYBE, [1, 4], "after batcher.store:Store.link {n}"),
    step("link-not-committed", MAYBE, [1, 4], "after batcher.ledger.collecting:record_links {n}"),
    step("link-committed", MAYBE, [2, 5], "after batcher.delivery:Delivery.link {n}"),  # the first call links nothing
    # Taking up, in the next run, what the one before left on disk.
    step(
        "file-found-in-place",
        MAYBE,
        [1],
        "after batcher.store:Store.publish 3",
        "before batcher.delivery:Delivery.save {n}",
    ),
    step(
        "file-found-not-committed",
        MAYBE,
        [1],
        "after batcher.store:Store.publish 3",
        "after batcher.ledger.collecting:record_saved {n}",
    ),
    step("parts-swept", MAYBE, [1], "before batcher.store:Store.publish 3", "after batcher.runner:take_up_files {n}"),
    # The end of a run.
    step("results-half-written", NEVER, [3], "after batcher.report:_cell {n}"),
    step("results-to-be-renamed", NEVER, [1], "after batcher.report:_write_lines {n}", core=True),
    # A rename for the ledger, two for each row, one for the first of the two results files.
    step("results-half-renamed", NEVER, [1 + 2 * ROWS + 2], "before pathlib:Path.replace {n}"),
    step("end-to-be-noted", NEVER, [1], "before batcher.ledger.running:end_run {n}"),
    step("end-not-committed", NEVER, [1], "after batcher.ledger.running:end_run {n}"),
    step("ledger-to-be-closed", NEVER, [1], "before batcher.ledger.ledger:Ledger.close {n}", core=True),
    step("spill-to-be-removed", NEVER, [1], "before batcher.ledger.spill:Spill.remove {n}"),
    step("ledger-closed", NEVER, [1], "after batcher.ledger.ledger:Ledger.close {n}"),
]


def cases() -> list[Any]:
    """Every step of the matrix, once for each call that is to be hit."""
    found = []
    for line in MATRIX:
        for place, nth in enumerate(line.nth):
            runs = [run.format(n=nth) for run in line.runs]
            marks = [] if line.core and place == 0 else [pytest.mark.slow]
            found.append(pytest.param(runs, line.doubt, id=f"{line.name}-{nth}", marks=marks))
    return found


def kill_at(project: Project, manifest: Path, points: str) -> None:
    """Run on the manifest until the last of the points kills the run; the test fails if it lives to its end."""
    command = [sys.executable, str(KILLING), *points.split("; "), "--", "run", str(manifest)]
    command += ["--api-url", project.provider.url, "--json", "--concurrency", CONCURRENCY]
    ended = subprocess.run(
        command, cwd=project.folder, env=project.environment, capture_output=True, encoding="utf-8", timeout=30
    )
    assert ended.returncode == -signal.SIGKILL, f"{points} was not reached:\n{ended.stdout}{ended.stderr}"


def unrecorded(project: Project) -> set[str]:
    """The texts whose create was intended and whose answer is neither in the ledger nor in the spill file."""
    if not project.ledger.exists():
        return set()
    spill = Spill(project.ledger.with_name(f"{project.ledger.name}.spill"))
    spilled = {record.key for record in spill.records() if record.event is Event.ACCEPTED}
    found = project.query("SELECT key, text FROM items WHERE state IN ('submitting', 'in_doubt')")
    return {text for key, text in found if key not in spilled}


def run_on(project: Project, manifest: Path) -> Ended:
    """A run as a user starts it, with room for all that is left."""
    return project.run(manifest, "--concurrency", "8")


def assert_kept(project: Project, rows: Sequence[dict[str, str]], doubts: set[str]) -> None:
    """After a run to the end, with these texts in doubt and every other row done: all promises are kept."""
    assert project.query("PRAGMA integrity_check") == [("ok",)]
    paid = project.provider.paid
    recorded = {task_id for (task_id,) in project.query("SELECT task_id FROM tasks")}
    for text, task_ids in paid.items():
        assert len(task_ids) == 1, "charged twice"
        assert recorded.issuperset(task_ids) or text in doubts, "charged and lost"
    assert recorded <= set(project.provider.jobs)
    expected = {row["text"]: "in_doubt" if row["text"] in doubts else "done" for row in rows}
    assert dict(project.query("SELECT text, state FROM items")) == expected
    assert [result["state"] for result in project.results()] == [expected[row["text"]] for row in rows]
    project.assert_whole([row for row in rows if row["text"] not in doubts])
    for row in rows:
        assert (project.audio / f"{row['id']}.mp3").exists() == (row["text"] not in doubts), row["id"]
    leftovers = [path.name for path in project.folder.iterdir() if path.name.startswith(".")]
    assert leftovers == []


def settle(project: Project, rows: Sequence[dict[str, str]], doubts: set[str]) -> None:
    """Decide as a person would who looks doubtful creates up in the account's history at the provider."""
    for row in rows:
        if row["text"] in doubts:
            paid = project.provider.paid.get(row["text"])
            how = ["--adopt", paid[0]] if paid else ["--buy-again"]
            settled = project.batcher("resolve", row["id"], *how, "--api-url", project.provider.url)
            assert settled.exit_code == 0, settled


def assert_recovers(project: Project, manifest: Path, rows: Sequence[dict[str, str]]) -> set[str]:
    """Run to the end, once more, settle what is in doubt and finish; returns the texts that were in doubt.

    They are exactly those whose create was without a record when the last run was killed.
    """
    doubts = unrecorded(project)
    again = run_on(project, manifest)
    assert again.exit_code == (3 if doubts else 0), again
    assert_kept(project, rows, doubts)
    asked = len(project.provider.creates)
    third = run_on(project, manifest)
    assert (third.exit_code, third.report["created"]) == (again.exit_code, 0), third
    assert len(project.provider.creates) == asked
    if doubts:
        settle(project, rows, doubts)
        last = run_on(project, manifest)
        assert last.exit_code == 0, last
        assert_kept(project, rows, set())
    assert set(project.provider.paid) == {row["text"] for row in rows}
    assert not project.ledger.with_name(f"{project.ledger.name}.spill").exists()
    return doubts


def assert_doubt(doubt: Doubt, doubts: set[str]) -> None:
    """No more creates are in doubt than were in flight, and as many as the step allows."""
    assert len(doubts) <= int(CONCURRENCY)
    if doubt is not MAYBE:
        assert bool(doubts) == (doubt is SURELY)


@pytest.mark.parametrize(("runs", "doubt"), cases())
def test_killed(project: Project, provider: FakeTTS, runs: list[str], doubt: Doubt) -> None:
    """A kill at this step buys nothing twice, loses nothing that was bought, and the next runs finish the rest."""
    rows = project.rows(ROWS)
    manifest = project.manifest(rows)
    for points in runs:
        kill_at(project, manifest, points)
    assert_doubt(doubt, assert_recovers(project, manifest, rows))
    assert Counter(provider.asked) == Counter(row["text"] for row in rows)


@pytest.mark.parametrize("nth", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_killed_on_the_wire(project: Project, provider: FakeTTS, nth: int) -> None:
    """A kill while the provider, who has charged, holds its answer back leaves that create in doubt, to be adopted."""
    rows = project.rows(ROWS)
    manifest = project.manifest(rows)
    provider.create_seconds = 0.5
    run = project.start_run(manifest, "--concurrency", CONCURRENCY)
    run.until(lambda: len(provider.jobs) >= nth)
    run.send(signal.SIGKILL)
    assert run.end().exit_code == -signal.SIGKILL
    provider.create_seconds = 0.0
    doubts = assert_recovers(project, manifest, rows)
    assert_doubt(SURELY, doubts)
    assert rows[nth - 1]["text"] in doubts
    assert Counter(provider.asked) == Counter(row["text"] for row in rows)


@contextmanager
def half_sent(audio: bytes) -> Iterator[str]:
    """The address of an audio that comes half, and then no further for as long as the context lasts."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                head = f"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: {len(audio)}\r\n\r\n"
                connection.sendall(head.encode() + audio[: len(audio) // 2])
                done.wait()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/half.mp3"
        finally:
            done.set()
            thread.join()


def test_killed_with_half_a_download(project: Project, provider: FakeTTS) -> None:
    """A kill with half the audio on disk leaves no half file: the next run fetches it whole, and buys nothing."""
    rows = [{"id": "long", "text": "It was a long, long story. " * 1000, "voice": "anna"}]
    rows[0]["text"] = rows[0]["text"].strip()
    manifest = project.manifest(rows)
    with half_sent(audio_of(rows[0]["text"], "mp3")) as url:
        provider.ending = lambda _: {"audioUrl": url}
        run = project.start_run(manifest)
        run.until(lambda: any(path.stat().st_size for path in project.audio.rglob("*.part")))
        run.send(signal.SIGKILL)
        assert run.end().exit_code == -signal.SIGKILL
    assert [path.name[-9:] for path in project.audio.rglob("*") if path.is_file()] == [".mp3.part"]
    provider.ending = lambda _: {}
    assert assert_recovers(project, manifest, rows) == set()
    assert len(provider.creates) == 1


OUT_OF_CREDITS: Final = [
    # The fourth create is the first that is refused. Until that is on record nothing halts the account, and the
    # refused create is in doubt for nothing; from then on no run creates, whatever it was killed at.
    pytest.param(f"before {RECORD} 4", False, id="refusal-in-memory", marks=pytest.mark.slow),
    pytest.param("after batcher.ledger.halting:open_halt 1", False, id="halt-not-committed"),
    pytest.param(f"after {RECORD} 4", True, id="halt-committed"),
    pytest.param(
        "after batcher.ledger.halting:set_balance 1", True, id="balance-not-committed", marks=pytest.mark.slow
    ),
    pytest.param("after batcher.guard:Guard.settle 1", True, id="balance-committed", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("point", "halted"), OUT_OF_CREDITS)
def test_killed_out_of_credits(project: Project, provider: FakeTTS, point: str, halted: bool) -> None:
    """A halt that was on record outlives the kill: nothing is created until there is more; then the rest is."""
    rows = project.rows(ROWS)
    manifest = project.manifest(rows)
    provider.credits = 3
    kill_at(project, manifest, point)
    asked = len(provider.creates)
    poor = run_on(project, manifest)
    assert poor.exit_code == 4, poor
    assert (len(provider.creates) == asked) == halted
    assert sorted(len(task_ids) for task_ids in provider.paid.values()) == [1, 1, 1]
    provider.credits = 1000
    assert_doubt(NEVER if point.startswith("after batcher.guard") else MAYBE, assert_recovers(project, manifest, rows))
    assert provider.credits == 1000 - (ROWS - 3)


def test_killed_while_adopting(project: Project, provider: FakeTTS) -> None:
    """A decision that a kill cuts short has not been taken; it is taken again, and collects the task."""
    rows = project.rows(1)
    manifest = project.manifest(rows)
    kill_at(project, manifest, f"before {RECORD} 1")
    assert run_on(project, manifest).exit_code == 3
    command = ["resolve", "r1", "--adopt", "task_1", "--api-url", provider.url]
    adopting = [sys.executable, str(KILLING), "after batcher.ledger.deciding:adopt 1", "--", *command]
    ended = subprocess.run(adopting, cwd=project.folder, env=project.environment, capture_output=True, timeout=30)
    assert ended.returncode == -signal.SIGKILL
    assert project.states() == {"in_doubt": 1}
    assert_doubt(SURELY, assert_recovers(project, manifest, rows))
    assert len(provider.creates) == 1
