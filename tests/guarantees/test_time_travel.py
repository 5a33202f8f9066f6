"""Ledgers that do not know everything that was bought: backups, older states, new ledgers beside old audio."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batcher.audio import folder_mark
from batcher.audio.content import digest
from batcher.audio.folder import Folder
from batcher.audio.folder_mark import Owner
from batcher.ledger.ledger import open_ledger
from batcher.ledger.lifecycle import restored_rows
from batcher.ledger.queries.identity import identity
from batcher.pipeline.delivery import Delivery
from batcher.pipeline.restore import _is_complete, apply_rows, read_owners, why_outdated
from batcher.settings import Settings
from tests.support.fake_tts import FakeTTS
from tests.support.ledger_kit import AT, RUN, Book, book_in, run_context, sheet
from tests.support.processes import killed

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.processes import Ended

ROWS = 9
ACCOUNT: dict[str, Any] = {"account_id": 1, "run_id": RUN, "at": AT}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """A ledger with two rows, beside the folder of its audio."""
    with book_in(tmp_path) as made:
        made.take_in(sheet("one", "two"))
        yield made


@pytest.fixture
def store(book: Book) -> Folder:
    return Folder(book.path.parent, book.path.parent / "audio")


def _states(book: Book) -> list[str]:
    return [row["state"] for row in book.all("SELECT state FROM items JOIN rows ON item_key = key ORDER BY number")]


@pytest.mark.parametrize(("run_id", "why"), [(RUN, None), ("a later run", "the ledger is older than the audio")])
def test_a_folder_marked_by_an_unknown_run_shows_an_outdated_ledger(
    book: Book, store: Folder, run_id: str, why: str | None
) -> None:
    folder_mark.sign(store, Owner(ledger_id=book.do(identity).ledger_id, run_id=run_id, batches={}))
    settings = Settings(sources=(), ledger=book.path, out_dir=store.place)
    assert (book.do(why_outdated, read_owners(settings, []), settings.ledger) or "None").startswith(str(why))


@pytest.mark.parametrize("case", ["as they were", "changed", "gone", "never whole", "copied folder", "no mark"])
def test_only_unchanged_results_of_the_last_run_are_complete(store: Folder, case: str) -> None:
    """In the folder where it wrote them."""
    results = store.place / "m.results.jsonl"
    results.parent.mkdir()
    results.write_text("{}\n")
    told = None if case == "never whole" else digest(results)
    if case != "no mark":
        folder_mark.sign(store, Owner(ledger_id="l", run_id=RUN, batches={"m": told}))
    if case == "changed":
        results.write_text("{} \n")
    elif case == "gone":
        results.unlink()
    elif case == "copied folder":
        shutil.copytree(store.place, store.place.with_name("copy"))
        store = Folder(store.place.parent, store.place.with_name("copy"))
    assert _is_complete(store, folder_mark.owner(store)) == (case == "as they were")


@pytest.mark.parametrize(
    ("gaps", "audio", "states"),
    [
        (("none",), (), ["pending", "pending"]),
        (("some",), (), ["in_doubt", "in_doubt"]),
        (("some", "none"), (), ["in_doubt", "in_doubt"]),
        (("none", "some"), (), ["in_doubt", "in_doubt"]),
        (("none",), (0,), ["in_doubt", "pending"]),
    ],
)
def test_after_a_gap_everything_unbought_is_in_doubt(
    book: Book, gaps: Sequence[restored_rows.Gap], audio: Sequence[int], states: list[str]
) -> None:
    """Also if the restoring is requested again. Without a gap only items that have audio are."""
    for gap in gaps:
        book.do(restored_rows.begin, gap)
    keys = [row["item_key"] for row in book.all("SELECT item_key FROM rows ORDER BY number")]
    there = {keys[number] for number in audio}
    found = book.do(restored_rows.finish, lambda key, _: key in there, **ACCOUNT)
    assert (_states(book), found) == (states, states.count("in_doubt"))
    assert not book.do(restored_rows.due)


@pytest.mark.parametrize(
    ("told", "state"), [("in_doubt", "in_doubt"), ("abandoned", "in_doubt"), ("pending", "pending")]
)
def test_a_doubt_named_by_results_is_in_doubt_again(book: Book, told: str, state: str) -> None:
    """An item that they name as not bought may be bought."""
    key = book.one("SELECT item_key FROM rows WHERE id = 'a'")["item_key"]
    book.do(restored_rows.add, [{"batch": "m", "id": "a", "key": key, "state": told, "out_dir": "audio"}], at=AT)
    for case in book.do(restored_rows.next_rows, 10):
        book.do(restored_rows.apply, case, None, **ACCOUNT)
    assert _states(book) == [state, "pending"]


async def test_items_are_put_in_doubt_only_after_the_import(book: Book, store: Folder) -> None:
    """Before it some of them may not be in the ledger yet."""
    book.do(restored_rows.begin, "some")
    with open_ledger(book.path, "real") as ledger:
        settings = Settings(sources=(), ledger=book.path, out_dir=store.place)
        delivery = Delivery(ctx=run_context(ledger, settings), named=[])
        for imported, states in ((False, ["pending"] * 2), (True, ["in_doubt"] * 2)):
            await apply_rows(delivery, account_id=1, imported=imported)
            assert (_states(book), book.do(restored_rows.due)) == (states, not imported)


def _backup(project: Project) -> Path:
    target = project.folder / "kept.db"
    made = project.batcher("ledger", "backup", target, "--ledger", project.ledger)
    assert made.exit_code == 0, made.err
    return target


def _go_back(project: Project, copy: Path) -> None:
    """Put the copy in the ledger's place."""
    for ending in ("", "-wal", "-shm", ".spill"):
        project.ledger.with_name(project.ledger.name + ending).unlink(missing_ok=True)
    shutil.copy(copy, project.ledger)


