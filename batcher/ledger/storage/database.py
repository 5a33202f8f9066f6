"""The ledger's database: creates, opens, checks and migrates it, in a file (`sqlite`) or on a server (`postgres`)."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import Connection, Engine, insert, inspect, select, text
from sqlalchemy.exc import DatabaseError, DBAPIError

from batcher.address import Address, Server, home_of
from batcher.errors import LedgerError, StorageError, TroubleError
from batcher.formatting import one_line
from batcher.installation import this_installation
from batcher.ledger.storage import sqlite
from batcher.ledger.storage.access import CHOOSE_ANOTHER, check_files
from batcher.ledger.storage.schema import REVISION, meta
from batcher.ledger.storage.triggers import create_tables, strange_definition

if TYPE_CHECKING:
    from alembic.config import Config

World = Literal["real", "sandbox"]
MOVED_TO: Final = "moved_to"
"""The name, in `meta`, of the address to which the ledger was moved."""
_OTHERS: Final = "Replace it with a backup and run with --restored; use no ledger that somebody else has made."
TIMELINE: Final = "timeline"
"""The name, in `meta`, of the server's history that the last run wrote to."""


def exists(address: Address) -> bool:
    """Whether there is a ledger.

    Raises:
        StorageError: the server cannot be reached.
    """
    if isinstance(address, Server):
        from batcher.ledger.storage import postgres

        return postgres.exists(address)
    return address.exists()


def open_existing(
    address: Address,
    *,
    world: World | None = None,
    readonly: bool = False,
    moved_to: str | None = None,
    run_id: str | None = None,
    alone: bool = True,
) -> Engine:
    """An engine for the ledger. Its one connection may move between threads but not be shared by two.

    On a server it holds the ledger's lock, unless it is `readonly`: `alone`, or as a run together with others. One that
    was moved is opened for writing only to finish its move: with the address to which it is `moved_to`.

    Raises:
        LedgerError: there is no ledger, or one of an older or newer version, or of the other world; or it was moved.
        LockedError: another run works on the ledger, on a server.
    """
    engine = _open(address, readonly=readonly, run_id=run_id, alone=alone)
    try:
        with _opening(address, engine), engine.connect() as connection:
            _check_revision(connection, address)
            _check_world(connection, address, world)
            if not readonly:
                _check_moved(connection, address, moved_to)
    except BaseException:
        engine.dispose()
        raise
    return engine


def create(address: Address, world: World) -> None:
    """Create an empty ledger, completely or not at all, that only the user can read. The caller holds the lock."""
    facts = {"world": world, "ledger_id": uuid.uuid4().hex, "created_at": str(time.time())}
    named = [{"name": name, "value": value} for name, value in facts.items()]
    create_as(address, lambda connection: connection.execute(insert(meta), named))


def create_as(address: Address, fill: Callable[[Connection], object]) -> None:
    """Like `create`, with what `fill` writes into the tables."""
    if isinstance(address, Server):
        from batcher.ledger.storage import postgres

        with postgres.drafted(address) as engine:
            _fill(engine, postgres.create_tables, fill)
        return
    with sqlite.drafted(address) as engine:
        _fill(engine, create_tables, fill)


def _fill(engine: Engine, create_all: Callable[[Connection], None], fill: Callable[[Connection], object]) -> None:
    with engine.begin() as connection:
        # The schema that the migrations build, word for word, without importing Alembic.
        create_all(connection)
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": REVISION})
        fill(connection)


def needs_upgrade(address: Address) -> bool:
    """Whether the ledger is of an older version.

    Raises:
        LedgerError: it is of a newer version, or no ledger.
    """
    engine = _open(address, readonly=True)
    try:
        with _translating(address), engine.connect() as connection:
            revision = _revision(connection, address)
    finally:
        engine.dispose()
    if revision != REVISION and revision not in _known_revisions():
        raise _too_new(address, revision)
    return revision != REVISION


def upgrade(address: Address) -> Path | None:
    """Migrate the ledger in one transaction. A file is backed up beside itself before; returns the backup's path.

    The caller holds the owner's lock.
    """
    backup = None
    if not isinstance(address, Server):
        with sqlite.translating(address):
            backup = sqlite.back_up_beside(address)
    engine = _open(address, readonly=False)
    try:
        with _translating(address), engine.begin() as connection:
            _migrate(connection)
    finally:
        engine.dispose()
    return backup


def storage_error(address: Address, error: DBAPIError) -> StorageError:
    """The error to report for a failed statement: a DamagedError unless the disk or the server is in trouble."""
    if isinstance(address, Server):
        from batcher.ledger.storage import postgres

        return postgres.storage_error(address, error)
    return sqlite.storage_error(address, error)


def timeline(conn: Connection) -> str | None:
    """What identifies the ledger's tables on a server, and the server's history. It changes when another server takes
    over, and when the ledger is restored from a dump. None for a file."""
    if conn.dialect.name != "postgresql":
        return None
    from batcher.ledger.storage import postgres

    return postgres.timeline(conn)


