"""Statements that run for every item, compiled once.

SQLAlchemy takes some 25 microseconds to execute a statement; handing its compiled SQL to the driver takes a fifth of
that. An item needs about twenty statements.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from sqlalchemy import BindParameter, ColumnElement, Connection, bindparam, or_
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler


class Prepared:
    """A compiled statement. Its parameters and the columns it returns are plain numbers, strings or bytes."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._row: Any = None

    @cached_property
    def _compiled(self) -> tuple[str, tuple[str, ...], dict[str, Any]]:
        """SQL, names of the parameters in order, and values of those that are fixed."""
        compiled = cast(SQLCompiler, self._statement.compile(dialect=sqlite.dialect(paramstyle="qmark")))
        fixed = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        return str(compiled), tuple(compiled.positiontup or ()), fixed

    def run(self, conn: Connection, values: Mapping[str, Any]) -> sqlite3.Cursor:
        """Execute it in the transaction of `conn` with these values for its named parameters.

        Raises:
            DBAPIError: as SQLAlchemy would raise it.
            KeyError: a parameter has no value.
        """
        sql, names, fixed = self._compiled
        bound = [values[name] if name in values else fixed[name] for name in names]
        try:
            cursor: sqlite3.Cursor = driver(conn).execute(sql, bound)
        except sqlite3.Error as error:
            raise DBAPIError.instance(sql, bound, error, sqlite3.Error, hide_parameters=True) from error
        return cursor

    def rows(self, conn: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Execute it as `run` does and return its rows as named tuples."""
        found = self.run(conn, values)
        self._row = self._row or namedtuple("Row", [column[0] for column in found.description])
        return [self._row._make(row) for row in found]


def every(*names: str) -> dict[str, BindParameter[Any]]:
    """Arguments for `values()`: these columns get their values when the statement runs."""
    return {name: bindparam(name) for name in names}


def either(column: ColumnElement[Any], words: Sequence[str]) -> ColumnElement[bool]:
    """Whether the column is one of these words. Unlike `in_`, which is expanded at each execution, it compiles once."""
    return or_(*(column == word for word in words))


def driver(conn: Connection) -> sqlite3.Connection:
    """The driver's connection below `conn`."""
    below: sqlite3.Connection = conn.connection.driver_connection  # type: ignore[assignment]
    return below
