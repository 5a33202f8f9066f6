"""What the runs of an account share on a server: how many creates each may claim, so that limits hold for all together.

Claims of an account take turns at its row. Open items are counted, not kept as a number: a number would stay wrong
after a kill. A file has one run, which knows its own limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Float, Integer, and_, bindparam, case, cast, exists, extract, func, select, update

from batcher.item import State
from batcher.ledger.storage.planner import OPEN_TASK
from batcher.ledger.storage.schema import accounts, attempts, items, runs, tasks
from batcher.ledger.storage.sharing import is_shared
from batcher.ledger.storage.statements import Prepared, either

_MAX_CLOSED_SECONDS: Final = 24 * 3600.0
"""Longest wait that the runs of an account share: a mistaken one ends by itself."""
BURST_SECONDS: Final = 0.1
"""Creates missed within this time are made up for, as in `throttle.spacing`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may claim beside the others of its account: its settings of the same names.

    `counts_open`: open tasks take slots, since the runs collect them.
    """

    concurrency: int
    counts_open: bool = True
    create_rate: float | None = None
    max_items: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How many creates a run may claim now. If none: how long none is permitted, in seconds, and how long of that
    because the API asked for it; `spent` means for good."""

    creates: int
    wait_seconds: float = 0.0
    closed_seconds: float = 0.0
    spent: bool = False


def lock_account(conn: Connection, account_id: int) -> None:
    """Wait for other runs' transactions that have locked the account; ours has it until it ends.

    Whoever locks anything else that runs share has this lock first, so that no two wait for each other.
    """
    if is_shared(conn):
        _LOCK.run(conn, {"_account": account_id}).fetchone()


def room(conn: Connection, run_id: str, account_id: int, limit: int, limits: Limits | None) -> Room:
    """How many creates this run may claim now, at most `limit`. Call it with the account's lock, in a later statement
    than that: only then it sees what the others have claimed."""
    if limits is None or not is_shared(conn):
        return Room(creates=limit)
    left = _left_of_shift(conn, run_id, limits.max_items)
    if left <= 0:
        return Room(creates=0, spent=True)
    now, next_at, closed_until_at = _TIMES.run(conn, {"_account": account_id}).fetchone()
    due, wait_seconds = _due(now, next_at, limits.create_rate)
    closed_seconds = max(0.0, (closed_until_at or 0.0) - now)
    wait_seconds = max(wait_seconds, closed_seconds)
    if wait_seconds > 0:
        return Room(creates=0, wait_seconds=wait_seconds, closed_seconds=closed_seconds)
    return Room(creates=max(0, min(limit, left, due, _free_slots(conn, run_id, account_id, limits))))


def _free_slots(conn: Connection, run_id: str, account_id: int, limits: Limits) -> int:
    """Free slots of the account, within this run's share."""
    query = _OPEN if limits.counts_open else _SUBMITTING
    found = {"_account": account_id, "_run": run_id}
    opened, own = query.run(conn, found).fetchone()
    return int(min(limits.concurrency - opened, share(conn, account_id, limits.concurrency) - own))


def share(conn: Connection, account_id: int, slots: int) -> int:
    """The slots that one of the runs may use that create for the account now."""
    number: int = _CREATING.run(conn, {"_account": account_id}).fetchone()[0]
    return math.ceil(slots / max(1, number))


def set_creating(conn: Connection, run_id: str, creating: bool) -> None:
    """Record whether the run takes a share of the slots."""
    if is_shared(conn):
        conn.execute(update(runs).where(runs.c.id == run_id).values(is_creating=int(creating)))


def _due(now: float, next_at: float | None, rate: float | None) -> tuple[int, float]:
    """The number of creates that the rate permits now, and the seconds until it permits the next if that is none."""
    if rate is None:
        return 1 << 30, 0.0
    overdue = min(now - (next_at or 0.0), BURST_SECONDS)
    return (1 + math.floor(overdue * rate), 0.0) if overdue >= 0 else (0, -overdue)


def note_claimed(conn: Connection, run_id: str, account_id: int, number: int, limits: Limits | None) -> None:
    """The run has claimed this many creates: the rate permits the next that much later."""
    if not is_shared(conn):
        return
    _ADD_CLAIMED.run(conn, {"_run": run_id, "_number": number})
    if limits is not None and limits.create_rate is not None:
        _ADVANCE.run(conn, {"_account": account_id, "_seconds": number / limits.create_rate})


