"""A real ledger on disk, and the steps that tests take in it without a provider."""

from __future__ import annotations

import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, update

from batcher.address import Address, Server, home_of
from batcher.audio.stores import Stores
from batcher.clock import Clock
from batcher.item import Event, Inputs, canonical
from batcher.ledger.imports import importer
from batcher.ledger.ledger import Ledger, open_ledger
from batcher.ledger.lifecycle import answers, claims, collection, runs
from batcher.ledger.lifecycle.account import Limits
from batcher.ledger.money.spending import Budget
from batcher.ledger.records import AnswerRecord, Balance, Batch, Claimed, OpenTask, TaskEnd
from batcher.ledger.storage import database, schema, statements
from batcher.ledger.storage.schema import metadata
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from batcher.pipeline.context import RunContext
from batcher.reports.observer import LogObserver
from batcher.settings import Settings
from tests.support import postgres

P = ParamSpec("P")
T = TypeVar("T")

AT: Final = 1_800_000_000.0
"""The time of every step that gives no other, in seconds since the epoch."""
RUN: Final = "run-1"
NEVER: Final = 10**6
"""A limit on lost creates that no test reaches."""


class SetClock(Clock):
    """A clock that the test moves."""

    def __init__(self, at: float = AT) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def steady(self) -> float:
        return self.at


