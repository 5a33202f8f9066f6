"""Every row that has used a later take than the first has the highest of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Fill it in where only the current take was known, and find such rows by it."""
    op.execute("UPDATE rows SET highest_take = max(take, coalesce(highest_take, 1)) WHERE take > 1")
    op.drop_index("rows_takes", "rows")
    op.create_index("rows_takes", "rows", ["batch_id"], sqlite_where=sa.text("highest_take > 1"))
