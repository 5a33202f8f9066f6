"""The full disk: the project's disk fills up at every write in turn, then has room again.

The disk is a real, small tmpfs. A file fills it until the kernel refuses; in the `crammed` variant links also use up
every name. Each line of `MATRIX` fills the disk in the middle of a run. Another run meets the disk still full; a third
has room again and must bring everything to its end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from batcher.audio.content import digest
from batcher.errors import StorageError
from batcher.item import Event
from batcher.ledger.records import AnswerRecord
from batcher.ledger.storage.spill import Spill
from tests.guarantees.test_kill_matrix import (
    COMMIT,
    CONCURRENCY,
    LATER,
    RECORD,
    ROWS,
    SPILLED,
    UNANSWERED,
    assert_recovers,
    kill_at,
    unrecorded,
)
from tests.support.fake_tts import FakeTTS
from tests.support.killing import ballast, cram
from tests.support.processes import Ended, struck

if TYPE_CHECKING:
    from tests.conftest import Project

MIB: Final = 1 << 20
DISK: Final = "size=12m,nr_inodes=300"
FULL: Final[dict[str, Callable[[Path], None]]] = {"ballast": ballast, "crammed": cram}
NOT_WHOLE: Final = "before batcher.ledger.ledger:Ledger.close 1"
"""A kill that leaves a journal beside the ledger; later writes are appended to it."""

MATRIX: Final[list[tuple[str, int, tuple[str, ...], list[int], *tuple[str, ...]]]] = [
    # The write that fails, exit code, ways of being full, calls, and the runs: the last one meets the full disk.
    # Before anything can be bought.
    ("lock", 8, ("crammed",), [1], "{full} batcher.pipeline.startup:owner_lock {n}"),
    ("lock-signature", 8, ("ballast",), [1], "{full} batcher.ledger.storage.lock:_write_holder {n}"),
    ("new-ledger", 8, ("ballast", "crammed"), [1], "{full} batcher.ledger.storage.database:create {n}"),
    ("ledger-drafted", 8, ("ballast", "crammed"), [1], "{full} pathlib:Path.replace {n}"),
    ("begin", 8, ("ballast", "crammed"), [1], "{full} batcher.ledger.lifecycle.runs:begin_run {n}"),
    ("manifest", 8, ("ballast",), [1, ROWS], "{full} batcher.ledger.imports.staging:_values {n}"),
    ("output-folder", 8, ("ballast", "crammed"), [1], "{full} batcher.audio.folder:Folder.prepare {n}"),
    ("account", 8, ("ballast",), [1], "{full} batcher.provider.client:Client.profile {n}"),
    ("spill-file", 8, ("ballast", "crammed"), [1], "{full} batcher.ledger.storage.spill:Spill.reserve {n}"),
    # The create: an answer that the ledger refuses is in the spill file.
    ("intent", 8, ("ballast",), [1, 2], "{full} batcher.pipeline.submitter:Submitter._claim {n}"),
    ("answer-to-come", 8, ("ballast", "crammed"), [1, 4], "{full} batcher.provider.client:Client.create {n}"),
    ("answer", 8, ("ballast", "crammed"), [1, 2, ROWS], f"{{full}} {RECORD} {{n}}"),
    ("replay", 8, ("ballast",), [1, 3], SPILLED, "{full} batcher.ledger.recovery:record_answer {n}"),
    ("recovery", 8, ("ballast", "crammed"), [1], SPILLED, "{full} batcher.pipeline.runner:recover {n}"),
    (
        "spill-to-be-cleared",
        8,
        ("ballast", "crammed"),
        [1],
        SPILLED,
        "{full} batcher.ledger.storage.spill:Spill.clear {n}",
    ),
    ("doubts", 8, ("ballast",), [1], UNANSWERED, "{full} batcher.ledger.recovery:doubt_unanswered {n}"),
    # From the polls to the rows' outputs.
    ("ending", 8, ("ballast",), [1, 4, ROWS], "{full} batcher.ledger.lifecycle.collection:record_rendered {n}"),
    ("part-folder", 8, ("ballast", "crammed"), [1, 4], "{full} batcher.audio.folder:Folder.part {n}"),
    ("part", 8, ("ballast", "crammed"), [1, 4], "{full} batcher.provider.client:Client.fetch {n}"),
    ("file", 8, ("ballast",), [1, 4], "{full} batcher.ledger.lifecycle.collection:record_file {n}"),
    ("rename", 8, ("ballast", "crammed"), [1, 4, ROWS], "{full} batcher.audio.folder:Folder.publish {n}"),
    ("folder", 8, ("ballast",), [1], "{full} batcher.audio.folder:sync_folder {n}"),
    ("saved", 8, ("ballast",), [1, ROWS], "{full} batcher.ledger.lifecycle.collection:record_saved {n}"),
    ("output", 8, ("ballast", "crammed"), [1, 4], "{full} batcher.audio.folder:Folder.link {n}"),
    ("output-drafted", 8, ("ballast", "crammed"), [1], "{full} pathlib:Path.hardlink_to {n}"),
    ("link", 8, ("ballast",), [1, ROWS], "{full} batcher.ledger.lifecycle.collection:record_links {n}"),
    # The end of a run; work that succeeded all the same is not reported as failed.
    ("results", 8, ("ballast", "crammed"), [1], "{full} batcher.reports.results:write_results {n}"),
    ("results-rows", 8, ("ballast",), [1, ROWS], "{full} batcher.reports.results:_cell {n}"),
    ("end", 8, ("ballast",), [1], "{full} batcher.ledger.lifecycle.runs:end_run {n}"),
    ("checkpoint", 0, ("ballast", "crammed"), [1], "{full} batcher.ledger.ledger:Ledger.close {n}"),
    ("spill-to-be-removed", 0, ("ballast",), [1], "{full} batcher.ledger.storage.spill:Spill.remove {n}"),
    # Behind a journal that a kill left.
    ("journal", 8, ("ballast", "crammed"), [1], NOT_WHOLE, "{full} batcher.pipeline.startup:owner_lock {n}"),
    # Anywhere.
    ("any-commit", 8, ("ballast",), [*range(1, 49)], f"{{full}} {COMMIT} {{n}}"),
    ("any-flush", 8, ("ballast",), [*range(1, 17)], "{full} os:fsync {n}"),
]

CORE: Final = {"answer-ballast-1", "part-crammed-1"}
"""Cases that run by default; the others take minutes."""


def cases() -> list[Any]:
    """One case for each line of the matrix, call and way of being full."""
    found = {}
    for name, code, ways, calls, *runs in MATRIX:
        for full, nth in ((full, nth) for full in ways for nth in calls):
            at = f"{name}-{full}-{nth}"
            marks = [] if at in CORE else [pytest.mark.slow]
            points = [run.format(full=full, n=nth) for run in runs]
            found[at] = pytest.param(points, full, code, marks=marks, id=at)
    assert found.keys() >= CORE
    return list(found.values())


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Mount a small disk at `folder`; skip the test where that is not permitted."""
    folder.mkdir(exist_ok=True)
    tried = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", DISK, "batcher-tests", folder], capture_output=True, check=False, text=True
    )
    if tried.returncode != 0:
        pytest.skip(f"a separate disk cannot be mounted: {tried.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def disk(project: Project) -> Iterator[Path]:
    """A small disk that holds the whole project."""
    with mounted(project.folder):
        yield project.folder
        project.close()


@pytest.fixture
def audio_disk(project: Project) -> Iterator[Path]:
    """A small disk that holds only the output folder."""
    with mounted(project.audio):
        yield project.audio
        project.close()


def leave(disk: Path, room: int) -> None:
    """Fill the disk except for this many bytes."""
    ballast(disk)
    os.truncate(disk / "ballast", (disk / "ballast").stat().st_size - room)


def make_room(disk: Path) -> None:
    """Delete what fills the disk."""
    (disk / "ballast").unlink()
    shutil.rmtree(disk / "links", ignore_errors=True)


def fill_at(project: Project, manifest: Path, points: str, disk: Path, *, as_json: bool = True) -> Ended:
    """Run on the manifest; the disk is full from the last of the points on."""
    options = ["--api-url", project.provider.url, "--concurrency", CONCURRENCY, *["--json"] * as_json]
    ended = struck(points, ["run", str(manifest), *options], disk, project.environment)
    assert (disk / "ballast").exists(), f"{points}: was not reached\n{ended.err}"
    return ended


def assert_explained(ended: Ended, where: Path, code: int = 8) -> None:
    """Check the exit code, and that one message, in text and JSON, names the full disk."""
    assert ended.exit_code == code, ended
    assert "Traceback" not in ended.err, ended
    if ended.out:
        assert ended.report["exit_code"] == code
    if code == 8:
        assert sum(line.startswith(("batcher: ", "exit 8: ")) for line in ended.err.splitlines()) == 1, ended
        assert any(words in ended.err for words in ("disk is full", "No space left", "Free some space")), ended
        assert str(where) in ended.err, ended
        assert "None" not in ended.err, ended


def assert_nothing_lost(project: Project, doubts: set[str]) -> None:
    """Check that each charge is recorded, spilled or in doubt, and that the audio of done items is on disk."""
    paid = project.provider.paid
    assert all(len(task_ids) == 1 for task_ids in paid.values()), "charged twice"
    if not project.ledger.exists():
        assert paid == {}
        return
    assert project.query("PRAGMA integrity_check") == [("ok",)]
    assert unrecorded(project) == doubts
    spill = Spill(project.ledger.with_name(f"{project.ledger.name}.spill"))
    known = {task_id for (task_id,) in project.query("SELECT task_id FROM tasks")}
    known |= {str(record.task_id) for record in spill.records() if record.event is Event.ACCEPTED}
    assert {task_id for text, (task_id,) in paid.items() if text not in doubts} <= known
    done = project.query("SELECT path, sha256 FROM files JOIN items ON key = item_key WHERE state = 'done'")
    for path, sha256 in done:
        assert digest(project.audio / path) == sha256


def assert_goes_on(project: Project, manifest: Path, disk: Path, full: str, doubts: set[str]) -> None:
    """Check that a run on the full disk buys nothing, and that with room again the next runs finish everything."""
    rows, asked = project.rows(ROWS), len(project.provider.creates)
    FULL[full](disk)
    still_full = project.run(manifest, "--concurrency", CONCURRENCY)
    assert_explained(still_full, project.folder)
    assert len(project.provider.creates) == asked
    make_room(disk)
    assert_nothing_lost(project, doubts)
    assert assert_recovers(project, manifest, rows) == doubts
    assert Counter(project.provider.asked) == Counter(row["text"] for row in rows)


@pytest.mark.parametrize(("runs", "full", "code"), cases())
def test_a_disk_full_from_this_write_on_loses_nothing_bought(
    project: Project, provider: FakeTTS, disk: Path, runs: list[str], full: str, code: int
) -> None:
    """With room again everything is done."""
    manifest = project.manifest(ROWS)
    if SPILLED in runs:
        provider.create_seconds = 0.3  # all creates are in flight when the first answer meets the full disk
    for points in runs[:-1]:
        kill_at(project, manifest, points)
    provider.create_seconds = 0.0
    doubts = unrecorded(project)
    assert_explained(fill_at(project, manifest, runs[-1], disk), project.folder, code)
    assert_goes_on(project, manifest, disk, full, doubts)


@pytest.mark.slow
@pytest.mark.parametrize("full", FULL)
@pytest.mark.parametrize("call", ["batcher.provider.client:Client.create", "batcher.reports.results:write_results"])
def test_a_full_disk_is_reported_without_json_too(
    project: Project, provider: FakeTTS, disk: Path, full: str, call: str
) -> None:
    """The ledger could not record the end."""
    manifest = project.manifest(ROWS)
    ended = fill_at(project, manifest, f"{full} {call} 1", disk, as_json=False)
    assert_explained(ended, project.folder)
    assert ended.out == ""
    assert_goes_on(project, manifest, disk, full, set())


@pytest.mark.slow
@pytest.mark.parametrize("full", FULL)
@pytest.mark.parametrize("before", [[], ["--no-wait"], ["--max-items", "2"]])
def test_a_run_on_a_full_disk_buys_nothing(
    project: Project, provider: FakeTTS, disk: Path, full: str, before: list[str]
) -> None:
    """Regardless of what earlier runs have left, the API receives no request."""
    manifest = project.manifest(ROWS)
    if before:
        assert project.run(manifest, *before).exit_code == 6
    asked = len(provider.creates), provider.profiles
    FULL[full](disk)
    assert_explained(project.run(manifest), project.folder)
    assert (len(provider.creates), provider.profiles) == asked
    for command in ("status", "show"):
        shown = project.batcher(command, "--ledger", project.ledger)
        assert shown.exit_code in ((0, 8) if before else (0, 2, 8)), shown
        assert "Traceback" not in shown.err
    assert_goes_on(project, manifest, disk, full, set())


@pytest.mark.slow
@pytest.mark.parametrize(
    "room", [4096, 64 << 10, 192 << 10, 320 << 10, 448 << 10, MIB, 1200 << 10, 1400 << 10, 2 * MIB]
)
def test_a_disk_that_is_nearly_full_loses_nothing_bought(
    project: Project, provider: FakeTTS, disk: Path, room: int
) -> None:
    """Without room for the spill file nothing is bought."""
    manifest = project.manifest(ROWS)
    leave(disk, room)
    ended = project.run(manifest, "--concurrency", CONCURRENCY)
    assert_explained(ended, project.folder, ended.exit_code)
    assert ended.exit_code in (0, 8)
    if room <= MIB:
        assert (ended.exit_code, provider.creates) == (8, [])
    assert_goes_on(project, manifest, disk, "ballast", set())


@pytest.mark.slow
@pytest.mark.parametrize("full", FULL)
@pytest.mark.parametrize(
    "call",
    [
        "batcher.ledger.storage.sqlite:copy",
        "batcher.ledger.storage.sqlite:back_up_beside",
        "batcher.ledger.storage.database:_migrate",
    ],
)
def test_an_upgrade_without_room_leaves_the_ledger_unchanged(
    project: Project, provider: FakeTTS, disk: Path, next_version: Path, full: str, call: str
) -> None:
    """No partial backup stays beside it."""
    manifest = project.manifest(ROWS)
    kill_at(project, manifest, f"before {RECORD} 4")
    doubts = unrecorded(project)
    project.environment["PYTHONPATH"] = str(next_version)
    before = project.query("SELECT version_num FROM alembic_version")
    assert_explained(fill_at(project, manifest, f"{full} {call} 1", disk), project.folder)
    backups = list(disk.glob("batcher.db.backup-*"))
    assert [path for path in backups if "_migrate" not in call] == []
    make_room(disk)
    assert project.query("SELECT version_num FROM alembic_version") == before
    assert project.query(LATER) == []
    assert_goes_on(project, manifest, disk, full, doubts)
    assert project.query(LATER) == [("yes", "items_voice")]


@pytest.mark.slow
@pytest.mark.parametrize("full", FULL)
@pytest.mark.parametrize(
    "call",
    [
        *(
            "batcher.pipeline.startup:owner_lock",
            "batcher.audio.folder:Folder.prepare",
            "batcher.ledger.storage.spill:Spill.reserve",
        ),
        *(
            "batcher.provider.client:Client.fetch",
            "batcher.audio.folder:Folder.publish",
            "batcher.audio.folder:Folder.link",
        ),
        "batcher.reports.results:write_results",
    ],
)
def test_with_a_full_output_folder_everything_bought_is_recorded(
    project: Project, provider: FakeTTS, audio_disk: Path, full: str, call: str
) -> None:
    """The ledger is on another disk; the audio follows when there is room."""
    manifest = project.manifest(ROWS)
    ended = fill_at(project, manifest, f"{full} {call} 1", audio_disk)
    if ended.exit_code != 0:
        assert_explained(ended, audio_disk)
    assert unrecorded(project) == set()
    assert {task_id for (task_id,) in project.query("SELECT task_id FROM tasks")} == set(provider.jobs)
    if call in ("batcher.pipeline.startup:owner_lock", "batcher.audio.folder:Folder.prepare"):
        assert provider.creates == []
    make_room(audio_disk)
    assert_nothing_lost(project, set())
    assert assert_recovers(project, manifest, project.rows(ROWS)) == set()
    assert Counter(provider.asked) == Counter(row["text"] for row in project.rows(ROWS))


@pytest.mark.slow
@pytest.mark.parametrize("full", FULL)
@pytest.mark.parametrize(
    "call", ["batcher.provider.client:Client.create", "batcher.pipeline.delivery:Delivery.deliver"]
)
def test_with_a_full_ledger_disk_nothing_unrecorded_is_done(
    project: Project, provider: FakeTTS, disk: Path, full: str, call: str
) -> None:
    """The audio is on another disk."""
    with mounted(project.audio):
        manifest = project.manifest(ROWS)
        assert_explained(fill_at(project, manifest, f"{full} {call} 1", disk), project.folder)
        assert_goes_on(project, manifest, disk, full, set())
        project.close()


def test_the_spill_files_space_is_reserved_whole_or_not_at_all(project: Project, disk: Path) -> None:
    """A record that fits only in part is refused."""
    record = AnswerRecord(
        key="k",
        attempt=1,
        run_id="run",
        account_id=1,
        at=1.0,
        event=Event.ACCEPTED,
        cause="ok",
        task_id="task_1",
        raw=os.urandom(4096),
    )
    spill = Spill(disk / "spill")
    leave(disk, 8192)
    with pytest.raises(StorageError, match="Nothing was created"):
        spill.reserve()
    spill.path.unlink()
    spill.append(record)
    with pytest.raises(StorageError, match="cannot write"):
        spill.append(record)
    assert Spill(spill.path).records() == [record]
    spill.close()


@pytest.mark.slow
def test_a_piped_manifest_too_long_for_the_temporary_disk_exits_8(
    project: Project, provider: FakeTTS, tmp_path: Path
) -> None:
    piped = json.dumps({"id": "r1", "text": "So it went on. " * 4000, "voice": "anna"}) + "\n"
    with mounted(tmp_path / "temporary"):
        leave(tmp_path / "temporary", 8192)
        ended = project.run("-", stdin=piped, environment={"TMPDIR": str(tmp_path / "temporary")})
    assert (ended.exit_code, provider.creates) == (8, []), ended
    assert ended.err.startswith("batcher: cannot store standard input in a temporary file: No space left on device\n")
    assert project.run("-", stdin=piped).exit_code == 0


@pytest.mark.slow
def test_a_report_written_to_a_full_disk_is_no_bug(project: Project, provider: FakeTTS, disk: Path) -> None:
    """Exit 8, without a traceback."""
    with mounted(project.folder / "reports"):
        manifest, reports = project.manifest(ROWS), project.folder / "reports"
        ballast(reports)
        command = [sys.executable, "-m", "batcher", "run", str(manifest), "--api-url", provider.url, "--json"]
        with (reports / "report.json").open("wb") as out:
            ended = subprocess.run(
                command, stdout=out, stderr=subprocess.PIPE, env=project.environment, check=False, text=True
            )
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 8, ended
    assert assert_recovers(project, manifest, project.rows(ROWS)) == set()


@pytest.mark.timeout(1800)
def test_the_full_disk_in_a_namespace(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """Run this module in a namespace that may mount, where the tests themselves may not."""
    try:
        with mounted(tmp_path / "disk"):
            pass
    except pytest.skip.Exception:
        pass
    else:
        pytest.skip("disks can be mounted without a namespace")
    inside = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*inside, "true"], check=False).returncode != 0:
        pytest.skip("disks can be mounted neither here nor in a namespace")
    options = ["-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "inside", "-m", pytestconfig.option.markexpr]
    ran = subprocess.run([*inside, sys.executable, "-m", "pytest", *options, __file__], check=False)
    assert ran.returncode == 0
