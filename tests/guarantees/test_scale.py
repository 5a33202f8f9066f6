"""Work that does not grow with the manifest, and files that are not read again while unchanged."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from batcher.audio.fingerprints import stamp
from batcher.clock import Clock
from batcher.errors import ManifestError
from batcher.item import Event, State
from batcher.ledger.imports import importer, rebuys
from batcher.ledger.imports.conflicts import other_batches, reject_conflicts
from batcher.ledger.imports.staging import stage_changes
from batcher.ledger.ledger import Connection, open_ledger
from batcher.ledger.lifecycle import claims, collection, runs
from batcher.ledger.queries import attention, item_counts, outputs, purchases, selection
from batcher.ledger.records import Balance, Batch
from batcher.ledger.storage import cached_facts, database
from batcher.ledger.storage.schema import items
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from batcher.pipeline.ingest import Ingest
from batcher.settings import Settings, Source
from tests.conftest import Project
from tests.support.fake_tts import FakeTTS
from tests.support.ledger_kit import AT, RUN, Book, book_in, ending, prepare, run_context, sheet


class Later(Clock):
    """A clock that is ten seconds fast, so that new files count as old."""

    def now(self) -> float:
        """Ten seconds from now."""
        return super().now() + 10.0


class Folder:
    """A user's folder with one manifest, imported as by a run."""

    def __init__(self, folder: Path) -> None:
        self.manifest = folder / "m.csv"
        self.ledger = folder / "batcher.db"
        self.out_dir = folder / "audio"
        self.manifest.write_text(sheet("one", "two"))
        database.create(self.ledger, "real")

    async def take_in(self, clock: Clock | None = None, *, rescan: bool = False, **rules: Any) -> bool:
        """Ingest the manifest; returns whether it was read."""
        source = Source(path=self.manifest, rules=Rules(**({"batch": "m", "voice": "anna"} | rules)))
        settings = Settings(sources=(source,), ledger=self.ledger, out_dir=self.out_dir, rescan=rescan)
        before = self._imported_at()
        with open_ledger(self.ledger, "real") as ledger:
            await Ingest(run_context(ledger, settings, clock or Later()), None).run()
        return before != self._imported_at()

    def texts(self) -> list[str]:
        """Texts of the current rows."""
        query = "SELECT text FROM rows JOIN items ON key = item_key WHERE is_current ORDER BY number"
        with closing(sqlite3.connect(self.ledger)) as connection:
            return [row[0] for row in connection.execute(query)]

    def _imported_at(self) -> list[Any]:
        with closing(sqlite3.connect(self.ledger)) as connection:
            return connection.execute("SELECT imported_at FROM batches").fetchall()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with book_in(tmp_path) as made:
        yield made


@pytest.mark.anyio
async def test_an_unchanged_file_is_not_read(folder: Folder) -> None:
    """--rescan and other rules make a run read it."""
    assert await folder.take_in()
    assert not await folder.take_in()
    assert await folder.take_in(rescan=True)
    assert await folder.take_in(voice="bert")
    assert not await folder.take_in(voice="bert")


