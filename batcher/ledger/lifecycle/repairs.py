"""What lies on disk for done items, as the ledger remembers it, and what healing writes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select, update

from batcher.item import Event, State
from batcher.ledger.lifecycle.transitions import note
from batcher.ledger.records import FileRecord
from batcher.ledger.storage.schema import accounts, batches, files, items, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFile:
    """The audio of one done item. `path` is relative to `out_dir`, which is relative to the ledger's folder.

    Its task can be read again with the token of the account `user_id` at `origin`.
    """

    key: str
    account_id: int
    user_id: str
    origin: str
    task_id: str
    format: str
    chars: int
    out_dir: str
    path: str
    sha256: str
    bytes: int


_SAVED: Final = (
    select(
        items.c.key,
        items.c.account_id,
        accounts.c.user_id,
        accounts.c.origin,
        items.c.task_id,
        items.c.format,
        func.length(items.c.text).label("chars"),
        files.c.out_dir,
        files.c.path,
        files.c.sha256,
        files.c.bytes,
    )
    .join(files, files.c.item_key == items.c.key)
    .join(accounts, accounts.c.id == items.c.account_id)
    .where(items.c.state == State.DONE)
    .order_by(files.c.recorded_at, items.c.key)
)


def saved(conn: Connection) -> list[SavedFile]:
    """The audio of every done item, whether a row still wants it or not, oldest first."""
    return [SavedFile(**row._mapping) for row in conn.execute(_SAVED)]


def copies(conn: Connection, key: str) -> list[str]:
    """Where the item's audio was put for rows of any version, relative to the ledger's folder."""
    place = batches.c.out_dir + "/" + rows.c.linked_output
    query = select(place).join(batches, batches.c.id == rows.c.batch_id)
    return list(conn.execute(query.where(rows.c.linked_key == key)).scalars())


def record_healed(conn: Connection, key: str, *, at: float, detail: str) -> None:
    """A file of the done item is in its place once more."""
    note(conn, Event.SAVED, key, at=at, detail=detail)


def record_fetched(conn: Connection, key: str, file: FileRecord, *, at: float) -> None:
    """The audio of a done item was fetched once more, and is about to be renamed to its path.

    A provider need not render the same bytes twice: from here on these are the item's.
    """
    values = {"sha256": file.sha256, "bytes": file.bytes, "audio_seconds": file.audio_seconds}
    values |= {"recorded_at": at, "saved_at": at}
    conn.execute(update(files).where(files.c.item_key == key).values(values))
