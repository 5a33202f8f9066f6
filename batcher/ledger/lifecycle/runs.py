"""The run in its ledger: who runs, for which account, with which balance, and how it ended."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from batcher.ledger.records import Balance
from batcher.ledger.storage.schema import accounts, balances, lessons, runs


def begin_run(conn: Connection, run_id: str, *, out_dir: str, at: float) -> tuple[int | None, str | None]:
    """Note that a run has begun; the earlier ones have ended, since this one holds the owner's lock.

    Returns the exit code and the message of the last one.
    """
    last = conn.execute(select(runs.c.exit_code, runs.c.message).order_by(runs.c.started_at.desc()).limit(1)).first()
    conn.execute(update(runs).where(runs.c.ended_at.is_(None)).values(ended_at=at, outcome="vanished"))
    who = {"pid": os.getpid(), "host": socket.gethostname()}
    conn.execute(insert(runs).values(id=run_id, started_at=at, out_dir=out_dir, **who))
    return (last.exit_code, last.message) if last is not None else (None, None)


def enter_account(
    conn: Connection, run_id: str, *, origin: str, user_id: str | None, token: str, balance: Balance, at: float
) -> int | None:
    """The account that the profile names, noted with the run.

    When it names none, the account that this token was last seen with at this origin, if any.
    """
    fingerprint = token_fingerprint(token)
    if user_id is not None:
        values = {"origin": origin, "user_id": user_id, "token_fingerprint": fingerprint}
        conn.execute(
            upsert(accounts)
            .values(**values)
            .on_conflict_do_update(index_elements=["origin", "user_id"], set_={"token_fingerprint": fingerprint})
        )
        known = (accounts.c.origin == origin, accounts.c.user_id == user_id)
    else:
        known = (accounts.c.origin == origin, accounts.c.token_fingerprint == fingerprint)
    account_id: int | None = conn.execute(select(accounts.c.id).where(*known)).scalar()
    start = {"account_id": account_id, "profile_start": balance.to_json()}
    conn.execute(update(runs).where(runs.c.id == run_id).values(start))
    if account_id is not None:
        _keep(conn, run_id, account_id, balance, at)
    return account_id


def note_balance(conn: Connection, run_id: str, account_id: int, balance: Balance, *, at: float) -> None:
    """Keep a balance that was read in the course of the run, as the last one so far."""
    conn.execute(update(runs).where(runs.c.id == run_id).values(profile_end=balance.to_json()))
    _keep(conn, run_id, account_id, balance, at)


def _keep(conn: Connection, run_id: str, account_id: int, balance: Balance, at: float) -> None:
    if balance.credits is not None or balance.quota is not None:
        values = {"account_id": account_id, "at": at, "run_id": run_id}
        conn.execute(insert(balances).values(values | {"credits": balance.credits, "quota": balance.quota}))


def account_of_token(conn: Connection, *, origin: str, token: str) -> int | None:
    """The account that this token was last seen with at this origin, if any."""
    known = (accounts.c.origin == origin, accounts.c.token_fingerprint == token_fingerprint(token))
    account_id: int | None = conn.execute(select(accounts.c.id).where(*known)).scalar()
    return account_id


def end_run(conn: Connection, run_id: str, **values: Any) -> None:
    """Note how the run ended; `values` are columns of its row."""
    conn.execute(update(runs).where(runs.c.id == run_id).values(**values))


def lesson(conn: Connection, account_id: int, name: str) -> Any:
    """What earlier runs have learned with the account under this name, as `save_lesson` got it; None for nothing."""
    kept = select(lessons.c.value).where(lessons.c.account_id == account_id, lessons.c.name == name)
    value: str | None = conn.execute(kept).scalar()
    return None if value is None else json.loads(value)


def save_lesson(conn: Connection, account_id: int, name: str, value: Any, *, at: float) -> None:
    """Keep what was learned, a value that JSON has, in place of what was known before."""
    new = {"value": json.dumps(value), "learned_at": at}
    statement = upsert(lessons).values(account_id=account_id, name=name, **new)
    conn.execute(statement.on_conflict_do_update(index_elements=["account_id", "name"], set_=new))


def token_fingerprint(token: str) -> str:
    """What tells one token from another and gives neither away."""
    return hashlib.sha256(b"batcher " + token.encode()).hexdigest()[:16]


def find_account(conn: Connection, *, origin: str, user_id: str | None) -> int | None:
    """The number of an account that the ledger knows, or None."""
    known = (accounts.c.origin == origin, accounts.c.user_id == user_id)
    account_id: int | None = conn.execute(select(accounts.c.id).where(*known)).scalar()
    return account_id