@pytest.mark.anyio
async def test_a_change_that_keeps_size_and_mtime_is_noticed(folder: Folder) -> None:
    """The text has the same length, and the file's mtime is set back."""
    await folder.take_in()
    before = folder.manifest.stat()
    folder.manifest.write_text(sheet("one", "TWO"))
    os.utime(folder.manifest, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await folder.take_in()
    assert folder.texts() == ["one", "TWO"]


@pytest.mark.anyio
async def test_a_file_modified_just_now_is_read_again(folder: Folder) -> None:
    """A further change might not change its times."""
    now = Clock()
    assert await folder.take_in(now)
    assert await folder.take_in(now)
    assert await folder.take_in()
    assert not await folder.take_in()


@pytest.mark.anyio
async def test_a_manifest_with_skipped_rows_is_read_every_time(folder: Folder) -> None:
    """Its faults are reported by every run."""
    folder.manifest.write_text(sheet("one", ""))
    assert await folder.take_in(skip_invalid=True)
    assert await folder.take_in(skip_invalid=True)


@pytest.mark.anyio
async def test_a_manifest_is_read_again_after_a_retake(folder: Folder) -> None:
    """The file is the same, but the rules have changed: they contain the highest takes."""
    await folder.take_in()
    with closing(sqlite3.connect(folder.ledger)) as connection, connection:
        connection.execute("UPDATE rows SET highest_take = 2 WHERE id = 'a'")
    assert await folder.take_in()


def test_unchanged_rows_are_not_written(book: Book) -> None:
    """Of a manifest with one changed row, only that row is written."""
    book.take_in(sheet("one", "two", "three"))
    with closing(sqlite3.connect(book.path)) as connection, connection:
        connection.execute("CREATE TABLE written (id TEXT)")
        connection.execute("CREATE TRIGGER w AFTER UPDATE ON rows BEGIN INSERT INTO written VALUES (new.id); END")
    assert book.take_in(sheet("one", "2", "three")).version == 2
    assert book.all("SELECT id FROM written") == [{"id": "b"}]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("id,text,output\na,one,1\nb,two,2\nc,three,1\n", 'm.csv:4: output: "1.mp3" is taken by line 2'),
        ("id,text,output\na,one,3\nb,two,2\nc,three,3\n", 'm.csv:4: output: "3.mp3" is taken by line 2'),
        ("id,text,output\nc,one,1\nb,two,2\nc,three,3\n", 'm.csv:4: id: "c" is taken by line 2'),
        (
            "id,text,output\na,one,2.mp3/x\nb,two,2\nc,three,3\n",
            'm.csv:3: output: "2.mp3" is also the folder of other outputs',
        ),
    ],
)
def test_a_changed_row_that_clashes_with_an_unchanged_one_is_a_fault(book: Book, content: str, fault: str) -> None:
    """Ids, outputs and folders in common are found, whichever row comes first."""
    before = "id,text,output\na,one,1\nb,two,2\nc,three,3\n"
    book.take_in(before)
    with pytest.raises(ManifestError) as caught:
        book.take_in(content)
    assert [line.removeprefix(f"{book.path.parent}/") for line in caught.value.faults] == [fault]
    book.take_in(before)
    book.take_in(content, skip_invalid=True)
    assert sum(row["skipped"] == "invalid" for row in book.all("SELECT * FROM rows WHERE is_current")) == 1
    assert len(book.all("SELECT key FROM items")) == 3


def test_a_rejected_row_leaves_no_item(book: Book) -> None:
    """The item is inserted before the row turns out to repeat another."""
    book.take_in("id,text\na,one\na,two\n", skip_invalid=True)
    assert [row["text"] for row in book.all("SELECT text FROM items")] == ["one"]


def test_cached_facts_are_deleted_when_what_they_depend_on_changes(book: Book) -> None:
    """Imports, steps of items, second answers and balances each delete only facts that depend on them."""

    def left(verb: Callable[..., Any], *args: Any, **kwargs: Any) -> set[str]:
        depends: tuple[cached_facts.Depends, ...] = ("rows", "manifests", "costs", "balances")
        for name in depends:
            book.do(cached_facts.put, name, name, [1])
        verb(*args, **kwargs)
        return {row["name"] for row in book.all("SELECT name FROM standing")}

    assert left(book.take_in, sheet("one", "two")) == {"costs", "balances"}
    assert left(book.claim) == {"manifests", "costs", "balances"}
    (claimed,) = book.claim()
    lost = book.answer(claimed, Event.LOST, at=AT + 1)
    assert left(book.record, lost) == {"manifests", "costs", "balances"}
    assert left(book.record, book.accepted(claimed, "t1", at=AT + 2)) == {"manifests"}
    balance = {"at": AT + 3, "balance": Balance(credits=9.0)}
    how = (runs.note_balance, RUN, book.account_id)
    assert left(book.do, *how, **balance) == {"rows", "manifests", "costs"}


def test_counts_are_right_before_and_after_each_change(book: Book) -> None:
    """Cached counts are never outdated."""
    book.take_in(sheet("one", "two"))
    assert book.do(item_counts.count, book.wanted).states["pending"] == 2
    task = book.submitted("t1")
    counts = book.do(item_counts.count, book.wanted)
    assert (counts.states["pending"], counts.states["submitted"]) == (1, 1)
    assert book.do(item_counts.count, book.wanted) == counts
    book.do(collection.record_failed, ending(task))
    assert book.do(item_counts.count, book.wanted).states["failed"] == 1


_STEPS_OF_A_NAME: Final = 13
"""Steps in which the name of an unchanged row is compared with new ones: names that only look alike have no index."""


