"""How the ledger is a schema of a PostgreSQL database: connecting, tables, and what SQLite has in addition to standard
SQL.

One connection is one run: it is never replaced, so what a run writes after its connection was lost is refused. The
server ends the session when it learns of the process's end, after at most 25 s if it cannot be reached any more, or
after a minute without a statement, as when the process is stopped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import Connection, Engine, Text, create_engine, event, inspect
from sqlalchemy.dialects.sqlite.dml import OnConflictDoNothing, OnConflictDoUpdate
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from batcher.address import Server
from batcher.errors import DamagedError, LedgerError, LockedError, StorageError, UsageError
from batcher.formatting import one_line
from batcher.installation import this_installation
from batcher.ledger.storage import sharing
from batcher.ledger.storage.schema import INDEXES, items, metadata, rows
from batcher.ledger.storage.server_triggers import create_triggers
from batcher.ledger.storage.statements import first_error
from batcher.ledger.storage.temporary import FORBID_WRITES, number_rows
from batcher.ledger.storage.triggers import ENDINGS

if TYPE_CHECKING:
    import psycopg

    from batcher.ledger.storage.session import Session

_CONNECT: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "target_session_attrs": "read-write",
    "application_name": "batcher",
}
"""So that this host notices within 25 s that the server is gone; it would wait for many minutes."""
_QUOTED: Final = re.compile(r'"[^"]*"')
LEASE_SECONDS: Final = 60
"""The server ends a session that sends nothing for this long, and so releases its lock: the process is stopped."""
_SESSION: Final = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "idle_session_timeout": f"{LEASE_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{LEASE_SECONDS}s",
    "synchronous_commit": "on",
    "standard_conforming_strings": "on",
    "timezone": "UTC",
    "seq_page_cost": "2",
    "random_page_cost": "1.1",
    "jit": "off",
}
"""So that the server notices within 25 s that this host is gone; and goes from a few rows to others by their indexes
rather than through whole tables."""
_READING: Final = {
    "default_transaction_isolation": "repeatable read",
    "idle_in_transaction_session_timeout": f"{10 * LEASE_SECONDS}s",
}
"""A plan asks the API in the middle of its transaction, and has no lock that anybody waits for."""
_OLDEST: Final = 14
"""The first version with `idle_session_timeout`."""

_FUNCTIONS: Final = (
    """CREATE FUNCTION iif(boolean, anycompatible, anycompatible) RETURNS anycompatible
    LANGUAGE sql IMMUTABLE AS 'SELECT CASE WHEN $1 THEN $2 ELSE $3 END'""",
    "CREATE FUNCTION instr(text, text) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT strpos($1, $2)'",
    """CREATE FUNCTION json_each(text) RETURNS TABLE (key text, value text, type text) LANGUAGE sql IMMUTABLE AS
    $$SELECT e.key, e.value #>> '{}', json_typeof(e.value)
    FROM json_each(iif(json_typeof($1::json) = 'object', $1, '{}')::json) AS e
    UNION ALL SELECT (e.ordinality - 1)::text, e.value #>> '{}', json_typeof(e.value)
    FROM json_array_elements(iif(json_typeof($1::json) = 'array', $1, '[]')::json) WITH ORDINALITY AS e$$""",
    "CREATE FUNCTION json_texts(text[]) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT array_to_json($1)::text'",
    """CREATE AGGREGATE json_group_array(text)
    (SFUNC = array_append, STYPE = text[], INITCOND = '{}', FINALFUNC = json_texts)""",
    """CREATE FUNCTION folded(text) RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN
    IF octet_length($1) = length($1) THEN RETURN lower($1 COLLATE "C"); END IF;
    RETURN coalesce((SELECT form FROM folded_names WHERE name = $1), lower($1)); END$$""",
    """CREATE FUNCTION reserved(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 ~*
    '(^|/)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]) *([.]|/|$)|[. ](/|$)'$$""",
    "CREATE AGGREGATE total(double precision) (SFUNC = float8pl, STYPE = double precision, INITCOND = '0')",
)
"""Functions that queries use, of SQLite or of ours. `json_each` lists the members of an object or an array, each value
as text. `folded` needs the temporary table `folded_names`, which has the names that are not ASCII."""


def connect(server: Server, *, readonly: bool = False) -> Session:
    """A connection with the settings of a session of ours. If `readonly`, a transaction sees one state of the ledger.

    Raises:
        UsageError: the driver is not installed, or the URL cannot be read.
        LedgerError: the server does not permit the settings, or a pooler does not keep them.
        StorageError: the server cannot be reached, or refuses this user.
    """
    made = _connected(server)
    import psycopg

    from batcher.ledger.storage import pooler

    try:
        with made.bounded():
            pooler.check_pooler(made, server, partial(_connected, server))
            _set(made, server, _SESSION | (_READING if readonly else {}))
            made.autocommit = False
    except psycopg.Error as error:
        made.close()
        raise StorageError(
            f"cannot connect to the ledger {server}: {_reason(error, server)}", "Run it again."
        ) from None
    except BaseException:
        made.close()
        raise
    made.adapters.register_loader("numeric", _number_loader())
    return made


def _connected(server: Server) -> Session:
    """A connection with the server's own settings, in which each statement is a transaction."""
    try:
        import psycopg

        from batcher.ledger.storage import pooler
        from batcher.ledger.storage.session import Session
    except ImportError:
        hint = f"Install it: `{this_installation().install('postgres')}`"
        raise UsageError("a ledger on PostgreSQL needs a driver that is not installed", hint) from None
    try:
        return Session.connect(server.url, autocommit=True, **_CONNECT)  # type: ignore[arg-type]
    except psycopg.ProgrammingError as error:
        why = _QUOTED.sub('"…"', _reason(error, server))  # which may be a part of a password
        raise UsageError(f"cannot read the address of the ledger: {why}", _EXAMPLE) from None
    except psycopg.OperationalError as error:
        if pooler.is_refusal(error):
            raise pooler.options_refused(server) from None
        hint = "Check the URL, PGPASSWORD or ~/.pgpass, and that the database exists."
        raise StorageError(f"cannot connect to the ledger {server}: {_reason(error, server)}", hint) from None


def _set(session: Session, server: Server, settings: dict[str, str]) -> None:
    """Set them by a statement: poolers refuse them as options of a connection, or drop them."""
    import psycopg

    every = "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS settings (name, value)"
    try:
        session.execute(every, [list(settings), list(settings.values())])
    except psycopg.OperationalError:
        raise  # the server is in trouble
    except psycopg.Error as error:
        hint = f"Use PostgreSQL {_OLDEST} or later: others lack locks or time limits that keep purchases safe."
        raise LedgerError(f"{server} is not a database for a ledger: {_reason(error, server)}", hint) from None


def _number_loader() -> type[psycopg.adapt.Loader]:
    """Reads a sum as SQLite does: as an integer if it has no decimals, otherwise as a float."""
    from psycopg.adapt import Buffer, Loader

    class Number(Loader):
        def load(self, data: Buffer) -> int | float:
            word = bytes(data)
            return int(word) if word.isdigit() else float(word)

    return Number


_EXAMPLE: Final = "For example: postgresql://user@host/database"


def exists(server: Server) -> bool:
    """Whether the database has a ledger."""
    engine = _engine(server, readonly=True)
    try:
        with opening(server, engine), engine.connect() as connection:
            return inspect(connection).has_table("alembic_version")
    finally:
        engine.dispose()


@contextmanager
def drafted(server: Server) -> Iterator[Engine]:
    """An engine for a new ledger, which is created in one transaction of the block."""
    engine = open_engine(server, readonly=False)
    try:
        with translating(server):
            with engine.begin() as connection:
                if inspect(connection).has_table("alembic_version"):
                    raise LockedError(f"another run has just created the ledger {server}", "Run it again.")
            yield engine
    finally:
        engine.dispose()


def create_tables(conn: Connection) -> None:
    """Create the ledger's tables, indexes and functions."""
    for function in _FUNCTIONS:
        conn.exec_driver_sql(function)
    for table in metadata.sorted_tables:
        conn.execute(CreateTable(table))
    for table in (items, rows):
        number_rows(conn, table)
    for index in INDEXES:
        # Not in the schema: naming this option there would load SQLAlchemy's PostgreSQL part in every process.
        index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]
        conn.execute(CreateIndex(index))
    conn.exec_driver_sql(ENDINGS)
    create_triggers(conn)
    for name in HOT:
        conn.exec_driver_sql(f"ALTER TABLE {name} SET ({', '.join(_VACUUM)})")
    conn.exec_driver_sql(f"ALTER TABLE files SET (fillfactor = {_FILLED_PERCENT})")
    # The numbers of items by state change too quickly for statistics. Without, the server takes any state for rare.
    conn.exec_driver_sql("ALTER TABLE items ALTER COLUMN state SET STATISTICS 0")


