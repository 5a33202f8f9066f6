"""From submitted to done: records polls of tasks and their audio. Each function runs in an open transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, bindparam, exists, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.item import COLLECTABLE, Event, State
from batcher.ledger.lifecycle import halts
from batcher.ledger.lifecycle.account import lock_account
from batcher.ledger.lifecycle.transitions import NO_ERROR, move
from batcher.ledger.records import Batch, FileRecord, OpenTask, TaskEnd
from batcher.ledger.storage.chosen import is_chosen
from batcher.ledger.storage.filters import IS_FREE, of_wanted
from batcher.ledger.storage.planner import without_index
from batcher.ledger.storage.schema import files, items, rows, tasks
from batcher.ledger.storage.sharing import is_shared
from batcher.ledger.storage.statements import Prepared, every

GONE_AFTER_SECONDS: Final = 180.0
GONE_AFTER_POLLS: Final = 4
"""A task is gone after this many 404 answers over this time."""
UNCOLLECTABLE_AFTER_SECONDS: Final = 24 * 3600.0
UNCOLLECTABLE_AFTER_POLLS: Final = 10
"""Audio is uncollectable after this many reads without usable audio over this time."""


def record_rendered(conn: Connection, ending: TaskEnd) -> bool:
    """The task succeeded. Returns whether the item moved."""
    _end_task(conn, ending)
    halts.after_ending(conn, ending.task, ending.at, rendered=True)
    return _move(conn, Event.RENDERED, ending, {"not_before_at": 0.0})


def record_failed(conn: Connection, ending: TaskEnd) -> bool:
    """The task failed, with the error of `ending`. Returns whether the item moved."""
    _end_task(conn, ending)
    halts.after_ending(conn, ending.task, ending.at, rendered=False)
    return _move(conn, Event.REMOTE_FAILED, ending, _error(ending))


def record_unfunded(conn: Connection, ending: TaskEnd) -> bool:
    """The task failed for lack of credits: halt the account.

    Returns whether the item may be created again after a recheck, which it may not if the task was charged.
    """
    charged = _was_charged(conn, ending)
    if charged:
        moved = record_failed(conn, ending)
    else:
        values = _error(ending) | {"task_id": None, "recheck_task_id": ending.task.task_id, "recheck_run_id": None}
        moved = _move(conn, Event.UNFUNDED, ending, values)
    if moved:
        detail = f"a task failed for lack of credits ({ending.error_code})"
        halts.open_halt(conn, ending.task.account_id, "credits", ending.at, detail, ending.run_id, from_task=True)
    return moved and not charged


def _was_charged(conn: Connection, ending: TaskEnd) -> bool:
    """Whether the task cost something, according to the latest answer that reports its cost."""
    if ending.credits is not None:
        return ending.credits > 0
    recorded: float | None = conn.execute(select(tasks.c.credits).where(_is_task(ending.task))).scalar()
    return (recorded or 0.0) > 0


def record_missing(conn: Connection, ending: TaskEnd) -> bool:
    """The API answered 404 for the task. Returns whether it has done so long enough, and the item is gone."""
    since, polls = _count(conn, ending, "missing")
    if ending.at - since < GONE_AFTER_SECONDS or polls < GONE_AFTER_POLLS:
        return False
    _end_task(conn, ending)
    halts.after_ending(conn, ending.task, ending.at, rendered=False)
    return _move(conn, Event.GONE, ending, _error(ending))


def record_found(conn: Connection, task: OpenTask) -> None:
    """The API returned the task after all: reset the count of its 404 answers."""
    conn.execute(update(tasks).where(_is_task(task)).values(missing_since_at=None, missing_looks=0))


def record_overdue(conn: Connection, task: OpenTask, *, at: float) -> None:
    """The task has shown no progress for far too long: it takes no slot any more."""
    conn.execute(update(tasks).where(_is_task(task), tasks.c.overdue_at.is_(None)).values(overdue_at=at))


def record_undelivered(conn: Connection, ending: TaskEnd, *, next_try_at: float, unusable: bool) -> bool:
    """The audio could not be downloaded, for the reason in the error of `ending`; the next try is due later.

    `unusable`: the API returned no audio, or something else. Returns whether that has lasted long enough, and the item
    is gone.
    """
    if unusable:
        since, polls = _count(conn, ending, "unusable")
        if ending.at - since >= UNCOLLECTABLE_AFTER_SECONDS and polls >= UNCOLLECTABLE_AFTER_POLLS:
            return _move(conn, Event.UNCOLLECTABLE, ending, _error(ending))
    _update_rendered(conn, ending.task, _error(ending) | {"not_before_at": next_try_at})
    return False


def record_tried(conn: Connection, task: OpenTask, *, at: float) -> None:
    """The run ends during the download of the audio: the next run begins with items that were never tried."""
    _update_rendered(conn, task, {"not_before_at": at})


def _update_rendered(conn: Connection, task: OpenTask, values: Mapping[str, Any]) -> None:
    same = (items.c.key == task.key, items.c.attempt == task.attempt, items.c.task_id == task.task_id)
    conn.execute(update(items).where(*same, items.c.state == State.RENDERED).values(values))


def record_file(conn: Connection, task: OpenTask, file: FileRecord, *, out_dir: str, at: float) -> None:
    """A verified file is on disk under its temporary name, about to be renamed to its path."""
    values = {
        "item_key": task.key,
        "path": file.path,
        "sha256": file.sha256,
        "bytes": file.bytes,
        "audio_seconds": file.audio_seconds,
        "out_dir": out_dir,
        "recorded_at": at,
    }
    _STORE_FILE.run(conn, values)


def record_saved(conn: Connection, task: OpenTask, *, at: float, run_id: str) -> bool:
    """The recorded file is at its final path, durably. Returns whether the item moved."""
    _FILE_SAVED.run(conn, {"_key": task.key, "saved_at": at})
    key, attempt = task.key, task.attempt
    return move(conn, Event.SAVED, key, attempt, at=at, run_id=run_id, of_task=task.task_id, values=NO_ERROR)


Link = tuple[int, str, str, str]
"""Batch number and id of a row, the key of its item, and the output where the item's audio was linked."""


