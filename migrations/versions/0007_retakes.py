"""Tasks have the parameters that the model ignored, and rows the highest take that they have used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns; nothing is known about the past."""
    op.execute("ALTER TABLE tasks ADD COLUMN ignored TEXT")
    op.execute("ALTER TABLE rows ADD COLUMN highest_take INTEGER")
    op.create_index("tasks_ignored", "tasks", ["item_key"], sqlite_where=sa.text("ignored IS NOT NULL"))