def _bought_since(project: Project) -> tuple[Path, Path]:
    """A manifest, part of which was bought before a backup and the rest after it."""
    manifest = project.manifest(ROWS)
    assert project.run(manifest, "--max-items", "4").exit_code == 6
    copy = _backup(project)
    assert project.run(manifest).exit_code == 0
    return manifest, copy


def assert_refused(project: Project, provider: FakeTTS, manifest: Path, why: str) -> None:
    """Check that without consent nothing is created and the results files stay as they are."""
    results = (project.audio / "lines.results.jsonl").read_bytes()
    creates = len(provider.creates)
    ended = project.run(manifest)
    assert (ended.exit_code, len(provider.creates)) == (2, creates)
    assert why in ended.err
    assert "--restored" in ended.err
    assert (project.audio / "lines.results.jsonl").read_bytes() == results


def assert_restored(project: Project, provider: FakeTTS, ended: Ended) -> None:
    """Check that everything is restored and nothing bought, and that the next run is an ordinary one."""
    assert (ended.exit_code, len(provider.creates)) == (0, ROWS), ended.err
    project.assert_whole(project.rows(ROWS))
    assert project.states() == {"done": ROWS}


def test_a_backup_is_used_only_after_consent(project: Project, provider: FakeTTS) -> None:
    """The results files then restore what was bought since."""
    manifest, copy = _bought_since(project)
    _go_back(project, copy)
    assert_refused(project, provider, manifest, "is a copy made at")
    downloads = sum(job.downloads for job in provider.jobs.values())
    assert_restored(project, provider, project.run(manifest, "--restored"))
    assert sum(job.downloads for job in provider.jobs.values()) == downloads
    assert_restored(project, provider, project.run(manifest))


@pytest.mark.slow
def test_a_copy_made_by_other_means_is_recognised_by_the_audio(project: Project, provider: FakeTTS) -> None:
    manifest = project.manifest(ROWS)
    project.run(manifest, "--max-items", "4")
    shutil.copy(project.ledger, project.folder / "plain.db")
    project.run(manifest)
    _go_back(project, project.folder / "plain.db")
    assert_refused(project, provider, manifest, "is older than the audio")
    assert_restored(project, provider, project.run(manifest, "--restored"))


