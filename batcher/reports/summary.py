"""The end of a run in words: what was made and where, and for all that needs a person the command to use next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final

from batcher.clock import local
from batcher.formatting import amount, counted, plainly, span
from batcher.item import UNFINISHED, State
from batcher.ledger.ledger import Connection
from batcher.ledger.money import spending
from batcher.ledger.queries import attention, item_counts, names
from batcher.ledger.queries.eta import forecast
from batcher.ledger.records import Batch, Halt
from batcher.reports.progress import Progress
from batcher.reports.run_report import RunReport

_SHOWN: Final = 5
_GROUPS: Final = {
    State.IN_DOUBT: ("maybe bought (in doubt)", "batcher resolve"),
    State.REJECTED: (
        "refused by the API: mend their rows, or have the same tried again",
        "batcher retry --state rejected",
    ),
    State.FAILED: ("failed at the provider", "batcher retry --state failed"),
    State.GONE: ("gone: the provider no longer has them", "batcher retry --state gone"),
}


@dataclass(frozen=True, slots=True)
class SummaryInput:
    """How a run ended, what its items came to, how other commands find them, and how the run before it ended.

    `hints` are what can be done where the run was refused.
    """

    result: RunReport
    counts: item_counts.Counts
    where: str
    last: tuple[int | None, str | None]
    hints: Sequence[str]

    @property
    def is_news(self) -> bool:
        """Whether it ended otherwise than the run before."""
        result = self.result
        return (result.exit_code, result.message if result.exit_code == 2 else None) != (
            self.last[0],
            self.last[1] if result.exit_code == 2 else None,
        )


def halt_line(halt: Halt, counts: item_counts.Counts, *, balance: float | None, need: float | None) -> str:
    """What halted the account, since when, with what balance then and now, what waits, and how it goes on."""
    parts = [f"halted since {local(halt.since_at)}: {halt.detail}"]
    if halt.kind == "credits":
        then = "the balance then is not known" if halt.credits is None else f"{amount(halt.credits)} credits were left"
        parts.append(then if balance is None else f"{then}, {amount(balance)} are now")
        parts.append(
            "what the next item needs is not known" if need is None else f"the next item needs about {amount(need)}"
        )
    parts.append(f"{counts.states[State.DONE]:,} items are made and {counts.states[State.PENDING]:,} wait")
    if halt.kind == "credits":
        parts.append("after a top-up the next run goes on by itself")
    else:
        parts.append(f"a run after {local(halt.probe_after_at)} tries again with one create; see `batcher resolve`")
    return "; ".join(parts)


def forecast_message(conn: Connection, run_id: str, remaining: int) -> str | None:
    """How quickly the run's last items were done, and what that foretells for the rest; None where nothing does."""
    found = forecast(conn, run_id, remaining)
    if found is None:
        return None
    rate = found.per_second * 60
    least, most = span(found.least_seconds), span(found.most_seconds)
    return (
        f"{rate:,.{0 if rate >= 10 else 1}f} items a minute: the remaining {remaining:,} need about "
        f"{span(found.seconds)} more ({least} to {most})"
    )


def overdue_message(conn: Connection, batches: Sequence[Batch], keys: Sequence[str]) -> str:
    """Which tasks were overdue when a run ended, to follow its message; nothing if none of these batches' was."""
    found = names.ids_of(conn, batches, keys[: _SHOWN + 1])
    if not found:
        return ""
    return f"; overdue: {', '.join(found[:_SHOWN])}{', …' * (len(found) > _SHOWN)}; run again to collect"


def tell(conn: Connection, progress: Progress, words: SummaryInput, batches: Sequence[Batch]) -> None:
    """Say how the run ended; a quiet one speaks only of what is new and needs a person."""
    result, counts = words.result, words.counts
    if counts.rows or result.exit_code != 2:
        progress.say(_first_line(result, counts))
    if result.exit_code != 0:
        needs_word = words.is_news and result.exit_code not in (3, 6)
        tell_end = progress.warn if needs_word else progress.say
        tell_end(f"exit {result.exit_code}: {result.message}")
        for hint in words.hints if result.exit_code == 2 else ():
            tell_end(f"  {hint}")
    remaining = sum(counts.states[state] for state in UNFINISHED)
    if result.exit_code == 6 and (ahead := forecast_message(conn, result.run_id or "", remaining)) is not None:
        progress.say(ahead)
    if (statement := _statement(conn, result)) is not None:
        progress.say(statement)
    for state, (label, command) in _GROUPS.items():
        number = counts.states[state]
        if number:
            fresh = item_counts.new_in_run(conn, result.run_id or "", state)
            tell_one = progress.warn if fresh else progress.say
            tell_one(f"{number} {label}: {_examples(conn, batches, state)}")
            tell_one(f"    {command} {words.where}")
    if counts.invalid:
        progress.say(f"{counted(counts.invalid, 'row')} skipped as invalid: mend them in the manifest and run again")
    if counts.empty:
        progress.say(f"{counted(counts.empty, 'row')} skipped as empty")


def _first_line(result: RunReport, counts: item_counts.Counts) -> str:
    done, pending = counts.states[State.DONE], counts.states[State.PENDING]
    open_ = sum(counts.states[state] for state in UNFINISHED) - pending
    parts = [f"{done} of {counted(counts.items, 'item')} done"]
    parts.append(f"{result.created} created and {result.collected} collected in {result.elapsed_seconds:.1f} s")
    if pending:
        parts.append(f"{pending} not bought yet")
    if open_:
        parts.append(f"{open_} bought and not collected yet")
    if counts.states[State.ABANDONED]:
        parts.append(f"{counts.states[State.ABANDONED]} abandoned")
    if result.credits["spent"]:
        parts.append(f"{amount(result.credits['spent'])} credits spent")
    if result.credits["end"] is not None:
        parts.append(f"{amount(result.credits['end'])} left")
    return f"{', '.join(parts)}; audio in {result.out_dir}"


def _statement(conn: Connection, result: RunReport) -> str | None:
    """The balances around the run set against what its tasks say they cost; None where nothing moved or is known."""
    start, end = result.credits["start"], result.credits["end"]
    if start is None or end is None:
        return None
    told, complete = spending.spent_in_run(conn, result.run_id or "")
    if start == end and not told:
        return None
    words = f"statement: the balance went from {amount(start)} to {amount(end)}"
    if told is None and result.created:
        return f"{words}; this run's tasks do not say what they cost"
    if told is None:
        words += "; this run made no task"
    else:
        words += f"; this run's tasks say they cost {amount(told)}" + ("" if complete else " so far")
    unexplained = round(start - end - (told or 0.0), 6)
    if not unexplained:
        return f"{words}: nothing is unexplained"
    doubts = item_counts.new_in_run(conn, result.run_id or "", State.IN_DOUBT)
    part = f", of which {counted(doubts, 'create')} in doubt may be a part" if doubts else ""
    return f"{words}: {'+' * (unexplained > 0)}{amount(unexplained)} credits are unexplained{part}"


def _examples(conn: Connection, batches: Sequence[Batch], state: State) -> str:
    found = attention.needing_attention(conn, batches, state, _SHOWN + 1)
    words = []
    for error, alike in groupby(found[:_SHOWN], key=itemgetter(1)):
        ids = [row_id for row_id, _ in alike]
        times = f"{len(ids)} times: " * (len(ids) > 1)
        words.append(f"{', '.join(ids)} ({times}{plainly(error).rstrip('.')})")
    return ", ".join(words) + (", …" if len(found) > _SHOWN else "")
