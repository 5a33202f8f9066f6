"""Halts: durable reasons why an account creates nothing, and the probe that may end them.

A halt is opened in the transaction that records its cause, so that no kill can separate the two. Only the answer to a
probe closes it: a single create request, sent by the run that has permission to probe.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Final, Literal

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.formatting import amount, plain_error
from batcher.item import Event
from batcher.ledger.lifecycle.account import lock_account
from batcher.ledger.money.prices import prices
from batcher.ledger.records import AnswerRecord, Halt, OpenTask
from batcher.ledger.storage.filters import WORKING, of_attempt
from batcher.ledger.storage.functions import greatest, least
from batcher.ledger.storage.schema import attempts, halts, items, runs, tasks
from batcher.ledger.storage.statements import Prepared

Kind = Literal["credits", "unstable"]
UNSTABLE_WAIT_SECONDS: Final = 300.0
"""Time from the opening of an `unstable` halt to its first probe."""
_WAIT_GROWTH: Final = 4.0
"""Factor by which each lost probe lengthens the wait for the next one."""
_MAX_WAIT_SECONDS: Final = 24 * 3600.0


def open_halts(conn: Connection, account_id: int | None = None) -> list[Halt]:
    """The account's open halts, oldest first; without an account, those of all accounts."""
    columns = [halts.c[field.name] for field in fields(Halt)]
    condition = halts.c.closed_at.is_(None) if account_id is None else _open(account_id)
    query = select(*columns).where(condition).order_by(halts.c.since_at)
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
    """Halt creating for the account. An open halt of this kind stays open and loses its permission to probe."""
    lock_account(conn, account_id)
    wait = UNSTABLE_WAIT_SECONDS if kind == "unstable" else 0.0
    new = upsert(halts).values(
        account_id=account_id,
        kind=kind,
        since_at=at,
        detail=detail,
        run_id=run_id,
        from_task=int(from_task),
        probes=0,
        probe_after_at=at + wait,
    )
    conn.execute(
        new.on_conflict_do_update(
            index_elements=["account_id", "kind"],
            index_where=halts.c.closed_at.is_(None),
            set_={
                "run_id": run_id,
                "probe_run_id": None,
                "probe_key": None,
                "balance_at": None,
                "from_task": greatest(halts.c.from_task, int(from_task)),
            },
        )
    )


def set_balance(conn: Connection, account_id: int, credits_: float | None, quota: float | None, at: float) -> None:
    """Record the balance after the last creates in flight have settled; a rise above it allows a probe."""
    conn.execute(
        update(halts)
        .where(_open(account_id), halts.c.kind == "credits")
        .values(credits=credits_, quota=quota, balance_at=at)
    )


def balance_before(conn: Connection, halt_id: int) -> tuple[float | None, float | None]:
    """Credits and quota at the start of the run that opened the halt, less the reported cost of its tasks."""
    query = (
        select(runs.c.id, runs.c.profile_start).join(halts, halts.c.run_id == runs.c.id).where(halts.c.id == halt_id)
    )
    run_id, profile = conn.execute(query).one()
    spent = select(func.total(tasks.c.credits)).join(attempts, of_attempt).where(attempts.c.run_id == run_id)
    cost: float = conn.execute(spent).scalar_one()
    start = json.loads(profile)
    credits_, quota = (None if start.get(name) is None else start[name] - cost for name in ("credits", "quota"))
    return credits_, quota


Prober = Literal["own", "other", "closed"]
"""Who may probe a halt: this run, or another that works; or the halt has been closed meanwhile."""


def find_prober(conn: Connection, halt: Halt, run_id: str, *, may_probe: bool) -> Prober | None:
    """Who may send one create while the halt is open. If nobody, this run from now on, provided that it `may_probe`."""
    is_open = (halts.c.id == halt.id, halts.c.closed_at.is_(None))
    if may_probe:
        lock_account(conn, halt.account_id)
        free = or_(halts.c.probe_run_id.is_(None), halts.c.probe_run_id.not_in(WORKING))
        permit = update(halts).where(*is_open, free)
        conn.execute(permit.values(probe_run_id=run_id, probe_key=None))
    probes = halts.c.probe_run_id.in_(WORKING)
    found = conn.execute(select(halts.c.probe_run_id, probes.label("works")).where(*is_open)).first()
    if found is None:
        return "closed"
    if not found.works:
        return None
    return "own" if found.probe_run_id == run_id else "other"


def allowance(conn: Connection, account_id: int, run_id: str, limit: int) -> int:
    """Number of creates that the account's halts allow this run to claim now, at most `limit`.

    With an open halt that this run may probe it is one, and none while a probe is in flight.
    """
    for permitted_run, probe_key in _OPEN_HALTS.run(conn, {"_account": account_id}).fetchall():
        if permitted_run != run_id or probe_key is not None:
            return 0
        limit = min(limit, 1)
    return limit


def note_probe(conn: Connection, account_id: int, run_id: str, key: str) -> None:
    """Record the create of the item `key` as the probe of every halt that this run may probe."""
    _START_PROBE.run(conn, {"_account": account_id, "_run": run_id, "_key": key})


