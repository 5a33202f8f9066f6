"""Several runs may work on a ledger on a server: whose an item is, and what the runs of an account share.

On a server, triggers note the costs of ended tasks, since a run must not count them while others wait. A task that a
person found for a create that had seemed to make none counts among them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_COLUMNS = (
    ("accounts", "next_create_at", "FLOAT"),
    ("accounts", "closed_until_at", "FLOAT"),
    ("items", "run_id", "TEXT"),
    ("runs", "shift_id", "TEXT"),
    ("runs", "is_creating", "INTEGER"),
    ("runs", "claimed", "INTEGER"),
    ("tasks", "overdue_at", "FLOAT"),
    ("notices", "run_id", "TEXT"),
)

_ENDINGS = """
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
_COSTS = "batch_id, model, told, untold_bytes, credits, priced_credits, priced_bytes, low, high"
_NOTE = f"""
CREATE FUNCTION note_costs_of_{{what}}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sign integer := iif(TG_WHEN = 'BEFORE', -1, 1);
    changed record;
BEGIN
    IF TG_WHEN = 'BEFORE' AND TG_OP <> 'INSERT' THEN changed := OLD; ELSE changed := NEW; END IF;
    INSERT INTO costs ({_COSTS})
    SELECT batch_id, model, sign * told, sign * untold_bytes, sign * credits, sign * priced_credits,
        sign * priced_bytes, iif(sign > 0, price, NULL), iif(sign > 0, price, NULL)
    FROM endings WHERE {{where}};
    IF TG_OP = 'DELETE' THEN RETURN OLD; ELSE RETURN NEW; END IF;
END$$"""  # noqa: S608
_OF_TASK = "account_id = changed.account_id AND task_id = changed.task_id"
_OF_ATTEMPT = """(account_id, task_id) IN (SELECT tasks.account_id, tasks.task_id FROM tasks
        WHERE tasks.item_key = changed.item_key AND tasks.attempt = changed.attempt)"""
_OTHER_COSTS = "old.batch_id IS DISTINCT FROM new.batch_id OR old.credits IS DISTINCT FROM new.credits"
_TRIGGERS = (
    ("task", "AFTER INSERT ON tasks", "new.ended_at IS NOT NULL"),
    ("task", "BEFORE UPDATE ON tasks", "old.ended_at IS NOT NULL"),
    ("task", "AFTER UPDATE ON tasks", "new.ended_at IS NOT NULL"),
    ("task", "BEFORE DELETE ON tasks", "old.ended_at IS NOT NULL"),
    ("attempt", "BEFORE UPDATE OF batch_id, credits ON attempts", _OTHER_COSTS),
    ("attempt", "AFTER UPDATE OF batch_id, credits ON attempts", _OTHER_COSTS),
    ("attempt", "BEFORE INSERT ON events", "new.event = 'unfunded'"),
    ("attempt", "AFTER INSERT ON events", "new.event = 'unfunded'"),
)


def upgrade() -> None:
    """Add the columns. What earlier runs left open belongs to nobody."""
    for table, name, kind in _COLUMNS:
        op.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}{_collation(kind)}")
    working = sa.text("ended_at IS NULL")
    op.create_index("runs_working", "runs", ["account_id"], sqlite_where=working, postgresql_where=working)
    op.create_index("runs_shift", "runs", ["shift_id"])
    op.execute("DROP VIEW endings")
    op.execute(_ENDINGS)
    op.execute("DELETE FROM standing WHERE depends = 'costs'")
    if _is_on_server():
        _note_costs()


def _note_costs() -> None:
    op.execute("""ALTER TABLE costs DROP CONSTRAINT costs_pkey,
        ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        ALTER COLUMN untold_bytes TYPE bigint, ALTER COLUMN priced_bytes TYPE bigint""")
    for what, where in (("task", _OF_TASK), ("attempt", _OF_ATTEMPT)):
        op.execute(_NOTE.format(what=what, where=where))
    for what, when, condition in _TRIGGERS:
        name = "_".join(("note", *when.lower().replace(",", "").split()))
        then = f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION note_costs_of_{what}()"
        op.execute(f"CREATE TRIGGER {name} {when} {then}")
    sums = "sum(told), sum(untold_bytes), sum(credits), sum(priced_credits), sum(priced_bytes), min(price), max(price)"
    op.execute(f"INSERT INTO costs ({_COSTS}) SELECT batch_id, model, {sums} FROM endings GROUP BY 1, 2")  # noqa: S608


def _collation(kind: str) -> str:
    """Texts on a server are compared by their characters."""
    return ' COLLATE "C"' if kind == "TEXT" and _is_on_server() else ""


def _is_on_server() -> bool:
    return op.get_bind().dialect.name == "postgresql"
