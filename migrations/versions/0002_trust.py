"""Batches of attempts, balances, rows restored from results files, and the event of a retake."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add what budgets, evidence and recovery need, and the event `retake`."""
    op.execute("ALTER TABLE attempts ADD COLUMN batch_id INTEGER")
    op.create_index("attempts_batch", "attempts", ["batch_id"])
    _attribute()
    _balances()
    _recalled()
    _events()


def _attribute() -> None:
    """Assign each earlier attempt to the first batch that has its item."""
    op.execute(
        "UPDATE attempts SET batch_id = (SELECT min(rows.batch_id) FROM rows WHERE rows.item_key = attempts.item_key)"
    )


def _balances() -> None:
    op.create_table(
        "balances",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("account_id", sa.Integer(), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("run_id", sa.Text()),
        sa.Column("credits", sa.Float()),
        sa.Column("quota", sa.Float()),
    )
    op.create_index("balances_at", "balances", ["account_id", "at"])


def _recalled() -> None:
    op.create_table(
        "recalled",
        sa.Column("batch", sa.Text(), primary_key=True),
        sa.Column("row_id", sa.Text(), primary_key=True),
        sa.Column("item_key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text()),
        sa.Column("take", sa.Integer(), nullable=False),
        sa.Column("out_dir", sa.Text(), nullable=False),
        sa.Column("output", sa.Text()),
        sa.Column("sha256", sa.Text()),
        sa.Column("bytes", sa.Integer()),
        sa.Column("audio_seconds", sa.Float()),
        sa.Column("recalled_at", sa.Float(), nullable=False),
    )
    op.create_index("recalled_item", "recalled", ["item_key"])
    op.create_index("recalled_sha256", "recalled", ["sha256"])


def _events() -> None:
    """Create the table again, since its constraint on the event's name cannot be changed in place."""
    op.drop_index("events_item")
    op.drop_index("events_run")
    op.rename_table("events", "old_events")
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("item_key", sa.Text(), sa.ForeignKey("items.key"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("run_id", sa.Text()),
        sa.Column("detail", sa.Text()),
        sa.CheckConstraint(
            "event IN ('claim', 'accepted', 'deferred', 'rejected', 'lost', 'evidence', 'adopted', "
            "'buy_again', 'abandon', 'rendered', 'remote_failed', 'unfunded', 'gone', 'saved', "
            "'uncollectable', 'retry', 'retake')",
            name="events_event",
        ),
    )
    names = "id, item_key, attempt, event, state, at, run_id, detail"
    op.execute(f"INSERT INTO events ({names}) SELECT {names} FROM old_events")  # noqa: S608 - constants
    op.drop_table("old_events")
    op.create_index("events_item", "events", ["item_key"])
    op.create_index("events_run", "events", ["run_id", "state"])
