"""Restored rows: what results files report of items that the ledger may have lost, for `--restored`.

A ledger is incomplete if it is a copy, an older state, or new beside old audio. `add` stores the reported rows in the
table `recalled`; once their manifests are imported and the account is found, `apply` assigns each item its task or its
file. If the results files may be incomplete, `finish` puts in doubt every other item that is not bought yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, delete, func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.item import Event, State
from batcher.ledger.lifecycle import collection, decisions
from batcher.ledger.lifecycle.transitions import move
from batcher.ledger.records import FileRecord, OpenTask, TaskEnd
from batcher.ledger.storage.functions import greatest
from batcher.ledger.storage.schema import attempts, balances, items, meta, recalled, rows

_MAY_BE_BOUGHT: Final = frozenset(set(map(str, State)) - {State.PENDING, State.REJECTED})
"""States in results files of items that were bought or may have been."""
Gap = Literal["none", "some"]
"""Whether items may have been bought that the results files do not report."""


def add(conn: Connection, lines: Iterable[dict[str, Any]], *, at: float) -> int:
    """Store the lines of results files whose items may have been bought. Returns their number.

    `out_dir` in each line is relative to the ledger's folder.
    """
    number = 0
    ended: dict[tuple[str, str], int] = {}  # by batch and folder, the last row's number; 0 once one is out of sequence
    for line in lines:
        place = (line["batch"], line["out_dir"])
        ended[place] = line["row"] if line.get("row") == ended.get(place, 0) + 1 and ended.get(place) != 0 else 0
        if not line.get("key") or line.get("state") not in _MAY_BE_BOUGHT:
            continue
        values = _row(line) | {"recalled_at": at}
        statement = upsert(recalled).values(values)
        conn.execute(statement.on_conflict_do_update(index_elements=["batch", "row_id"], set_=values))
        number += 1
    for batch, _ in (place for place, last in ended.items() if last):
        conn.execute(upsert(meta).values(name=_counted_name(batch), value="").on_conflict_do_nothing())
    return number


def add_lost_intents(conn: Connection, intents: Iterable[tuple[str, int]], *, at: float) -> int:
    """Store intents (item, attempt) that the ledger lacks as restored rows in doubt. Returns how many are new."""
    number = 0
    for key, attempt in intents:
        known = (attempts.c.item_key == key, attempts.c.attempt == attempt)
        if conn.execute(select(attempts.c.attempt).where(*known)).first() is None:
            row = {"batch": "", "row_id": f"{key} {attempt}", "item_key": key, "state": State.IN_DOUBT, "out_dir": ""}
            new = upsert(recalled).values(row | {"take": 1, "recalled_at": at}).on_conflict_do_nothing()
            number += conn.execute(new.returning(recalled.c.row_id)).first() is not None
    return number


def has_counted_rows(conn: Connection, batch: str) -> bool:
    """Whether the restored results of the batch number its rows from 1 without gaps, as the first versions did."""
    return conn.execute(select(meta.c.name).where(meta.c.name == _counted_name(batch))).first() is not None


def _counted_name(batch: str) -> str:
    return f"counted rows {batch}"


def _row(line: dict[str, Any]) -> dict[str, Any]:
    names = ("batch", "state", "task_id", "out_dir", "output", "sha256", "bytes", "audio_seconds")
    values = {name: line.get(name) for name in names}
    return values | {"row_id": line["id"], "item_key": line["key"], "take": line.get("take") or 1}


def begin(conn: Connection, gap: Gap) -> None:
    """Mark the ledger as being restored, until `finish` has run, in this run or a later one."""
    conn.execute(delete(meta).where(meta.c.name == "copied_at"))
    mark = upsert(meta).values(name="restoring", value=gap)
    worse = {"value": greatest(meta.c.value, gap)}  # "some" sorts after "none"
    conn.execute(mark.on_conflict_do_update(index_elements=["name"], set_=worse))


def due(conn: Connection) -> bool:
    """Whether restored rows must still be applied, or a restoration must still be finished."""
    restoring = select(meta.c.name).where(meta.c.name == "restoring")
    applicable = select(recalled.c.item_key).join(items, items.c.key == recalled.c.item_key)
    return any(conn.execute(query.limit(1)).first() is not None for query in (restoring, applicable))


def next_rows(conn: Connection, limit: int) -> list[Row[Any]]:
    """Up to `limit` restored rows with their imported items; of an item's rows, those with a file first."""
    query = (
        select(recalled, items.c.attempt, items.c.format, func.length(items.c.text).label("chars"))
        .join(items, items.c.key == recalled.c.item_key)
        .order_by(recalled.c.item_key, recalled.c.sha256.is_(None))
        .limit(limit)
    )
    return list(conn.execute(query))


