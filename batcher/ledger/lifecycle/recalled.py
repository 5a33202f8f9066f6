"""A ledger that may not know all that was bought: because it is a copy, went back in time, or is new beside old audio.

What results files say is kept in `recalled` until its rows are imported and a run has found the account; then each item
gets its task or its file. Where results files may be incomplete, whatever else is still to be bought is put in doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, delete, func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.item import Event, State, sources
from batcher.ledger.lifecycle import collection, decisions
from batcher.ledger.lifecycle.transitions import move
from batcher.ledger.records import FileRecord, OpenTask, TaskEnd
from batcher.ledger.storage.schema import attempts, balances, items, meta, recalled, rows, runs

MAYBE_BOUGHT: Final = frozenset(set(map(str, State)) - {State.PENDING, State.REJECTED})
"""States of results lines that say that a create was, or may have been, paid for."""
Gap = Literal["none", "some"]
"""Whether something may have been bought that the results files do not tell of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What tells one ledger from another, and from its own past. `copied_at`: it is a backup, and no run knows it."""

    ledger_id: str
    world: str
    copied_at: float | None


def identity(conn: Connection) -> Identity:
    """Who the ledger is."""
    facts = dict(conn.execute(select(meta.c.name, meta.c.value)).all())
    copied_at = facts.get("copied_at")
    return Identity(
        ledger_id=facts["ledger_id"], world=facts["world"], copied_at=None if copied_at is None else float(copied_at)
    )


def knows_run(conn: Connection, run_id: str) -> bool:
    """Whether the ledger has that run."""
    return conn.execute(select(runs.c.id).where(runs.c.id == run_id)).first() is not None


def recall(conn: Connection, lines: Iterable[dict[str, Any]], *, at: float) -> int:
    """Keep what results lines say of items that may be bought; `out_dir` in each is relative to the ledger's folder.

    Returns how many there were.
    """
    number = 0
    for line in lines:
        if not line.get("key") or line.get("state") not in MAYBE_BOUGHT:
            continue
        values = {name: line.get(name) for name in ("batch", "state", "task_id", "out_dir", "output", "sha256")}
        values |= {"bytes": line.get("bytes"), "audio_seconds": line.get("audio_seconds"), "recalled_at": at}
        values |= {"row_id": line["id"], "item_key": line["key"], "take": line.get("take") or 1}
        statement = upsert(recalled).values(values)
        conn.execute(statement.on_conflict_do_update(index_elements=["batch", "row_id"], set_=values))
        number += 1
    return number


def begin(conn: Connection, gap: Gap) -> None:
    """The ledger is restored on a person's word; what that means for items is still to be taken up, kill or no kill."""
    conn.execute(delete(meta).where(meta.c.name == "copied_at"))
    worst = upsert(meta).values(name="restoring", value=gap)
    on_conflict = {"value": func.max(meta.c.value, gap)}  # "some" sorts behind "none"
    conn.execute(worst.on_conflict_do_update(index_elements=["name"], set_=on_conflict))


def due(conn: Connection) -> bool:
    """Whether something is to be taken up."""
    restoring = select(meta.c.name).where(meta.c.name == "restoring")
    told = select(recalled.c.item_key).join(items, items.c.key == recalled.c.item_key)
    return any(conn.execute(query.limit(1)).first() is not None for query in (restoring, told))


def told(conn: Connection, limit: int) -> list[Row[Any]]:
    """Items of which results files tell, with what they tell; a line with a file before one without."""
    query = (
        select(recalled, items.c.attempt, items.c.format, func.length(items.c.text).label("chars"))
        .join(items, items.c.key == recalled.c.item_key)
        .order_by(recalled.c.item_key, recalled.c.sha256.is_(None))
        .limit(limit)
    )
    return list(conn.execute(query))


def take_up(
    conn: Connection, case: Row[Any], file: FileRecord | None, *, account_id: int, run_id: str, at: float
) -> State:
    """Give the item what results files say: its file (which is in place), its task, or a doubt. Returns its state."""
    state, attempt = _state(conn, case.item_key)
    if state is State.PENDING:
        attempt = _doubt(conn, case.item_key, attempt, account_id=account_id, at=at, run_id=run_id)
        state = State.IN_DOUBT
    if state in sources(Event.ADOPTED) and case.task_id is not None:
        decisions.adopt(
            conn, case.item_key, attempt, account_id=account_id, task_id=case.task_id, at=at, who="results file"
        )
    state, attempt = _state(conn, case.item_key)
    if file is not None and state in (State.SUBMITTED, State.RENDERED):
        task = _task(conn, case)
        collection.record_rendered(conn, TaskEnd(task=task, at=at, run_id=run_id, looks=0, word="told"))
        collection.record_file(conn, task, file, out_dir=case.out_dir, at=at)
        collection.record_saved(conn, task, at=at, run_id=run_id)
    conn.execute(delete(recalled).where(recalled.c.item_key == case.item_key))
    return _state(conn, case.item_key)[0]


def finish(conn: Connection, has_audio: Callable[[str, str], bool], *, account_id: int, run_id: str, at: float) -> int:
    """All that was told is taken up: where there may be a gap, put in doubt what else would be bought.

    So is, gap or no gap, an item whose audio (by key and format) lies there although nothing tells of it. Returns how
    many items that are.
    """
    gap = conn.execute(select(meta.c.value).where(meta.c.name == "restoring")).scalar()
    query = select(items.c.key, items.c.attempt, items.c.format).where(items.c.state == State.PENDING)
    found = [row for row in conn.execute(query).all() if gap == "some" or has_audio(row.key, row.format)]
    for row in found:
        _doubt(conn, row.key, row.attempt, account_id=account_id, at=at, run_id=run_id)
    conn.execute(delete(meta).where(meta.c.name == "restoring"))
    return len(found)


def _state(conn: Connection, key: str) -> tuple[State, int]:
    row = conn.execute(select(items.c.state, items.c.attempt).where(items.c.key == key)).one()
    return State(row.state), row.attempt


def _doubt(conn: Connection, key: str, attempt: int, *, account_id: int, at: float, run_id: str) -> int:
    """Write down the create that this ledger does not know of, as one whose answer is lost. Returns its number."""
    missing = "bought, or not, in a time that this ledger does not know: it was restored"
    batch = select(func.min(rows.c.batch_id)).where(rows.c.item_key == key)
    since = select(func.max(balances.c.at)).where(balances.c.run_id.is_distinct_from(run_id))  # the last that is known
    values = {"item_key": key, "attempt": attempt + 1, "run_id": run_id, "account_id": account_id}
    values |= {"batch_id": conn.execute(batch).scalar(), "intended_at": conn.execute(since).scalar() or at}
    answer = {"answered_at": at, "outcome": "lost", "cause": "restored", "error_message": missing}
    conn.execute(insert(attempts).values(**values, **answer))
    move(conn, Event.CLAIM, key, attempt, at=at, run_id=run_id, detail="restored", attempt=attempt + 1)
    move(conn, Event.LOST, key, attempt + 1, at=at, run_id=run_id, detail="restored", error_message=missing)
    return attempt + 1


def _task(conn: Connection, case: Row[Any]) -> OpenTask:
    item = conn.execute(select(items).where(items.c.key == case.item_key)).one()
    names = {"account_id": item.account_id, "task_id": item.task_id, "format": item.format, "chars": case.chars}
    return OpenTask(key=item.key, attempt=item.attempt, accepted_at=item.changed_at, **names)
