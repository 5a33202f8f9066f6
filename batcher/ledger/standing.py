"""What was found out by reading much of the ledger or of the disk, kept until what it depends on changes.

The tables' own triggers forget it: see the schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.ledger.schema import standing

Depends = Literal["rows", "credits"]
"""On which tables: rows, items and files; with `credits` also attempts, tasks and balances."""


def look(conn: Connection, name: str) -> Any:
    """What is kept under this name, as it was given; None for nothing, or what no longer holds."""
    facts: str | None = conn.execute(select(standing.c.facts).where(standing.c.name == name)).scalar()
    return None if facts is None else json.loads(facts)


def keep(conn: Connection, name: str, depends: Depends, facts: Any) -> None:
    """Keep facts, which JSON has, that hold now; whoever found them out did so in this transaction."""
    new = {"depends": depends, "facts": json.dumps(facts)}
    statement = upsert(standing).values(name=name, **new)
    conn.execute(statement.on_conflict_do_update(index_elements=["name"], set_=new))


def known(conn: Connection, name: str, depends: Depends, find: Callable[[], Any]) -> Any:
    """What is kept, or else what `find` finds, kept from now on if the connection may write."""
    facts = look(conn, name)
    if facts is None:
        facts = find()
        if facts is not None and not conn.exec_driver_sql("PRAGMA query_only").scalar():
            keep(conn, name, depends, facts)
    return facts
