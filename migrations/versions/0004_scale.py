"""A million rows: rows have a flag for being current, frequent queries have an index, and facts are cached."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_FORGET = {
    "rows": "DELETE FROM standing",
    "items": "DELETE FROM standing",
    "files": "DELETE FROM standing",
    "attempts": "DELETE FROM standing WHERE depends = 'credits'",
    "tasks": "DELETE FROM standing WHERE depends = 'credits'",
    "balances": "DELETE FROM standing WHERE depends = 'credits'",
}


def upgrade() -> None:
    """Change existing tables, then add the new one; the next import stores the fingerprint of its file."""
    op.execute("ALTER TABLE batches ADD COLUMN trusted TEXT")
    _rows()
    _indexes()
    _standing()


def _rows() -> None:
    op.execute("ALTER TABLE rows RENAME COLUMN version TO is_current")
    op.execute(
        "UPDATE rows SET is_current = is_current = "
        "(SELECT batches.version FROM batches WHERE batches.id = rows.batch_id)"
    )


def _indexes() -> None:
    op.drop_index("items_text")
    op.drop_index("items_task")
    op.create_index("items_text", "items", ["text_hash"], sqlite_where=sa.text("state <> 'pending'"))
    known = sa.text("task_id IS NOT NULL")
    op.create_index("items_task", "items", ["account_id", "task_id"], unique=True, sqlite_where=known)
    op.create_index("items_recheck", "items", ["account_id"], sqlite_where=sa.text("recheck_task_id IS NOT NULL"))
    op.create_index("attempts_run", "attempts", ["run_id"])
    op.drop_index("rows_item")
    op.create_index("rows_item", "rows", ["item_key", "batch_id", "is_current"])
    op.create_index("rows_takes", "rows", ["batch_id"], sqlite_where=sa.text("take > 1"))
    unlinked = sa.text("linked_key IS NOT item_key OR linked_output IS NOT output")
    op.create_index("rows_unlinked", "rows", ["batch_id", "number"], sqlite_where=unlinked)


def _standing() -> None:
    op.create_table(
        "standing",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("depends", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.CheckConstraint("depends IN ('rows', 'credits')", name="standing_depends"),
    )
    for table, forget in _FORGET.items():
        for event in ("insert", "update", "delete"):
            if (table, event) != ("items", "insert"):  # no row uses a new item yet
                op.execute(f"CREATE TRIGGER {table}_{event} AFTER {event.upper()} ON {table} BEGIN {forget}; END")
