"""Several runs may work on a ledger on a server: whose an item is, and what the runs of an account share."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"

_COLUMNS = (
    ("accounts", "next_create_at", "FLOAT"),
    ("accounts", "closed_until_at", "FLOAT"),
    ("items", "run_id", "TEXT"),
    ("runs", "shift_id", "TEXT"),
    ("runs", "is_creating", "INTEGER"),
    ("tasks", "overdue_at", "FLOAT"),
    ("notices", "run_id", "TEXT"),
)


def upgrade() -> None:
    """Add the columns. What earlier runs left open belongs to nobody."""
    for table, name, kind in _COLUMNS:
        op.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}{_collation(kind)}")


def _collation(kind: str) -> str:
    """Texts on a server are compared by their characters."""
    return ' COLLATE "C"' if kind == "TEXT" and op.get_bind().dialect.name == "postgresql" else ""
