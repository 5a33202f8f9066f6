"""What the ledger can tell of rows and items: counts, outputs, results, and which a name names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, case, false, func, or_, select

from batcher.errors import UsageError
from batcher.item import COLLECTABLE, State
from batcher.ledger.records import Wanted
from batcher.ledger.schema import REPEAT_MARK, accounts, batches, events, files, items, of_wanted, recalled, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Rows and items of some batches: `states` has every state; `invalid` and `empty` count rows that were skipped."""

    rows: int
    items: int
    states: dict[str, int]
    invalid: int
    empty: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A row's output: the item's audio that belongs there, and what was put there last.

    Paths of sources are relative to the ledger's folder, `output` and `linked_output` to `out_dir`, itself relative.
    """

    batch_id: int
    row_id: str
    line: int
    key: str
    out_dir: str
    output: str
    saved: bool  # the item's audio is on disk
    source: str | None
    sha256: str | None
    linked: bool  # it was put at the output
    linked_output: str | None
    linked_source: str | None
    linked_sha256: str | None


def current_batches(conn: Connection) -> list[Wanted]:
    """Every batch of the ledger, as it reads now."""
    found = conn.execute(select(batches).order_by(batches.c.id))
    return [Wanted(batch_id=row.id, name=row.name, version=row.version, out_dir=row.out_dir) for row in found]


def count(conn: Connection, wanted: Sequence[Wanted]) -> Counts:
    """Count the rows of `wanted`, and the items that they stand for, by state."""
    ours = select(rows.c.item_key).where(of_wanted(wanted), rows.c.item_key.is_not(None)).distinct().subquery()
    by_state = select(items.c.state, func.count()).join(ours, ours.c.item_key == items.c.key).group_by(items.c.state)
    states = dict.fromkeys(map(str, State), 0) | dict(conn.execute(by_state).all())
    invalid, empty = (func.count(case((rows.c.skipped == word, 1))) for word in ("invalid", "empty"))
    total = conn.execute(select(func.count(), invalid, empty).select_from(rows).where(of_wanted(wanted))).one()
    return Counts(rows=total[0], items=sum(states.values()), states=states, invalid=total[1], empty=total[2])


def collectable(conn: Connection) -> int:
    """How many items of the ledger have a task that is still to be collected."""
    return conn.execute(select(func.count()).where(items.c.state.in_(COLLECTABLE))).scalar_one()


def foreign_tasks(conn: Connection, wanted: Sequence[Wanted], account_id: int | None) -> dict[str, int]:
    """Open tasks of wanted rows that belong to another account: how many, by that account's name."""
    name = accounts.c.user_id + " at " + accounts.c.origin
    query = (
        select(name, func.count(items.c.key.distinct()))
        .join(items, items.c.account_id == accounts.c.id)
        .join(rows, rows.c.item_key == items.c.key)
        .where(of_wanted(wanted), or_(items.c.state.in_(COLLECTABLE), items.c.recheck_task_id.is_not(None)))
        .where(accounts.c.id.is_distinct_from(account_id))
        .group_by(name)
    )
    return dict(conn.execute(query).all())


def outputs(conn: Connection, wanted: Sequence[Wanted]) -> Iterator[Output]:
    """The outputs of the rows of `wanted`, in manifest order."""
    return (Output(**row._mapping) for row in conn.execute(_OUTPUTS.where(of_wanted(wanted))))


def outputs_of(conn: Connection, key: str) -> list[Output]:
    """The outputs of one item, in every batch as it reads now."""
    return [Output(**row._mapping) for row in conn.execute(_OUTPUTS_OF, {"_key": key})]


def _select_outputs() -> Select[Any]:
    old = files.alias("old")
    linked = and_(rows.c.linked_key == rows.c.item_key, rows.c.linked_output == rows.c.output)
    return (
        select(
            rows.c.batch_id,
            rows.c.id.label("row_id"),
            rows.c.line,
            rows.c.item_key.label("key"),
            batches.c.out_dir,
            rows.c.output,
            (items.c.state == State.DONE).label("saved"),
            (files.c.out_dir + "/" + files.c.path).label("source"),
            files.c.sha256,
            func.coalesce(linked, false()).label("linked"),
            rows.c.linked_output,
            (old.c.out_dir + "/" + old.c.path).label("linked_source"),
            old.c.sha256.label("linked_sha256"),
        )
        .join(batches, and_(batches.c.id == rows.c.batch_id, batches.c.version == rows.c.version))
        .join(items, items.c.key == rows.c.item_key)
        .outerjoin(files, files.c.item_key == rows.c.item_key)
        .outerjoin(old, old.c.item_key == rows.c.linked_key)
        .order_by(rows.c.batch_id, rows.c.number)
    )


_OUTPUTS: Final = _select_outputs()
_OUTPUTS_OF: Final = _OUTPUTS.where(rows.c.item_key == bindparam("_key"))


def is_known_audio(conn: Connection, sha256: str) -> bool:
    """Whether some item's saved audio has this digest, or results files say so."""
    saved = select(files.c.item_key).where(files.c.sha256 == sha256, files.c.saved_at.is_not(None))
    told = select(recalled.c.item_key).where(recalled.c.sha256 == sha256)
    return any(conn.execute(query.limit(1)).first() is not None for query in (saved, told))


