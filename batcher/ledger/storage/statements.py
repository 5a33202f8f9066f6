"""Statements that every item needs, compiled once.

SQLAlchemy composes them, and takes some 25 microseconds for each execution; handed to the driver as they are they take
a fifth of that. An item needs about twenty.
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
    """A statement whose parameters are plain numbers, strings or bytes, as are the columns that it returns."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._row: Any = None

    @cached_property
    def _compiled(self) -> tuple[str, tuple[str, ...], dict[str, Any]]:
        """Its text, the names of its parameters in their order, and those that are fixed."""
        compiled = cast(SQLCompiler, self._statement.compile(dialect=sqlite.dialect(paramstyle="qmark")))
        fixed = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        return str(compiled), tuple(compiled.positiontup or ()), fixed

    def run(self, conn: Connection, values: Mapping[str, Any]) -> sqlite3.Cursor:
        """Execute it in the transaction of `conn`, with `values` for the parameters that are named.

        Raises:
            DBAPIError: as SQLAlchemy itself would raise it.
            KeyError: a parameter has no value.
        """
        sql, names, fixed = self._compiled
        given = fixed | dict(values)
        bound = [given[name] for name in names]
        try:
            cursor: sqlite3.Cursor = driver(conn).execute(sql, bound)
        except sqlite3.Error as error:
            raise DBAPIError.instance(sql, bound, error, sqlite3.Error, hide_parameters=True) from error
        return cursor

    def rows(self, conn: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Execute it as `run` does. Returns its rows, as named tuples."""
        found = self.run(conn, values)
        self._row = self._row or namedtuple("Row", [column[0] for column in found.description])
        return [self._row._make(row) for row in found]


def every(*names: str) -> dict[str, BindParameter[Any]]:
    """For `values`: each of these columns is given when the statement runs."""
    return {name: bindparam(name) for name in names}


def either(column: ColumnElement[Any], words: Sequence[str]) -> ColumnElement[bool]:
    """Whether the column is one of the words, in a form that can be compiled once: `in_` is expanded each time."""
    return or_(*(column == word for word in words))


def driver(conn: Connection) -> sqlite3.Connection:
    """The driver's connection below `conn`."""
    below: sqlite3.Connection = conn.connection.driver_connection  # type: ignore[assignment]
    return below
