"""Items in doubt, with the evidence on which a person decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batcher.clock import utc
from batcher.formatting import rounded
from batcher.ledger.ledger import Connection
from batcher.ledger.money.evidence import balance_evidence, evidence
from batcher.ledger.queries import status


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtRow:
    """A row whose item is in doubt: its batch, number and id, and the path of its file in the output folder."""

    batch: str
    row: int
    id: str
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtMoney:
    """The balances around a request, with their times (ISO 8601, UTC), and the cost of other requests between them.

    `told` is what those reported, `untold` the number of those that did not report it, `unexplained` the rest of the
    fall of the balance, and `estimate` the price of the item. None is unknown.
    """

    before: float | None
    before_at: str | None
    after: float | None
    after_at: str | None
    told: float | None
    untold: int
    unexplained: float | None
    estimate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """An item in doubt: its request `attempt`, the answer as far as it arrived, its rows, and the money around it.

    Times are ISO 8601 in UTC. `raw` is the beginning of the answer's body. None is unknown.
    """

    key: str
    attempt: int
    voice: str
    chars: int
    account: str | None
    sent_at: str
    answered_at: str | None
    cause: str | None
    http_status: int | None
    code: str | None
    message: str | None
    request_id: str | None
    raw: str | None
    rows: list[DoubtRow]
    money: DoubtMoney


def find_doubts(conn: Connection, keys: Sequence[str]) -> list[Doubt]:
    """These items in doubt, in the same order."""
    rows = {item["key"]: [DoubtRow(**row) for row in item["rows"]] for item in status.show(conn, keys)}
    return [_doubt(case, rows[case.key], _money(conn, case)) for case in evidence(conn, keys)]


def _doubt(case: Any, rows: list[DoubtRow], money: DoubtMoney) -> Doubt:
    return Doubt(
        key=case.key,
        attempt=case.attempt,
        voice=case.voice,
        chars=len(case.text),
        account=case.user_id,
        sent_at=utc(case.intended_at) or "",
        answered_at=utc(case.answered_at),
        cause=case.cause,
        http_status=case.http_status,
        code=case.error_code,
        message=case.error_message,
        request_id=case.request_id,
        raw=case.raw.decode(errors="replace") if case.raw else None,
        rows=rows,
        money=money,
    )


def _money(conn: Connection, case: Any) -> DoubtMoney:
    found = balance_evidence(conn, case)
    return DoubtMoney(
        before=rounded(found.before),
        before_at=utc(found.before_at),
        after=rounded(found.after),
        after_at=utc(found.after_at),
        told=rounded(found.reported),
        untold=found.unreported,
        unexplained=rounded(found.unexplained),
        estimate=rounded(found.estimate),
    )
