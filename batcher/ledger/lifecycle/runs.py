"""Records of runs: process, account, balances, end; and the values that runs learn about an account."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.ledger.lifecycle.account import forget_closed
from batcher.ledger.records import Balance
from batcher.ledger.storage.filters import WORKING
from batcher.ledger.storage.schema import accounts, balances, lessons, runs
from batcher.ledger.storage.server_triggers import merge_costs
from batcher.ledger.storage.sharing import connected, has_ended, is_shared, take_turn


def begin_run(conn: Connection, run_id: str, *, out_dir: str, at: float) -> tuple[int | None, str | None]:
    """Record the start of a run, and the end of earlier ones that vanished.

    Returns the exit code and the message of the last run that ended.
    """
    take_turn(conn, "begin")
    end_vanished(conn, run_id, at=at)
    if is_shared(conn):
        merge_costs(conn)
    query = select(runs.c.exit_code, runs.c.message).where(runs.c.ended_at.is_not(None))
    last = conn.execute(query.order_by(runs.c.started_at.desc()).limit(1)).first()
    working = select(runs.c.shift_id).where(runs.c.ended_at.is_(None)).order_by(runs.c.started_at).limit(1)
    shift_id = conn.execute(working).scalar() or run_id
    who = {"pid": os.getpid(), "host": socket.gethostname()}
    conn.execute(insert(runs).values(id=run_id, started_at=at, out_dir=out_dir, shift_id=shift_id, **who))
    return (last.exit_code, last.message) if last is not None else (None, None)


def end_vanished(conn: Connection, run_id: str, *, at: float) -> list[str]:
    """Record the end of other runs whose processes ended without recording it. Returns the hosts that they were on.

    They can write no more: a file has one owner, and a run on a server does not outlive its session.
    """
    query = select(runs.c.id, runs.c.host).where(runs.c.ended_at.is_(None), runs.c.id != run_id)
    working = conn.execute(query).all()
    alive = connected(conn, [found.id for found in working])
    vanished = [found for found in working if found.id not in alive and has_ended(conn, found.id)]
    record_vanished(conn, [found.id for found in vanished], at=at)
    return [found.host for found in vanished]


def record_vanished(conn: Connection, run_ids: Sequence[str], *, at: float) -> None:
    """Record the end of those of these runs that have not recorded it themselves. They must have ended."""
    working = (runs.c.id.in_(run_ids), runs.c.ended_at.is_(None))
    conn.execute(update(runs).where(*working).values(ended_at=at, outcome="vanished", is_creating=0))


def others_work(conn: Connection, run_id: str) -> bool:
    """Whether other runs work on the ledger now, as far as it is known."""
    return conn.execute(WORKING.where(runs.c.id != run_id)).first() is not None


def worked_with_others(conn: Connection, run_id: str) -> bool:
    """Whether other runs have worked at the same time as this one."""
    shift = select(runs.c.shift_id).where(runs.c.id == run_id).scalar_subquery()
    return conn.execute(select(runs.c.id).where(runs.c.shift_id == shift, runs.c.id != run_id)).first() is not None


def enter_account(
    conn: Connection, run_id: str, *, origin: str, user_id: str | None, token: str, balance: Balance, at: float
) -> int | None:
    """Record the run's account and its balance at the start. Returns the account's number.

    The account is the one that the profile names, or else the last one used with this token at this origin, if any.
    """
    if user_id is not None:
        account_id = _upsert_account(conn, origin, user_id, token_fingerprint(token))
    else:
        account_id = account_of_token(conn, origin=origin, token=token)
    start = {"account_id": account_id, "profile_start": balance.to_json()}
    conn.execute(update(runs).where(runs.c.id == run_id).values(start))
    if account_id is not None:
        forget_closed(conn, run_id, account_id)
        _insert_balance(conn, run_id, account_id, balance, at)
    return account_id


def _upsert_account(conn: Connection, origin: str, user_id: str, fingerprint: str) -> int | None:
    new = upsert(accounts).values(origin=origin, user_id=user_id, token_fingerprint=fingerprint)
    conn.execute(
        new.on_conflict_do_update(index_elements=["origin", "user_id"], set_={"token_fingerprint": fingerprint})
    )
    return find_account(conn, origin=origin, user_id=user_id)


def note_balance(conn: Connection, run_id: str, account_id: int, balance: Balance, *, at: float) -> None:
    """Record a balance that was read during the run, as its latest."""
    conn.execute(update(runs).where(runs.c.id == run_id).values(profile_end=balance.to_json()))
    _insert_balance(conn, run_id, account_id, balance, at)


def _insert_balance(conn: Connection, run_id: str, account_id: int, balance: Balance, at: float) -> None:
    if balance.credits is not None or balance.quota is not None:
        new = insert(balances).values(
            account_id=account_id, at=at, run_id=run_id, credits=balance.credits, quota=balance.quota
        )
        conn.execute(new)


def balance_before(conn: Connection, account_id: int, run_id: str) -> float | None:
    """The account's balance (as in `Profile.balance`) as an earlier run read it last; None if none did."""
    query = select(func.coalesce(balances.c.quota, balances.c.credits)).order_by(balances.c.at.desc()).limit(1)
    earlier = (balances.c.account_id == account_id, balances.c.run_id != run_id)
    found: float | None = conn.execute(query.where(*earlier)).scalar()
    return found


def account_of_token(conn: Connection, *, origin: str, token: str) -> int | None:
    """The account last used with this token at this origin, if any."""
    same = (accounts.c.origin == origin, accounts.c.token_fingerprint == token_fingerprint(token))
    account_id: int | None = conn.execute(select(accounts.c.id).where(*same)).scalar()
    return account_id


def find_account(conn: Connection, *, origin: str, user_id: str | None) -> int | None:
    """The number of the account, or None if the ledger does not have it."""
    same = (accounts.c.origin == origin, accounts.c.user_id == user_id)
    account_id: int | None = conn.execute(select(accounts.c.id).where(*same)).scalar()
    return account_id


def end_run(conn: Connection, run_id: str, **values: Any) -> None:
    """Record how the run ended; `values` are columns of `runs`."""
    conn.execute(update(runs).where(runs.c.id == run_id).values(values | {"is_creating": 0}))


def learned_value(conn: Connection, account_id: int, name: str) -> Any:
    """The value that earlier runs saved for the account under this name; None if there is none."""
    query = select(lessons.c.value).where(lessons.c.account_id == account_id, lessons.c.name == name)
    value: str | None = conn.execute(query).scalar()
    return None if value is None else json.loads(value)


def save_learned_value(conn: Connection, account_id: int, name: str, value: Any, *, at: float) -> None:
    """Save a learned value, which must be serialisable as JSON, in place of the previous one."""
    new = {"value": json.dumps(value), "learned_at": at}
    statement = upsert(lessons).values({"account_id": account_id, "name": name} | new)
    conn.execute(statement.on_conflict_do_update(index_elements=["account_id", "name"], set_=new))


def token_fingerprint(token: str) -> str:
    """A short hash that distinguishes tokens without revealing them."""
    return hashlib.sha256(b"batcher " + token.encode()).hexdigest()[:16]