def limit(conn: Connection, seconds: float) -> None:
    """Let statements fail on this connection to a file once this time has passed."""
    if conn.dialect.name != "postgresql":
        sqlite.limit(conn, seconds)


def cut(engine: Engine) -> None:
    """Cut the connection to a server, so that the statement under way in another thread fails."""
    from batcher.ledger.storage import postgres

    postgres.session_of(engine).cut()


def id_of(engine: Engine) -> str:
    """The ledger's id, which stays when it is moved."""
    with engine.connect() as connection:
        return str(connection.execute(select(meta.c.value).where(meta.c.name == "ledger_id")).scalar_one())


def close(address: Address, engine: Engine) -> None:
    """Close a ledger that was open for writing."""
    if not isinstance(address, Server):
        sqlite.merge_journal(engine)
    engine.dispose()


def _open(address: Address, *, readonly: bool, run_id: str | None = None, alone: bool = True) -> Engine:
    if isinstance(address, Server):
        from batcher.ledger.storage import postgres

        engine = postgres.open_engine(address, readonly=readonly, run_id=run_id, alone=alone)
    else:
        check_files(address, readonly=readonly)
        engine = sqlite.open_engine(address, readonly=readonly)
    engine.update_execution_options(home=Path(os.path.realpath(home_of(address))))
    return engine


def home_folder(conn: Connection) -> Path:
    """The folder to which the paths in the ledger are relative, without symbolic links."""
    home: Path = conn.get_execution_options()["home"]
    return home


def _translating(address: Address) -> AbstractContextManager[None]:
    """Raise errors of the database and of the file system as a StorageError."""
    if isinstance(address, Server):
        from batcher.ledger.storage import postgres

        return postgres.translating(address)
    return sqlite.translating(address)


def _opening(address: Address, engine: Engine) -> AbstractContextManager[None]:
    """Like `_translating`, for statements that take no time: a server that does not answer has failed."""
    if isinstance(address, Server):
        from batcher.ledger.storage import postgres

        return postgres.opening(address, engine)
    return sqlite.translating(address)


def _revision(connection: Connection, address: Address) -> str:
    try:
        if inspect(connection).has_table("alembic_version") and inspect(connection).has_table(meta.name):
            found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
            if len(found) == 1:
                return str(found[0])
    except DatabaseError as error:
        if isinstance(address, Server):
            raise  # the server is in trouble; it has no files that are no ledgers
        if "locked" in str(error.orig):
            raise TroubleError(
                f"the ledger {address} is locked by another program", "Try again in a moment."
            ) from error
        raise LedgerError(f"{address} cannot be read as a ledger: {error.orig}", CHOOSE_ANOTHER) from error
    raise LedgerError(f"{address} is a database but not a batcher ledger", CHOOSE_ANOTHER)


def _check_revision(connection: Connection, address: Address) -> None:
    revision = _revision(connection, address)
    if revision == REVISION:
        if not isinstance(address, Server) and (name := strange_definition(connection)) is not None:
            what = f"has a trigger or view that is not batcher's: {one_line(name, 60)}"
            raise LedgerError(f"the ledger {address} {what}", _OTHERS)
        return
    if revision in _known_revisions():
        raise LedgerError(
            f"the ledger {address} is of an older version ({revision})",
            "`batcher ledger upgrade` or the next run backs it up and upgrades it.",
        )
    raise _too_new(address, revision)


def _too_new(address: Address, revision: str) -> LedgerError:
    return LedgerError(
        f"the ledger {address} was written by a newer batcher "
        f"(its version is {revision}, this one supports {REVISION})",
        f"Upgrade with `{this_installation().upgrade()}`, or restore the backup beside the ledger.",
    )


def _check_world(connection: Connection, address: Address, world: World | None) -> None:
    query = select(meta.c.name, meta.c.value).where(meta.c.name.in_(("world", "ledger_id")))
    facts: dict[str, str] = dict(connection.execute(query).all())
    found, names = facts.get("world", ""), {"sandbox": "sandbox", "real": "real API"}
    if "ledger_id" not in facts or found not in names:
        raise LedgerError(f"the ledger {address} is damaged: it lacks its id or its world", _OTHERS)
    if world is None or found == world:
        return
    hint = "Drop --sandbox" if world == "sandbox" else "Add --sandbox"
    raise LedgerError(
        f"the ledger {address} belongs to the {names[found]} and cannot be used with the {names[world]}",
        f"{hint}, or choose another ledger with --ledger.",
    )


def _check_moved(connection: Connection, address: Address, moved_to: str | None) -> None:
    found = connection.execute(select(meta.c.value).where(meta.c.name == MOVED_TO)).scalar()
    if found not in (None, moved_to):
        raise LedgerError(f"the ledger {address} was moved to {found}", "Use that one with --ledger.")


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