class Book:
    """A ledger with a run under way for one account; each step is one transaction."""

    def __init__(self, address: Address, engine: Engine) -> None:
        self.address = address
        self.folder = home_of(address)
        self.engine = engine
        self.account_id = 0
        self.wanted: list[Batch] = []
        self.cursor: claims.Cursor = (0, 0)

    def do(self, verb: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `verb` in its own transaction."""
        with self.engine.begin() as connection:
            return verb(connection, *args, **kwargs)

    def begin(self, run_id: str = RUN, *, user_id: str = "u1", credits_: float | None = 100.0, at: float = AT) -> int:
        """Begin a run for an account; return the account's id."""
        self.do(runs.begin_run, run_id, out_dir="audio", at=at)
        who = {"origin": "https://api.test", "user_id": user_id, "token": "secret"}
        balance = Balance(credits=credits_)
        account_id = self.do(runs.enter_account, run_id, **who, balance=balance, at=at)
        assert account_id is not None
        self.account_id = account_id
        return account_id

    def join(self, run_id: str, **who: Any) -> None:
        """Begin another run beside those that work, on a server, each with its lock in our session."""
        with self.engine.begin() as connection:
            for name in (RUN, run_id):
                connection.exec_driver_sql("SELECT pg_advisory_lock(hashtextextended(%s, 7001))", (name,))
        self.begin(run_id, **who)

    def take_in(
        self,
        content: str,
        *,
        batch: str = "m",
        at: float = AT,
        out_dir: str = "audio",
        allow: Collection[str] = (),
        rename: bool = False,
        suffix: str = "csv",
        **rules: Any,
    ) -> Batch:
        """Import a manifest with this content as the batch, and claim for its rows from now on."""
        file = self.folder / f"{batch}.{suffix}"
        file.write_text(content)
        how = Rules(**({"batch": batch, "voice": "anna"} | rules))
        manifest, source = Manifest(file, how), str(file)
        consent: dict[str, Any] = {"allow": allow, "rename": rename}
        wanted = self.do(importer.import_manifest, manifest, how, source=source, out_dir=out_dir, at=at, **consent)
        self.wanted = [one for one in self.wanted if one.name != batch] + [wanted]
        return wanted

    def claim(
        self,
        limit: int = 1,
        *,
        run_id: str = RUN,
        at: float = AT,
        limits: Limits | None = None,
        budget: Budget | None = None,
        only_chosen: bool = False,
    ) -> list[Claimed]:
        """Claim up to `limit` items from where the last claim stopped."""
        claimed, self.cursor = self.do(
            claims.claim,
            prepare,
            run_id=run_id,
            account_id=self.account_id,
            wanted=self.wanted,
            cursor=self.cursor,
            limit=limit,
            at=at,
            limits=limits,
            budget=budget,
            only_chosen=only_chosen,
        )
        return claimed

    def claim_anew(self, limit: int = 1, *, run_id: str = RUN, at: float = AT) -> list[Claimed]:
        """Claim up to `limit` items from the first row on."""
        self.cursor = (0, 0)
        return self.claim(limit, run_id=run_id, at=at)

    def answer(self, claimed: Claimed, event: Event, cause: str = "unclear", **changes: Any) -> AnswerRecord:
        """The record of an answer to the claimed create."""
        who: dict[str, Any] = {"key": claimed.key, "attempt": claimed.attempt, "run_id": RUN, "at": AT}
        who |= {"account_id": self.account_id, "event": event, "cause": cause}
        return AnswerRecord(**(who | changes))

    def accepted(self, claimed: Claimed, task_id: str, **changes: Any) -> AnswerRecord:
        """The record of an answer that names a task."""
        return self.answer(claimed, Event.ACCEPTED, "ok", **({"task_id": task_id, "http_status": 202} | changes))

    def record(self, record: AnswerRecord, *, max_in_doubt: int = NEVER) -> Event:
        """Record the answer."""
        return self.do(answers.record_answer, record, max_in_doubt=max_in_doubt)

    def submitted(self, task_id: str) -> OpenTask:
        """Claim the next item and record its create as accepted."""
        (claimed,) = self.claim()
        self.record(self.accepted(claimed, task_id))
        return OpenTask(
            key=claimed.key,
            attempt=claimed.attempt,
            account_id=self.account_id,
            task_id=task_id,
            format=claimed.format,
            chars=claimed.chars,
            accepted_at=AT,
        )

    def open_tasks(self, wanted: Sequence[Batch] | None = None, *, only_chosen: bool = False) -> list[OpenTask]:
        """The tasks that a next run would take over."""
        with self.engine.connect() as connection:
            connection.execute(update(schema.runs).values(ended_at=AT))
            found = collection.take_over(
                connection,
                self.account_id,
                self.wanted if wanted is None else wanted,
                run_id="next",
                only_chosen=only_chosen,
            )
            connection.rollback()
            return found

    def item(self, key: str) -> dict[str, Any]:
        """The item's columns."""
        return self.one("SELECT * FROM items WHERE key = ?", key)

    def state(self, key: str) -> str:
        """The item's state."""
        return str(self.item(key)["state"])

    def events(self, key: str) -> list[str]:
        """The names of the item's events, in order."""
        return [row["event"] for row in self.all("SELECT event FROM events WHERE item_key = ? ORDER BY id", key)]

    def one(self, statement: str, *values: Any) -> dict[str, Any]:
        """The only row of a query."""
        (row,) = self.all(statement, *values)
        return row

    @property
    def path(self) -> Path:
        """The ledger's file."""
        assert isinstance(self.address, Path)
        return self.address

    def all(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """The rows of a query, read through another connection, as another process would."""
        if isinstance(self.address, Server):
            return postgres.rows(self.address.url, statement.replace("?", "%s"), values)
        with closing(sqlite3.connect(self.address)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, values)]

    def execute(self, statement: str, *values: Any) -> None:
        """Change the ledger behind the program's back."""
        self.do(statements.execute, statement, values)

    @contextmanager
    def ledger(self, run_id: str = RUN) -> Iterator[Ledger]:
        """The ledger as a run opens it. On a server it is open alone, and takes our steps, too."""
        if not isinstance(self.address, Server):
            with open_ledger(self.address, "real") as made:
                yield made
            return
        self.engine.dispose()
        try:
            with open_ledger(self.address, "real", run_id=run_id) as made:
                self.engine = made._engine
                yield made
        finally:
            self.engine.dispose()
            self.engine = database.open_existing(self.address)

    def dump(self) -> list[str]:
        """Every row of every table."""
        return [
            f"{table.name} {row}" for table in metadata.sorted_tables for row in self.all(f"SELECT * FROM {table.name}")
        ]


@contextmanager
def book_in(folder: Path) -> Iterator[Book]:
    """A new ledger in a file in `folder`, with a run of one account."""
    path, (blank, ledger_id) = folder / "batcher.db", _blank()
    path.write_bytes(blank.replace(ledger_id, uuid.uuid4().hex.encode()))
    path.chmod(0o600)
    with opened_book(path) as book:
        yield book


@cache
def _blank() -> tuple[bytes, bytes]:
    """The file of a new ledger, and its id: copying it is quicker than creating another."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batcher.db"
        database.create(path, "real")
        with closing(sqlite3.connect(path)) as connection:
            ((ledger_id,),) = connection.execute("SELECT value FROM meta WHERE name = 'ledger_id'")
        return path.read_bytes(), ledger_id.encode()


@contextmanager
def opened_book(address: Address) -> Iterator[Book]:
    """The ledger, with a run of one account."""
    book = Book(address, database.open_existing(address))
    try:
        book.begin()
        yield book
    finally:
        book.engine.dispose()


def prepare(inputs: Inputs) -> bytes:
    """The body of a create."""
    return canonical(inputs.body())


def sheet(*texts: str) -> str:
    """A CSV manifest of these texts, with the ids a, b, c and so on."""
    return "id,text\n" + "".join(f"{chr(ord('a') + number)},{text}\n" for number, text in enumerate(texts))


def ending(task: OpenTask, *, at: float = AT, **changes: Any) -> TaskEnd:
    """The result of one poll of the task."""
    values: dict[str, Any] = {"task": task, "at": at, "run_id": RUN, "polls": 1}
    return TaskEnd(**(values | changes))


def keys_of(claimed: Sequence[Claimed]) -> list[str]:
    """The keys of the claimed items, in order."""
    return [one.key for one in claimed]


def run_context(ledger: Ledger, settings: Settings, clock: Clock | None = None) -> RunContext:
    """The context of the run `RUN`, which prints nothing."""
    return RunContext(
        settings=settings,
        ledger=ledger,
        stores=Stores(settings.home),
        progress=LogObserver(),
        clock=clock or Clock(),
        run_id=RUN,
    )


COMPUTED: Final = ("costs", "standing", "totals")
"""Tables that a ledger computes from the others."""


def content(address: Address) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table that is not computed, sorted; without the marks of a move."""
    engine = database.open_existing(address, readonly=True)
    try:
        with engine.connect() as conn:
            return {
                table.name: _rows_of(conn, table.name, list(table.columns.keys()))
                for table in metadata.sorted_tables
                if table.name not in COMPUTED
            }
    finally:
        engine.dispose()


def _rows_of(conn: Connection, table: str, columns: list[str]) -> list[tuple[object, ...]]:
    names = ", ".join(columns)
    without_mark = " WHERE name NOT IN ('moved', 'moved_to')" if table == "meta" else ""
    return sorted(map(tuple, conn.exec_driver_sql(f"SELECT {names} FROM {table}{without_mark}")), key=repr)