HOT: Final = ("items", "rows", "attempts", "tasks")
"""Tables whose rows change several times until an item is done."""
_VACUUM: Final = ("autovacuum_vacuum_scale_factor = 0.01", "autovacuum_analyze_scale_factor = 0.02")
"""Once these shares of a table's rows have changed, the server removes old versions from its indexes, which every claim
would read, and gathers statistics."""
_FILLED_PERCENT: Final = 90
"""New rows fill pages of `files` up to this, so that each row's one update finds room on its page and changes no index.
In the other tables, every update changes an indexed column."""


def open_engine(server: Server, *, readonly: bool, run_id: str | None = None, alone: bool = True) -> Engine:
    """An engine with one connection. Unless it is `readonly`, it holds the ledger's lock, `alone` or together with
    other runs, and that of the run.

    Raises:
        LedgerError: the database is not one that a ledger can be in.
        LockedError: another process holds the lock, and does not share it.
        StorageError: the server cannot be reached.
    """
    engine = _engine(server, readonly=readonly)
    try:
        with opening(server, engine), engine.connect() as connection:
            _check_server(connection, server)
            if not readonly:
                sharing.lock(connection, server, run_id, alone=alone)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _engine(server: Server, *, readonly: bool = False) -> Engine:
    session = connect(server, readonly=readonly)
    first: list[psycopg.Connection[Any]] = [session]

    def once() -> psycopg.Connection[Any]:
        """The one connection. It is not replaced when it is lost: the lock was lost with it."""
        if not first:
            import psycopg

            raise psycopg.OperationalError("the connection was lost")
        return first.pop()

    url = "postgresql+psycopg://"
    engine = create_engine(url, creator=once, poolclass=StaticPool, hide_parameters=True, use_native_hstore=False)
    engine.update_execution_options(session=session)
    if readonly:
        event.listen(engine, "begin", lambda conn: conn.exec_driver_sql(FORBID_WRITES))
        event.listen(engine, "commit", lambda conn: conn.exec_driver_sql("ROLLBACK"))
    return engine


