"""Rows that cannot be bought because the API does not know their voice: skipped as invalid, as by an import."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection

from batcher.ledger.records import Batch
from batcher.ledger.storage.statements import execute

_SKIP: Final = """
    UPDATE rows SET skipped = 'invalid', reason = :reason, item_key = NULL
    WHERE batch_id = :batch AND is_current = 1 AND item_key IN (
        SELECT key FROM items WHERE state = 'pending' AND voice = :voice)"""


def skip_rows(conn: Connection, batch: Batch, voices: Sequence[str], why: Callable[[str], str]) -> None:
    """Skip the batch's rows whose items are to be created with one of these voices; `why` gives a voice's reason.

    The next run reads the manifest again, and so asks about the voices again.
    """
    for voice in voices:
        execute(conn, _SKIP, {"batch": batch.batch_id, "voice": voice, "reason": why(voice)})
    execute(conn, "UPDATE batches SET trusted = NULL WHERE id = ?", (batch.batch_id,))
