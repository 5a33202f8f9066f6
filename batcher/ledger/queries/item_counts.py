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
from batcher.ledger.storage import cached_facts
from batcher.ledger.storage.schema import (
    REPEAT_MARK,
    accounts,
    batches,
    events,
    files,
    items,
    numbers_of,
    of_wanted,
    recalled,
    rows,
)
from batcher.ledger.storage.statements import Prepared


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
    number: int
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
    states = dict.fromkeys(map(str, State), 0)
    for line in cached_facts.items_by_state(conn, wanted):
        states[line["state"]] += line["number"]
    name = f"rows {numbers_of(wanted)}"
    numbers = cached_facts.known(conn, name, "manifests", lambda: _count_rows(conn, wanted))
    return Counts(**numbers, items=sum(states.values()), states=states)


def _count_rows(conn: Connection, wanted: Sequence[Wanted]) -> dict[str, int]:
    invalid, empty = (func.count(case((rows.c.skipped == word, 1))).label(word) for word in ("invalid", "empty"))
    total = select(func.count().label("rows"), invalid, empty).select_from(rows).where(of_wanted(wanted))
    return dict(conn.execute(total).one()._mapping)


def collectable(conn: Connection) -> int:
    """How many items of the ledger have a task that is still to be collected."""
    return conn.execute(select(func.count()).where(items.c.state.in_(COLLECTABLE))).scalar_one()


def are_few(conn: Connection, state: State, few: int = 500) -> bool:
    """Whether it is better to go from the items in `state` to their rows, and to sort those, than from row to row."""
    such: int = _SUCH.run(conn, {"_state": state, "_few": few}).fetchone()[0]
    return such < few


_such = select(items.c.key).where(items.c.state == bindparam("_state")).limit(bindparam("_few")).subquery()
_SUCH: Final = Prepared(select(func.count()).select_from(_such))


def foreign_tasks(conn: Connection, wanted: Sequence[Wanted], account_id: int | None) -> dict[str, int]:
    """Open tasks of wanted rows that belong to another account: how many, by that account's name."""
    name = accounts.c.user_id + " at " + accounts.c.origin
    query = (
        select(name, func.count(items.c.key.distinct()))
        .join(items, items.c.account_id == accounts.c.id)
        .join(rows, rows.c.item_key == items.c.key)
        .where(of_wanted(wanted, by_item=True), accounts.c.id.is_distinct_from(account_id))
        .group_by(name)
    )
    found: dict[str, int] = {}
    # Two questions rather than one with an "or" between them: each has an index.
    rechecked = and_(items.c.recheck_task_id.is_not(None), items.c.account_id > 0)
    for open_ in (items.c.state.in_(COLLECTABLE), rechecked):
        for who, number in conn.execute(query.where(open_)):
            found[who] = found.get(who, 0) + number
    return found


def outputs(conn: Connection) -> Iterator[Output]:
    """The outputs of every row, in every batch as it reads now."""
    return (Output(**row._mapping) for row in conn.execute(_OUTPUTS))


def outputs_of(conn: Connection, key: str) -> list[Output]:
    """The outputs of one item, in every batch as it reads now."""
    return [Output(**row._asdict()) for row in _OUTPUTS_OF.rows(conn, {"_key": key})]


def to_link(conn: Connection, batch: Wanted, after: int, limit: int) -> list[Output]:
    """The first outputs of the batch, behind the row of number `after`, whose audio is there and not linked."""
    unlinked = or_(  # says `UNLINKED`
        rows.c.linked_key.is_distinct_from(rows.c.item_key), rows.c.linked_output.is_distinct_from(rows.c.output)
    )
    ready = (items.c.state == State.DONE, rows.c.number > after)
    ours = rows.c.batch_id == batch.batch_id
    found = conn.execute(_OUTPUTS.where(ours, unlinked, *ready).limit(limit))
    return [Output(**row._mapping) for row in found]


