"""Facts that are expensive to read from the ledger or the disk, cached until anything they depend on changes.

They are in the table `standing`; triggers delete them or keep their sums up to date: see `triggers`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from sqlalchemy import Connection, Table, delete, exists, func, insert, select, text
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.item import State
from batcher.ledger.records import Batch
from batcher.ledger.storage.filters import of_wanted
from batcher.ledger.storage.schema import items, rows
from batcher.ledger.storage.sharing import is_shared
from batcher.ledger.storage.statements import execute
from batcher.ledger.storage.triggers import SCOPE, costs, standing, totals

Depends = Literal["rows", "manifests", "costs", "balances"]
"""What a cached fact depends on: see the table."""
Facts = list[dict[str, Any]]


def get(conn: Connection, name: str) -> Any:
    """The facts cached under this name; None if there are none or they are outdated.

    On a server nothing is cached, since other hosts write, too. It counts, except for costs: see `server_triggers`.
    """
    if is_shared(conn):
        return None
    facts: str | None = conn.execute(select(standing.c.facts).where(standing.c.name == name)).scalar()
    return None if facts is None else json.loads(facts)


def put(conn: Connection, name: str, depends: Depends, facts: Any) -> None:
    """Cache facts (JSON values) that were read in the current transaction; on a server, do nothing."""
    if is_shared(conn):
        return
    value = json.dumps(facts)
    statement = upsert(standing).values(name=name, depends=depends, facts=value)
    new = {"depends": depends, "facts": value}
    conn.execute(statement.on_conflict_do_update(index_elements=["name"], set_=new))


def get_or_compute(conn: Connection, name: str, depends: Depends, compute: Callable[[], Any]) -> Any:
    """The cached facts, or else those that `compute` returns, which are cached if the connection may write."""
    facts = get(conn, name)
    if facts is None:
        facts = compute()
        if facts is not None and _may_write(conn):
            put(conn, name, depends, facts)
    return facts


def items_by_state(conn: Connection, wanted: Sequence[Batch], state: State | None = None) -> Facts:
    """Items that rows of `wanted` use: model, state, number and bytes of texts. A state may have several lines.

    Of this state, or of all if none is given.
    """
    if is_shared(conn):
        return _counted(conn, wanted, state)
    ours = {str(batch.batch_id) for batch in wanted}
    lines = [line for line in _lines(conn, totals, "manifests", _totals) if not ours.isdisjoint(line["scope"].split())]
    return [line for line in lines if state in (None, line["state"])]


def _counted(conn: Connection, wanted: Sequence[Batch], state: State | None) -> Facts:
    query = select(items.c.model, items.c.state, func.count().label("number"), func.sum(items.c.bytes).label("bytes"))
    query = query.where(exists().where(rows.c.item_key == items.c.key, of_wanted(wanted)))
    if state is not None:
        query = query.where(items.c.state == state)
    return [dict(line) for line in conn.execute(query.group_by(items.c.model, items.c.state)).mappings()]


def costs_of_ended(conn: Connection, batch_id: int | None = None) -> Facts:
    """Cost of the batch's ended tasks, or of all: the columns of `costs`, by batch and model."""
    lines = _lines(conn, costs, "costs", _costs)
    return [line for line in lines if batch_id in (None, line["batch_id"])]


def _lines(conn: Connection, table: Table, depends: Depends, compute: Callable[[Connection], Facts]) -> Facts:
    """The lines of a table of sums; if outdated, they are computed, and stored if the connection may write."""
    if get(conn, table.name):
        return [dict(line) for line in conn.execute(select(table)).mappings()]
    lines = compute(conn)
    if _may_write(conn):
        conn.execute(delete(table))
        if lines:
            conn.execute(insert(table), lines)
        put(conn, table.name, depends, True)
    return lines


def _may_write(conn: Connection) -> bool:
    return conn.dialect.name == "sqlite" and not execute(conn, "PRAGMA query_only").scalar()


def _totals(conn: Connection) -> Facts:
    """One line for every state, since the trigger only updates existing lines."""
    names = ("scope", "model", "state", "number", "bytes")
    found = {line[:3]: dict(zip(names, line, strict=True)) for line in execute(conn, _TOTALS) if line[0]}
    kinds = dict.fromkeys(kind[:2] for kind in found)
    every = ((scope, model, str(state)) for scope, model in kinds for state in State)
    return [found.get(kind) or dict(zip(names, (*kind, 0, 0), strict=True)) for kind in every]


def _costs(conn: Connection) -> Facts:
    """The costs of all ended tasks. On a server, triggers have already added most of them up."""
    query = _COSTS_OF_LINES if is_shared(conn) else _COSTS_OF_TASKS
    return [dict(line) for line in conn.execute(text(query)).mappings()]


_TOTALS: Final = (
    f"SELECT {SCOPE.format(key='items.key')} AS scope, model, state, count(*), sum(bytes) FROM items GROUP BY 1, 2, 3"  # noqa: S608
)
_COSTS: Final = """
    SELECT batch_id, model, sum(told) AS told, sum(untold_bytes) AS untold_bytes, sum(credits) AS credits,
        sum(priced_credits) AS priced_credits, sum(priced_bytes) AS priced_bytes, min({low}) AS low, max({high}) AS high
    FROM {table} GROUP BY batch_id, model
"""
_COSTS_OF_TASKS: Final = _COSTS.format(table="endings", low="price", high="price")
_COSTS_OF_LINES: Final = _COSTS.format(table="costs", low="low", high="high")
