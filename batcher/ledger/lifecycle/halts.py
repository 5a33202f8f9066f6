"""Halts: the durable reasons why an account creates nothing, and the one probe that may end them.

A halt is opened in the transaction that records what caused it, so that no kill can come between. It is closed only by
the answer to a probe: one create, alone, by the run that was allowed to send it.
"""

from __future__ import annotations

import json
from typing import Final, Literal

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.formatting import amount, plain_error
from batcher.item import Event
from batcher.ledger.money.prices import prices
from batcher.ledger.records import AnswerRecord, Halt, OpenTask
from batcher.ledger.storage.filters import of_attempt
from batcher.ledger.storage.schema import attempts, halts, items, runs, tasks
from batcher.ledger.storage.statements import Prepared

Kind = Literal["credits", "unstable"]
UNSTABLE_WAIT_SECONDS: Final = 300.0
UNSTABLE_WAIT_GROWTH: Final = 4.0
UNSTABLE_WAIT_MOST_SECONDS: Final = 24 * 3600.0


def open_halts(conn: Connection, account_id: int) -> list[Halt]:
    """The account's open halts, the oldest first."""
    columns = [halts.c[name] for name in Halt.__dataclass_fields__]
    query = select(*columns).where(_open(account_id)).order_by(halts.c.since_at)
    return [Halt(**row._mapping) for row in conn.execute(query)]


def open_halt(
    conn: Connection,
    account_id: int,
    kind: Kind,
    at: float,
    detail: str,
    run_id: str,
    *,
    from_task: bool = False,
) -> None:
    """Stop the account from creating. A halt of this kind that is open already stays, its permission to probe ends."""
    values = {"since_at": at, "detail": detail, "run_id": run_id, "from_task": int(from_task), "probes": 0}
    wait = UNSTABLE_WAIT_SECONDS if kind == "unstable" else 0.0
    conn.execute(
        upsert(halts)
        .values(account_id=account_id, kind=kind, probe_after_at=at + wait, **values)
        .on_conflict_do_update(
            index_elements=["account_id", "kind"],
            index_where=halts.c.closed_at.is_(None),
            set_={
                "run_id": run_id,
                "probe_run_id": None,
                "probe_key": None,
                "balance_at": None,
                "from_task": func.max(halts.c.from_task, int(from_task)),
            },
        )
    )


def set_balance(conn: Connection, account_id: int, credits_: float | None, quota: float | None, at: float) -> None:
    """Keep the balance that was read once the last creates in flight had settled: opening is measured against it."""
    conn.execute(
        update(halts)
        .where(_open(account_id), halts.c.kind == "credits")
        .values(credits=credits_, quota=quota, balance_at=at)
    )


def balance_before(conn: Connection, halt_id: int) -> tuple[float | None, float | None]:
    """Credits and quota as the run that met the halt began with them, less what its tasks say they cost."""
    query = (
        select(runs.c.id, runs.c.profile_start).join(halts, halts.c.run_id == runs.c.id).where(halts.c.id == halt_id)
    )
    run_id, profile = conn.execute(query).one()
    spent = select(func.total(tasks.c.credits)).join(attempts, of_attempt).where(attempts.c.run_id == run_id)
    cost: float = conn.execute(spent).scalar_one()
    found = (json.loads(profile or "{}").get(name) for name in ("credits", "quota"))
    credits_, quota = (None if left is None else left - cost for left in found)
    return credits_, quota


def permit_probe(conn: Connection, halt_id: int, run_id: str) -> None:
    """Let this run send one create although the halt is open."""
    conn.execute(update(halts).where(halts.c.id == halt_id).values(probe_run_id=run_id, probe_key=None))


def allowance(conn: Connection, account_id: int, run_id: str, limit: int, *, busy: bool = False) -> int:
    """How many creates the account's halts let this run claim now, `limit` at most.

    One at a time where they may be probed; none while a probe is under way, unless `busy` asks to leave that out.
    """
    for permitted, probing in _PROBES.run(conn, {"_account": account_id}).fetchall():
        if permitted != run_id or (probing is not None and not busy):
            return 0
        limit = min(limit, 1)
    return limit


def note_probe(conn: Connection, account_id: int, run_id: str, key: str) -> None:
    """The create of the item `key` is the probe of every halt that this run may probe."""
    _NOTE_PROBE.run(conn, {"_account": account_id, "_run": run_id, "_key": key})


