"""The ledger's file: creates, opens, checks, copies and migrates it."""

from __future__ import annotations

import glob
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, text
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.pool import StaticPool

from batcher import files
from batcher.errors import LedgerError, StorageError, TroubleError, UsageError
from batcher.ledger.storage.access import CHOOSE_ANOTHER, check_files, side_files, uri
from batcher.ledger.storage.open_files import TrackedConnection, beginning
from batcher.ledger.storage.schema import REVISION, meta
from batcher.ledger.storage.triggers import create_tables

if TYPE_CHECKING:
    from alembic.config import Config

World = Literal["real", "sandbox"]
_BUSY_TIMEOUT_SECONDS: Final = 30
_DISK_ERRORS: Final = (
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_READONLY",
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_CANTOPEN",
)


def open_existing(path: Path, *, world: World | None = None, readonly: bool = False) -> Engine:
    """An engine for the ledger at `path`. Its one connection may move between threads but not be shared by two.

    Raises:
        LedgerError: the file is missing or no ledger, of an older or newer version, or of the other world.
    """
    check_files(path, readonly=readonly)
    engine = _engine(path, readonly=readonly)
    try:
        with _translating(path), engine.connect() as connection:
            _check_revision(connection, path)
            _check_world(connection, path, world)
    except BaseException:
        engine.dispose()
        raise
    return engine


def create(path: Path, world: World) -> None:
    """Create an empty ledger, completely or not at all, that only the user can read. The caller holds the lock."""
    draft = path.with_name(f".{path.name}.new")
    with _translating(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for side in side_files(draft):
            side.unlink()  # SQLite would apply it
        os.close(files.create(draft, 0o600))
    engine = _engine(draft, wal=False)
    try:
        with _translating(path), engine.begin() as connection:
            # The schema that the migrations build, word for word, without importing Alembic.
            create_tables(connection)
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
            connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": REVISION})
            facts = {"world": world, "ledger_id": uuid.uuid4().hex, "created_at": str(time.time())}
            connection.execute(insert(meta), [{"name": name, "value": value} for name, value in facts.items()])
    finally:
        engine.dispose()
    with _translating(path):
        set_stray_journal_aside(path)
        draft.replace(path)


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


def needs_upgrade(path: Path) -> bool:
    """Whether the ledger at `path` is of an older version.

    Raises:
        LedgerError: it is of a newer version, or no ledger.
    """
    check_files(path, readonly=True)
    engine = _engine(path, readonly=True)
    try:
        with _translating(path), engine.connect() as connection:
            revision = _revision(connection, path)
    finally:
        engine.dispose()
    if revision != REVISION and revision not in _known_revisions():
        raise _too_new(path, revision)
    return revision != REVISION


def upgrade(path: Path) -> Path:
    """Back up the ledger beside itself, then migrate it in one transaction. Returns the path of the backup.

    The caller holds the owner's lock.
    """
    with _translating(path):
        backup = _back_up(path)
    engine = _engine(path)
    try:
        with _translating(path), engine.begin() as connection:
            _migrate(connection)
    finally:
        engine.dispose()
    return backup


def copy(path: Path, target: Path) -> None:
    """Copy the ledger at `path`, consistently even while a run works on it, to a new file.

    Raises:
        LedgerError: the file is missing or no ledger.
        StorageError: there is not enough space for the copy; it is removed.
    """
    check_files(path, readonly=True)
    with _translating(target):
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
    with _translating(target):
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


def rescue(connection: sqlite3.Connection, path: Path) -> Path:
    """Copy a ledger, whose file at `path` was deleted or replaced, beside that. Returns the copy's path.

    Raises:
        StorageError: it cannot be written.
    """
    target = path.with_name(f"{path.name}.rescued-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}")
    with _translating(target):
        os.close(files.create(target, 0o600))
        with closing(sqlite3.connect(target)) as copied:
            connection.backup(copied)
        sync(target)
    return target


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


def _back_up(path: Path) -> Path:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.backup-*.new"):
        leftover.unlink()
    backup = path.with_name(f"{path.name}.backup-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}")
    back_up(path, backup)
    return backup


def _engine(path: Path, *, readonly: bool = False, wal: bool = True) -> Engine:
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
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _pragmas(connection: sqlite3.Connection, _record: object) -> None:
        if wal and not readonly:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA query_only = {int(readonly)}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")

    return engine


def _revision(connection: Connection, path: Path) -> str:
    try:
        if inspect(connection).has_table("alembic_version"):
            return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    except DatabaseError as error:
        if "locked" in str(error.orig):
            raise TroubleError(f"the ledger {path} is locked by another program", "Try again in a moment.") from error
        raise LedgerError(f"{path} cannot be read as a ledger: {error.orig}", CHOOSE_ANOTHER) from error
    raise LedgerError(f"{path} is a database but not a batcher ledger", CHOOSE_ANOTHER)


def _check_revision(connection: Connection, path: Path) -> None:
    revision = _revision(connection, path)
    if revision == REVISION:
        return
    if revision in _known_revisions():
        raise LedgerError(
            f"the ledger {path} is of an older version ({revision})",
            "`batcher ledger upgrade` or the next run backs it up and upgrades it.",
        )
    raise _too_new(path, revision)


def _too_new(path: Path, revision: str) -> LedgerError:
    return LedgerError(
        f"the ledger {path} was written by a newer batcher (its version is {revision}, this one supports {REVISION})",
        "Upgrade with `pip install -U tts-batcher`, or restore the backup beside the ledger.",
    )


def _check_world(connection: Connection, path: Path, world: World | None) -> None:
    found = connection.execute(select(meta.c.value).where(meta.c.name == "world")).scalar_one()
    if world is None or found == world:
        return
    names = {"sandbox": "sandbox", "real": "real API"}
    hint = "Drop --sandbox" if world == "sandbox" else "Add --sandbox"
    raise LedgerError(
        f"the ledger {path} belongs to the {names[found]} and cannot be used with the {names[world]}",
        f"{hint}, or choose another ledger with --ledger.",
    )


def _migrate(connection: Connection) -> None:
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> Config:
    from alembic.config import Config

    package = Path(__file__).resolve().parents[2]
    candidates = (package / "migrations", package.parent / "migrations")
    config = Config()
    migrations = next(folder for folder in candidates if folder.is_dir())
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    return config


def storage_error(path: Path, error: DBAPIError) -> StorageError | LedgerError:
    """The error to report for a failed statement."""
    before: BaseException | None = error
    while before is not None:
        error = before if isinstance(before, DBAPIError) else error  # the first one: the rollback may fail after it
        before = before.__context__
    return _ledger_error(path, error.orig)


def _ledger_error(path: Path, error: BaseException | None) -> StorageError | LedgerError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_CORRUPT"):
        hint = "Replace it with a backup and run with --restored; keep the damaged file."
        return LedgerError(f"the ledger {path} is damaged: {error}", hint)
    if not name.startswith(_DISK_ERRORS):
        return LedgerError(
            f"the ledger {path} does not match this program: {error}", "Was it written by another version?"
        )
    hint = "Free some space or fix the disk, then run it again."
    if name.startswith("SQLITE_READONLY"):
        hint = "Check the permissions of the ledger and its folder, and that the disk is not mounted read-only."
    return StorageError(f"the ledger {path} cannot be written: {error}", hint)


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and of the file system as a StorageError or LedgerError."""
    try:
        yield
    except DBAPIError as error:
        raise storage_error(path, error) from error
    except sqlite3.Error as error:
        raise _ledger_error(path, error) from error
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror}", "Free some space or fix the disk.") from error