def note_returned(conn: Connection, key: str, attempt: int) -> None:
    """A create was claimed, but definitely made no task: the run that claimed it may claim another."""
    if is_shared(conn):
        _RETURN_CLAIMED.run(conn, {"_key": key, "_attempt": attempt})


def note_closed(conn: Connection, account_id: int, seconds: float) -> None:
    """The API asked to create nothing for this long: no run of the account does, for a day at most."""
    if seconds > 0 and is_shared(conn):
        _CLOSE.run(conn, {"_account": account_id, "_seconds": min(seconds, _MAX_CLOSED_SECONDS)})


def forget_closed(conn: Connection, run_id: str, account_id: int) -> None:
    """Forget how long the API asked earlier runs to wait, unless one of them still works: a new run asks it again."""
    if is_shared(conn):
        others = exists().where(runs.c.account_id == account_id, runs.c.ended_at.is_(None), runs.c.id != run_id)
        conn.execute(update(accounts).where(accounts.c.id == account_id, ~others).values(closed_until_at=None))


def _left_of_shift(conn: Connection, run_id: str, max_items: int | None) -> int:
    """Items that the runs which work at the same time may still create."""
    if max_items is None:
        return 1 << 30
    return max_items - int(_CLAIMED.run(conn, {"_run": run_id}).fetchone()[0])


_now: Any = cast(extract("epoch", func.clock_timestamp()), Float)
_is_account: Final = accounts.c.id == bindparam("_account")
_LOCK: Final = Prepared(select(accounts.c.id).where(_is_account).with_for_update(key_share=True))
"""Rows that refer to the account may be added meanwhile."""
_TIMES: Final = Prepared(select(_now, accounts.c.next_create_at, accounts.c.closed_until_at).where(_is_account))
_ADVANCE: Final = Prepared(
    update(accounts)
    .where(_is_account)
    .values(
        next_create_at=func.greatest(func.coalesce(accounts.c.next_create_at, 0.0), _now - BURST_SECONDS)
        + bindparam("_seconds", type_=Float)
    )
)
_CLOSE: Final = Prepared(
    update(accounts)
    .where(_is_account)
    .values(
        closed_until_at=func.greatest(
            func.coalesce(accounts.c.closed_until_at, 0.0), _now + bindparam("_seconds", type_=Float)
        )
    )
)
_shift = select(runs.c.shift_id).where(runs.c.id == bindparam("_run")).scalar_subquery()
_CLAIMED: Final = Prepared(select(func.coalesce(func.sum(runs.c.claimed), 0)).where(runs.c.shift_id == _shift))
_so_far = func.coalesce(runs.c.claimed, 0)
_ADD_CLAIMED: Final = Prepared(
    update(runs).where(runs.c.id == bindparam("_run")).values(claimed=_so_far + bindparam("_number", type_=Integer))
)
_claimant = select(attempts.c.run_id).where(
    attempts.c.item_key == bindparam("_key"), attempts.c.attempt == bindparam("_attempt")
)
_RETURN_CLAIMED: Final = Prepared(
    update(runs).where(runs.c.id == _claimant.scalar_subquery()).values(claimed=_so_far - 1)
)
_of_account: Final = and_(runs.c.id == items.c.run_id, runs.c.account_id == bindparam("_account"))
is_overdue: Final = exists().where(
    tasks.c.item_key == items.c.key,
    tasks.c.task_id == items.c.task_id,
    OPEN_TASK.of(tasks),
    tasks.c.overdue_at.is_not(None),
)
"""Items whose task takes no slot any more."""
_numbers: Final = (func.count(), func.count(case((items.c.run_id == bindparam("_run"), 1))))
_OPEN: Final = Prepared(
    select(*_numbers)
    .select_from(items.join(runs, _of_account))
    .where(either(items.c.state, (State.SUBMITTING, State.SUBMITTED)), ~is_overdue)
)
_SUBMITTING: Final = Prepared(
    select(*_numbers).select_from(items.join(runs, _of_account)).where(items.c.state == State.SUBMITTING)
)
_CREATING: Final = Prepared(
    select(func.count())
    .where(runs.c.account_id == bindparam("_account"), runs.c.ended_at.is_(None))
    .where(runs.c.is_creating == 1)
)
