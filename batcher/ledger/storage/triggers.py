"""Tables of cached facts and sums, and the triggers that keep them correct.

Triggers update these tables in the same transaction as the change, so they stay correct whoever writes and even after a
crash. Sums that change at each step of an item are updated (`totals`, `costs`). Facts that change only in an import or
a rare event are deleted, and computed again when they are next needed.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import CheckConstraint, Column, Connection, Float, Index, Integer, Table, Text
from sqlalchemy.schema import CreateIndex, CreateTable

from batcher.ledger.storage.schema import INDEXES, metadata

standing = Table(
    "standing",
    metadata,
    Column("name", Text, primary_key=True),
    Column("depends", Text, nullable=False),
    Column("facts", Text, nullable=False),
    CheckConstraint("depends IN ('rows', 'manifests', 'costs', 'balances')", name="standing_depends"),
)
"""Cached facts, by name. `depends` is what they depend on; any change of it deletes them:

* `rows`: anything in rows, items and files;
* `manifests`: which rows there are, and which items they use;
* `costs`: costs of ended tasks (a task that ends only updates the table `costs`);
* `balances`: balances, and the create requests answered before the latest of them.
"""

totals = Table(
    "totals",
    metadata,
    Column("scope", Text, nullable=False),  # ids of the batches whose current rows use the items
    Column("model", Text),
    Column("state", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),  # of their texts
    Index("totals_scope", "scope", "state"),
)
"""Items by scope, model and state, with a line for every state. Correct while `totals` is in `standing`."""

costs = Table(
    "costs",
    metadata,
    Column("batch_id", Integer, primary_key=True),  # whose budget pays; 0: none
    Column("model", Text, primary_key=True),  # "": none
    Column("told", Float, nullable=False),  # credits reported by the task or its create request
    Column("untold_bytes", Integer, nullable=False),  # of texts whose task may have cost something but reports nothing
    Column("credits", Float),  # reported by tasks; NULL if none reports any
    Column("priced_credits", Float, nullable=False),  # of the tasks that report a cost above 0
    Column("priced_bytes", Integer, nullable=False),
    Column("low", Float),  # lowest and highest price of a byte, in credits
    Column("high", Float),
)
"""Costs of ended tasks. Correct while `costs` is in `standing`; on a server always, as the sum of several lines of a
batch and model (`server_triggers`)."""

ENDINGS: Final = """
CREATE VIEW endings AS
SELECT tasks.account_id, tasks.task_id, coalesce(attempts.batch_id, 0) AS batch_id, coalesce(items.model, '') AS model,
    coalesce(tasks.credits, attempts.credits, 0) AS told,
    iif(coalesce(tasks.credits, attempts.credits) IS NULL
        AND NOT EXISTS (SELECT 1 FROM events WHERE events.item_key = tasks.item_key
            AND events.attempt = tasks.attempt AND events.event = 'unfunded'), items.bytes, 0) AS untold_bytes,
    tasks.credits,
    iif(tasks.credits > 0 AND items.bytes > 0, tasks.credits, 0) AS priced_credits,
    iif(tasks.credits > 0 AND items.bytes > 0, items.bytes, 0) AS priced_bytes,
    iif(tasks.credits > 0 AND items.bytes > 0, tasks.credits * 1.0 / items.bytes, NULL) AS price
