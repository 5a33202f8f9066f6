"""The sandbox's state: one SQLite file with an account and its tasks.

The status of a task follows from timestamps that are stored when it is created. Nothing has to run in the background,
and a sandbox that was killed continues with all of its tasks.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import secrets
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from batcher.errors import UsageError
from batcher.sandbox.options import DEFAULTS, SandboxOptions
from batcher.sandbox.requests import SpeechRequest

_APPLICATION_ID: Final = 0x53_42_54_53
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS account (
    only INTEGER PRIMARY KEY CHECK (only = 1), user_id TEXT NOT NULL, secret BLOB NOT NULL, balance REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS tasks (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, request TEXT NOT NULL, cost REAL NOT NULL,
    created_at REAL NOT NULL, started_at REAL NOT NULL, ended_at REAL NOT NULL,
    fails INTEGER NOT NULL, given_back INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS tasks_owed ON tasks (ended_at) WHERE fails AND NOT given_back;
PRAGMA application_id = {_APPLICATION_ID};
COMMIT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as it was created. `number` counts the tasks from 1; `started_at` and `ended_at` may be in the future."""

    number: int
    id: str
    request: SpeechRequest
    cost: float
    created_at: float
    started_at: float
    ended_at: float
    fails: bool

    def status(self, now: float) -> str:
        """The provider's status word of the task at `now`."""
        if now < self.started_at:
            return "queued"
        if now < self.ended_at:
            return "processing"
        return "failed" if self.fails else "completed"


class Store:
    """An open store, created if missing with the balance in `options`. For one thread at a time.

    Raises:
        UsageError: the file cannot be opened, or is not a store.
    """

    def __init__(self, path: Path, options: SandboxOptions = DEFAULTS) -> None:
        self._options = options
        try:
            # SQLite would create it readable by others; its side files inherit the mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
            with ExitStack() as undo:
                undo.callback(self._db.close)
                self._prepare(path)
                undo.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"{path} cannot be used as the sandbox's store: {error}") from error
        self.user_id, self._secret = self._db.execute("SELECT user_id, secret FROM account").fetchone()

    def _prepare(self, path: Path) -> None:
        (kind,) = self._db.execute("PRAGMA application_id").fetchone()
        if kind != _APPLICATION_ID and self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise UsageError(f"{path} is a database, but not a sandbox's store", "Choose another file with --store.")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        self._db.execute(
            "INSERT OR IGNORE INTO account VALUES (1, ?, ?, ?)",
            (f"sandbox-{secrets.token_hex(8)}", secrets.token_bytes(32), self._options.credits),
        )

    def close(self) -> None:
        """Close the file. A process that is killed does no harm."""
        self._db.close()

    def create(self, request: SpeechRequest, now: float) -> Task | None:
        """Create and charge a task, committed on return; None if the balance is too low."""
        cost = len(request.text.encode()) * self._options.price
        with self._writing():
            self._refund(now)
            paid = self._db.execute("UPDATE account SET balance = balance - ?1 WHERE balance >= ?1", (cost,))
            if not paid.rowcount:
                return None
            (number,) = self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM tasks").fetchone()
            task = self._plan(number, request, cost, now)
            self._db.execute(
                "INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
                (number, task.id, json.dumps(asdict(request)), cost, now, task.started_at, task.ended_at, task.fails),
            )
        return task

    def _plan(self, number: int, request: SpeechRequest, cost: float, now: float) -> Task:
        spread = 0.7 + 0.8 * self._options.chance("duration", number)
        duration_seconds = (0.4 + 0.01 * len(request.text)) * spread / self._options.speed
        return Task(
            number=number,
            id=f"task_{uuid.uuid4().hex}",
            request=request,
            cost=cost,
            created_at=now,
            started_at=now + duration_seconds / 4,
            ended_at=now + duration_seconds,
            fails=self._options.chance("fail", number) < self._options.fail,
        )

    def task(self, task_id: str) -> Task | None:
        """The task with this id, if there is one."""
        row = self._db.execute(
            "SELECT number, request, cost, created_at, started_at, ended_at, fails FROM tasks WHERE id = ?", (task_id,)
        ).fetchone()
        if row is None:
            return None
        number, request, cost, created_at, started_at, ended_at, fails = row
        return Task(
            number=number,
            id=task_id,
            request=SpeechRequest(**json.loads(request)),
            cost=cost,
            created_at=created_at,
            started_at=started_at,
            ended_at=ended_at,
            fails=bool(fails),
        )

    def balance(self, now: float) -> float:
        """The credits left, including refunds for tasks that failed by `now`."""
        (balance,) = self._db.execute("SELECT balance FROM account").fetchone()
        return float(balance) + self._unrefunded(now)

    def add(self, credits: float, now: float) -> float:  # noqa: A002 - the domain word
        """Add to the balance and return the new one."""
        with self._writing():
            self._db.execute("UPDATE account SET balance = balance + ?", (credits,))
        return self.balance(now)

    def sign(self, text: str) -> str:
        """The signature of `text` by this store's secret."""
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()

    def is_signed(self, text: str, signature: str) -> bool:
        """Whether `signature` is this store's signature of `text`."""
        return hmac.compare_digest(self.sign(text).encode(), signature.encode())

    def _refund(self, now: float) -> None:
        refund = self._unrefunded(now)
        if refund:
            self._db.execute("UPDATE account SET balance = balance + ?", (refund,))
            self._db.execute("UPDATE tasks SET given_back = 1 WHERE fails AND NOT given_back AND ended_at <= ?", (now,))

    def _unrefunded(self, now: float) -> float:
        """The cost of failed tasks that is not refunded yet."""
        (refund,) = self._db.execute(
            "SELECT total(cost) FROM tasks WHERE fails AND NOT given_back AND ended_at <= ?", (now,)
        ).fetchone()
        return float(refund)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            yield


def top_up(store: Path, credits: float) -> float:  # noqa: A002 - the domain word
    """Add credits to an existing store, even while it is in use, and return the new balance.

    Raises:
        UsageError: the store does not exist, or the number is not positive.
    """
    if not (math.isfinite(credits) and credits > 0):
        raise UsageError(f"{credits:g} credits cannot be added", "Use a number above 0.")
    if not store.exists():
        raise UsageError(f"there is no sandbox store at {store}", "Start the sandbox once to create it.")
    opened = Store(store)
    try:
        return opened.add(credits, time.time())
    finally:
        opened.close()