def results(conn: Connection, batch: Wanted) -> Iterator[dict[str, Any]]:
    """The batch's result lines, in manifest order; `output` is relative to the output folder, None until it is made."""
    query = (
        select(rows, items.c.state, items.c.task_id, items.c.attempt)
        .add_columns(items.c.error_code, items.c.error_message, items.c.error_request_id, items.c.error_http_status)
        .add_columns(files.c.sha256, files.c.bytes, files.c.audio_seconds)
        .outerjoin(items, items.c.key == rows.c.item_key)
        .outerjoin(files, and_(files.c.item_key == rows.c.item_key, items.c.state == State.DONE))
        .where(rows.c.batch_id == batch.batch_id, rows.c.version == batch.version)
        .order_by(rows.c.number)
    )
    for row in conn.execute(query):
        there = row.linked_key is not None and row.linked_key == row.item_key and row.linked_output == row.output
        yield {
            "batch": batch.name,
            "row": row.number,
            "id": row.id.partition(REPEAT_MARK)[0],
            "state": row.skipped or row.state,
            "output": row.output if there else None,
            "key": row.item_key,
            "task_id": row.task_id,
            "take": row.take if row.item_key else None,
            "sha256": row.sha256,
            "bytes": row.bytes,
            "audio_seconds": row.audio_seconds,
            "error": {"code": "invalid", "message": row.reason} if row.skipped == "invalid" else error_of(row),
            "extra": json.loads(row.extra),
        }


def error_of(row: Row[Any]) -> dict[str, Any] | None:
    """The item's recorded error, or None."""
    if row.error_code is None and row.error_message is None and row.error_http_status is None:
        return None
    return {
        "code": row.error_code,
        "message": row.error_message,
        "request_id": row.error_request_id,
        "http_status": row.error_http_status,
    }


def needing_person(conn: Connection, wanted: Sequence[Wanted], state: State, limit: int) -> list[Row[Any]]:
    """The first rows whose item is in `state`: id, batch name, key and error."""
    query = (
        select(rows.c.id, batches.c.name.label("batch"), items)
        .join(items, items.c.key == rows.c.item_key)
        .join(batches, batches.c.id == rows.c.batch_id)
        .where(of_wanted(wanted), items.c.state == state)
        .order_by(rows.c.batch_id, rows.c.number)
        .limit(limit)
    )
    return list(conn.execute(query))


def ids_of(conn: Connection, wanted: Sequence[Wanted], keys: Sequence[str]) -> list[str]:
    """The ids of the rows whose items have these keys, in manifest order."""
    query = select(rows.c.id).join(batches, batches.c.id == rows.c.batch_id)
    query = query.where(of_wanted(wanted), rows.c.item_key.in_(keys)).order_by(rows.c.batch_id, rows.c.number)
    return list(conn.execute(query).scalars())


def new_in_run(conn: Connection, run_id: str, state: State) -> int:
    """How many items came into `state` during the run."""
    query = select(func.count(events.c.item_key.distinct())).where(events.c.run_id == run_id, events.c.state == state)
    return conn.execute(query).scalar_one()


def find_keys(
    conn: Connection, names: Sequence[str], *, states: Sequence[State] = (), batch: str | None = None
) -> list[str]:
    """The keys of the items that `names` name, in manifest order; no names mean all.

    A name is a row's id, or the beginning of a key (8 digits or more). `states` and `batch` leave only theirs.

    Raises:
        UsageError: a name names nothing in the ledger.
    """
    query = _by_names(conn, [items.c.key], names)
    if states:
        query = query.where(items.c.state.in_(states))
    if batch is not None:
        query = query.where(batches.c.name == batch)
    return list(dict.fromkeys(conn.execute(query).scalars()))


def find_rows(conn: Connection, names: Sequence[str], *, batch: str | None = None) -> list[tuple[int, str, str]]:
    """The rows, as their manifests read now, that `names` name as in `find_keys`: batch number, batch name, id.

    Raises:
        UsageError: a name names nothing in the ledger, or no row of the batch.
    """
    query = _by_names(conn, [batches.c.id, batches.c.name, rows.c.id], names).where(batches.c.id.is_not(None))
    if batch is not None:
        query = query.where(batches.c.name == batch)
    found = [(row[0], row[1], row[2]) for row in conn.execute(query)]
    if not found:
        raise UsageError("none of them is a row of the manifests as they read now", "`batcher show` tells of items.")
    return found


def row_with(conn: Connection, batch: str, row_id: str, key: str) -> int | None:
    """The number of the batch whose row of this id stands for the item whose key begins so; None if it does not."""
    current = and_(batches.c.id == rows.c.batch_id, batches.c.version == rows.c.version)
    this = (batches.c.name == batch, rows.c.id == row_id, rows.c.item_key.startswith(key, autoescape=True))
    return conn.execute(select(batches.c.id).join(rows, current).where(*this)).scalar()


def _by_names(conn: Connection, columns: Sequence[ColumnElement[Any]], names: Sequence[str]) -> Select[Any]:
    current = and_(batches.c.id == rows.c.batch_id, batches.c.version == rows.c.version)
    query = select(*columns).select_from(items).outerjoin(rows, rows.c.item_key == items.c.key)
    query = query.outerjoin(batches, current).order_by(rows.c.batch_id, rows.c.number)
    for name in names:
        if conn.execute(query.where(_named(name)).limit(1)).first() is None:
            raise UsageError(f"no item is called {name!r}", "Give a row's id, or 8 digits or more of an item's key.")
    return query.where(or_(*map(_named, names))) if names else query


def _named(name: str) -> ColumnElement[bool]:
    by_row = and_(rows.c.id == name, batches.c.id.is_not(None))
    return or_(by_row, items.c.key.startswith(name, autoescape=True)) if len(name) >= 8 else by_row


def characters_to_buy(conn: Connection, wanted: Sequence[Wanted]) -> int:
    """Characters of the texts that are still to be created."""
    ours = select(rows.c.item_key).where(of_wanted(wanted))
    query = select(func.sum(func.length(items.c.text))).where(items.c.state == State.PENDING, items.c.key.in_(ours))
    return conn.execute(query).scalar_one() or 0
