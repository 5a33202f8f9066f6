"""Triggers of a ledger on a server that note how each change alters the costs of ended tasks.

A change adds a line to `costs` in its own transaction, and the sum of all lines counts. So runs that end tasks at the
same time never wait for each other, as they would for a line that all of them update.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

_ALTER: Final = """ALTER TABLE costs DROP CONSTRAINT costs_pkey,
    ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ALTER COLUMN untold_bytes TYPE bigint, ALTER COLUMN priced_bytes TYPE bigint"""
"""Several lines have the same batch and model, but a table without a key could not be replicated."""
_COLUMNS: Final = "batch_id, model, told, untold_bytes, credits, priced_credits, priced_bytes, low, high"
_NOTE: Final = f"""
CREATE FUNCTION note_costs_of_{{what}}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sign integer := iif(TG_WHEN = 'BEFORE', -1, 1);
    changed record;
BEGIN
    IF TG_WHEN = 'BEFORE' AND TG_OP <> 'INSERT' THEN changed := OLD; ELSE changed := NEW; END IF;
    INSERT INTO costs ({_COLUMNS})
    SELECT batch_id, model, sign * told, sign * untold_bytes, sign * credits, sign * priced_credits,
        sign * priced_bytes, iif(sign > 0, price, NULL), iif(sign > 0, price, NULL)
    FROM endings WHERE {{where}};
    IF TG_OP = 'DELETE' THEN RETURN OLD; ELSE RETURN NEW; END IF;
END$$"""  # noqa: S608
"""Subtracts what tasks cost before a change, and adds what they cost after it. The range of prices only grows."""
_TASKS: Final = {
    "task": "account_id = changed.account_id AND task_id = changed.task_id",
    "attempt": """(account_id, task_id) IN (SELECT tasks.account_id, tasks.task_id FROM tasks
        WHERE tasks.item_key = changed.item_key AND tasks.attempt = changed.attempt)""",
}
"""The tasks whose costs a change may alter. An item's model and text, on which they depend, too, never change."""
_OTHER_COSTS: Final = "old.batch_id IS DISTINCT FROM new.batch_id OR old.credits IS DISTINCT FROM new.credits"
_TRIGGERS: Final = (
    ("task", "AFTER INSERT ON tasks", "new.ended_at IS NOT NULL"),
    ("task", "BEFORE UPDATE ON tasks", "old.ended_at IS NOT NULL"),
    ("task", "AFTER UPDATE ON tasks", "new.ended_at IS NOT NULL"),
    ("task", "BEFORE DELETE ON tasks", "old.ended_at IS NOT NULL"),
    ("attempt", "BEFORE UPDATE OF batch_id, credits ON attempts", _OTHER_COSTS),
    ("attempt", "AFTER UPDATE OF batch_id, credits ON attempts", _OTHER_COSTS),
    ("attempt", "BEFORE INSERT ON events", "new.event = 'unfunded'"),
    ("attempt", "AFTER INSERT ON events", "new.event = 'unfunded'"),
)
_MERGE: Final = f"""
WITH old AS (DELETE FROM costs RETURNING *)
INSERT INTO costs ({_COLUMNS})
SELECT batch_id, model, sum(told), sum(untold_bytes), sum(credits), sum(priced_credits), sum(priced_bytes),
    min(low), max(high)
FROM old GROUP BY batch_id, model"""  # noqa: S608


def create_triggers(conn: Connection) -> None:
    """Create the triggers of a new ledger, after its tables."""
    conn.exec_driver_sql(_ALTER)
    for what, where in _TASKS.items():
        conn.exec_driver_sql(_NOTE.format(what=what, where=where))
    for what, when, condition in _TRIGGERS:
        name = "_".join(("note", *when.lower().replace(",", "").split()))
        then = f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION note_costs_of_{what}()"
        conn.exec_driver_sql(f"CREATE TRIGGER {name} {when} {then}")


def merge_costs(conn: Connection) -> None:
    """Replace the lines of `costs` by their sums. Lines that other transactions add meanwhile stay."""
    conn.exec_driver_sql(_MERGE)
