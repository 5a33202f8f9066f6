"""How the ledger is an SQLite file: creating, opening, copying and replacing it."""

from __future__ import annotations

import glob
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from batcher import files
from batcher.errors import DamagedError, StorageError, UsageError
from batcher.ledger.storage.access import check_files, side_files, uri
from batcher.ledger.storage.open_files import TrackedConnection, beginning
from batcher.ledger.storage.statements import first_error

_BUSY_TIMEOUT_SECONDS: Final = 30
MAX_ROW_BYTES: Final = 64 << 20
"""Bounds a row, and each value in a query. A text of `MAX_LINE_CHARACTERS` has at most half of it."""
_STEPS: Final = 10_000
"""Steps of a statement between two looks at the time that it may take."""
_DISK_ERRORS: Final = (
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_READONLY",
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_CANTOPEN",
)


@contextmanager
def drafted(path: Path) -> Iterator[Engine]:
    """An engine for a new file, which only the user can read, that is moved to `path` when the block ends.

    Without an error; so it is created completely or not at all. The caller holds the lock.
    """
    draft = path.with_name(f".{path.name}.new")
    with translating(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for side in side_files(draft):
            side.unlink()  # SQLite would apply it
        os.close(files.create(draft, 0o600))
    opened = open_engine(draft, wal=False)
    try:
        with translating(path):
            yield opened
    finally:
        opened.dispose()
    with translating(path):
        set_stray_journal_aside(path)
        draft.replace(path)
        sync(path.parent)


def merge_journal(engine: Engine) -> None:
    """Merge the journal into the file. On a full disk it stays beside the file, which is just as durable."""
    with suppress(sqlite3.Error), closing(engine.raw_connection()) as connection:
        connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")


def set_stray_journal_aside(path: Path) -> None:
    """Rename a killed run's journal that does not belong to the file now at `path`: SQLite would apply it.

    The ledger was removed or replaced by a backup. The header of a ledger with its own journal has a mark that a
    backup lacks. The caller holds the owner's lock.
    """
    journal = path.with_name(f"{path.name}-wal")
    if not journal.exists():
        return
    if path.exists():
        header = beginning(path, 20)
        if header is None or header[18:] != b"\1\1":
            return
    journal.replace(journal.with_name(f"{journal.name}.stray-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)


def copy(path: Path, target: Path) -> None:
    """Copy the ledger at `path`, consistently even while a run works on it, to a new file.

    Raises:
        LedgerError: the file is missing or no ledger.
        StorageError: there is not enough space for the copy; it is removed.
    """
    check_files(path, readonly=True)
    with translating(target):
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            with (
                closing(sqlite3.connect(uri(path, readonly=True), uri=True)) as source,
                closing(sqlite3.connect(target)) as copied,
            ):
                source.backup(copied)
        except BaseException:
            target.unlink()  # half a copy is useless, and space may be short
            raise


def back_up(path: Path, target: Path) -> None:
    """Make a durable copy, completely or not at all, that is marked as a copy: see `Identity.copied_at`.

    Raises:
        UsageError: `target` exists, or its folder does not.
        LedgerError: the file at `path` is missing or no ledger.
        StorageError: the copy cannot be written.
    """
    if target.exists():
        raise UsageError(f"{target} already exists", "Choose another file.")
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist", "Create it, or choose another file.")
    draft = target.with_name(f".{target.name}.new")
    with translating(target):
        draft.unlink(missing_ok=True)
        copy(path, draft)
        try:
            with closing(sqlite3.connect(draft)) as copied:
                copied.execute("PRAGMA journal_mode = DELETE")
                with copied:
                    copied.execute("INSERT OR REPLACE INTO meta VALUES ('copied_at', ?)", (str(time.time()),))
            sync(draft)
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync(target.parent)


def rescue(engine: Engine, path: Path) -> Path:
    """Copy a ledger, whose file at `path` was deleted or replaced, beside that. Returns the copy's path.

    Raises:
        StorageError: it cannot be written.
    """
    target = path.with_name(f"{path.name}.rescued-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}")
    with translating(target):
        os.close(files.create(target, 0o600))
        with closing(engine.raw_connection()) as connection, closing(sqlite3.connect(target)) as copied:
            cast(sqlite3.Connection, connection.driver_connection).backup(copied)
        sync(target)
    return target


def add_function(conn: Connection, name: str, function: Callable[[Any], Any]) -> None:
    """Let the statements of this connection call a function of one argument."""
    cast(sqlite3.Connection, conn.connection.driver_connection).create_function(name, 1, function, deterministic=True)


def limit(conn: Connection, seconds: float) -> None:
    """Let statements fail on this connection once this time has passed."""
    end = time.monotonic() + seconds
    connection = cast(sqlite3.Connection, conn.connection.driver_connection)
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive a power cut.

    Raises:
        OSError: it cannot be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def back_up_beside(path: Path) -> Path:
    """Make a backup beside the ledger. Returns its path."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.backup-*.new"):
        leftover.unlink()
    backup = path.with_name(f"{path.name}.backup-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}")
    back_up(path, backup)
    return backup


def open_engine(path: Path, *, readonly: bool = False, wal: bool = True) -> Engine:
    address = uri(path, readonly=readonly)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            address,
            uri=True,
            check_same_thread=False,
            timeout=_BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            factory=TrackedConnection,
        )
        connection.track(path)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _pragmas(connection: sqlite3.Connection, _record: object) -> None:
        if wal and not readonly:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA query_only = {int(readonly)}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")

    return engine


def storage_error(path: Path, error: DBAPIError) -> StorageError:
    """The error to report for a failed statement."""
    return _ledger_error(path, first_error(error))


def _ledger_error(path: Path, error: BaseException | None) -> StorageError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        hint = "Replace it with a backup and run with --restored; keep the damaged file."
        return DamagedError(f"the ledger {path} is damaged: {error}", hint)
    if not name.startswith(_DISK_ERRORS):
        return DamagedError(
            f"the ledger {path} does not match this program: {error}", "Was it written by another version?"
        )
    hint = "Free some space or fix the disk, then run it again."
    if name.startswith("SQLITE_READONLY"):
        hint = "Check the permissions of the ledger and its folder, and that the disk is not mounted read-only."
    return StorageError(f"the ledger {path} cannot be written: {error}", hint)


@contextmanager
def translating(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and of the file system as a StorageError."""
    try:
        yield
    except DBAPIError as error:
        raise storage_error(path, error) from error
    except sqlite3.Error as error:
        raise _ledger_error(path, error) from error
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror}", "Free some space or fix the disk.") from error
