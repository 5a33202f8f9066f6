"""Sums that triggers update equal a full count, after any change and after a kill."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from batcher.errors import ManifestError
from batcher.item import Event
from batcher.ledger.lifecycle import answers, claims, collection, decisions, runs
from batcher.ledger.queries import status
from batcher.ledger.records import Balance, OpenTask
from batcher.ledger.storage import database
from tests.conftest import Project
from tests.support.fake_tts import FakeTTS
from tests.support.ledger_kit import AT, NEVER, RUN, Book, book_in, ending
from tests.support.processes import killed
from tests.support.summing import assert_added_up


def _standing(book: Book) -> set[str]:
    return {row["name"] for row in book.all("SELECT name FROM standing")}


class Chance:
    """Random steps in a ledger's life: imports, create requests, answers, ended tasks, decisions."""

    def __init__(self, book: Book, seed: int) -> None:
        self.book = book
        self.dice = random.Random(seed)
        self.open: list[OpenTask] = []
        self.doubts: list[tuple[str, int]] = []
        self.number = 0

    def step(self) -> None:
        """Do one of them."""
        steps: list[Callable[[], None]] = [self.take_in, self.create, self.create, self.create, self.end, self.end]
        self.dice.choice([*steps, self.decide, self.cache, self.weigh])()

    def take_in(self) -> None:
        """Import a manifest that shares items with others, and has rows without text and several models."""
        batch = self.dice.choice(["a", "b", "c"])
        rows = ["id,text,model"]
        for row in range(self.dice.randint(1, 6)):
            text = self.dice.choice(["", *(f"{'long ' * number}text" for number in range(8))])
            rows.append(f"{batch}{row},{text},{self.dice.choice(['', 'm1', 'm2'])}")
        with suppress(ManifestError):  # too many edits
            self.book.take_in("\n".join(rows) + "\n", batch=batch, skip_empty=True, skip_invalid=True)

    def create(self) -> None:
        """Send create requests that are accepted, rejected, deferred or lost, with and without a reported cost."""
        for claimed in self.book.claim_anew(self.dice.randint(1, 3)):
            self.number += 1
            credits_ = self.dice.choice([None, 0.0, 2.5])
            event = self.dice.choice([Event.ACCEPTED] * 4 + [Event.LOST, Event.DEFERRED, Event.REJECTED, None])
            if event is Event.ACCEPTED:
                task_id = f"t{self.number}"
                self.book.record(self.book.accepted(claimed, task_id, credits=credits_))
                self.open.append(self._task(claimed.key, claimed.attempt, task_id))
            elif event is not None:
                self.book.record(self.book.answer(claimed, event, credits=credits_))
            if event in (None, Event.LOST):
                self.doubts.append((claimed.key, claimed.attempt))
        if self.dice.random() < 0.3:
            self.book.do(answers.doubt_unanswered, at=AT, run_id=RUN)

    def _task(self, key: str, attempt: int, task_id: str) -> OpenTask:
        who: dict[str, Any] = {"key": key, "attempt": attempt, "account_id": self.book.account_id, "task_id": task_id}
        return OpenTask(**who, format="mp3", chars=4, accepted_at=AT)

    def end(self) -> None:
        """End a task: rendered, failed or out of credits, with and without a reported cost."""
        if not self.open:
            return
        task = self.open.pop(self.dice.randrange(len(self.open)))
        how = [collection.record_rendered, collection.record_rendered, collection.record_failed]
        verb = self.dice.choice([*how, collection.record_unfunded])
        self.book.do(verb, ending(task, credits=self.dice.choice([None, 0.0, 1.25, 3.0])))
        self.book.do(claims.recheck_confirmed, task, run_id=RUN)
        with closing(sqlite3.connect(self.book.path)) as connection, connection:
            connection.execute("UPDATE halts SET closed_at = 1")

    def decide(self) -> None:
        """Settle an item in doubt by a late answer or by a user's decision."""
        if not self.doubts:
            return
        key, attempt = self.doubts.pop(self.dice.randrange(len(self.doubts)))
        if self.book.state(key) != "in_doubt":
            return
        self.number += 1
        task_id = f"t{self.number}"
        if self.dice.random() < 0.5:
            who: dict[str, Any] = {"account_id": self.book.account_id, "task_id": task_id}
            self.book.do(decisions.adopt, key, attempt, **who, at=AT, who="a person")
        else:
            late = self.book.accepted(_Late(key, attempt), task_id, credits=1.0)  # type: ignore[arg-type]
            self.book.record(late, max_in_doubt=NEVER)
        self.open.append(self._task(key, attempt, task_id))

    def cache(self) -> None:
        """Cache again what was deleted, as a connection that may write does."""
        self.book.do(status.precompute)

    def weigh(self) -> None:
        """Record a balance."""
        balance = Balance(credits=self.dice.choice([None, 10.0, 500.0]))
        self.book.do(runs.note_balance, RUN, self.book.account_id, balance, at=AT)


class _Late:
    """A create request whose answer arrives late."""

    def __init__(self, key: str, attempt: int) -> None:
        self.key = key
        self.attempt = attempt


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_sums_are_right_after_each_step_of_a_random_history(book: Book, seed: int) -> None:
    """Batches share items, and steps come in any order."""
    chance = Chance(book, seed)
    chance.take_in()
    kept = 0
    for _ in range(60):
        chance.step()
        assert_added_up(book.path)
        kept += {"totals", "costs"} <= _standing(book)
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