def _select_outputs() -> Select[Any]:
    old = files.alias("old")
    linked = and_(rows.c.linked_key == rows.c.item_key, rows.c.linked_output == rows.c.output)
    return (
        select(
            rows.c.batch_id,
            rows.c.id.label("row_id"),
            rows.c.number,
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
        .join(batches, and_(batches.c.id == rows.c.batch_id, rows.c.is_current + 0 == 1))
        .join(items, items.c.key == rows.c.item_key)
        .outerjoin(files, files.c.item_key == rows.c.item_key)
        .outerjoin(old, old.c.item_key == rows.c.linked_key)
        .order_by(rows.c.batch_id, rows.c.number)
    )


_OUTPUTS: Final = _select_outputs()
_OUTPUTS_OF: Final = Prepared(_OUTPUTS.where(rows.c.item_key == bindparam("_key")))


def folders(conn: Connection, batch: Wanted, limit: int) -> list[str]:
    """Up to `limit` folders, relative to the output folder, that the batch's outputs belong in."""
    folder = func.rtrim(rows.c.output, func.replace(rows.c.output, "/", ""))
    query = select(folder).where(of_wanted([batch]), rows.c.item_key.is_not(None)).distinct().limit(limit)
    return list(conn.execute(query).scalars())


def is_known_audio(conn: Connection, sha256: str) -> bool:
    """Whether some item's saved audio has this digest, or results files say so."""
    saved = select(files.c.item_key).where(files.c.sha256 == sha256, files.c.saved_at.is_not(None))
    told = select(recalled.c.item_key).where(recalled.c.sha256 == sha256)
    return any(conn.execute(query.limit(1)).first() is not None for query in (saved, told))


def results(conn: Connection, batch: Wanted) -> Iterator[dict[str, Any]]:
    """The batch's result lines, in manifest order; `output` is relative to the output folder, None until it is made."""
    linked = and_(rows.c.linked_key == rows.c.item_key, rows.c.linked_output == rows.c.output)
    errors = (items.c.error_code, items.c.error_message, items.c.error_request_id, items.c.error_http_status)
    query = (
        select(rows.c.number, rows.c.id, func.coalesce(rows.c.skipped, items.c.state))
        .add_columns(case((linked, rows.c.output)), rows.c.item_key, items.c.task_id, rows.c.take)
        .add_columns(files.c.sha256, files.c.bytes, files.c.audio_seconds, rows.c.reason, rows.c.extra, *errors)
        .outerjoin(items, items.c.key == rows.c.item_key)
        .outerjoin(files, and_(files.c.item_key == rows.c.item_key, items.c.state == State.DONE))
        .where(of_wanted([batch]))
        .order_by(rows.c.number)
    )
    for number, row_id, state, output, key, task_id, take, sha256, size, seconds, reason, extra, *error in conn.execute(
        query
    ):
        yield {
            "batch": batch.name,
            "row": number,
            "id": row_id.partition(REPEAT_MARK)[0],
            "state": state,
            "output": output,
            "key": key,
            "task_id": task_id,
            "take": take if key else None,
            "sha256": sha256,
            "bytes": size,
            "audio_seconds": seconds,
            "error": {"code": "invalid", "message": reason} if state == "invalid" else _error(*error),
            "extra": json.loads(extra) if extra != "{}" else {},
        }


def error_of(row: Row[Any]) -> dict[str, Any] | None:
    """The item's recorded error, or None."""
    return _error(row.error_code, row.error_message, row.error_request_id, row.error_http_status)


def _error(code: str | None, message: str | None, request_id: str | None, status: int | None) -> dict[str, Any] | None:
    if code is None and message is None and status is None:
        return None
    return {"code": code, "message": message, "request_id": request_id, "http_status": status}


def places(conn: Connection, batch: Wanted) -> Iterator[tuple[str, str, bool]]:
    """Of each row that stands for an item: its id, its output, and whether that was put there; in manifest order."""
    linked = and_(rows.c.linked_key == rows.c.item_key, rows.c.linked_output == rows.c.output)
    query = select(rows.c.id, rows.c.output, func.coalesce(linked, false())).where(of_wanted([batch]))
    for row in conn.execute(query.where(rows.c.item_key.is_not(None)).order_by(rows.c.number)):
        yield row[0], row[1], row[2]


def output_of(conn: Connection, batch: Wanted, row_id: str) -> Output:
    """The output of one row."""
    this = (rows.c.batch_id == batch.batch_id, rows.c.id == row_id)
    return Output(**conn.execute(_OUTPUTS.where(*this)).one()._mapping)


def needing_person(conn: Connection, wanted: Sequence[Wanted], state: State, limit: int) -> list[list[str]]:
    """The first rows whose item is in `state`: the id, and what the error is called."""
    query = (
        select(rows.c.id, func.coalesce(items.c.error_code, items.c.error_message, items.c.state))
        .join(items, items.c.key == rows.c.item_key)
        .where(of_wanted(wanted, by_item=are_few(conn, state)), items.c.state == state)
        .order_by(rows.c.batch_id, rows.c.number)
        .limit(limit)
    )
    name = f"first {limit} {state} {numbers_of(wanted)}"
    found: list[list[str]] = cached_facts.known(conn, name, "rows", lambda: [list(row) for row in conn.execute(query)])
    return found


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
    need_rows(conn, names, batch=batch)
    query = _by_names(conn, [batches.c.id, batches.c.name, rows.c.id], names).where(batches.c.id.is_not(None))
    if batch is not None:
        query = query.where(batches.c.name == batch)
    return [(row[0], row[1], row[2]) for row in conn.execute(query)]


def need_rows(conn: Connection, names: Sequence[str], *, batch: str | None) -> None:
    """Make sure that each name, as in `find_keys`, names a row of the batch, or of any batch, as they read now.

    Raises:
        UsageError: one does not.
    """
    of_batch = batches.c.id.is_not(None) if batch is None else batches.c.name == batch
    for name in names:
        if conn.execute(_by_names(conn, [batches.c.id], [name]).where(of_batch).limit(1)).first() is None:
            of = "the manifests as they read now" if batch is None else f"batch {batch} as it reads now"
            raise UsageError(f"no row of {of} is called {name!r}; nothing was done", "`batcher show` tells of items.")


def row_with(conn: Connection, batch: str, row_id: str, key: str) -> int | None:
    """The number of the batch whose row of this id stands for the item whose key begins so; None if it does not."""
    current = and_(batches.c.id == rows.c.batch_id, rows.c.is_current == 1)
    this = (batches.c.name == batch, rows.c.id == row_id, rows.c.item_key.startswith(key, autoescape=True))
    return conn.execute(select(batches.c.id).join(rows, current).where(*this)).scalar()


def _by_names(conn: Connection, columns: Sequence[ColumnElement[Any]], names: Sequence[str]) -> Select[Any]:
    current = and_(batches.c.id == rows.c.batch_id, rows.c.is_current == 1)
    query = select(*columns).select_from(items).outerjoin(rows, rows.c.item_key == items.c.key)
    query = query.outerjoin(batches, current).order_by(rows.c.batch_id, rows.c.number)
    for name in names:
        if conn.execute(query.where(_named(name)).limit(1)).first() is None:
            raise UsageError(f"no item is called {name!r}", "Give a row's id, or 8 digits or more of an item's key.")
    return query.where(or_(*map(_named, names))) if names else query


def _named(name: str) -> ColumnElement[bool]:
    by_row = and_(rows.c.id == name, batches.c.id.is_not(None))
    return or_(by_row, items.c.key.startswith(name, autoescape=True)) if len(name) >= 8 else by_row