def record_delivered(conn: Connection, task: OpenTask, links: Sequence[Link], *, at: float, run_id: str) -> bool:
    """The recorded file is at its final path, durably, and linked to these rows. Returns whether the item moved."""
    if links:
        record_links(conn, links, at=at)
    return record_saved(conn, task, at=at, run_id=run_id)


def record_links(conn: Connection, links: Sequence[Link], *, at: float) -> None:
    """These rows' outputs hold their items' audio from now on."""
    for batch_id, row_id, key, output in links:
        link = {"linked_key": key, "linked_output": output, "linked_at": at}
        _STORE_LINK.run(conn, {"_batch": batch_id, "_row": row_id} | link)


_file_columns = ("path", "sha256", "bytes", "audio_seconds", "out_dir", "recorded_at")
_new_file = upsert(files).values(every("item_key", *_file_columns))
_STORE_FILE: Final = Prepared(
    _new_file.on_conflict_do_update(
        index_elements=["item_key"],
        set_={name: _new_file.excluded[name] for name in _file_columns},
        where=files.c.saved_at.is_(None),
    )
)
_FILE_SAVED: Final = Prepared(
    update(files).where(files.c.item_key == bindparam("_key")).values(saved_at=bindparam("saved_at"))
)
_STORE_LINK: Final = Prepared(
    update(rows)
    .where(rows.c.batch_id == bindparam("_batch"), rows.c.id == bindparam("_row"))
    .values(every("linked_key", "linked_output", "linked_at"))
)


def forget_links(conn: Connection, batch_id: int, row_ids: Sequence[str]) -> None:
    """The links at the outputs of these rows no longer exist."""
    if row_ids:
        conn.execute(_FORGET_LINK, [{"_batch": batch_id, "_row": row_id} for row_id in row_ids])


_FORGET_LINK: Final = (
    update(rows).where(rows.c.batch_id == bindparam("_batch"), rows.c.id == bindparam("_row")).values(linked_key=None)
)


def _move(conn: Connection, event: Event, ending: TaskEnd, values: Mapping[str, Any] | None = None) -> bool:
    task = ending.task
    return move(
        conn,
        event,
        task.key,
        task.attempt,
        at=ending.at,
        run_id=ending.run_id,
        of_task=task.task_id,
        detail=ending.error_code or ending.word,
        values=values,
    )


def _is_task(task: OpenTask) -> ColumnElement[bool]:
    return and_(tasks.c.account_id == task.account_id, tasks.c.task_id == task.task_id)