def after_answer(conn: Connection, record: AnswerRecord, event: Event, max_in_doubt: int) -> None:
    """Open or close halts as the answer to a create requires.

    A lack of credits opens `credits`; more than `max_in_doubt` creates lost since the last accepted one open
    `unstable`. An accepted probe closes its halt, a lost one lengthens the wait, any other may be repeated.
    """
    probe = {"_account": record.account_id, "_key": record.key}
    if event is Event.ACCEPTED:
        _CLOSE_ACCEPTED.run(conn, probe | {"closed_at": record.at})
    elif event is Event.LOST:
        _postpone(conn, record)
        _count_lost(conn, record, max_in_doubt)
    elif record.cause == "no_credits":
        detail = f"the API refused a create for lack of credits ({record.error_code or record.http_status})"
        open_halt(conn, record.account_id, "credits", record.at, detail, record.run_id)
    else:
        _END_PROBE.run(conn, probe)


def after_ending(conn: Connection, task: OpenTask, at: float, *, rendered: bool) -> None:
    """A probe's task has ended: if rendered, its halt is closed; otherwise the probe may be repeated."""
    probe = {"_account": task.account_id, "_key": task.key}
    if rendered:
        _CLOSE_RENDERED.run(conn, probe | {"closed_at": at})
    else:
        _END_PROBE.run(conn, probe)


_is_open = and_(halts.c.account_id == bindparam("_account"), halts.c.closed_at.is_(None))
_is_probed = and_(_is_open, halts.c.probe_key == bindparam("_key"))
_OPEN_HALTS: Final = Prepared(select(halts.c.probe_run_id, halts.c.probe_key).where(_is_open))
_START_PROBE: Final = Prepared(
    update(halts)
    .where(_is_open, halts.c.probe_run_id == bindparam("_run"), halts.c.probe_key.is_(None))
    .values(probe_key=bindparam("_key"))
)
_CLOSE_ACCEPTED: Final = Prepared(
    update(halts).where(_is_probed, halts.c.from_task == 0).values(closed_at=bindparam("closed_at"))
)
_CLOSE_RENDERED: Final = Prepared(update(halts).where(_is_probed).values(closed_at=bindparam("closed_at")))
_END_PROBE: Final = Prepared(update(halts).where(_is_probed).values(probe_key=None))


def after_unexplained(
    conn: Connection,
    account_id: int,
    key: str,
    what: str,
    *,
    balance: float,
    at: float,
    run_id: str,
    from_task: bool = False,
) -> bool:
    """Something failed for no stated reason (`what`): open a halt if `balance` is below the item's estimated price.

    If the price is unknown, only a balance of zero opens one. Returns whether a halt was opened.
    """
    item = conn.execute(select(items.c.model, items.c.bytes).where(items.c.key == key)).one()
    estimate = prices(conn).estimate([(item.model, item.bytes)])
    short = balance <= 0 if estimate is None else balance < estimate.credits
    if short:
        needed = "" if estimate is None else f", less than its estimated price of {amount(estimate.credits)}"
        detail = f"{what}, and the balance is {amount(balance)}{needed}"
        open_halt(conn, account_id, "credits", at, detail, run_id, from_task=from_task)
    return short


def _open(account_id: int) -> ColumnElement[bool]:
    return and_(halts.c.account_id == account_id, halts.c.closed_at.is_(None))


def _postpone(conn: Connection, record: AnswerRecord) -> None:
    """A probe was lost: the next one waits longer."""
    lock_account(conn, record.account_id)
    wait = least(UNSTABLE_WAIT_SECONDS * func.pow(_WAIT_GROWTH, halts.c.probes + 1), _MAX_WAIT_SECONDS)
    conn.execute(
        update(halts)
        .where(_open(record.account_id), halts.c.probe_key == record.key)
        .values(probes=halts.c.probes + 1, probe_after_at=record.at + wait, probe_run_id=None, probe_key=None)
    )


def _count_lost(conn: Connection, record: AnswerRecord, max_in_doubt: int) -> None:
    of_account = attempts.c.account_id == record.account_id
    accepted = select(func.max(attempts.c.answer_no)).where(of_account, attempts.c.outcome == "accepted")
    since = attempts.c.answer_no > func.coalesce(accepted.scalar_subquery(), 0)
    # Only answers that never arrived count. A killed run records none; an aborted create is no evidence about the API.
    lost = and_(attempts.c.outcome == "lost", attempts.c.cause != "interrupted")
    count = conn.execute(select(func.count()).where(of_account, since, lost)).scalar_one()
    already = conn.execute(select(halts.c.id).where(_open(record.account_id), halts.c.kind == "unstable")).first()
    if count > max_in_doubt and already is None:
        last = plain_error(record.error_message or record.cause).rstrip(".")
        detail = f"{count} creates in a row had no definite answer; the last: {last}"
        open_halt(conn, record.account_id, "unstable", record.at, detail, record.run_id)