def apply(
    conn: Connection, row: Row[Any], file: FileRecord | None, *, account_id: int, run_id: str, at: float
) -> State:
    """Assign the item its restored file (already at its path), its task, or a doubt. Returns its state."""
    state, attempt = _state(conn, row.item_key)
    if state is State.PENDING:
        attempt = _put_in_doubt(conn, row.item_key, attempt, account_id=account_id, at=at, run_id=run_id)
    if row.task_id is not None:
        decisions.adopt(
            conn, row.item_key, attempt, account_id=account_id, task_id=row.task_id, at=at, who="results file"
        )
    state, _ = _state(conn, row.item_key)
    if file is not None and state in (State.SUBMITTED, State.RENDERED):
        task = _task(conn, row)
        collection.record_rendered(conn, TaskEnd(task=task, at=at, run_id=run_id, polls=0, word="restored"))
        collection.record_file(conn, task, file, out_dir=row.out_dir, at=at)
        collection.record_saved(conn, task, at=at, run_id=run_id)
    conn.execute(delete(recalled).where(recalled.c.item_key == row.item_key))
    return _state(conn, row.item_key)[0]


def finish(conn: Connection, has_audio: Callable[[str, str], bool], *, account_id: int, run_id: str, at: float) -> int:
    """All restored rows are applied: put other items that may have been bought in doubt. Returns their number.

    With a gap, these are all pending items; otherwise those whose audio (by key and format) exists unreported.
    """
    gap = conn.execute(select(meta.c.value).where(meta.c.name == "restoring")).scalar()
    query = select(items.c.key, items.c.attempt, items.c.format).where(items.c.state == State.PENDING)
    found = [row for row in conn.execute(query).all() if gap == "some" or has_audio(row.key, row.format)]
    for row in found:
        _put_in_doubt(conn, row.key, row.attempt, account_id=account_id, at=at, run_id=run_id)
    conn.execute(delete(meta).where(meta.c.name == "restoring"))
    return len(found)


def _state(conn: Connection, key: str) -> tuple[State, int]:
    row = conn.execute(select(items.c.state, items.c.attempt).where(items.c.key == key)).one()
    return State(row.state), row.attempt


def _put_in_doubt(conn: Connection, key: str, attempt: int, *, account_id: int, at: float, run_id: str) -> int:
    """Record a create that is missing from this ledger as one whose answer was lost. Returns its attempt number."""
    missing = "may have been bought: the restored ledger has no record of it"
    batch = select(func.min(rows.c.batch_id)).where(rows.c.item_key == key)
    last_balance = select(func.max(balances.c.at)).where(balances.c.run_id.is_distinct_from(run_id))
    new = insert(attempts).values(
        item_key=key,
        attempt=attempt + 1,
        run_id=run_id,
        account_id=account_id,
        batch_id=conn.execute(batch).scalar(),
        intended_at=conn.execute(last_balance).scalar() or at,
        answered_at=at,
        outcome="lost",
        cause="restored",
        error_message=missing,
    )
    conn.execute(new)
    move(conn, Event.CLAIM, key, attempt, at=at, run_id=run_id, detail="restored", values={"attempt": attempt + 1})
    move(conn, Event.LOST, key, attempt + 1, at=at, run_id=run_id, detail="restored", values={"error_message": missing})
    return attempt + 1


def _task(conn: Connection, row: Row[Any]) -> OpenTask:
    item = conn.execute(select(items).where(items.c.key == row.item_key)).one()
    return OpenTask(
        key=item.key,
        attempt=item.attempt,
        account_id=item.account_id,
        task_id=item.task_id,
        format=item.format,
        chars=row.chars,
        accepted_at=item.changed_at,
    )
