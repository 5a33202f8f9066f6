"""Statements that run for every item, compiled once.

SQLAlchemy takes some 25 microseconds to execute a statement; handing its compiled SQL to the driver takes a fifth of
that. An item needs about twenty statements.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from typing import Any, Final, NamedTuple, Protocol, cast

from sqlalchemy import BindParameter, ColumnElement, Connection, CursorResult, Executable, Row, bindparam, or_
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler


class Prepared:
    """A compiled statement. Its parameters and the columns it returns are plain numbers, strings or bytes."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}  # by database
        self._row: Any = None

    def run(self, conn: Connection, values: Mapping[str, Any]) -> Cursor:
        """Execute it in the transaction of `conn` with these values for its named parameters.

        Raises:
            DBAPIError: as SQLAlchemy would raise it.
            KeyError: a parameter has no value.
        """
        name = conn.dialect.name
        compiled = self._compiled.get(name) or self._compiled.setdefault(name, _compile(self._statement, conn))
        return pass_on(conn, compiled.sql, compiled.bind(values))

    def rows(self, conn: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Execute it as `run` does and return its rows as named tuples."""
        found = self.run(conn, values)
        self._row = self._row or namedtuple("Row", [column[0] for column in found.description])
        return [self._row._make(row) for row in found]


def pass_on(conn: Connection, sql: str, parameters: Any = ()) -> Cursor:
    """Hand a statement in the driver's words to the driver.

    Raises:
        DBAPIError: as SQLAlchemy would raise it.
    """
    errors = conn.dialect.loaded_dbapi.Error
    try:
        return _driver(conn).execute(sql, parameters)
    except errors as error:
        raise DBAPIError.instance(sql, parameters, error, errors, hide_parameters=True) from error


class _Compiled(NamedTuple):
    """SQL for one database, the names of its parameters (in order, if they are positional), and fixed values."""

    sql: str
    names: tuple[str, ...]
    fixed: dict[str, Any]
    positional: bool

    def bind(self, values: Mapping[str, Any]) -> Any:
        if self.positional:
            return [values[name] if name in values else self.fixed[name] for name in self.names]
        return {name: values[name] if name in values else self.fixed[name] for name in self.names}


def _compile(statement: ClauseElement, conn: Connection) -> _Compiled:
    compiled = cast(SQLCompiler, statement.compile(dialect=conn.dialect))
    fixed = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
    return _Compiled(str(compiled), tuple(compiled.positiontup or compiled.binds), fixed, compiled.positional)


def every(*names: str) -> dict[str, BindParameter[Any]]:
    """Arguments for `values()`: these columns get their values when the statement runs."""
    return {name: bindparam(name) for name in names}


def either(column: ColumnElement[Any], words: Sequence[str]) -> ColumnElement[bool]:
    """Whether the column is one of these words. Unlike `in_`, which is expanded at each execution, it compiles once."""
    return or_(*(column == word for word in words))


def first_error(error: DBAPIError) -> BaseException | None:
    """The driver's error that came first: a rollback may fail after it."""
    before: BaseException | None = error
    while before is not None:
        error = before if isinstance(before, DBAPIError) else error
        before = before.__context__
    return error.orig


def execute(conn: Connection, sql: str, parameters: Any = (), /, **options: Any) -> CursorResult[*tuple[Any, ...]]:
    """Execute SQL in SQLite's words, with `?` or `:name` for its parameters, on either database."""
    words = _in_postgresql(sql) if conn.dialect.name == "postgresql" else sql
    return conn.exec_driver_sql(words, parameters, execution_options=options)


def stream(
    conn: Connection, query: str | Executable, parameters: Any = (), *, at_once: int = 500
) -> Iterator[Row[*tuple[Any, ...]]]:
    """The rows of a query (SQL as in `execute`, or an expression), however many: `at_once` are in memory."""
    options: dict[str, Any] = {"yield_per": at_once} if conn.dialect.name == "postgresql" else {}  # SQLite reads one
    if isinstance(query, str):
        found = execute(conn, query, parameters, **options)
    else:
        found = conn.execute(query, dict(parameters), execution_options=options)
    with closing(found):
        yield from found


@cache
def _in_postgresql(sql: str) -> str:
    """The statement as PostgreSQL and its driver read it."""
    for pattern, words in _WORDS:
        sql = pattern.sub(words, sql)
    return f"{_IGNORE.sub('', sql)} ON CONFLICT DO NOTHING" if _IGNORE.search(sql) else sql


_IGNORE: Final = re.compile(r"(?<=\bINSERT) OR IGNORE\b")
_WORDS: Final = (
    (re.compile("%"), "%%"),
    (re.compile(r"\?"), "%s"),
    (re.compile(r"(?<!:):([a-z_][a-z0-9_]*)"), r"%(\1)s"),
    (re.compile(r"\bmain\.|(?<=\bCREATE INDEX )temp\."), ""),
    (re.compile(r"\btemp\."), "pg_temp."),
    (re.compile(r"(?<=[ (])\+(?=[a-z])"), ""),  # a hint for SQLite
    (re.compile(r"\bCROSS JOIN (\w+(?: AS \w+)?) ON\b"), r"JOIN \1 ON"),
    (re.compile(r"\bGLOB '\*(\[[^]]+\])\*'"), r"~ '\1'"),
    (re.compile(r"\bIS NOT (?!NULL\b)"), "IS DISTINCT FROM "),
    (re.compile(r"\bIS (?!(?:NOT )?NULL\b|DISTINCT\b)"), "IS NOT DISTINCT FROM "),
)


class Cursor(Protocol):
    """What the drivers' cursors have in common."""

    rowcount: int
    description: Any

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class _Driver(Protocol):
    """What the drivers' connections have in common."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Cursor: ...


def _driver(conn: Connection) -> _Driver:
    """The driver's connection below `conn`."""
    return cast(_Driver, conn.connection.driver_connection)