def test_a_new_ledger_beside_old_audio_buys_nothing_again(project: Project, provider: FakeTTS) -> None:
    """Once a person has it restore that audio."""
    manifest = project.manifest(ROWS)
    project.run(manifest)
    project.ledger.unlink()
    assert_refused(project, provider, manifest, "another ledger bought")
    assert_restored(project, provider, project.run(manifest, "--restored"))


@pytest.mark.slow
def test_without_results_files_every_new_item_is_in_doubt(project: Project, provider: FakeTTS) -> None:
    manifest, copy = _bought_since(project)
    _go_back(project, copy)
    for path in project.audio.glob("*.results.*"):
        path.unlink()
    ended = project.run(manifest, "--restored")
    assert (ended.exit_code, len(provider.creates)) == (3, ROWS)
    assert project.states() == {"done": 4, "in_doubt": ROWS - 4}
    assert project.run(manifest).report["created"] == 0


@pytest.mark.slow
def test_after_a_killed_run_items_missing_in_the_results_are_in_doubt(project: Project, provider: FakeTTS) -> None:
    """That run has not written its results."""
    manifest = project.manifest(ROWS)
    project.run(manifest, "--max-items", "2")
    copy = _backup(project)
    project.run(manifest, "--max-items", "3")
    run = project.start_run(manifest)
    provider.until(lambda: len(provider.jobs) >= 7)
    run.send(signal.SIGKILL)
    run.end()
    made = len(provider.jobs)
    _go_back(project, copy)
    ended = project.run(manifest, "--restored")
    assert (ended.exit_code, len(provider.jobs)) == (3, made)
    assert project.states() == {"done": 5, "in_doubt": ROWS - 5}


@pytest.mark.slow
def test_a_copied_output_folder_does_not_count_as_complete(project: Project, provider: FakeTTS) -> None:
    """It may be as old as the ledger."""
    manifest = project.manifest(ROWS)
    project.run(manifest, "--max-items", "4")
    copy = _backup(project)
    shutil.copytree(project.audio, project.folder / "old")
    project.run(manifest)
    _go_back(project, copy)
    shutil.rmtree(project.audio)
    (project.folder / "old").rename(project.audio)
    ended = project.run(manifest, "--restored")
    assert (ended.exit_code, len(provider.creates)) == (3, ROWS)
    assert project.states() == {"done": 4, "in_doubt": ROWS - 4}


@pytest.mark.slow
def test_ledger_recover_reads_results_files_from_anywhere(project: Project, provider: FakeTTS) -> None:
    """Their tasks are collected again, at no cost."""
    manifest, copy = _bought_since(project)
    shutil.move(project.audio / "lines.results.jsonl", project.folder / "sent-by-mail.jsonl")
    _go_back(project, copy)
    downloads = sum(job.downloads for job in provider.jobs.values())
    assert project.batcher("ledger", "recover", "sent-by-mail.jsonl").exit_code == 0
    ended = project.run(manifest, "--restored")
    assert sum(job.downloads for job in provider.jobs.values()) == downloads + ROWS - 4
    assert_restored(project, provider, ended)


def test_a_second_ledger_buys_nothing_into_another_ledgers_folder(project: Project, provider: FakeTTS) -> None:
    """By mistake, or for the same rows."""
    manifest = project.manifest(3)
    project.run(manifest)
    ended = project.run(manifest, "--ledger", "other.db")
    assert (ended.exit_code, len(provider.creates)) == (2, 3)
    assert "another ledger" in ended.report["message"]
    assert project.run(manifest).exit_code == 0


