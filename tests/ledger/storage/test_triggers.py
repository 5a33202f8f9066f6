"""Sums that triggers update equal a full count, after any change and after a kill."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from batcher.ledger.lifecycle import collection
from batcher.ledger.queries import status
from batcher.ledger.storage import database
from tests.conftest import Project
from tests.support.fake_tts import FakeTTS
from tests.support.history import History
from tests.support.ledger_kit import Book, book_in, ending
from tests.support.processes import killed
from tests.support.summing import assert_added_up, assert_sums


def _standing(book: Book) -> set[str]:
    return {row["name"] for row in book.all("SELECT name FROM standing")}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_sums_are_right_after_each_step_of_a_random_history(book: Book, seed: int) -> None:
    """Batches share items, and steps come in any order."""
    history = History(book, seed)
    reader = database.open_existing(book.path, readonly=True)
    kept = 0
    for _ in range(100):
        history.step()
        with reader.begin() as connection:
            assert_sums(connection)
        kept += {"totals", "costs"} <= _standing(book)
    reader.dispose()
    assert kept > 10


def test_steps_of_a_run_keep_the_sums(book: Book) -> None:
    """From claim to done, the steps of single items update the sums, so that nothing is counted again."""
    book.take_in("id,text\na,one\nb,two\nc,three\n")
    book.do(status.precompute)
    task = book.submitted("t1")
    assert_added_up(book.path)
    book.do(collection.record_rendered, ending(task, credits=2.0))
    book.submitted("t2")
    assert_added_up(book.path)
    assert {"totals", "costs", "rows 1"} <= _standing(book)


def test_sums_survive_a_kill(project: Project, provider: FakeTTS) -> None:
    """After a kill in the middle of a run, `status` is right without counting again."""
    manifest = project.manifest(6)
    command = ["run", str(manifest), "--api-url", provider.url, "--concurrency", "2"]
    killed("before batcher.ledger.lifecycle.collection:record_saved 3", command, project.folder, project.environment)
    assert_added_up(project.ledger)
    assert {name for (name,) in project.query("SELECT name FROM standing")} >= {"totals", "costs", "rows 1"}
    states = project.batcher("status", "--json").report["states"]
    assert {state: number for state, number in states.items() if number} == project.states()


def test_the_next_run_computes_the_sums_of_a_migrated_ledger(tmp_path: Path) -> None:
    """A read-only connection counts; the first connection that may write stores the sums."""
    with book_in(tmp_path) as book:
        book.take_in("id,text\na,one\nb,two\n")
        book.do(collection.record_rendered, ending(book.submitted("t1"), credits=2.0))
        with closing(sqlite3.connect(book.path)) as connection, connection:
            connection.executescript("DELETE FROM standing; DELETE FROM totals; DELETE FROM costs")
        assert_added_up(book.path)
        assert _standing(book) == set()
        book.do(status.precompute)
        book.do(collection.record_rendered, ending(book.submitted("t2"), credits=3.0))
        assert {"totals", "costs"} <= _standing(book)
        assert_added_up(book.path)
        assert database.needs_upgrade(book.path) is False