def after_answer(conn: Connection, record: AnswerRecord, event: Event, max_in_doubt: int) -> None:
    """Open or close halts as the answer to a create demands.

    A lack of credits opens `credits`; more than `max_in_doubt` creates lost since the last accepted one open
    `unstable`. An accepted probe closes its halt; a lost one waits longer; any other leaves the permission as it was.
    """
    probed = {"_account": record.account_id, "_key": record.key}
    if event is Event.ACCEPTED:
        _CLOSE_ACCEPTED.run(conn, probed | {"closed_at": record.at})
    elif event is Event.LOST:
        _postpone(conn, record)
        _count_lost(conn, record, max_in_doubt)
    elif record.cause == "no_credits":
        detail = f"the API refused a create for lack of credits ({record.error_code or record.http_status})"
        open_halt(conn, record.account_id, "credits", record.at, detail, record.run_id)
    else:
        _PUT_BACK.run(conn, probed)


def after_ending(conn: Connection, task: OpenTask, at: float, *, rendered: bool) -> None:
    """A probe's task has ended: rendered closes the halt that a failed task opened, another failure says nothing."""
    probed = {"_account": task.account_id, "_key": task.key}
    if rendered:
        _CLOSE_RENDERED.run(conn, probed | {"closed_at": at})
    else:
        _PUT_BACK.run(conn, probed)


_ours = and_(halts.c.account_id == bindparam("_account"), halts.c.closed_at.is_(None))
_probed = and_(_ours, halts.c.probe_key == bindparam("_key"))
_PROBES: Final = Prepared(select(halts.c.probe_run_id, halts.c.probe_key).where(_ours))
_NOTE_PROBE: Final = Prepared(
    update(halts)
    .where(_ours, halts.c.probe_run_id == bindparam("_run"), halts.c.probe_key.is_(None))
    .values(probe_key=bindparam("_key"))
)
_CLOSE_ACCEPTED: Final = Prepared(
    update(halts).where(_probed, halts.c.from_task == 0).values(closed_at=bindparam("closed_at"))
)
_CLOSE_RENDERED: Final = Prepared(update(halts).where(_probed).values(closed_at=bindparam("closed_at")))
_PUT_BACK: Final = Prepared(update(halts).where(_probed).values(probe_key=None))


def after_unexplained(conn: Connection, task: OpenTask, *, balance: float, at: float, run_id: str) -> bool:
    """A task failed without a code: opens a halt when `balance` is less than the task's item may cost.

    Without an estimate only a balance of nothing is. Returns whether the account is halted for it.
    """
    item = conn.execute(select(items.c.model, items.c.bytes).where(items.c.key == task.key)).one()
    estimate = prices(conn).of([(item.model, item.bytes)])
    short = balance <= 0 if estimate is None else balance < estimate.credits
    if short:
        needed = "" if estimate is None else f", less than the {amount(estimate.credits)} that it may cost"
        detail = f"a task failed without a code, and the balance is {amount(balance)}{needed}"
        open_halt(conn, task.account_id, "credits", at, detail, run_id, from_task=True)
    return short


def _open(account_id: int) -> ColumnElement[bool]:
    return and_(halts.c.account_id == account_id, halts.c.closed_at.is_(None))


def _postpone(conn: Connection, record: AnswerRecord) -> None:
    """A lost probe: the next one waits, longer each time."""
    wait = func.min(
        UNSTABLE_WAIT_SECONDS * func.pow(UNSTABLE_WAIT_GROWTH, halts.c.probes + 1), UNSTABLE_WAIT_MOST_SECONDS
    )
    conn.execute(
        update(halts)
        .where(_open(record.account_id), halts.c.probe_key == record.key)
        .values(probes=halts.c.probes + 1, probe_after_at=record.at + wait, probe_run_id=None, probe_key=None)
    )


def _count_lost(conn: Connection, record: AnswerRecord, max_in_doubt: int) -> None:
    ours = attempts.c.account_id == record.account_id
    accepted = select(func.max(attempts.c.answer_no)).where(ours, attempts.c.outcome == "accepted").scalar_subquery()
    since = attempts.c.answer_no > func.coalesce(accepted, 0)
    # A run that was killed, interrupted or forgotten says nothing about the API: only answers that never came count.
    lost = and_(attempts.c.outcome == "lost", attempts.c.cause.not_in(("vanished", "restored", "interrupted")))
    count = conn.execute(select(func.count()).where(ours, since, lost)).scalar_one()
    already = conn.execute(select(halts.c.id).where(_open(record.account_id), halts.c.kind == "unstable")).first()
    if count > max_in_doubt and already is None:
        last = plain_error(record.error_message or record.cause).rstrip(".")
        detail = f"{count} creates in a row got no definite answer; the last: {last}"
        open_halt(conn, record.account_id, "unstable", record.at, detail, record.run_id)
