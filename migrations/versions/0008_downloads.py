"""`items.not_before_at` is the next download of a rendered item; a create no longer has one. Costs are credible."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"

_MAX_CREDITS = 1e15


def upgrade() -> None:
    """Forget when creates were due, which no run waits for any more, and costs that no account can have."""
    op.execute("UPDATE items SET not_before_at = 0 WHERE not_before_at <> 0")
    for table in ("tasks", "attempts"):
        op.execute(f"UPDATE {table} SET credits = NULL WHERE credits < 0 OR credits > {_MAX_CREDITS}")  # noqa: S608
    for table in ("balances", "halts"):
        for column in ("credits", "quota"):
            op.execute(f"UPDATE {table} SET {column} = NULL WHERE abs({column}) > {_MAX_CREDITS}")  # noqa: S608
