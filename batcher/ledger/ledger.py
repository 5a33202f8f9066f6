"""The ledger's async interface over one synchronous connection, with group commits.

`do` returns once the changes of its verb are durable. Verbs that arrive during a commit share the next one, each in its
own savepoint, so that a rejected record does not undo the others; `do_soon` waits a little for a commit to share. A
call is shielded from cancellation: it is carried out as a whole or not at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Engine, literal, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from batcher.address import Address, Server, intents_file, spill_file
from batcher.clock import Wakeup
from batcher.errors import BatcherError, DamagedError, StorageError, root_cause
from batcher.ledger.lifecycle.answers import record_answer
from batcher.ledger.queries import integrity
from batcher.ledger.records import AnswerRecord, Claimed
from batcher.ledger.storage import database, sharing, sqlite, statements
from batcher.ledger.storage.access import check_files
from batcher.ledger.storage.intents import IntentsFile
from batcher.ledger.storage.lock import owner_lock
from batcher.ledger.storage.schema import meta
from batcher.ledger.storage.spill import Spill
from batcher.log import log

__all__ = ["Connection", "Ledger", "blaming_damage", "open_ledger", "open_locked", "open_readonly", "world_of"]

_COMMIT_INTERVAL_SECONDS: Final = 0.005
"""Shortest time between two group commits: verbs that arrive meanwhile share the next. A single call does not wait."""
_PING_SECONDS: Final = 15.0
"""Longest time without a statement on a server, which ends the session after `postgres.LEASE_SECONDS`."""
_SILENT_SECONDS: Final = 60.0
"""Longest time to wait for a commit while items are created and collected."""
_CONFIRMED_SECONDS: Final = 20.0
"""A commit this long ago no longer shows that the session is alive."""
_SOON_SECONDS: Final = 0.05
"""Longest time for which `do_soon` waits for a commit to share."""

_TRIES: Final = 5
"""Attempts at a transaction that the server aborts since it and another wait for each other."""

_OF_VALUES: Final = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError, SQLAlchemyError)
"""Errors that values of a wrong type can cause."""
_DIAGNOSIS_SECONDS: Final = 10.0
"""Longest time for which damage of the ledger is looked for after such an error."""

P = ParamSpec("P")
T = TypeVar("T")


class _Call(Generic[T]):
    """One verb that is waiting for a commit, and its result."""

    def __init__(self, verb: Callable[[Connection], T]) -> None:
        self.verb = verb
        self.repeatable = True
        self.patient = False  # waits for another to lead
        self.turn = anyio.Event()  # set once it is settled, or once its caller is to make the next commit
        self.settled = False
        self.value: T
        self.error: Exception | None = None

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value


class Ledger:
    """An open ledger, owned by this process. `committed` rings after each commit.

    `group_commits` is for many concurrent callers: a commit waits a moment so that more verbs can share it. The verbs
    are brief and, in a file, run on the event loop's thread; only the commit runs on another. SQLite releases the
    interpreter lock at every statement, and another thread would have to wait for the busy loop each time to get it
    back. A server may not answer for a while, which the event loop must not wait for.
    """

    def __init__(self, address: Address, engine: Engine, run_id: str = "") -> None:
        self.address = address
        self.ledger_id = database.id_of(engine)
        self.spill = Spill(spill_file(address, self.ledger_id, run_id))
        self.intents = (
            IntentsFile(intents_file(address, self.ledger_id, run_id)) if isinstance(address, Server) else None
        )
        self._engine = engine
        self._inode = _inode(address)
        self._waiting: list[_Call[Any]] = []
        self.group_commits = False
        self.committed = Wakeup()
        self._committed_at = -math.inf
        self._confirmed_at = -math.inf
        self._has_leader = False
        self._asked_at: float | None = None  # when the commit under way began
        self._thread = anyio.CapacityLimiter(1)

    async def do(self, verb: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `verb(connection, …)` in a transaction and return its result once that is durable.

        Raises:
            StorageError: the database refused the transaction; nothing was changed.
        """
        return await self._settle(_Call(lambda connection: verb(connection, *args, **kwargs)))

    async def do_once(self, verb: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Like `do`, for a verb that reads input which cannot be read again: it is not repeated after a deadlock."""
        call: _Call[T] = _Call(lambda connection: verb(connection, *args, **kwargs))
        call.repeatable = False
        return await self._settle(call)

    async def do_soon(self, verb: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Like `do`, for what nothing urgent waits for: while commits are grouped, wait a little for one to share."""
        call: _Call[T] = _Call(lambda connection: verb(connection, *args, **kwargs))
        call.patient = self.group_commits
        return await self._settle(call)

    async def _settle(self, call: _Call[T]) -> T:
        self._waiting.append(call)
        with anyio.CancelScope(shield=True):
            if call.patient:
                with anyio.move_on_after(_SOON_SECONDS):
                    await call.turn.wait()
                call.patient = False
            if self._has_leader and not call.settled:
                await call.turn.wait()
            if not call.settled:
                await self._lead()
        return call.result()

    async def _lead(self) -> None:
        """Commit all waiting calls, then let the first urgent one of those that arrived meanwhile lead."""
        self._has_leader = True
        if self.group_commits:
            await anyio.sleep(max(0.0, self._committed_at + _COMMIT_INTERVAL_SECONDS - anyio.current_time()))
        batch, self._waiting = self._waiting, []
        self._asked_at = asked_at = anyio.current_time()
        try:
            if self.group_commits and not isinstance(self.address, Server):
                await self._commit(batch)
            else:
                await anyio.to_thread.run_sync(self._apply_and_commit, batch, limiter=self._thread)
        finally:
            self._asked_at = None
            self._committed_at = anyio.current_time()
            if not any(call.error for call in batch):
                self._confirmed_at = asked_at
            urgent = [call for call in self._waiting if not call.patient]
            self._has_leader = bool(urgent)
            for call in (*batch, *urgent[:1]):
                call.turn.set()
            self.committed.ring()

    async def record(self, record: AnswerRecord, *, max_in_doubt: int) -> Any:
        """Make the answer to a create durable: in the database, or else in the spill file. Returns the recorded event.

        Raises:
            StorageError: the database refused it. The answer is in the spill file if the message names that file.
        """
        try:
            return await self.do(record_answer, record, max_in_doubt=max_in_doubt)
        except Exception as error:
            self.spill.append(record)
            if isinstance(error, StorageError):
                message, hint = error.message, error.hint
            else:
                message, hint = f"the ledger rejected an answer: {getattr(error, 'orig', error)}", "Run it again."
            raise StorageError(f"{message}; the answer is stored in {self.spill.path}", hint) from error

    async def ahead_seconds(self) -> float:
        """How far the clock of the ledger's server is ahead of this host's; 0 for a file."""
        before = time.time()
        found = await self.do(sharing.server_time)
        return 0.0 if found is None else found - (before + time.time()) / 2

    async def note_intents(self, claimed: Sequence[Claimed]) -> None:
        """Make durable on this host what is about to be created, if the ledger's server may lose it.

        Raises:
            StorageError: the disk of this host is full. Nothing may be sent.
        """
        if self.intents is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.intents.append, claimed)

    @property
    def is_shared(self) -> bool:
        """Whether other runs may work on the ledger at the same time."""
        return isinstance(self.address, Server)

    @property
    def is_held(self) -> bool:
        """Whether the database has confirmed so recently that it is this process's that nobody can have taken it over.

        A file's lock is the kernel's, and needs no confirmation.
        """
        is_recent = anyio.current_time() - self._confirmed_at < _CONFIRMED_SECONDS
        return is_recent or not isinstance(self.address, Server)

    async def keep(self) -> None:
        """Keep the session of a server alive while the run has nothing to write, and end it if it does not answer."""
        if isinstance(self.address, Server):
            async with anyio.create_task_group() as both:
                both.start_soon(self._ping_idle)
                both.start_soon(self._cut_silent)

    async def _ping_idle(self) -> None:
        while True:
            await anyio.sleep(_PING_SECONDS)
            if anyio.current_time() - self._confirmed_at >= _PING_SECONDS:
                with suppress(StorageError):  # whoever writes next reports it
                    await self.do(_ping)

    async def _cut_silent(self) -> None:
        """Let commits fail that the server does not answer, so that answers to creates go to the spill file.

        The network's own limits do not cover a proxy that takes what it is sent while the server behind it is gone.
        """
        while True:
            await anyio.sleep(_PING_SECONDS)
            is_silent = self._asked_at is not None and anyio.current_time() - self._asked_at >= _SILENT_SECONDS
            if is_silent and self.group_commits:  # an import may take long
                log.error("the server does not answer: the connection is cut", ledger=str(self.address))
                database.cut(self._engine)

    async def rescue(self) -> Path | None:
        """If the file at its path is not this ledger any more, copy this one beside it. Returns the copy's path.

        Raises:
            StorageError: it cannot be copied.
        """
        if isinstance(self.address, Server) or _inode(self.address) == self._inode:
            return None
        return await anyio.to_thread.run_sync(sqlite.rescue, self._engine, self.address, limiter=self._thread)

    def close(self) -> None:
        """Close the ledger."""
        database.close(self.address, self._engine)
        self.spill.remove()
        if self.intents is not None:
            self.intents.close()

    def _apply_and_commit(self, batch: list[_Call[Any]]) -> None:
        with self._settling(batch):
            for last in (False,) * (_TRIES - 1) + (True,):
                try:
                    with self._engine.begin() as connection:
                        for call in batch:
                            _apply(connection, call)
                    return
                except DBAPIError as error:
                    if last or not sharing.is_deadlock(error) or not all(call.repeatable for call in batch):
                        raise

    async def _commit(self, batch: list[_Call[Any]]) -> None:
        """Like `_apply_and_commit`, but everything except the commit runs on the event loop's thread."""
        with self._settling(batch), self._engine.connect() as connection, connection.begin() as transaction:
            for call in batch:
                _apply(connection, call)
            await anyio.to_thread.run_sync(transaction.commit, limiter=self._thread)

    @contextmanager
    def _settling(self, batch: list[_Call[Any]]) -> Iterator[None]:
        """Raise the error in each call if nothing was committed, and mark all calls as settled."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            failure = database.storage_error(self.address, error) if isinstance(error, DBAPIError) else error
            for call in batch:
                call.error = failure
        finally:
            for call in batch:
                call.settled = True


def _ping(conn: Connection) -> None:
    conn.execute(select(literal(1)))


def _inode(address: Address) -> tuple[int, int] | None:
    try:
        found = None if isinstance(address, Server) else address.stat()
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def _apply(connection: Connection, call: _Call[Any]) -> None:
    """Run one verb in a savepoint. Raises only errors of the whole database; others are stored in the call."""
    statements.pass_on(connection, "SAVEPOINT one")
    call.error = None
    try:
        call.value = call.verb(connection)
    except DBAPIError as error:
        if not isinstance(error, (IntegrityError, DataError)):
            raise
        call.error = error
    except Exception as error:  # noqa: BLE001 - raised by `result` in the caller
        call.error = error
    if call.error is not None:
        statements.pass_on(connection, "ROLLBACK TO one")
    statements.pass_on(connection, "RELEASE one")


@contextmanager
def open_ledger(
    address: Address, world: database.World | None = None, *, run_id: str = "", alone: bool = True
) -> Iterator[Ledger]:
    """Open the ledger for the holder of the owner's lock. On a server, this takes the lock: `alone`, or as the run
    `run_id` together with others.

    Raises:
        LedgerError: it does not exist, is not up to date or cannot be used.
        LockedError: another run holds it, on a server.
    """
    with blaming_damage(address):
        engine = database.open_existing(address, world=world, run_id=run_id or None, alone=alone)
        ledger = Ledger(address, engine, run_id)
        try:
            yield ledger
        finally:
            ledger.close()


@contextmanager
def open_locked(address: Address, world: database.World | None = None) -> Iterator[Ledger]:
    """Take the owner's lock of the ledger and open it, to change it between runs.

    Raises:
        LockedError: a run holds it.
        LedgerError: it does not exist, is not up to date or cannot be used.
    """
    if not isinstance(address, Server):
        check_files(address, readonly=True)  # before the lock, which makes a file and its folder
    with owner_lock(address), open_ledger(address, world) as ledger:
        yield ledger


@contextmanager
def open_readonly(address: Address, world: database.World | None = None) -> Iterator[Connection]:
    """A read-only connection to the ledger, even while a run is using it.

    Raises:
        LedgerError: it does not exist or cannot be read.
    """
    with blaming_damage(address):
        engine = database.open_existing(address, world=world, readonly=True)
        try:
            with engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise database.storage_error(address, error) from error
        finally:
            engine.dispose()


@contextmanager
def blaming_damage(address: Address) -> Iterator[None]:
    """Raise an error that damage of the ledger explains as a DamagedError; others pass."""
    try:
        yield
    except Exception as error:
        if isinstance(root_cause(error), _OF_VALUES) and (found := _damage(address)):
            hint = "Replace it with a backup and run with --restored; keep the damaged file."
            raise DamagedError(f"the ledger {address} is damaged: {found[0]}", hint) from error
        raise


def _damage(address: Address) -> list[str]:
    """Damage of the ledger, if it is found in `_DIAGNOSIS_SECONDS`. A server checks its own files."""
    if isinstance(address, Server):
        return []
    with suppress(BatcherError, SQLAlchemyError):
        engine = database.open_existing(address, readonly=True)
        try:
            with engine.connect() as connection:
                database.limit(connection, _DIAGNOSIS_SECONDS)
                return integrity.damage(connection)
        finally:
            engine.dispose()
    return []


def world_of(conn: Connection) -> str:
    """The world that the ledger belongs to: `real` or `sandbox`."""
    world: str = conn.execute(select(meta.c.value).where(meta.c.name == "world")).scalar_one()
    return world