def _error(ending: TaskEnd) -> dict[str, Any]:
    return {
        "error_code": ending.error_code,
        "error_message": ending.error_message,
        "error_request_id": ending.request_id,
        "error_http_status": ending.http_status,
    }


def _end_task(conn: Connection, ending: TaskEnd) -> None:
    """Record how the task ended; a later read never changes it."""
    values: dict[str, Any] = {
        "ended_at": ending.at,
        "looked_at": ending.at,
        "looks": ending.polls,
        "word": ending.word,
        "raw": ending.raw or None,
    }
    if ending.credits is not None:
        values["credits"] = ending.credits
    if ending.ignored is not None:
        values["ignored"] = ending.ignored
    task = {"_account": ending.task.account_id, "_task": ending.task.task_id}
    _update_open_task(tuple(values)).run(conn, task | values)


@cache
def _update_open_task(names: tuple[str, ...]) -> Prepared:
    is_task = (tasks.c.account_id == bindparam("_account"), tasks.c.task_id == bindparam("_task"))
    return Prepared(update(tasks).where(*is_task, tasks.c.ended_at.is_(None)).values(every(*names)))


def _count(conn: Connection, ending: TaskEnd, what: str) -> tuple[float, int]:
    """Count a `missing` or `unusable` poll. Returns the time of the first of them, and their number."""
    since, polls = tasks.c[f"{what}_since_at"], tasks.c[f"{what}_looks"]
    counted = {since: func.coalesce(since, ending.at), polls: polls + 1}
    conn.execute(update(tasks).where(_is_task(ending.task)).values(counted))
    row = conn.execute(select(since, polls).where(_is_task(ending.task))).one()
    return row[0], row[1]


def take_over(
    conn: Connection, account_id: int, wanted: Sequence[Batch], *, run_id: str, only_chosen: bool = False
) -> list[OpenTask]:
    """Every task of the account that is still to be collected and that no other run collects, whether its rows are
    wanted or not: they are this run's from now on.

    With `only_chosen`, just those in the table `chosen` are wanted.
    """
    lock_account(conn, account_id)
    found = _free_tasks(conn, account_id, wanted, only_chosen=only_chosen)
    if is_shared(conn) and found:
        ours = items.c.key.in_(bindparam("_keys", expanding=True))
        keys = [task.key for task in found]
        for at in range(0, len(keys), _AT_ONCE):
            conn.execute(update(items).where(ours).values(run_id=run_id), {"_keys": keys[at : at + _AT_ONCE]})
    return found


_AT_ONCE: Final = 10_000
"""Items that one statement names."""


def _free_tasks(conn: Connection, account_id: int, wanted: Sequence[Batch], *, only_chosen: bool) -> list[OpenTask]:
    is_wanted = exists().where(rows.c.item_key == items.c.key, of_wanted(wanted, by_item=True))
    if only_chosen:
        is_wanted = is_wanted.where(is_chosen)
    query = (
        select(
            items.c.key,
            items.c.attempt,
            items.c.task_id,
            items.c.format,
            items.c.model,
            func.length(items.c.text).label("chars"),
            tasks.c.accepted_at,
            (items.c.state == State.RENDERED).label("rendered"),
            items.c.not_before_at.label("next_try_at"),
            is_wanted.label("wanted"),
        )
        .join(tasks, and_(tasks.c.account_id == items.c.account_id, tasks.c.task_id == items.c.task_id))
        .where(without_index(items.c.account_id) == account_id, items.c.state.in_(COLLECTABLE), IS_FREE)
        .order_by(tasks.c.accepted_at, items.c.task_id)
    )
    return [OpenTask(account_id=account_id, **row._mapping) for row in conn.execute(query)]


def recorded_files(conn: Connection) -> list[tuple[OpenTask, str, str, str]]:
    """Rendered items with a recorded file that may not be at its path yet: task, output folder, path, SHA-256. Those
    that a run is delivering are left out."""
    query = (
        select(items, files.c.out_dir, files.c.path, files.c.sha256)
        .join(files, files.c.item_key == items.c.key)
        .where(items.c.state == State.RENDERED, IS_FREE)
    )
    found = []
    for row in conn.execute(query):
        task = OpenTask(
            key=row.key,
            attempt=row.attempt,
            account_id=row.account_id,
            task_id=row.task_id,
            format=row.format,
            chars=len(row.text),
            accepted_at=row.changed_at,
        )
        found.append((task, row.out_dir, row.path, row.sha256))
    return found
