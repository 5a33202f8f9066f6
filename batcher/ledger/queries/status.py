"""The data of `show` and `status`: items with their history, and the state of the whole ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, and_, select

from batcher.clock import utc
from batcher.formatting import rounded
from batcher.item import Inputs
from batcher.ledger.money.spending import estimated_need, spending
from batcher.ledger.money.top_ups import topped_up
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.queries.item_counts import Counts, count
from batcher.ledger.queries.outputs import error_of
from batcher.ledger.storage.schema import (
    accounts,
    attempts,
    balances,
    batches,
    events,
    files,
    halts,
    items,
    rows,
    runs,
    tasks,
)
from batcher.ledger.storage.sharing import is_shared

_OTHER_TAKES: Final = 20
"""Maximum number of lower, and of higher, takes listed: a manifest may give any number as its take."""


def show(conn: Connection, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Items as `show --json` lists them, in the order of `keys`."""
    accounts_by_id = {row.id: row.user_id for row in conn.execute(select(accounts.c.id, accounts.c.user_id))}
    for key in keys:
        item = conn.execute(select(items).where(items.c.key == key)).one()
        query = (
            select(rows, batches.c.name.label("batch"))
            .join(batches, and_(batches.c.id == rows.c.batch_id, rows.c.is_current == 1))
            .where(rows.c.item_key == key)
            .order_by(rows.c.batch_id, rows.c.number)
        )
        yield {
            "key": item.key,
            "state": item.state,
            "attempt": item.attempt,
            "task_id": item.task_id,
            "account": accounts_by_id.get(item.account_id),
            "take": item.take,
            "chars": len(item.text),
            "rows": [
                {"batch": row.batch, "row": row.number, "id": row.id, "output": row.output}
                for row in conn.execute(query)
            ],
            "error": error_of(item),
        }


def story(conn: Connection, key: str) -> dict[str, Any]:
    """Everything that the ledger stores of an item: inputs, attempts, tasks, file, other takes and events."""
    item = conn.execute(select(items).where(items.c.key == key)).one()
    attempts_made = conn.execute(select(attempts).where(attempts.c.item_key == key).order_by(attempts.c.attempt))
    tasks_created = conn.execute(select(tasks).where(tasks.c.item_key == key).order_by(tasks.c.accepted_at))
    item_events = conn.execute(select(events).where(events.c.item_key == key).order_by(events.c.id))
    file = conn.execute(select(files).where(files.c.item_key == key)).first()
    return {
        "inputs": {
            "text": item.text,
            "voice": item.voice,
            "model": item.model,
            "format": item.format,
            "take": item.take,
            "params": json.loads(item.params),
        },
        "attempts": [_attempt(row) for row in attempts_made],
        "tasks": [_task(row) for row in tasks_created],
        "file": file and _file(file),
        "other_takes": [
            {"take": row.take, "key": row.key, "state": row.state, "path": row.path and f"{row.out_dir}/{row.path}"}
            for row in conn.execute(_other_takes(item))
        ],
        "events": [
            {"at": utc(row.at), "event": row.event, "state": row.state, "run_id": row.run_id, "detail": row.detail}
            for row in item_events
        ],
    }


def _other_takes(item: Row[Any]) -> Select[Any]:
    """Query for the items of the same inputs with other takes, found by their computed keys."""
    inputs = Inputs(
        text=item.text, voice=item.voice, model=item.model, format=item.format, params=json.loads(item.params)
    )
    takes = range(max(1, item.take - _OTHER_TAKES), item.take + _OTHER_TAKES + 1)
    keys = [replace(inputs, take=take).key() for take in takes if take != item.take]
    query = select(items.c.take, items.c.key, items.c.state, files.c.out_dir, files.c.path)
    return query.outerjoin(files, files.c.item_key == items.c.key).where(items.c.key.in_(keys)).order_by(items.c.take)


def out_dirs(conn: Connection) -> list[str]:
    """The output folders of all runs, relative to the ledger's folder."""
    return list(conn.execute(select(runs.c.out_dir).distinct()).scalars())


def _attempt(row: Row[Any]) -> dict[str, Any]:
    return {
        "attempt": row.attempt,
        "run_id": row.run_id,
        "sent_at": utc(row.intended_at),
        "answered_at": utc(row.answered_at),
        "outcome": row.outcome,
        "cause": row.cause,
        "http_status": row.http_status,
        "code": row.error_code,
        "message": row.error_message,
        "request_id": row.request_id,
        "credits": row.credits,
    }


def _task(row: Row[Any]) -> dict[str, Any]:
    return {
        "task_id": row.task_id,
        "attempt": row.attempt,
        "accepted_at": utc(row.accepted_at),
        "ended_at": utc(row.ended_at),
        "looks": row.looks,
        "status": row.word,
        "credits": row.credits,
        "ignored": row.ignored,
    }


def _file(row: Row[Any]) -> dict[str, Any]:
    return {
        "path": f"{row.out_dir}/{row.path}",
        "sha256": row.sha256,
        "bytes": row.bytes,
        "audio_seconds": row.audio_seconds,
        "saved_at": utc(row.saved_at),
    }


def status(conn: Connection) -> dict[str, Any]:
    """The ledger as `status --json` shows it."""
    wanted = current_batches(conn)
    counts = count(conn, wanted)
    run = conn.execute(select(runs).order_by(runs.c.started_at.desc()).limit(1)).first()
    halt = conn.execute(select(halts).where(halts.c.closed_at.is_(None)).order_by(halts.c.since_at)).first()
    costs = spending(conn)
    credits_ = {
        "start": balance_of(run.profile_start) if run else None,
        "end": balance_of(run.profile_end) if run else None,
        "spent": costs.spent,
        "in_flight": costs.in_flight,
        "in_doubt": costs.in_doubt,
        "estimated_needed": estimated_need(conn, wanted),
        "topped_up": topped_up(conn),
        "left": _last_balance(conn),
    }
    return {
        "batches": [batch.name for batch in wanted],
        "rows": counts.rows,
        "items": counts.items,
        "states": counts.states,
        "halt": halt and {"kind": halt.kind, "since": utc(halt.since_at), "detail": halt.detail},
        "credits": {name: rounded(number) for name, number in credits_.items()},
        "last_run": run and _run_facts(run),
    }


def _last_balance(conn: Connection) -> float | None:
    """The balance that was read last, by whichever run; None if it is unknown."""
    read = conn.execute(select(balances).order_by(balances.c.id.desc()).limit(1)).first()
    return None if read is None else read.credits if read.quota is None else read.quota


def by_batch(conn: Connection) -> list[tuple[str, Counts]]:
    """Each batch's name, with the counts of its rows and items."""
    return [(batch.name, count(conn, [batch])) for batch in current_batches(conn)]


def precompute(conn: Connection) -> None:
    """Compute and cache the facts for `status`: the command itself is read-only and cannot store them.

    On a server, nothing is cached.
    """
    if not is_shared(conn):
        status(conn)
        by_batch(conn)


def balance_of(profile: str | None) -> float | None:
    """The quota of a recorded profile, or else its credits; None if it has neither."""
    found = json.loads(profile or "{}")
    balance: float | None = found.get("credits") if found.get("quota") is None else found["quota"]
    return balance


def _run_facts(run: Row[Any]) -> dict[str, Any]:
    return {
        "run_id": run.id,
        "started_at": utc(run.started_at),
        "ended_at": utc(run.ended_at),
        "pid": run.pid,
        "host": run.host,
        "exit_code": run.exit_code,
        "outcome": run.outcome,
        "message": run.message,
        "created": run.created,
        "collected": run.collected,
    }