def _steps(book: Book, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """Steps that the database takes for the verb, in hundreds."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    with book.engine.begin() as conn:
        raw: Any = conn.connection.dbapi_connection
        raw.set_progress_handler(step, 100)
        try:
            verb(conn, *args, **kwargs)
        finally:
            raw.set_progress_handler(None, 0)
            conn.rollback()
    return steps


def _unlinked_outputs(conn: Connection, batch: Batch) -> list[tuple[str, str, bool]]:
    return list(outputs.row_outputs(conn, batch, unlinked=True))


def _stage(conn: Connection, batch: Batch, file: Path, *, check: bool) -> None:
    """Compare a manifest with its batch, and check what has changed unless `check` is false."""
    rules = Rules(batch=batch.name, voice="anna")
    manifest = Manifest(file, rules)
    staging = stage_changes(conn, manifest, batch.name, batch.batch_id, items, AT)
    if check:
        reject_conflicts(conn, staging, manifest.faults, other_batches(conn, batch.name), batch.out_dir)
        importer.refuse_renames_of(conn, staging, manifest, rules)
        rebuys.refuse_rebuys(conn, staging, manifest, rules, {}, same_file=False)
        rebuys.changed_rows(conn, staging)


def _steps_of_checks(book: Book) -> int:
    """Steps of the checks of an import that adds three rows."""
    file = book.path.with_name("m.csv")
    file.write_text(file.read_text() + "one more sentence\nanother\nand a third\n")
    read, checked = (_steps(book, _stage, book.wanted[0], file, check=check) for check in (False, True))
    return checked - read


def _all_but_one_done(folder: Path, rows: int) -> Iterator[dict[str, int]]:
    folder.mkdir()
    with book_in(folder) as book:
        book.take_in("text\n" + "".join(f"sentence {row}\n" for row in range(rows)))
        task = book.submitted("t0")
        last = book.one("SELECT key FROM items ORDER BY rowid DESC LIMIT 1")["key"]
        with closing(sqlite3.connect(book.path)) as connection, connection:
            connection.execute("UPDATE items SET state = 'failed' WHERE state = 'pending' AND key <> ?", (last,))
            linked = "UPDATE rows SET linked_key = item_key, linked_output = output WHERE item_key <> ?"
            connection.execute(linked, (last,))
        who = {"run_id": RUN, "account_id": book.account_id, "wanted": book.wanted}
        yield {
            "claim": _steps(book, claims.claim, prepare, **who, cursor=(0, 0), limit=5, at=AT),
            "has_claimable": _steps(book, claims.has_claimable, RUN, book.wanted),
            "rechecks": _steps(book, claims.rechecks, book.account_id, book.wanted),
            "take_over": _steps(book, collection.take_over, book.account_id, book.wanted, run_id="next"),
            "foreign_tasks": _steps(book, attention.foreign_tasks, book.wanted, book.account_id),
            "outputs_of": _steps(book, outputs.outputs_of, task.key),
            "collectable": _steps(book, item_counts.collectable),
            "row_outputs": _steps(book, _unlinked_outputs, book.wanted[0]),
            "folders": _steps(book, outputs.folders, book.wanted[0], 9, unlinked=True),
            "to_link": _steps(book, outputs.to_link, book.wanted[0], 0, 9),
            "highest_takes": _steps(book, importer.highest_takes, "m"),
            "checks of three new rows": _steps_of_checks(book),
        }


def test_database_steps_of_frequent_queries_do_not_grow_with_the_manifest(tmp_path: Path) -> None:
    """In a manifest of ten times the rows, nearly all of them done, they take about the same number of steps."""
    [few], [many] = (list(_all_but_one_done(tmp_path / str(rows), rows)) for rows in (400, 4000))
    many["checks of three new rows"] -= 4000 * _STEPS_OF_A_NAME // 100
    assert {name: steps for name, steps in many.items() if steps > 2 * few[name] + 2} == {}


def _two_chosen(folder: Path, rows: int) -> dict[str, int]:
    folder.mkdir()
    with book_in(folder) as book:
        book.take_in("id,text\n" + "".join(f"r{row},sentence {row}\n" for row in range(rows)))
        assert book.do(selection.choose_ids, book.wanted, ["r3", f"r{rows - 1}"]) == []
        who = {"run_id": RUN, "account_id": book.account_id, "wanted": book.wanted, "only_chosen": True}
        return {
            "claim": _steps(book, claims.claim, prepare, **who, cursor=(0, 0), limit=5, at=AT),
            "has_claimable": _steps(book, claims.has_claimable, RUN, book.wanted, only_chosen=True),
            "count": _steps(book, item_counts.count_chosen, book.wanted),
            "purchases": _steps(book, purchases.purchases, book.wanted, only_chosen=True),
            "attention": _steps(book, attention.needing_attention, book.wanted, State.FAILED, 5, only_chosen=True),
            "take_over": _steps(
                book, collection.take_over, book.account_id, book.wanted, run_id="next", only_chosen=True
            ),
        }


def test_database_steps_for_a_few_chosen_rows_do_not_grow_with_the_manifest(tmp_path: Path) -> None:
    """Although nearly all of its rows are to be created."""
    few, many = (_two_chosen(tmp_path / str(rows), rows) for rows in (400, 4000))
    assert {name: steps for name, steps in many.items() if steps > 2 * few[name] + 2} == {}


def test_database_steps_of_choosing_grow_only_with_the_manifest(tmp_path: Path) -> None:
    """Also if all rows share one item."""

    def steps(rows: int, text: str) -> int:
        folder = tmp_path / f"{rows}{text.strip()}"
        folder.mkdir()
        with book_in(folder) as book:
            book.take_in("id,text\n" + "".join(f"r{row},{text.format(row)}\n" for row in range(rows)))
            read = _steps(book, lambda conn: len(list(selection.candidates(conn, book.wanted))))
            places = range(2, rows, 20)
            return read + _steps(book, selection.choose_places, book.wanted, places)

    for text in ("line {}", "the same"):
        assert steps(4000, text) < 15 * steps(400, text)


def _results(project: Project) -> list[Any]:
    return [stamp(project.audio / f"lines.results.{kind}") for kind in ("jsonl", "csv")]


def test_results_are_written_only_when_something_changed(project: Project) -> None:
    """A run without changes leaves the results files alone; a modified or missing one is written again."""
    manifest = project.manifest(2)
    project.run(manifest)
    before, lines = _results(project), project.results()
    assert project.run(manifest).exit_code == 0
    assert _results(project) == before
    (project.audio / "lines.results.csv").unlink()
    project.run(manifest)
    assert all(_results(project))
    (project.audio / "lines.results.jsonl").write_text("scribbled over\n")
    project.run(manifest)
    assert project.results() == lines
    project.run(project.manifest(3))
    assert len(project.results()) == 3


def test_a_deleted_output_is_linked_again(project: Project) -> None:
    """Also after runs that had nothing to do."""
    rows = project.rows(3)
    manifest = project.manifest(rows)
    for _ in range(3):
        assert project.run(manifest).exit_code == 0
    (project.audio / "r2.mp3").unlink()
    assert project.run(manifest).exit_code == 0
    project.assert_whole(rows)


def test_an_output_deleted_while_a_run_works_is_linked_again(project: Project, provider: FakeTTS) -> None:
    """The next run links it."""
    rows = project.rows(3)
    assert project.run(project.manifest(rows[:2])).exit_code == 0
    provider.task_seconds = 600.0
    started = project.start_run(project.manifest(rows))
    provider.until(lambda: len(provider.creates) == 3)
    (project.audio / "r1.mp3").unlink()
    provider.end_tasks()
    assert started.end().exit_code == 0
    assert not (project.audio / "r1.mp3").exists()
    assert project.run(project.manifest(rows)).exit_code == 0
    project.assert_whole(rows)


def test_a_foreign_file_at_an_output_path_stops_the_next_run(project: Project) -> None:
    """Also after a run that had nothing to do."""
    manifest = project.manifest(3)
    assert project.run(manifest, "--max-items", "1").exit_code == 6
    assert project.run(manifest, "--max-items", "0").exit_code == 6
    (project.audio / "r3.mp3").write_bytes(b"mine")
    ended = project.run(manifest)
    assert ended.exit_code == 2
    assert len(project.provider.creates) == 1


def test_a_run_works_with_64_file_descriptors(project: Project) -> None:
    """Also with many open tasks."""
    rows = project.rows(120)
    manifest = project.manifest(rows)
    command = [sys.executable, "-m", "batcher", "run", str(manifest), "--api-url", project.provider.url]
    limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *command, "--concurrency", "100"]
    ended = subprocess.run(limited, env=project.environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    project.assert_whole(rows)
    assert len(project.provider.creates) == len(rows)


@pytest.mark.slow
def test_a_text_of_five_megabytes_is_delivered(project: Project) -> None:
    """It is read, sent and delivered like any other."""
    rows = [replace_text(row, 5_000_000) for row in project.rows(1)]
    assert project.run(project.manifest(rows)).exit_code == 0
    project.assert_whole(rows)


def replace_text(row: dict[str, str], characters: int) -> dict[str, str]:
    """The row with a text of about this length."""
    return row | {"text": ("Many words. " * (characters // 12 + 1))[:characters].strip()}
