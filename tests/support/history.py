"""A random history of a ledger: the same steps for the same seed, on either database."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from batcher.errors import ManifestError
from batcher.item import Event
from batcher.ledger.lifecycle import answers, claims, collection, decisions, runs
from batcher.ledger.queries import outputs, status
from batcher.ledger.records import Balance, Claimed, FileRecord, OpenTask
from tests.support.ledger_kit import AT, NEVER, RUN, Book, ending


class History:
    """Random steps in a ledger's life: imports, create requests, answers, ended tasks, audio, decisions.

    It begins with the imports of a few manifests.
    """

    def __init__(self, book: Book, seed: int) -> None:
        self.book = book
        self.dice = random.Random(seed)
        self.open: list[OpenTask] = []
        self.rendered: list[OpenTask] = []
        self.doubts: list[tuple[str, int]] = []
        self.number = 0
        self.run_id = RUN
        for _ in range(4):
            self.take_in()

    @property
    def at(self) -> float:
        """The time of the current step; the clock stands still in some."""
        return AT + self.number // 3

    def step(self) -> None:
        """Do one of them."""
        self.number += 1
        often: list[Callable[[], None]] = [self.take_in, self.create, self.create, self.create, self.end, self.end]
        seldom = [self.decide, self.cache, self.weigh, self.save, self.save, self.link, self.retake, self.settle]
        self.dice.choice([*often, *seldom])()

    def take_in(self) -> None:
        """Import a manifest that shares items with others, and has rows without text and several models."""
        batch = self.dice.choice(["a", "b", "C"])
        rows = ["id,text,model"]
        for row in range(self.dice.randint(1, 6)):
            text = self.dice.choice(["", *(f"{'längst ' * number}text" for number in range(8))])
            rows.append(f"{batch}{row},{text},{self.dice.choice(['', 'm1', 'm2'])}")
        with suppress(ManifestError):  # too many edits
            content = "\n".join(rows) + "\n"
            self.book.take_in(content, batch=batch, at=self.at, skip_empty=True, skip_invalid=True)

    def create(self) -> None:
        """Send create requests that are accepted, rejected, deferred or lost, with and without a reported cost."""
        for claimed in self._claim():
            credits_ = self.dice.choice([None, 0.0, 2.5])
            event = self.dice.choice([Event.ACCEPTED] * 4 + [Event.LOST, Event.DEFERRED, Event.REJECTED, None])
            how: dict[str, Any] = {"credits": credits_, "at": self.at, "run_id": self.run_id}
            if event is Event.ACCEPTED:
                self._accepted(claimed, **how)
            elif event is not None:
                code = self.dice.choice([None, "Busy", "busy", "é"])
                self.book.record(self.book.answer(claimed, event, error_code=code, http_status=503, **how))
            if event in (None, Event.LOST):
                self.doubts.append((claimed.key, claimed.attempt))
        if self.dice.random() < 0.3:
            self._begin()
            self.book.do(answers.doubt_unanswered, at=self.at, run_id=self.run_id)

    def _claim(self) -> list[Claimed]:
        return self.book.claim_anew(self.dice.randint(1, 3), run_id=self.run_id, at=self.at)

    def _accepted(self, claimed: Claimed, **how: Any) -> None:
        task = self._task(claimed.key, claimed.attempt)
        ignored = self.dice.choice([None, None, "emotion", "Speed,pitch"])
        self.book.record(self.book.accepted(claimed, task.task_id, ignored=ignored, **how))
        self.open.append(task)

    def _task(self, key: str, attempt: int) -> OpenTask:
        self.number += 1
        who: dict[str, Any] = {"key": key, "attempt": attempt, "account_id": self.book.account_id}
        return OpenTask(**who, task_id=f"t{self.number}", format="mp3", chars=4, accepted_at=self.at)

    def end(self) -> None:
        """End a task: rendered, failed or out of credits, with and without a reported cost."""
        if not self.open:
            return
        task = self.open.pop(self.dice.randrange(len(self.open)))
        rendered = self.dice.random() < 0.6
        verb = collection.record_rendered
        if not rendered:
            verb = self.dice.choice([collection.record_failed, collection.record_unfunded])
        credits_ = self.dice.choice([None, 0.0, 1.25, 3.0])
        code = None if rendered else self.dice.choice([None, "bad_voice"])
        self.book.do(verb, ending(task, at=self.at, run_id=self.run_id, credits=credits_, error_code=code))
        self.book.do(claims.recheck_confirmed, task, run_id=self.run_id)
        if self.dice.random() < 0.8:
            self.book.execute("UPDATE halts SET closed_at = 1")
        if rendered:
            self.rendered.append(task)

    def save(self) -> None:
        """Download the audio of a rendered item, or fail to."""
        if not self.rendered:
            return
        task = self.rendered.pop(self.dice.randrange(len(self.rendered)))
        if self.dice.random() < 0.3:
            failed = ending(task, at=self.at, run_id=self.run_id, error_message=self.dice.choice(["too short", None]))
            self.book.do(collection.record_undelivered, failed, next_try_at=self.at + 60, unusable=True)
            self.rendered.append(task)
            return
        seconds = self.dice.choice([None, 1.5, 2.25])
        file = FileRecord(path=f"{task.key[:8]}.mp3", sha256=task.key[:64], bytes=1000, audio_seconds=seconds)
        self.book.do(collection.record_file, task, file, out_dir="audio", at=self.at)
        if self.dice.random() < 0.8:
            self.book.do(collection.record_saved, task, at=self.at, run_id=self.run_id)

    def link(self) -> None:
        """Link the saved audio of one batch to its outputs, or forget some links."""
        for batch in self.book.wanted:
            ready = self.book.do(outputs.to_link, batch, 0, self.dice.randint(1, 3))
            links = [(one.batch_id, one.row_id, one.key, one.output) for one in ready]
            self.book.do(collection.record_links, links, at=self.at)
            if self.dice.random() < 0.2:
                self.book.do(collection.forget_links, batch.batch_id, [one.row_id for one in ready[:1]])

    def decide(self) -> None:
        """Settle an item in doubt by a late answer or by a user's decision."""
        if not self.doubts:
            return
        key, attempt = self.doubts.pop(self.dice.randrange(len(self.doubts)))
        if self.book.state(key) != "in_doubt":
            return
        task = self._task(key, attempt)
        how = self.dice.choice(["adopt", "late", "buy", "abandon"])
        person: dict[str, Any] = {"at": self.at, "who": "a person"}
        if how == "buy":
            self.book.do(decisions.buy_again, key, attempt, **person)
        elif how == "abandon":
            self.book.do(decisions.abandon, key, attempt, **person)
        elif how == "adopt":
            self.book.do(decisions.adopt, key, attempt, account_id=task.account_id, task_id=task.task_id, **person)
        else:
            late = Claimed(key=key, attempt=attempt, format="mp3", chars=4, body=b"")
            self.book.record(self.book.accepted(late, task.task_id, credits=1.0, at=self.at), max_in_doubt=NEVER)
        if how in ("adopt", "late"):
            self.open.append(replace(task, accepted_at=self.at))

    def settle(self) -> None:
        """Retry or give up an item that ended badly."""
        ended = self.book.all(
            "SELECT key, attempt FROM items WHERE state IN ('failed', 'rejected', 'abandoned') ORDER BY key"
        )
        if ended:
            one = self.dice.choice(ended)
            verb = self.dice.choice([decisions.retry, decisions.retry, decisions.abandon])
            self.book.do(verb, one["key"], one["attempt"], at=self.at, who="a person")

    def retake(self) -> None:
        """Switch a row to a new take or back, if its item is done."""
        found = self.book.all(
            "SELECT batch_id, id FROM rows WHERE is_current = 1 AND item_key IS NOT NULL ORDER BY batch_id, number"
        )
        if found:
            row = self.dice.choice(found)
            self.book.do(decisions.retake, row["batch_id"], row["id"], at=self.at, who="a person")
            if self.dice.random() < 0.3:
                self.book.do(decisions.switch_take, row["batch_id"], row["id"], 1, at=self.at, who="a person")

    def cache(self) -> None:
        """Cache again what was deleted, as a connection that may write does."""
        self.book.do(status.precompute)

    def weigh(self) -> None:
        """Record a balance, and at times begin the next run, some of them for another account."""
        balance = Balance(credits=self.dice.choice([None, 10.0, 500.0]), quota=self.dice.choice([None, None, 70.0]))
        self.book.do(runs.note_balance, self.run_id, self.book.account_id, balance, at=self.at)
        if self.dice.random() < 0.5:
            with self.book.engine.begin() as conn:
                runs.end_run(conn, self.run_id, ended_at=self.at, outcome="done", exit_code=0)
            self._begin()

    def _begin(self) -> None:
        """Begin the next run, after the end of the last one or because it vanished."""
        self.run_id = f"run-{self.number:04}"
        self.book.begin(self.run_id, user_id=self.dice.choice(["u1", "u1", "U2"]), credits_=90.0, at=self.at)
