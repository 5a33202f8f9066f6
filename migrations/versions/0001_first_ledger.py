"""The first ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table of the first version."""
    _meta()
    _accounts()
    _batches()
    _runs()
    _attempts()
    _tasks()
    _items()
    _rows()
    _files()
    _events()
    _halts()


def _meta() -> None:
    op.create_table(
        "meta",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
    )


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("token_fingerprint", sa.Text()),
    )
    op.create_index("accounts_identity", "accounts", ["origin", "user_id"], unique=True)


def _batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False, unique=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("out_dir", sa.Text(), nullable=False),
        sa.Column("imported_at", sa.Float(), nullable=False),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float()),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("out_dir", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Integer(), sa.ForeignKey("accounts.id")),
        sa.Column("profile_start", sa.Text()),
        sa.Column("profile_end", sa.Text()),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("outcome", sa.Text()),
        sa.Column("message", sa.Text()),
        sa.Column("created", sa.Integer()),
        sa.Column("collected", sa.Integer()),
    )
    op.create_index("runs_started", "runs", ["started_at"])


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("item_key", sa.Text(), primary_key=True),
        sa.Column("attempt", sa.Integer(), primary_key=True),
        sa.Column("run_id", sa.Text(), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("account_id", sa.Integer(), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("intended_at", sa.Float(), nullable=False),
        sa.Column("answered_at", sa.Float()),
        sa.Column("answer_no", sa.Integer()),
        sa.Column("outcome", sa.Text()),
        sa.Column("cause", sa.Text()),
        sa.Column("http_status", sa.Integer()),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.Column("credits", sa.Float()),
        sa.Column("raw", sa.LargeBinary()),
        sa.CheckConstraint("outcome IN ('accepted', 'deferred', 'rejected', 'lost')", name="attempts_outcome"),
        sa.CheckConstraint("(answered_at IS NULL) = (outcome IS NULL)", name="attempts_answered"),
    )
    op.create_index("attempts_answers", "attempts", ["account_id", "answer_no"])


def _tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("account_id", sa.Integer(), sa.ForeignKey("accounts.id"), primary_key=True),
        sa.Column("task_id", sa.Text(), primary_key=True),
        sa.Column("item_key", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("accepted_at", sa.Float(), nullable=False),
        sa.Column("looked_at", sa.Float()),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.Column("ended_at", sa.Float()),
        sa.Column("word", sa.Text()),
        sa.Column("credits", sa.Float()),
        sa.Column("missing_since_at", sa.Float()),
        sa.Column("missing_looks", sa.Integer(), nullable=False),
        sa.Column("unusable_since_at", sa.Float()),
        sa.Column("unusable_looks", sa.Integer(), nullable=False),
        sa.Column("raw", sa.LargeBinary()),
        sa.ForeignKeyConstraint(
            ["item_key", "attempt"], ["attempts.item_key", "attempts.attempt"], name="tasks_own_attempt"
        ),
    )
    op.create_index("tasks_item", "tasks", ["item_key"])


def _items() -> None:
    op.create_table(
        "items",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("key_version", sa.Integer(), nullable=False),
        sa.Column("text_hash", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("voice", sa.Text(), nullable=False),
        sa.Column("model", sa.Text()),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("take", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer()),
        sa.Column("task_id", sa.Text()),
        sa.Column("recheck_task_id", sa.Text()),
        sa.Column("recheck_run_id", sa.Text()),
        sa.Column("not_before_at", sa.Float(), nullable=False),
        sa.Column("deferrals", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("error_request_id", sa.Text()),
        sa.Column("error_http_status", sa.Integer()),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'submitting', 'in_doubt', 'submitted', 'rendered', 'done', 'rejected', "
            "'failed', 'gone', 'abandoned')",
            name="items_state",
        ),
        sa.CheckConstraint(
            "NOT (state IN ('submitted', 'rendered', 'done')) OR task_id IS NOT NULL", name="items_task"
        ),
        sa.CheckConstraint("state <> 'submitting' OR attempt > 0", name="items_attempt"),
        sa.CheckConstraint("take >= 1", name="items_take"),
        sa.ForeignKeyConstraint(
            ["account_id", "task_id"], ["tasks.account_id", "tasks.task_id"], name="items_own_task"
        ),
    )
    op.create_index("items_state", "items", ["state"])
    op.create_index("items_text", "items", ["text_hash"])
    op.create_index("items_task", "items", ["account_id", "task_id"], unique=True)


def _rows() -> None:
    op.create_table(
        "rows",
        sa.Column("batch_id", sa.Integer(), sa.ForeignKey("batches.id"), primary_key=True),
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("take", sa.Integer(), nullable=False),
        sa.Column("item_key", sa.Text(), sa.ForeignKey("items.key")),
        sa.Column("skipped", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("output", sa.Text(), nullable=False),
        sa.Column("extra", sa.Text(), nullable=False),
        sa.Column("linked_key", sa.Text()),
        sa.Column("linked_output", sa.Text()),
        sa.CheckConstraint("(item_key IS NULL) = (skipped IS NOT NULL)", name="rows_item"),
        sa.CheckConstraint("skipped IN ('invalid', 'empty')", name="rows_skipped"),
    )
    op.create_index("rows_item", "rows", ["item_key"])
    op.create_index("rows_order", "rows", ["batch_id", "version", "number"])
    op.create_index("rows_output", "rows", ["output"])


def _files() -> None:
    op.create_table(
        "files",
        sa.Column("item_key", sa.Text(), sa.ForeignKey("items.key"), primary_key=True),
        sa.Column("out_dir", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("audio_seconds", sa.Float()),
        sa.Column("recorded_at", sa.Float(), nullable=False),
        sa.Column("saved_at", sa.Float()),
        sa.CheckConstraint("bytes > 0", name="files_bytes"),
    )
    op.create_index("files_sha256", "files", ["sha256"])


def _events() -> None:
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
            "'uncollectable', 'retry')",
            name="events_event",
        ),
    )
    op.create_index("events_item", "events", ["item_key"])
    op.create_index("events_run", "events", ["run_id", "state"])


def _halts() -> None:
    op.create_table(
        "halts",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("account_id", sa.Integer(), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("since_at", sa.Float(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("from_task", sa.Integer(), nullable=False),
        sa.Column("credits", sa.Float()),
        sa.Column("quota", sa.Float()),
        sa.Column("balance_at", sa.Float()),
        sa.Column("probes", sa.Integer(), nullable=False),
        sa.Column("probe_after_at", sa.Float(), nullable=False),
        sa.Column("probe_run_id", sa.Text()),
        sa.Column("probe_key", sa.Text()),
        sa.Column("closed_at", sa.Float()),
        sa.CheckConstraint("kind IN ('credits', 'unstable')", name="halts_kind"),
    )
    op.create_index(
        "halts_open", "halts", ["account_id", "kind"], unique=True, sqlite_where=sa.text("closed_at IS NULL")
    )