FROM tasks
JOIN attempts ON attempts.item_key = tasks.item_key AND attempts.attempt = tasks.attempt
JOIN items ON items.key = tasks.item_key
WHERE tasks.ended_at IS NOT NULL"""
"""Each ended task with what it adds to `costs`."""

SCOPE: Final = (
    "(SELECT group_concat(batch_id, ' ') FROM (SELECT DISTINCT batch_id FROM rows"
    " WHERE item_key = {key} AND is_current = 1 ORDER BY batch_id))"
)

_MOVED: Final = f"""UPDATE totals SET number = number + (state = new.state) - (state = old.state),
    bytes = bytes + new.bytes * ((state = new.state) - (state = old.state))
    WHERE scope = {SCOPE.format(key="new.key")} AND state IN (old.state, new.state) AND model IS new.model"""  # noqa: S608
_ENDED: Final = (
    "INSERT INTO costs SELECT batch_id, model, told, untold_bytes, credits, priced_credits, priced_bytes, price, price"
    " FROM endings WHERE account_id = new.account_id AND task_id = new.task_id"
    " ON CONFLICT (batch_id, model) DO UPDATE SET told = told + excluded.told,"
    " untold_bytes = untold_bytes + excluded.untold_bytes,"
    " credits = coalesce(credits + excluded.credits, credits, excluded.credits),"
    " priced_credits = priced_credits + excluded.priced_credits, priced_bytes = priced_bytes + excluded.priced_bytes,"
    " low = min(coalesce(low, excluded.low), coalesce(excluded.low, low)),"
    " high = max(coalesce(high, excluded.high), coalesce(excluded.high, high))"
)


def _forget(*depends: str) -> str:
    return f"DELETE FROM standing WHERE depends IN ({', '.join(map(repr, depends))})"  # noqa: S608


_HAS_ENDED: Final = "EXISTS (SELECT 1 FROM tasks WHERE item_key = new.item_key AND ended_at IS NOT NULL)"
_IS_WEIGHED: Final = "new.answered_at <= (SELECT max(at) FROM balances WHERE account_id = new.account_id)"
_TRIGGERS: Final = {
    "rows_insert": ("INSERT ON rows", _forget("rows", "manifests")),
    "rows_delete": ("DELETE ON rows", _forget("rows", "manifests")),
    "rows_update": ("UPDATE ON rows", _forget("rows")),
    "rows_stand": ("UPDATE OF batch_id, is_current, item_key, skipped ON rows", _forget("manifests")),
    # Inserting an item needs no trigger: no row uses it yet.
    "items_update": ("UPDATE ON items", _forget("rows")),
    "items_move": ("UPDATE OF state ON items", _MOVED),
    "items_input": ("UPDATE OF key, model, bytes ON items", "DELETE FROM standing"),
    "items_delete": ("DELETE ON items", "DELETE FROM standing"),
    "files_insert": ("INSERT ON files", _forget("rows")),
    "files_update": ("UPDATE ON files", _forget("rows")),
    "files_delete": ("DELETE ON files", _forget("rows")),
    "attempts_insert": ("INSERT ON attempts WHEN new.outcome IS NOT NULL", _forget("balances")),
    "attempts_weigh": (f"UPDATE ON attempts WHEN old.outcome IS NOT NULL OR {_IS_WEIGHED}", _forget("balances")),
    "attempts_again": (f"UPDATE ON attempts WHEN old.outcome IS NOT NULL OR {_HAS_ENDED}", _forget("costs")),
    "attempts_delete": ("DELETE ON attempts", _forget("costs", "balances")),
    "tasks_insert": ("INSERT ON tasks WHEN new.ended_at IS NOT NULL", _forget("costs")),
    "tasks_end": ("UPDATE ON tasks WHEN old.ended_at IS NULL AND new.ended_at IS NOT NULL", _ENDED),
    "tasks_again": ("UPDATE ON tasks WHEN old.ended_at IS NOT NULL", _forget("costs")),
    "tasks_delete": ("DELETE ON tasks", _forget("costs")),
    "events_insert": ("INSERT ON events WHEN new.event = 'unfunded'", _forget("costs")),
    "balances_insert": ("INSERT ON balances", _forget("balances")),
    "balances_update": ("UPDATE ON balances", _forget("balances")),
    "balances_delete": ("DELETE ON balances", _forget("balances")),
}


def _definitions() -> dict[str, str]:
    """The view and the triggers: the statement that creates each, by name."""
    triggers = {name: f"CREATE TRIGGER {name} AFTER {on} BEGIN {then}; END" for name, (on, then) in _TRIGGERS.items()}
    return {"endings": ENDINGS} | triggers


def _words(definition: str) -> str:
    """The statement without white space, by which older migrations differ."""
    return "".join(definition.split())


def create_tables(conn: Connection) -> None:
    """Create the ledger's tables, with their indexes, triggers and view, in the same order each time."""
    for table in metadata.sorted_tables:
        conn.execute(CreateTable(table))
    for index in INDEXES:
        conn.execute(CreateIndex(index))
    for definition in _definitions().values():
        conn.exec_driver_sql(definition)


def strange_definition(conn: Connection) -> str | None:
    """Name of the first trigger that is not this program's, or view in place of one of its tables; None without them.

    Each statement would run them: they could change what is bought, or never end.
    """
    ours = {name: _words(definition) for name, definition in _definitions().items()}
    query = "SELECT type, name, sql FROM sqlite_master WHERE type IN ('trigger', 'view')"
    for kind, name, definition in conn.exec_driver_sql(query):
        is_ours = _words(definition) == ours.get(name)
        if not is_ours and (kind == "trigger" or name.lower() in (*ours, *metadata.tables, "alembic_version")):
            return str(name)
    return None