def session_of(engine: Engine) -> Session:
    """The engine's one connection, open or not."""
    return cast("Session", engine.get_execution_options()["session"])


def _check_server(conn: Connection, server: Server) -> None:
    version = conn.exec_driver_sql("SELECT version()").scalar_one()
    number: int = conn.exec_driver_sql("SELECT current_setting('server_version_num')::integer").scalar_one()
    if not version.startswith("PostgreSQL") or number < _OLDEST * 10_000:
        hint = f"Use PostgreSQL {_OLDEST} or later: others lack locks or time limits that keep purchases safe."
        raise LedgerError(f"{server} is not a database for a ledger: {version.partition(' on ')[0]}", hint)
    encoding = conn.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        hint = "Create a database with the encoding UTF8."
        raise LedgerError(f"{server} cannot store every text: its encoding is {encoding}", hint)
    if conn.exec_driver_sql("SHOW synchronous_commit").scalar_one() in ("off", "local"):
        hint = "The server must permit synchronous_commit=on: what is bought would be lost with it."
        raise LedgerError(f"{server} does not store commits durably", hint)
    conn.commit()


def end_session(server: Server, run_id: str) -> None:
    """End the session of a run, if it has one: it can neither create nor write any more.

    Raises:
        StorageError: the server cannot be reached, or does not permit it.
    """
    engine = _engine(server, readonly=True)
    try:
        with translating(server), engine.begin() as connection:
            sharing.end_session(connection, run_id)
    finally:
        engine.dispose()