@pytest.mark.slow
def test_a_backup_during_a_run_is_consistent(project: Project, provider: FakeTTS) -> None:
    """An existing file is not overwritten."""
    manifest = project.manifest(40)
    run = project.start_run(manifest)
    provider.until(lambda: len(provider.jobs) >= 10)
    copy = _backup(project)
    assert run.end().exit_code == 0
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert 0 < connection.execute("SELECT count(*) FROM tasks").fetchone()[0] <= 40
    assert project.batcher("ledger", "backup", copy, "--ledger", project.ledger).exit_code == 2
    _go_back(project, copy)
    ended = project.run(manifest, "--restored")
    assert (ended.exit_code, len(provider.creates)) == (0, 40)


@pytest.mark.slow
def test_a_retake_after_the_backup_is_restored(project: Project, provider: FakeTTS) -> None:
    """Neither take is bought again."""
    manifest, copy = _bought_since(project)
    project.batcher("retake", "r1", "--ledger", project.ledger)
    assert project.run(manifest).report["created"] == 1
    for lost in (False, True):
        _go_back(project, copy)
        if lost:
            project.ledger.unlink()
        ended = project.run(manifest, "--restored")
        assert (ended.exit_code, ended.report["created"]) == (0, 0)
        assert (project.results()[0]["take"], project.results()[0]["output"]) == (2, "r1.mp3")


@pytest.mark.parametrize(
    "point",
    [
        "after batcher.ledger.lifecycle.restored_rows:add 1",
        "after batcher.ledger.lifecycle.restored_rows:begin 1",
        "after batcher.pipeline.restore:import_rows 1",
        "after batcher.ledger.imports.importer:import_manifest 1",
        "before batcher.pipeline.restore:apply_rows 1",
        "before batcher.ledger.lifecycle.restored_rows:apply 3",
        "before batcher.ledger.lifecycle.restored_rows:finish 1",
        "after batcher.pipeline.restore:apply_rows 1",
    ],
)
@pytest.mark.slow
def test_a_kill_while_restoring_costs_nothing(project: Project, provider: FakeTTS, point: str) -> None:
    """The restoring is requested again, or goes on by itself."""
    manifest, copy = _bought_since(project)
    _go_back(project, copy)
    arguments = ["run", str(manifest), "--api-url", provider.url, "--restored"]
    killed(point, arguments, project.folder, project.environment)
    ended = project.run(manifest)
    if ended.exit_code == 2:
        ended = project.run(manifest, "--restored")
    assert_restored(project, provider, ended)


def _lose(project: Project) -> None:
    """Delete the ledger and the files that a kill left beside it."""
    for path in project.folder.glob("batcher.db*"):
        path.unlink()


@pytest.mark.slow
def test_a_failed_restoring_leaves_the_results_files(project: Project, provider: FakeTTS) -> None:
    """The next ledger needs them too."""
    manifest = project.manifest(ROWS)
    project.run(manifest)
    kept = (project.audio / "lines.results.jsonl").read_bytes()
    _lose(project)
    assert project.run(manifest, "--restored", environment={"BATCHER_API_TOKEN": ""}).exit_code == 5
    assert (project.audio / "lines.results.jsonl").read_bytes() == kept
    _lose(project)
    assert_restored(project, provider, project.run(manifest, "--restored"))


@pytest.mark.parametrize("first", ["refused", "collecting"])
@pytest.mark.slow
def test_a_restored_doubt_waits_until_its_row_is_imported(project: Project, provider: FakeTTS, first: str) -> None:
    rows = project.rows(ROWS)
    manifest = project.manifest(rows)
    project.run(manifest)
    _lose(project)
    for path in project.audio.glob("*.results.*"):
        path.unlink()
    project.manifest([*rows, rows[0]])  # an id twice
    assert project.run(manifest, *["--restored"] * (first == "refused")).exit_code == 2
    if first == "collecting":
        assert project.run("--collect-only", "--restored").exit_code == 0
    project.manifest(rows)
    assert project.run(manifest, "--restored").exit_code == 3
    assert (len(provider.creates), project.states()) == (ROWS, {"in_doubt": ROWS})


