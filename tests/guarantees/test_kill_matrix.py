"""The kill matrix: the program is killed at every step that leaves a trace on disk or at the provider, then run again.

Each line of `MATRIX` names a step, and where a kill hits it. After the kill a plain run reaches its end, a second one
finds nothing to create, and a person settles what is in doubt; the promises are checked after each. Steps that only the
provider can see, or that need more preparation, have their own tests below.
"""

from __future__ import annotations

import signal
import socket
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from enum import Enum
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from batcher.item import Event
from batcher.ledger.storage.schema import REVISION
from batcher.ledger.storage.spill import Spill
from tests.support.fake_tts import FakeTTS, audio_of, different_takes, take_audio
from tests.support.processes import killed
from tests.support.summing import assert_added_up

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.processes import Ended

ROWS: Final = 6
CONCURRENCY: Final = "3"


class Doubt(Enum):
    """Whether a kill at a step leaves creates in doubt."""

    NEVER = "no create can be under way, or each is on record"
    MAYBE = "the step itself loses none, but a neighbour's create may be under way"
    SURELY = "the very create of the step is without a record"


NEVER, MAYBE, SURELY = Doubt

COMMIT: Final = "sqlalchemy.engine.default:DefaultDialect.do_commit"
RECORD: Final = "batcher.ledger.ledger:Ledger.record"
SPILLED: Final = f"full {RECORD} 1; after batcher.ledger.storage.spill:Spill.append 3"
"""The disk is full when the first three answers come, so they go to the spill file."""
UNANSWERED: Final = f"before {RECORD} 2"
ACCEPTED: Final = f"after {RECORD} {ROWS}"
RECORDED: Final = "before batcher.audio.folder:Folder.publish 3"
IN_PLACE: Final = "after batcher.audio.folder:Folder.publish 3"

