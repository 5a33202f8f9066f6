"""The report of a run: exit code, message, and the JSON object of `run --json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from batcher.clock import utc
from batcher.ledger.records import Halt
from batcher.log import log
from batcher.reports.tally import Tally

SCHEMA: Final = 1
"""Version of the JSON of all commands; raised when a key changes its meaning or disappears."""
OUTCOMES: Final = {
    0: "done",
    1: "bug",
    2: "refused",
    3: "needs_person",
    4: "halted",
    5: "credentials",
    6: "stopped",
    7: "locked",
    8: "trouble",
    130: "interrupted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credits:
    """Credits of a run: the balance at its start and end, what it spent, what the rest is estimated to need, and about
    how much was topped up meanwhile."""

    start: float | None = None
    end: float | None = None
    spent: float | None = None
    estimated_needed: float | None = None
    topped_up: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenHalt:
    """Why and since when (ISO 8601, UTC) an account is halted: `credits` or `unstable`."""

    kind: str
    since: str | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The result of a run. Its fields, in this order, are the keys of `run --json`. None means unknown.

    Rows, items and states are of the rows that the run works on; `not_selected` are the others of its manifests.
    `left_out` are the rows of the files that `--where` does not select; None without it.
    """

    schema: int = SCHEMA
    command: str = "run"
    run_id: str | None = None
    exit_code: int
    outcome: str
    message: str
    hint: str | None = None
    ledger: str | None = None
    out_dir: str | None = None
    batches: list[str] = field(default_factory=list)
    rows: int | None = None
    items: int | None = None
    states: dict[str, int] = field(default_factory=dict)
    not_selected: int = 0
    left_out: int | None = None
    created: int = 0
    collected: int = 0
    halt: OpenHalt | None = None
    credits: Credits = Credits()
    requests: dict[str, int] = field(default_factory=lambda: Tally().requests())
    elapsed_seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """The object of `run --json`."""
        return asdict(self)


def log_end(report: RunReport) -> None:
    """Log the report of a run that has ended: a warning, unless it is finished or may simply go on."""
    (log.info if report.exit_code in (0, 6) else log.warning)("run ended", **report.facts())


def halt_of(halts: Sequence[Halt]) -> OpenHalt | None:
    """The value of `halt` in a report: the account's oldest open halt."""
    if not halts:
        return None
    halt = halts[0]
    return OpenHalt(kind=halt.kind, since=utc(halt.since_at), detail=halt.detail)