def timeline(conn: Connection) -> str:
    """The number of the server's history, and what a copy of the tables does not share with them."""
    words: list[str] = [str(word) for word in conn.exec_driver_sql(_IDENTITY).one()]
    if conn.exec_driver_sql("SELECT has_function_privilege('pg_control_system()', 'execute')").scalar_one():
        words.append(str(conn.exec_driver_sql("SELECT system_identifier FROM pg_control_system()").scalar_one()))
    return " ".join(words)


_IDENTITY: Final = """SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8), 'meta'::regclass::oid,
    (SELECT oid FROM pg_database WHERE datname = current_database())"""


def storage_error(server: Server, error: DBAPIError) -> StorageError:
    """The error to report for a failed statement."""
    first = first_error(error)
    what = "the connection was lost" if first is None else _reason(first, server)
    state = getattr(first, "sqlstate", None) or ""
    if not state or state[:2] in _TROUBLES:
        return StorageError(f"the ledger {server} failed: {what}", "Check the server, then run it again.")
    message = f"the ledger {server} does not match this program: {what}"
    return DamagedError(message, _HINTS.get(state, "Was it written by another version?"))


_TROUBLES: Final = ("08", "25", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE that say that the server is in trouble, not that the statement is wrong."""


_FOREIGN: Final = "Give the ledger a schema or database without other tables."
_NOT_PERMITTED: Final = "The user must be able to create and use tables in its first schema: see `batcher help hosts`."
_HINTS: Final = {"42501": _NOT_PERMITTED, "3F000": _NOT_PERMITTED, "42P07": _FOREIGN, "42723": _FOREIGN}
"""What to do, by SQLSTATE."""


def _reason(error: BaseException, server: Server) -> str:
    """The server's reason in one line, without secrets of the URL that it may have learned."""
    return one_line(server.without_secrets(str(error).strip().partition("\n")[0]))


@contextmanager
def translating(server: Server) -> Iterator[None]:
    """Raise errors of the database as a StorageError."""
    try:
        yield
    except DBAPIError as error:
        raise storage_error(server, error) from error


@contextmanager
def opening(server: Server, engine: Engine) -> Iterator[None]:
    """Like `translating`, while a ledger is opened: these statements take no time, so a silent server has failed."""
    with translating(server), session_of(engine).bounded():
        yield


@compiles(CreateColumn, "postgresql")
def _create_column(element: Any, compiler: Any, **options: Any) -> str:
    """Texts are compared by their characters, as in SQLite, whatever the database's language."""
    words = str(compiler.visit_create_column(element, **options))
    return words.replace(" TEXT", ' TEXT COLLATE "C"', 1) if isinstance(element.element.type, Text) else words


@compiles(OnConflictDoNothing, "postgresql")
def _do_nothing(element: Any, compiler: Any, **options: Any) -> str:
    element.constraint_target = None
    return str(compiler.visit_on_conflict_do_nothing(element, **options))


@compiles(OnConflictDoUpdate, "postgresql")
def _do_update(element: Any, compiler: Any, **options: Any) -> str:
    element.constraint_target = None  # queries name columns, as SQLite does
    return str(compiler.visit_on_conflict_do_update(element, **options))