@pytest.mark.slow
def test_only_a_line_feed_ends_a_line_of_results(project: Project, provider: FakeTTS) -> None:
    """Regardless of the content of a copied column."""
    manifest = project.manifest([row | {"note": "a\u2028b\x85c\x0bd"} for row in project.rows(ROWS)])
    project.run(manifest)
    _lose(project)
    assert_restored(project, provider, project.run(manifest, "--restored"))


@pytest.mark.parametrize(
    "edit", [{"state": ["done"]}, {"take": "2"}, {"bytes": -1}, {"bytes": 10**30}, {"key": 5}, {"batch": None}]
)
@pytest.mark.slow
def test_results_with_impossible_values_are_refused_whole(
    project: Project, provider: FakeTTS, edit: dict[str, object]
) -> None:
    manifest = project.manifest(2)
    project.run(manifest)
    lines = [project.results()[0], project.results()[1] | edit]
    _lose(project)
    (project.audio / "lines.results.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    ended = project.run(manifest, "--restored")
    assert (ended.exit_code, len(provider.creates)) == (2, 2)
    assert "is not a results file" in ended.report["message"]


@pytest.mark.slow
def test_results_that_lost_a_line_do_not_count_as_complete(project: Project, provider: FakeTTS) -> None:
    manifest = project.manifest(ROWS)
    project.run(manifest)
    _lose(project)
    path = project.audio / "lines.results.jsonl"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    assert project.run(manifest, "--restored").exit_code == 3
    assert (len(provider.creates), project.states()) == (ROWS, {"done": ROWS - 1, "in_doubt": 1})


@pytest.mark.slow
def test_an_outdated_ledger_is_recognised_by_its_batches_folders(project: Project, provider: FakeTTS) -> None:
    """Even if the run has another output folder."""
    manifest = project.manifest(ROWS)
    project.run(manifest, "--max-items", "4")
    shutil.copy(project.ledger, project.folder / "plain.db")
    project.run(manifest)
    _go_back(project, project.folder / "plain.db")
    assert project.run(manifest, "--out-dir", "elsewhere").exit_code == 2
    assert project.batcher("plan", manifest, "--api-url", provider.url).exit_code == 2
    ended = project.run(manifest, "--out-dir", "elsewhere", "--restored")
    assert (ended.exit_code, len(provider.creates)) == (0, ROWS)
    assert project.run(manifest, "--out-dir", "elsewhere").report["created"] == 0


def test_restored_rows_with_other_inputs_are_not_bought_without_consent(project: Project, provider: FakeTTS) -> None:
    manifest = project.manifest([{"id": row["id"], "text": row["text"]} for row in project.rows(3)])
    project.run(manifest, "--voice", "anna")
    _lose(project)
    ended = project.run(manifest, "--voice", "bob", "--restored")
    assert (ended.exit_code, len(provider.creates)) == (2, 3)
    assert "would be bought again" in ended.report["message"]
    assert project.run(manifest, "--voice", "anna", "--restored").exit_code == 0
    assert len(provider.creates) == 3


@pytest.mark.slow
def test_restored_reads_results_of_an_unknown_batch(project: Project, provider: FakeTTS) -> None:
    """Also if the ledger is otherwise complete."""
    project.run(project.manifest(2, "a.csv"))
    manifest = project.manifest(project.rows(3, first=50), "b.csv")
    project.run(manifest, "--ledger", "other.db", "--out-dir", "other")
    shutil.copy(project.folder / "other/b.results.jsonl", project.audio)
    ended = project.run(manifest, "--restored")
    assert (ended.exit_code, ended.report["created"], len(provider.creates)) == (0, 0, 5)


@pytest.mark.slow
def test_an_item_is_restored_from_any_of_its_rows_files(project: Project, provider: FakeTTS) -> None:
    """Nothing is downloaded again."""
    rows = project.rows(2)
    rows[1]["text"] = rows[0]["text"]
    manifest = project.manifest(rows)
    project.run(manifest)
    lines = [project.results()[0], project.results()[1] | {"output": None}]
    _lose(project)
    (project.audio / "lines.results.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    provider.jobs.clear()
    assert project.run(manifest, "--restored").exit_code == 0


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.slow
def test_the_journal_of_a_deleted_ledger_is_not_applied_to_another(
    project: Project, provider: FakeTTS, copied: bool
) -> None:
    manifest = project.manifest(60)
    project.run(manifest, "--max-items", "10")
    copy = _backup(project)
    run = project.start_run(manifest)
    provider.until(lambda: len(provider.jobs) >= 40)
    run.send(signal.SIGKILL)
    run.end()
    made = len(provider.jobs)
    project.ledger.unlink()
    if copied:
        shutil.copy(copy, project.ledger)
    assert project.run(manifest, "--restored").exit_code == 3
    assert len(provider.jobs) == made
    assert project.query("PRAGMA integrity_check") == [("ok",)]
    assert project.states() == {"done": 10, "in_doubt": 50}


@pytest.mark.slow
def test_the_balances_around_a_restored_doubt_span_the_unknown_time(project: Project) -> None:
    """It must not look as if it had cost nothing."""
    manifest, copy = _bought_since(project)
    _go_back(project, copy)
    for path in project.audio.glob("*.results.*"):
        path.unlink()
    project.run(manifest, "--restored")
    case, *_ = project.batcher("resolve", "--json", "--ledger", project.ledger).report["doubts"]
    assert case["money"]["unexplained"] == ROWS - 4
    assert "may have been sent between" in project.batcher("resolve", "--ledger", project.ledger).out


@pytest.mark.slow
def test_a_budget_counts_restored_purchases(project: Project, provider: FakeTTS) -> None:
    manifest, copy = _bought_since(project)
    _go_back(project, copy)
    project.run(manifest, "--restored")
    manifest = project.manifest(20)
    assert project.run(manifest, "--max-credits", "12").exit_code == 6
    assert len(provider.creates) in (11, 12)  # restored ones count by estimate


@pytest.mark.slow
def test_an_earlier_take_with_audio_is_in_doubt(project: Project, provider: FakeTTS) -> None:
    """Results files hold only the latest take of a row."""
    manifest, _ = _bought_since(project)
    project.batcher("retake", "r1", "--ledger", project.ledger)
    assert project.run(manifest).report["created"] == 1
    project.ledger.unlink()
    manifest = project.manifest([row | {"take": "1" if row["id"] == "r1" else ""} for row in project.rows(ROWS)])
    ended = project.run(manifest, "--restored", "--rebuy")
    assert (ended.exit_code, ended.report["created"], ended.report["states"]["in_doubt"]) == (3, 0, 1)


def test_a_retaken_row_blocks_nothing_when_ledger_and_results_are_lost(project: Project, provider: FakeTTS) -> None:
    """Its file holds the take that nobody knows any more; a file that somebody edited there still does."""
    manifest = project.manifest(2)
    project.run(manifest)
    project.batcher("retake", "r1", "--ledger", project.ledger)
    project.run(manifest)
    for path in (project.ledger, *project.audio.glob("*.results.*")):
        path.unlink()
    ended = project.run(manifest, "--restored")
    assert (ended.exit_code, ended.report["states"]["in_doubt"], len(provider.creates)) == (3, 2, 3)
    output = project.audio / "r1.mp3"
    content = output.read_bytes()
    output.unlink()
    output.write_bytes(content + b"edited")
    project.ledger.unlink()
    assert project.run(manifest, "--restored").exit_code == 2
    assert output.read_bytes() == content + b"edited"


def test_a_sandbox_folder_is_refused_by_a_real_run(project: Project, provider: FakeTTS) -> None:
    """Restored or not."""
    manifest = project.manifest(2)
    project.run(manifest)
    mark = project.audio / ".items/.ledger.json"
    mark.write_text(mark.read_text().replace('"real"', '"sandbox"'))
    for consent in ((), ("--restored",)):
        ended = project.run(manifest, *consent)
        assert (ended.exit_code, len(provider.creates)) == (2, 2)
        assert "is from the sandbox" in ended.report["message"]
