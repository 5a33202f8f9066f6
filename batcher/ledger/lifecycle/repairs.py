"""The recorded audio files of done items, and the records that `verify --heal` writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select, update

from batcher.item import Event, State
from batcher.ledger.lifecycle.transitions import add_event
from batcher.ledger.records import FileRecord
from batcher.ledger.storage.schema import accounts, batches, files, items, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFile:
    """The audio file of one done item. `path` is relative to `out_dir`, which is relative to the ledger's folder.

    Its task can be read again with a token of the account `user_id` at `origin`.
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
    """The audio file of every done item, oldest first, including items that no row uses any more."""
    return [SavedFile(**row._mapping) for row in conn.execute(_SAVED)]


def copies(conn: Connection, key: str) -> list[str]:
    """Paths where the item's audio was linked for rows of any version, relative to the ledger's folder."""
    path = batches.c.out_dir + "/" + rows.c.linked_output
    query = select(path).join(batches, batches.c.id == rows.c.batch_id)
    return list(conn.execute(query.where(rows.c.linked_key == key)).scalars())


def record_healed(conn: Connection, key: str, *, at: float, detail: str) -> None:
    """A file of the done item has been restored to its path."""
    add_event(conn, Event.SAVED, key, at=at, detail=detail)


def record_fetched(conn: Connection, key: str, file: FileRecord, *, at: float) -> None:
    """The audio of a done item was downloaded again, and is about to be renamed to its path.

    Its bytes may differ from those of the first download; the ledger then records the new ones.
    """
    conn.execute(
        update(files)
        .where(files.c.item_key == key)
        .values(sha256=file.sha256, bytes=file.bytes, audio_seconds=file.audio_seconds, recorded_at=at, saved_at=at)
    )
