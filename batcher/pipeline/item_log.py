"""Log lines about items: each names the rows of the item, its attempt and its task."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from batcher.ledger.ledger import Connection
from batcher.ledger.queries.names import rows_of_items
from batcher.log import LOGGER, log


class ItemLog:
    """Logs what happens to items, with the batch and the ids of their rows.

    These are read when an item is taken up, in the transaction that does so, and only if anybody reads the log.
    """

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}

    def read(self, conn: Connection, keys: Sequence[str]) -> None:
        """Read the rows of these items."""
        if LOGGER.isEnabledFor(logging.WARNING):
            self._rows |= rows_of_items(conn, keys)

    def of(self, key: str, attempt: int, task_id: str | None, **facts: Any) -> Any:
        """A logger for lines about the item."""
        return log.bind(**self._rows.get(key, {}), key=key, attempt=attempt, task_id=task_id, **facts)

    def forget(self, key: str) -> None:
        """The item has ended; this run logs nothing more about it."""
        self._rows.pop(key, None)
