"""What was found out by reading much of the ledger or of the disk, kept until what it depends on changes.

The tables' own triggers add it up or forget it: see `kept`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from sqlalchemy import Connection, Table, delete, insert, select, text
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.item import State
from batcher.ledger.records import Batch
from batcher.ledger.storage.triggers import SCOPE, costs, standing, totals

Depends = Literal["rows", "manifests", "costs", "balances"]
"""On what changes: see the table."""
Facts = list[dict[str, Any]]


def get(conn: Connection, name: str) -> Any:
    """What is kept under this name, as it was given; None for nothing, or what no longer holds."""
    facts: str | None = conn.execute(select(standing.c.facts).where(standing.c.name == name)).scalar()
    return None if facts is None else json.loads(facts)


def put(conn: Connection, name: str, depends: Depends, facts: Any) -> None:
    """Keep facts, which JSON has, that hold now; whoever found them out did so in this transaction."""
    new = {"depends": depends, "facts": json.dumps(facts)}
    statement = upsert(standing).values({"name": name} | new)
    conn.execute(statement.on_conflict_do_update(index_elements=["name"], set_=new))


def get_or_compute(conn: Connection, name: str, depends: Depends, find: Callable[[], Any]) -> Any:
    """What is kept, or else what `find` finds, kept from now on if the connection may write."""
    facts = get(conn, name)
    if facts is None:
        facts = find()
        if facts is not None and _may_keep(conn):
            put(conn, name, depends, facts)
    return facts


def items_by_state(conn: Connection, wanted: Sequence[Batch]) -> Facts:
    """The items that rows of `wanted` stand for: model, state, number, and bytes of their texts; perhaps in parts."""
    ours = {str(batch.batch_id) for batch in wanted}
    found = _added_up(conn, totals, "manifests", _totals)
    return [line for line in found if not ours.isdisjoint(line["scope"].split())]


def costs_of_ended(conn: Connection, batch_id: int | None = None) -> Facts:
    """What the ended tasks of the batch (of all) cost: the columns of `costs`, by batch and model."""
    found = _added_up(conn, costs, "costs", _costs)
    return [line for line in found if batch_id in (None, line["batch_id"])]


def _added_up(conn: Connection, table: Table, depends: Depends, find: Callable[[Connection], Facts]) -> Facts:
    """The table's lines; where they do not hold, what `find` finds, on which triggers go on from now."""
    if get(conn, table.name):
        return [dict(line) for line in conn.execute(select(table)).mappings()]
    found = find(conn)
    if _may_keep(conn):
        conn.execute(delete(table))
        if found:
            conn.execute(insert(table), found)
        put(conn, table.name, depends, True)
    return found


def _may_keep(conn: Connection) -> bool:
    return not conn.exec_driver_sql("PRAGMA query_only").scalar()


def _totals(conn: Connection) -> Facts:
    """With a line for every state, since a trigger only changes lines that are there."""
    names = ("scope", "model", "state", "number", "bytes")
    found = {line[:3]: dict(zip(names, line, strict=True)) for line in conn.exec_driver_sql(_TOTALS) if line[0]}
    kinds = dict.fromkeys(kind[:2] for kind in found)
    every = ((scope, model, str(state)) for scope, model in kinds for state in State)
    return [found.get(kind) or dict(zip(names, (*kind, 0, 0), strict=True)) for kind in every]


def _costs(conn: Connection) -> Facts:
    return [dict(line) for line in conn.execute(text(_COSTS)).mappings()]


_TOTALS: Final = (
    f"SELECT {SCOPE.format(key='items.key')} AS scope, model, state, count(*), sum(bytes) FROM items GROUP BY 1, 2, 3"  # noqa: S608
)
_COSTS: Final = """
    SELECT batch_id, model, sum(told) AS told, sum(untold_bytes) AS untold_bytes, sum(credits) AS credits,
        sum(priced_credits) AS priced_credits, sum(priced_bytes) AS priced_bytes, min(price) AS low, max(price) AS high
    FROM endings GROUP BY batch_id, model
"""