MATRIX: Final[list[tuple[str, Doubt, list[int], *tuple[str, ...]]]] = [
    # The step, whether it leaves doubts, calls, and the runs: each is killed at the last of its points.
    # Before anything can be bought.
    ("ledger-drafted", NEVER, [1], "before pathlib:Path.replace {n}"),
    ("ledger-not-in-place", NEVER, [1], "before pathlib:Path.replace {n}"),
    ("ledger-in-place", NEVER, [1], "after batcher.ledger.storage.database:create {n}"),
    ("run-noted-not-committed", NEVER, [1], "after batcher.ledger.lifecycle.runs:begin_run {n}"),
    ("manifest-half-staged", NEVER, [ROWS // 2], "after batcher.ledger.imports.staging:_values {n}"),
    ("import-not-committed", NEVER, [1], "after batcher.ledger.imports.importer:import_manifest {n}"),
    ("import-committed", NEVER, [1], "after batcher.pipeline.ingest:Ingest._import {n}"),
    ("profile-unread", NEVER, [1], "before batcher.provider.client:Client.profile {n}"),
    ("profile-read", NEVER, [1], "after batcher.provider.client:Client.profile {n}"),
    ("account-not-committed", NEVER, [1], "after batcher.ledger.lifecycle.runs:enter_account {n}"),
    ("folder-to-be-signed", NEVER, [1], "before batcher.audio.folder_mark:sign {n}"),
    ("folder-signed", NEVER, [1, 2], "after batcher.audio.folder_mark:sign {n}"),
    ("spill-reserved", NEVER, [1], "after batcher.ledger.storage.spill:Spill.reserve {n}"),
    # The create. Between its intent and the record of its answer, every kill is a doubt.
    ("claim-not-committed", NEVER, [1], "after batcher.ledger.lifecycle.claims:claim {n}"),
    ("claim-not-committed", MAYBE, [2], "after batcher.ledger.lifecycle.claims:claim {n}"),
    ("claim-committed", SURELY, [1, 2], "after batcher.pipeline.submitter:Submitter._claim {n}"),
    ("create-to-be-sent", SURELY, [1, 4], "before batcher.provider.client:Client.create {n}"),
    ("create-connected", SURELY, [1, 5], "after batcher.pipeline.submitter:Submitter._hold {n}"),
    ("answer-in-memory", SURELY, [1, 4], f"before {RECORD} {{n}}"),
    ("answer-not-committed", SURELY, [1, 4], "after batcher.ledger.ledger:record_answer {n}"),
    ("answer-committed", MAYBE, [1, 4], f"after {RECORD} {{n}}"),
    ("answer-committed", NEVER, [ROWS], f"after {RECORD} {{n}}"),
    # The spill file, and its way into the ledger.
    ("answer-spilled", MAYBE, [1, 2], f"full {RECORD} 1; after batcher.ledger.storage.spill:Spill.append {{n}}"),
    ("answers-spilled", NEVER, [1], SPILLED),
    ("replay-not-committed", NEVER, [1, 2], SPILLED, "after batcher.ledger.recovery:record_answer {n}"),
    ("spill-to-be-cleared", NEVER, [1], SPILLED, "before batcher.ledger.storage.spill:Spill.clear {n}"),
    ("spill-cleared", NEVER, [1], SPILLED, "after batcher.ledger.storage.spill:Spill.clear {n}"),
    # Recovery of creates without an answer.
    ("doubts-not-committed", SURELY, [1], UNANSWERED, "after batcher.ledger.recovery:doubt_unanswered {n}"),
    ("doubts-committed", SURELY, [1], UNANSWERED, "after batcher.pipeline.runner:recover {n}"),
    # The polls.
    ("task-to-be-read", MAYBE, [1, 4], "before batcher.provider.client:Client.read {n}"),
    ("task-read", MAYBE, [1, 4], "before batcher.pipeline.poller:Poller._read {n}"),
    ("ending-not-committed", MAYBE, [1, 4], "after batcher.ledger.lifecycle.collection:record_rendered {n}"),
    ("ending-not-committed", NEVER, [ROWS], "after batcher.ledger.lifecycle.collection:record_rendered {n}"),
    ("ending-committed", MAYBE, [1, 4], "before batcher.pipeline.downloader:Downloader.add {n}"),
    ("task-of-an-earlier-run-ended", NEVER, [2], ACCEPTED, "before batcher.pipeline.downloader:Downloader.add {n}"),
    # From the download to the rows' outputs.
    ("audio-to-be-fetched", MAYBE, [1, 4], "before batcher.provider.client:Client.fetch {n}"),
    ("part-in-buffer", MAYBE, [1, 4], "after batcher.provider.client:Client.fetch {n}"),
    ("part-whole", MAYBE, [1, 4], "before batcher.pipeline.delivery:Delivery.deliver {n}"),
    ("file-not-committed", MAYBE, [1, 4], "after batcher.ledger.lifecycle.collection:record_file {n}"),
    ("file-to-be-renamed", MAYBE, [1, 4], "before batcher.audio.folder:Folder.publish {n}"),
    ("folder-not-durable", MAYBE, [2, 5], "before batcher.audio.folder:sync_folder {n}"),
    ("file-in-place", MAYBE, [1, 4], "after batcher.audio.folder:Folder.publish {n}"),
    ("saved-not-committed", MAYBE, [1, 4], "after batcher.ledger.lifecycle.collection:record_saved {n}"),
    ("saved-not-committed", NEVER, [ROWS], "after batcher.ledger.lifecycle.collection:record_saved {n}"),
    ("output-to-be-linked", MAYBE, [1, 4], "before batcher.audio.folder:Folder.link {n}"),
    ("output-drafted", MAYBE, [1, 4], "after pathlib:Path.hardlink_to {n}"),
    ("output-linked", MAYBE, [1, 4], "after batcher.audio.folder:Folder.link {n}"),
    ("link-not-committed", MAYBE, [1, 4], "after batcher.ledger.lifecycle.collection:record_links {n}"),
    ("link-committed", MAYBE, [1, 4], "after batcher.pipeline.delivery:Delivery._save {n}"),
    # The next run takes over the files that the killed one left.
    ("file-found-in-place", MAYBE, [1], IN_PLACE, "before batcher.pipeline.delivery:Delivery.save {n}"),
    ("file-found-not-committed", MAYBE, [1], IN_PLACE, "after batcher.ledger.lifecycle.collection:record_saved {n}"),
    ("parts-swept", MAYBE, [1], RECORDED, "after batcher.pipeline.runner:recover_files {n}"),
    # The end of a run.
    ("results-half-written", NEVER, [3], "after batcher.reports.results:_cell {n}"),
    ("results-to-be-renamed", NEVER, [1], "after batcher.reports.results:_write_lines {n}"),
    # A rename for the ledger, one for the mark, two for each row, one for the first of the two results files.
    ("results-half-renamed", NEVER, [2 + 2 * ROWS + 2], "before pathlib:Path.replace {n}"),
    ("end-to-be-noted", NEVER, [1], "before batcher.ledger.lifecycle.runs:end_run {n}"),
    ("end-not-committed", NEVER, [1], "after batcher.ledger.lifecycle.runs:end_run {n}"),
    ("ledger-to-be-closed", NEVER, [1], "before batcher.ledger.ledger:Ledger.close {n}"),
    ("spill-to-be-removed", NEVER, [1], "before batcher.ledger.storage.spill:Spill.remove {n}"),
    ("ledger-closed", NEVER, [1], "after batcher.ledger.ledger:Ledger.close {n}"),
    # Anywhere: such a run has over fifty commits, and sixteen flushes of files other than SQLite's.
    ("any-commit-begins", MAYBE, [*range(2, 48, 6)], f"before {COMMIT} {{n}}"),
    ("any-commit-is-durable", MAYBE, [*range(5, 48, 9)], f"after {COMMIT} {{n}}"),
    ("any-flush-begins", MAYBE, [*range(1, 16, 3)], "before os:fsync {n}"),
]

CORE: Final = {
    *("claim-committed-1", "answer-not-committed-1", "answers-spilled-1"),
    *("file-to-be-renamed-4", "file-in-place-4"),
}
"""Cases that run by default; the others take minutes."""


def cases() -> list[Any]:
    """One case for each line of the matrix and each call to hit."""
    found = {}
    for name, doubt, calls, *runs in MATRIX:
        for nth in calls:
            at = f"{name}-{nth}"
            marks = [] if at in CORE else [pytest.mark.slow]
            found[at] = pytest.param([run.format(n=nth) for run in runs], doubt, id=at, marks=marks)
    assert found.keys() >= CORE
    return list(found.values())


def kill_at(project: Project, manifest: Path, points: str) -> None:
    """Run on the manifest until the last of the points kills the run."""
    options = ["--api-url", project.provider.url, "--json", "--concurrency", CONCURRENCY]
    killed(points, ["run", str(manifest), *options], project.folder, project.environment)
    if (
        project.server is None
        and project.ledger.exists()
        and project.query("SELECT version_num FROM alembic_version") == [(REVISION,)]
    ):
        assert_added_up(project.ledger)


def unrecorded(project: Project) -> set[str]:
    """Texts that were claimed and whose answer is lost, or neither in the ledger nor in the spill file."""
    if not project.has_ledger:
        return set()
    spill = Spill(project.spill)
    spilled = {record.key for record in spill.records() if record.event is not Event.LOST}
    found = project.query("SELECT key, text FROM items WHERE state IN ('submitting', 'in_doubt')")
    return {text for key, text in found if key not in spilled}


def downloads(project: Project) -> dict[str, int]:
    """The number of downloads of each task whose recorded file is in place."""
    if not project.has_ledger:
        return {}
    files = project.query("SELECT task_id, path FROM items JOIN files ON item_key = key")
    return {task: project.provider.jobs[task].downloads for task, path in files if (project.audio / path).exists()}


def run_on(project: Project, manifest: Path) -> Ended:
    """Run as a user would, with room for everything that is left."""
    return project.run(manifest, "--concurrency", "8")


def assert_kept(project: Project, rows: Sequence[dict[str, str]], doubts: set[str]) -> None:
    """Check all promises after a run to the end: these texts are in doubt, every other row is done."""
    assert project.server is not None or project.query("PRAGMA integrity_check") == [("ok",)]
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
    """Decide like a user who looks up the doubts in the account's history at the provider."""
    paid = project.provider.paid
    decisions = [[row["id"], "--adopt", *paid[row["text"]]] for row in rows if row["text"] in doubts & paid.keys()]
    if never_arrived := [row["id"] for row in rows if row["text"] in doubts - paid.keys()]:
        decisions.append([*never_arrived, "--buy-again"])
    for decision in decisions:
        settled = project.batcher("resolve", *decision, "--api-url", project.provider.url)
        assert settled.exit_code == 0, settled


def assert_recovers(project: Project, manifest: Path, rows: Sequence[dict[str, str]]) -> set[str]:
    """Run to the end, run again, settle the doubts and finish; return the texts in doubt.

    They must be exactly those whose create had no record when the last run was killed.
    """
    doubts, fetched = unrecorded(project), downloads(project)
    again = run_on(project, manifest)
    assert again.exit_code == (3 if doubts else 0), again
    assert fetched.items() <= downloads(project).items(), "fetched again although in place"
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
    assert not project.spill.exists()
    return doubts


def assert_doubt(doubt: Doubt, doubts: set[str]) -> None:
    """Check that at most the creates in flight are in doubt, and whether there are any."""
    assert len(doubts) <= int(CONCURRENCY)
    if doubt is not MAYBE:
        assert bool(doubts) == (doubt is SURELY)


@pytest.mark.parametrize(("runs", "doubt"), cases())
def test_a_kill_at_this_step_buys_nothing_twice_and_loses_nothing(
    project: Project, provider: FakeTTS, runs: list[str], doubt: Doubt
) -> None:
    """The next runs finish the rest."""
    if project.server is not None and "Path.replace" in runs[0]:
        pytest.skip("it counts the renames of a ledger's file, too")
    rows = project.rows(ROWS)
    manifest = project.manifest(rows)
    if any("Spill.append" in points for points in runs):
        provider.create_seconds = 0.3  # all creates are in flight when the first answer meets the full disk
    for points in runs:
        kill_at(project, manifest, points)
    assert_doubt(doubt, assert_recovers(project, manifest, rows))
    assert Counter(provider.asked) == Counter(row["text"] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 5])
def test_a_create_killed_between_charge_and_answer_is_in_doubt(project: Project, provider: FakeTTS, nth: int) -> None:
    """It can be adopted."""
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


def test_a_kill_during_a_download_leaves_no_partial_file(project: Project, provider: FakeTTS) -> None:
    """The next run deletes the partial download and buys nothing."""
    rows = [{"id": "long", "text": " ".join(["It was a long, long story."] * 1000), "voice": "anna"}]
    manifest, audio = project.manifest(rows), audio_of(rows[0]["text"], "mp3")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10.0)
        provider.ending = lambda _: {"audioUrl": f"http://127.0.0.1:{server.getsockname()[1]}/half.mp3"}
        run = project.start_run(manifest)
        with server.accept()[0] as connection:
            connection.recv(65536)
            head = f"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: {len(audio)}\r\n\r\n"
            connection.sendall(head.encode() + audio[: len(audio) // 2])
            run.until(lambda: any(path.stat().st_size for path in project.audio.rglob("*.part")))
            run.send(signal.SIGKILL)
            assert run.end().exit_code == -signal.SIGKILL
    assert [path.name[-9:] for path in project.audio.rglob("*.mp3*")] == [".mp3.part"]
    provider.ending = lambda _: {}
    assert project.run(manifest, "--no-wait").exit_code == 6
    assert not list(project.audio.rglob("*.part"))
    assert assert_recovers(project, manifest, rows) == set()
    assert len(provider.creates) == 1


OUT_OF_CREDITS: Final = [
    # The fourth create is the first one refused. Until the refusal is recorded nothing halts the account, and the
    # refused create is needlessly in doubt; afterwards no run creates, wherever the kill hit.
    pytest.param(f"before {RECORD} 4", False, id="refusal-in-memory", marks=pytest.mark.slow),
    pytest.param(
        "after batcher.ledger.lifecycle.halts:open_halt 1", False, id="halt-not-committed", marks=pytest.mark.slow
    ),
    pytest.param(f"after {RECORD} 4", True, id="halt-committed"),
    pytest.param(
        "after batcher.ledger.lifecycle.halts:set_balance 1", True, id="balance-not-committed", marks=pytest.mark.slow
    ),
    pytest.param(
        "after batcher.pipeline.credit_guard:Guard.settle 1", True, id="balance-committed", marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize(("point", "halted"), OUT_OF_CREDITS)
def test_a_recorded_halt_survives_the_kill(project: Project, provider: FakeTTS, point: str, halted: bool) -> None:
    """Nothing is created until a top-up, and the rest after it."""
    if project.server is not None and "open_halt" in point:
        pytest.skip("all refusals are in one commit there, so that nothing is left to create")
    rows = project.rows(ROWS + 5)  # so that some are left, however many were in flight
    manifest = project.manifest(rows)
    provider.credits = 3
    kill_at(project, manifest, point)
    asked = len(provider.creates)
    poor = run_on(project, manifest)
    assert poor.exit_code == 4, poor
    assert (len(provider.creates) == asked) == halted
    assert sorted(len(task_ids) for task_ids in provider.paid.values()) == [1, 1, 1]
    provider.credits = 1000
    assert_doubt(
        NEVER if point.startswith("after batcher.pipeline.credit_guard") else MAYBE,
        assert_recovers(project, manifest, rows),
    )
    assert provider.credits == 1000 - (len(rows) - 3)


@pytest.mark.slow
def test_an_adoption_cut_short_by_a_kill_can_be_repeated(project: Project, provider: FakeTTS) -> None:
    rows = project.rows(1)
    manifest = project.manifest(rows)
    kill_at(project, manifest, f"before {RECORD} 1")
    assert run_on(project, manifest).exit_code == 3
    command = ["resolve", "r1", "--adopt", "task_1", "--api-url", provider.url]
    killed("after batcher.ledger.lifecycle.decisions:adopt 1", command, project.folder, project.environment)
    assert project.states() == {"in_doubt": 1}
    assert_doubt(SURELY, assert_recovers(project, manifest, rows))
    assert len(provider.creates) == 1


RETAKES: Final = [
    # Both takes have audio of their own; the kill hits the run that makes the second, or the switch back to the first.
    ("run", "after batcher.ledger.lifecycle.collection:record_file 1"),
    ("run", "after batcher.audio.folder:Folder.publish 1"),
    ("run", "after batcher.pipeline.linking:_forget 1"),
    ("run", "before batcher.audio.folder:Folder.link 1"),
    ("run", "before pathlib:Path.replace 3"),
    ("run", "after batcher.audio.folder:Folder.link 1"),
    ("run", "after batcher.ledger.lifecycle.collection:record_links 1"),
    ("run", "after batcher.pipeline.delivery:Delivery._save 1"),
    ("retake", "after batcher.ledger.lifecycle.decisions:retake 1"),
    ("switch", "after batcher.ledger.lifecycle.decisions:switch_take 1"),
    ("switch", "after batcher.pipeline.linking:_forget 1"),
    ("switch", "before batcher.audio.folder:Folder.link 1"),
    ("switch", "before pathlib:Path.replace 1"),
    ("switch", "after batcher.audio.folder:Folder.link 1"),
    ("switch", "after batcher.ledger.lifecycle.collection:record_links 1"),
]
RETAKES_CORE: Final = (2, 5, 13)
"""Those that run by default: before and after the replacement."""


def retake_cases() -> list[Any]:
    """Each step, with hard links or with the row's file as the only copy, followed by a run or by a switch back."""
    found = []
    for (number, (command, point)), copied, then in product(enumerate(RETAKES), (True, False), ("run", "switch")):
        is_core = number in RETAKES_CORE and copied and then == "run"
        at = f"{command}-{number}-{'copied' if copied else 'linked'}-{then}"
        found.append(pytest.param(command, point, copied, then, id=at, marks=[] if is_core else [pytest.mark.slow]))
    return found


@pytest.mark.parametrize(("command", "point", "copied", "then"), retake_cases())
def test_a_kill_while_a_take_replaces_another_loses_neither(
    project: Project, provider: FakeTTS, command: str, point: str, copied: bool, then: str
) -> None:
    """The row's file is always a whole take; afterwards it is the current one, both are among the items, none is bought
    twice. With `copied` the row's file is the only copy of the take that it holds."""
    different_takes(provider)
    manifest = project.manifest(1)
    text, file = project.rows(1)[0]["text"], project.audio / "r1.mp3"
    takes = {take: take_audio(text, take) for take in (1, 2)}
    options = ["--api-url", provider.url, "--json"]
    commands = {
        "run": ["run", str(manifest), *options],
        "retake": ["retake", "r1"],
        "switch": ["retake", "r1", "--take", "1"],
    }
    assert project.run(manifest).exit_code == 0
    if command != "retake":
        project.batcher("retake", "r1")
    if command == "switch":
        assert project.run(manifest).exit_code == 0
    if copied:
        _keep_only_the_rows_copy(project, file)
    killed(point, commands[command], project.folder, project.environment)
    assert file.read_bytes() in takes.values()
    if then == "switch":
        project.batcher("retake", "r1", "--take", "1")
    ended = project.run(manifest)
    assert ended.exit_code == 0, ended
    ((take,),) = project.query("SELECT take FROM rows")
    assert file.read_bytes() == takes[take]
    assert take == 1 or then == "run"
    if copied:  # a take that was not replaced still has no other copy
        assert project.batcher("verify", "--heal", "--api-url", provider.url).exit_code == 0
    stored = {number: (project.audio / path).read_bytes() for number, path in project.query(_STORED)}
    assert stored == {number: takes[number] for number in stored}
    assert set(stored) >= {1}
    assert project.batcher("verify").exit_code == 0
    assert len(provider.creates) <= 2
    assert not list(project.audio.rglob("*.part"))


_STORED: Final = "SELECT items.take, files.path FROM files JOIN items ON items.key = files.item_key"


def _keep_only_the_rows_copy(project: Project, file: Path) -> None:
    """Leave the audio of the row's file at no other place."""
    content = file.read_bytes()
    copy = file.with_suffix(".copy")
    copy.write_bytes(content)
    copy.replace(file)
    for item in (project.audio / ".items").rglob("*.mp3"):
        if item.read_bytes() == content:
            item.unlink()


LATER: Final = (
    "SELECT value, sql.name FROM meta, sqlite_master sql WHERE meta.name = 'later' AND sql.name = 'items_voice'"
)


@pytest.mark.file_ledger
@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "migrated"),
    [
        ("after batcher.ledger.storage.sqlite:copy 1", False),
        ("after batcher.ledger.storage.sqlite:back_up_beside 1", False),
        ("after batcher.ledger.storage.database:_migrate 1", False),
        ("after batcher.ledger.storage.database:upgrade 1", True),
    ],
)
def test_a_kill_during_an_upgrade_leaves_the_old_or_the_new_ledger(
    project: Project, provider: FakeTTS, next_version: Path, point: str, migrated: bool
) -> None:
    """The next run upgrades it and goes on."""
    rows = project.rows(ROWS)
    manifest = project.manifest(rows)
    kill_at(project, manifest, f"before {RECORD} 4")
    project.environment["PYTHONPATH"] = str(next_version)
    before = project.query("SELECT version_num FROM alembic_version")
    kill_at(project, manifest, point)
    assert (project.query("SELECT version_num FROM alembic_version") != before) == migrated
    assert bool(project.query(LATER)) == migrated
    assert_doubt(SURELY, assert_recovers(project, manifest, rows))
    assert project.query(LATER) == [("yes", "items_voice")]
    assert Counter(provider.asked) == Counter(row["text"] for row in rows)
    *_, backup = sorted(project.folder.glob("batcher.db.backup-*"), key=lambda path: path.stat().st_mtime)
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == before
