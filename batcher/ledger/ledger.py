"""The ledger's face: async outside, one synchronous connection inside, and commits that are shared.

Whoever calls `do` waits until what the verb did is durable. Verbs that come while a commit is under way go into the
next one together, each in a savepoint of its own, so that one refused record never takes its neighbours along. A call
cannot be cut in two: it is shielded from cancellation.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import anyio
import anyio.to_thread
import structlog
from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from batcher.errors import StorageError
from batcher.ledger.lifecycle.answers import doubt_unanswered, record_answer
from batcher.ledger.records import AnswerRecord
from batcher.ledger.storage import database, statements
from batcher.ledger.storage.schema import meta
from batcher.ledger.storage.spill import Spill

__all__ = ["Connection", "Ledger", "opened", "viewed", "world_of"]

log = structlog.get_logger()

GATHER_SECONDS: Final = 0.005
"""Between two commits: what comes meanwhile shares the next. A call that comes alone does not wait."""

P = ParamSpec("P")
T = TypeVar("T")


class _Call(Generic[T]):
    """One verb on its way into a commit."""

    def __init__(self, verb: Callable[[Connection], T]) -> None:
        self.verb = verb
        self.turn = anyio.Event()  # it is settled, or its caller makes the next commit
        self.settled = False
        self.value: T
        self.error: Exception | None = None

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value


class Ledger:
    """An open ledger, owned by this process. `path` is its file.

    `gathers`: many call at once, so that a commit waits a moment for more to share it; and since each verb is brief,
    only the commit leaves the loop's thread. SQLite lets go of the interpreter at every statement, and beside a busy
    loop another thread would wait for it each time.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self.spill = Spill(path.with_name(path.name + ".spill"))
        self._engine = engine
        self._waiting: list[_Call[Any]] = []
        self.gathers = False
        self._committed_at = -math.inf
        self._led = False
        self._thread = anyio.CapacityLimiter(1)

    async def do(self, verb: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `verb(connection, …)` in a transaction and return what it returned, once that is durable.

        Raises:
            StorageError: the database took nothing of it.
        """
        call: _Call[T] = _Call(lambda connection: verb(connection, *args, **kwargs))
        self._waiting.append(call)
        with anyio.CancelScope(shield=True):
            if self._led:
                await call.turn.wait()
            if not call.settled:
                await self._lead()
        return call.result()

    async def _lead(self) -> None:
        """Commit all that waits, then let the first of those that came meanwhile lead."""
        self._led = True
        if self.gathers:
            await anyio.sleep(max(0.0, self._committed_at + GATHER_SECONDS - anyio.current_time()))
        batch, self._waiting = self._waiting, []
        try:
            if self.gathers:
                await self._commit(batch)
            else:
                await anyio.to_thread.run_sync(self._apply_and_commit, batch, limiter=self._thread)
        finally:
            self._committed_at = anyio.current_time()
            self._led = bool(self._waiting)
            for call in (*batch, *self._waiting[:1]):
                call.turn.set()

    async def record(self, record: AnswerRecord, *, max_in_doubt: int) -> Any:
        """Make the answer to a create durable: in the database, or else in the spill file. Returns the event recorded.

        Raises:
            StorageError: the database refused it; unless its message says otherwise, the spill file has it.
        """
        try:
            return await self.do(record_answer, record, max_in_doubt=max_in_doubt)
        except Exception as error:
            self.spill.append(record)
            why, hint = (
                (error.message, error.hint)
                if isinstance(error, StorageError)
                else (f"the ledger refused an answer: {getattr(error, 'orig', error)}", "Run again.")
            )
            raise StorageError(f"{why}; the answer is kept in {self.spill.path}", hint) from error

    async def recover(self, *, run_id: str, at: float, max_in_doubt: int) -> int:
        """Record what an earlier run left in the spill file, then put its unanswered creates in doubt.

        Only the holder of the owner's lock may call this. Returns the number of creates put in doubt.
        """
        kept = False
        for record in self.spill.records():
            try:
                await self.do(record_answer, record, max_in_doubt=max_in_doubt)
            except IntegrityError as error:
                kept = True
                log.error("an answer in the spill file does not fit the ledger", key=record.key, why=str(error.orig))
        if not kept:
            self.spill.clear()
        return await self.do(doubt_unanswered, at=at, run_id=run_id)

    def close(self) -> None:
        """Fold the journal into the file and let go of it."""
        # A full disk may refuse; the journal then stays beside the file, and is as good.
        with suppress(sqlite3.Error), closing(self._engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._engine.dispose()
        self.spill.remove()

    def _apply_and_commit(self, batch: list[_Call[Any]]) -> None:
        with self._settling(batch), self._engine.begin() as connection:
            for call in batch:
                _apply(connection, call)

    async def _commit(self, batch: list[_Call[Any]]) -> None:
        """The same, with all but the commit on the loop's own thread."""
        with self._settling(batch), self._engine.connect() as connection, connection.begin() as transaction:
            for call in batch:
                _apply(connection, call)
            await anyio.to_thread.run_sync(transaction.commit, limiter=self._thread)

    @contextmanager
    def _settling(self, batch: list[_Call[Any]]) -> Iterator[None]:
        """Tells each caller when nothing is committed."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            refused = database.storage_error(self.path, error) if isinstance(error, DBAPIError) else error
            for call in batch:
                call.error = refused
        finally:
            for call in batch:
                call.settled = True


def _apply(connection: Connection, call: _Call[Any]) -> None:
    """Run one verb in a savepoint; only what the database as a whole cannot take is raised."""
    driver = statements.driver(connection)
    driver.execute("SAVEPOINT one")
    try:
        call.value = call.verb(connection)
    except DBAPIError as error:
        if not isinstance(error, IntegrityError):
            raise
        call.error = error
    except Exception as error:  # noqa: BLE001 - handed to whoever called
        call.error = error
    if call.error is not None:
        driver.execute("ROLLBACK TO one")
    driver.execute("RELEASE one")


@contextmanager
def opened(path: Path, world: database.World | None = None) -> Iterator[Ledger]:
    """The ledger at `path`, which exists and is up to date, for the holder of the owner's lock.

    Raises:
        LedgerError: it cannot be used.
    """
    ledger = Ledger(path, database.open_existing(path, world=world))
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def viewed(path: Path, world: database.World | None = None) -> Iterator[Connection]:
    """A connection that only reads the ledger at `path`, also while a run works on it.

    Raises:
        LedgerError: there is none, or it cannot be read.
    """
    engine = database.open_existing(path, world=world, readonly=True)
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        raise database.storage_error(path, error) from error
    finally:
        engine.dispose()


def world_of(conn: Connection) -> str:
    """The world that the ledger belongs to: `real` or `sandbox`."""
    world: str = conn.execute(select(meta.c.value).where(meta.c.name == "world")).scalar_one()
    return world
