"""Triggers add up counts and costs as they change, so that they are available at once while a run works."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_WATCHED = ("rows", "items", "files", "attempts", "tasks", "balances")
_ENDINGS = """
CREATE VIEW endings AS
SELECT tasks.account_id, tasks.task_id, coalesce(attempts.batch_id, 0) AS batch_id, coalesce(items.model, '') AS model,
    coalesce(tasks.credits, attempts.credits, 0) AS told,
    iif(coalesce(tasks.credits, attempts.credits) IS NULL AND attempts.outcome NOT IN ('deferred', 'rejected')
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
_ADD_UP = {
    "items_move": """UPDATE OF state ON items BEGIN UPDATE totals
        SET number = number + (state = new.state) - (state = old.state),
            bytes = bytes + new.bytes * ((state = new.state) - (state = old.state))
        WHERE scope = (SELECT group_concat(batch_id, ' ') FROM (SELECT DISTINCT batch_id FROM rows
            WHERE item_key = new.key AND is_current = 1 ORDER BY batch_id))
        AND state IN (old.state, new.state) AND model IS new.model""",
    "tasks_end": """UPDATE ON tasks WHEN old.ended_at IS NULL AND new.ended_at IS NOT NULL BEGIN INSERT INTO costs
        SELECT batch_id, model, told, untold_bytes, credits, priced_credits, priced_bytes, price, price
        FROM endings WHERE account_id = new.account_id AND task_id = new.task_id
        ON CONFLICT (batch_id, model) DO UPDATE SET told = told + excluded.told,
            untold_bytes = untold_bytes + excluded.untold_bytes,
            credits = coalesce(credits + excluded.credits, credits, excluded.credits),
            priced_credits = priced_credits + excluded.priced_credits,
            priced_bytes = priced_bytes + excluded.priced_bytes,
            low = min(coalesce(low, excluded.low), coalesce(excluded.low, low)),
            high = max(coalesce(high, excluded.high), coalesce(excluded.high, high))""",
}
_HAS_ENDED = "EXISTS (SELECT 1 FROM tasks WHERE item_key = new.item_key AND ended_at IS NOT NULL)"
_IS_WEIGHED = "new.answered_at <= (SELECT max(at) FROM balances WHERE account_id = new.account_id)"
_FORGET = {
    "rows_insert": ("INSERT ON rows", "'rows', 'manifests'"),
    "rows_delete": ("DELETE ON rows", "'rows', 'manifests'"),
    "rows_update": ("UPDATE ON rows", "'rows'"),
    "rows_stand": ("UPDATE OF batch_id, is_current, item_key, skipped ON rows", "'manifests'"),
    "items_update": ("UPDATE ON items", "'rows'"),
    "files_insert": ("INSERT ON files", "'rows'"),
    "files_update": ("UPDATE ON files", "'rows'"),
    "files_delete": ("DELETE ON files", "'rows'"),
    "attempts_insert": ("INSERT ON attempts WHEN new.outcome IS NOT NULL", "'balances'"),
    "attempts_weigh": (f"UPDATE ON attempts WHEN old.outcome IS NOT NULL OR {_IS_WEIGHED}", "'balances'"),
    "attempts_again": (f"UPDATE ON attempts WHEN old.outcome IS NOT NULL OR {_HAS_ENDED}", "'costs'"),
    "attempts_delete": ("DELETE ON attempts", "'costs', 'balances'"),
    "tasks_insert": ("INSERT ON tasks WHEN new.ended_at IS NOT NULL", "'costs'"),
    "tasks_again": ("UPDATE ON tasks WHEN old.ended_at IS NOT NULL", "'costs'"),
    "tasks_delete": ("DELETE ON tasks", "'costs'"),
    "events_insert": ("INSERT ON events WHEN new.event = 'unfunded'", "'costs'"),
    "balances_insert": ("INSERT ON balances", "'balances'"),
    "balances_update": ("UPDATE ON balances", "'balances'"),
    "balances_delete": ("DELETE ON balances", "'balances'"),
}


def upgrade() -> None:
    """Drop the cached facts, which the next run computes again, and create the tables of sums with their triggers."""
    for table in _WATCHED:
        for event in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER IF EXISTS {table}_{event}")
    op.drop_table("standing")
    _tables()
    unclear = sa.text("(outcome IS NULL OR outcome = 'lost' OR outcome <> 'accepted' AND credits IS NOT NULL)")
    op.create_index("attempts_unclear", "attempts", ["batch_id"], sqlite_where=unclear)
    op.create_index("tasks_open", "tasks", ["item_key"], sqlite_where=sa.text("ended_at IS NULL"))
    op.execute(_ENDINGS)
    for name, then in _ADD_UP.items():
        op.execute(f"CREATE TRIGGER {name} AFTER {then}; END")
    for name, (when, depends) in _FORGET.items():
        forget = f"DELETE FROM standing WHERE depends IN ({depends})"  # noqa: S608
        op.execute(f"CREATE TRIGGER {name} AFTER {when} BEGIN {forget}; END")
    for name, when in (("items_input", "UPDATE OF key, model, bytes ON items"), ("items_delete", "DELETE ON items")):
        op.execute(f"CREATE TRIGGER {name} AFTER {when} BEGIN DELETE FROM standing; END")  # noqa: S608


def _tables() -> None:
    op.create_table(
        "standing",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("depends", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.CheckConstraint("depends IN ('rows', 'manifests', 'costs', 'balances')", name="standing_depends"),
    )
    op.create_table(
        "totals",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("model", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
    )
    op.create_index("totals_scope", "totals", ["scope", "state"])
    op.create_table(
        "costs",
        sa.Column("batch_id", sa.Integer(), primary_key=True),
        sa.Column("model", sa.Text(), primary_key=True),
        sa.Column("told", sa.Float(), nullable=False),
        sa.Column("untold_bytes", sa.Integer(), nullable=False),
        sa.Column("credits", sa.Float()),
        sa.Column("priced_credits", sa.Float(), nullable=False),
        sa.Column("priced_bytes", sa.Integer(), nullable=False),
        sa.Column("low", sa.Float()),
        sa.Column("high", sa.Float()),
    )
