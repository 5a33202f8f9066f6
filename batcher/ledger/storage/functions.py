"""SQL functions that the two databases call by different names, or that only one can call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import ReturnTypeFromArgs

from batcher.ledger.storage.sqlite import add_function


def call(conn: Connection, function: Callable[[Any], Any], column: str, *, otherwise: str) -> str:
    """SQL that calls a function of Python with a column; `otherwise`, the same in SQL, if the database cannot."""
    if conn.dialect.name == "postgresql":
        return otherwise
    add_function(conn, function.__name__, function)
    return f"{function.__name__}({column})"


class greatest(ReturnTypeFromArgs[Any]):  # noqa: N801 - the name of a function in SQL
    """The greatest of its arguments."""

    inherit_cache = True


class least(ReturnTypeFromArgs[Any]):  # noqa: N801 - the name of a function in SQL
    """The least of its arguments."""

    inherit_cache = True


@compiles(greatest, "sqlite")
def _greatest(element: greatest, compiler: Any, **options: Any) -> str:
    return f"max({compiler.process(element.clauses, **options)})"


@compiles(least, "sqlite")
def _least(element: least, compiler: Any, **options: Any) -> str:
    return f"min({compiler.process(element.clauses, **options)})"
