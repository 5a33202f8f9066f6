"""The end of a run for people: what was done and where it is, and the next command for items that need attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from batcher.clock import local
from batcher.formatting import amount, counted, listed, plain_error, span
from batcher.item import UNFINISHED, State
from batcher.ledger.ledger import Connection
from batcher.ledger.lifecycle import runs
from batcher.ledger.money import spending
from batcher.ledger.queries import attention, ignored, item_counts, names
from batcher.ledger.queries.eta import Forecast, forecast
from batcher.ledger.records import Batch, Halt
from batcher.reports.observer import Observer
from batcher.reports.run_report import RunReport

_SHOWN: Final = 5
"""Maximum number of ids in a list of examples."""
_GROUPS: Final = {
    State.IN_DOUBT: ("in doubt (may have been bought)", "batcher resolve"),
    State.REJECTED: ("rejected by the API; fix the rows, or retry them unchanged", "batcher retry --state rejected"),
    State.FAILED: ("failed at the provider", "batcher retry --state failed"),
    State.GONE: ("gone (no longer at the provider)", "batcher retry --state gone"),
}
_COLOURS: Final = {State.IN_DOUBT: "yellow", State.REJECTED: "red", State.FAILED: "red", State.GONE: "red"}


@dataclass(frozen=True, slots=True)
class SummaryInput:
    """The result of a run, its items by state, the options by which other commands find them, and the previous result.

    `last` is the exit code and message of the previous run; `hints` are printed if the run was refused. `only_chosen`:
    the run works on the rows in the table `chosen`. `cancelled`: a person was asked, and did not say yes.
    """

    result: RunReport
    counts: item_counts.Counts
    where: str
    last: tuple[int | None, str | None]
    hints: Sequence[str]
    only_chosen: bool = False
    cancelled: bool = False

    @property
    def is_news(self) -> bool:
        """Whether the run ended differently from the previous one."""
        code, message = self.result.exit_code, self.result.message
        return code != self.last[0] or (code == 2 and message != self.last[1])


def halt_line(halt: Halt, counts: item_counts.Counts, *, balance: float | None, need: float | None) -> str:
    """Why and since when the account is halted, the balances then and now, the items to go, and how it continues."""
    parts = [f"halted since {local(halt.since_at)}: {halt.detail}"]
    if halt.kind == "credits":
        then = "unknown balance then" if halt.balance is None else f"{amount(halt.balance)} credits left then"
        parts.append(then if balance is None else f"{then}, {amount(balance)} now")
        parts.append(
            "the cost of the next item is unknown" if need is None else f"the next item needs about {amount(need)}"
        )
    parts.append(f"{counts.states[State.DONE]:,} done, {counts.states[State.PENDING]:,} to go")
    if halt.kind == "credits":
        parts.append("top up the API credits (membership credits are separate), and the next run continues")
    else:
        parts.append(f"a run after {local(halt.probe_after_at)} tries again with one create; see `batcher resolve`")
    return "; ".join(parts)


def forecast_message(found: Forecast) -> str:
    """The run's latest rate and an estimate of the time for the remaining items."""
    rate = found.per_second * 60
    least, most = span(found.least_seconds), span(found.most_seconds)
    return (
        f"{rate:,.{0 if rate >= 10 else 1}f} items a minute: the remaining {found.remaining:,} need about "
        f"{span(found.seconds)} more ({least} to {most})"
    )


def overdue_message(conn: Connection, batches: Sequence[Batch], keys: Sequence[str]) -> str:
    """The suffix of a run's message that lists overdue tasks of these batches. Empty if there are none."""
    found = names.ids_of(conn, batches, keys[: _SHOWN + 1])
    if not found:
        return ""
    return f"; overdue: {', '.join(found[:_SHOWN])}{', …' * (len(found) > _SHOWN)}; run it again later"


def print_summary(conn: Connection, progress: Observer, words: SummaryInput, batches: Sequence[Batch]) -> None:
    """Print how the run ended. A quiet run prints only news that needs attention."""
    result, counts = words.result, words.counts
    if words.cancelled and not result.collected:
        progress.say(result.message)
        return
    if counts.rows or result.exit_code != 2:
        progress.say(_first_line(result, counts), "green" if result.exit_code == 0 else None)
    _print_end(progress, words)
    remaining = sum(counts.states[state] for state in UNFINISHED)
    if result.exit_code == 6 and (ahead := forecast(conn, result.run_id or "", remaining)) is not None:
        progress.say(forecast_message(ahead))
    if (statement := _statement(conn, result)) is not None:
        progress.say(statement)
    for one in ignored.ignored_in_run(conn, result.run_id or ""):
        progress.warn(f"{one.line()}; see `batcher help account`")
    _print_undelivered(conn, progress, words, batches)
    _print_groups(conn, progress, words, batches)
    if counts.invalid:
        progress.say(f"{counted(counts.invalid, 'row')} skipped as invalid; fix them in the manifest and run it again")
    if counts.empty:
        progress.say(f"{counted(counts.empty, 'row')} skipped as empty")
    if result.left_out is not None:
        progress.say(f"{counted(result.left_out, 'row')} left out by --where")
    if words.only_chosen:
        verb = "is" if result.not_selected == 1 else "are"
        progress.say(f"{counted(result.not_selected, 'other row')} of the manifest {verb} not part of this run")


def _print_end(progress: Observer, words: SummaryInput) -> None:
    result = words.result
    if result.exit_code == 0:
        return
    show = progress.warn if words.is_news and result.exit_code not in (3, 6) else progress.say
    colour = None if result.exit_code == 6 else "yellow" if result.exit_code == 3 else "red"
    show(f"exit {result.exit_code}: {result.message}", colour)
    for hint in words.hints if result.exit_code == 2 else ():
        show(f"  {hint}")


def _print_groups(conn: Connection, progress: Observer, words: SummaryInput, batches: Sequence[Batch]) -> None:
    """Print the items that need attention, by state, each with the command to use."""
    for state, (label, command) in _GROUPS.items():
        number = words.counts.states[state]
        if not number:
            continue
        is_new = item_counts.new_in_run(conn, words.result.run_id or "", state)
        show = progress.warn if is_new else progress.say
        examples = attention.needing_attention(conn, batches, state, _SHOWN + 1, only_chosen=words.only_chosen)
        show(f"{counted(number, 'item')} {label}: {_examples(examples)}", _COLOURS[state])
        show(f"    {command} {words.where}")


def _name(row_ids: Sequence[str]) -> str:
    """An item by the first of its rows, and the others that share it."""
    first, *others = row_ids
    return f"{first} (also {listed(others, _SHOWN)})" if others else first


def _print_undelivered(conn: Connection, progress: Observer, words: SummaryInput, batches: Sequence[Batch]) -> None:
    """Print the items whose audio could not be downloaded, with the reasons. The next run tries them again."""
    if not words.counts.states[State.RENDERED]:
        return
    number, found = attention.undelivered(conn, batches, _SHOWN + 1, only_chosen=words.only_chosen)
    if number:
        show = progress.warn if words.is_news else progress.say
        show(f"{counted(number, 'item')} finished, but without usable audio so far: {_examples(found)}")


def _first_line(result: RunReport, counts: item_counts.Counts) -> str:
    done, pending = counts.states[State.DONE], counts.states[State.PENDING]
    open_ = sum(counts.states[state] for state in UNFINISHED) - pending
    parts = [f"{done:,} of {counted(counts.items, 'item')} done"]
    parts.append(f"{result.created:,} created and {result.collected:,} collected in {result.elapsed_seconds:.1f} s")
    if pending:
        parts.append(f"{pending:,} not created yet")
    if open_:
        parts.append(f"{open_:,} created and not collected yet")
    if counts.states[State.ABANDONED]:
        parts.append(f"{counts.states[State.ABANDONED]:,} abandoned")
    if result.credits.spent:
        parts.append(f"{amount(result.credits.spent)} credits spent")
    if result.credits.end is not None:
        parts.append(f"{amount(result.credits.end)} credits left")
    return f"{', '.join(parts)}; audio in {result.out_dir}"


def _statement(conn: Connection, result: RunReport) -> str | None:
    """The balances around the run compared with the reported cost of its tasks, if they disagree, and top-ups.

    None if all is explained, or unknown, as when other runs have spent from the same balance.
    """
    start, end = result.credits.start, result.credits.end
    if start is None or end is None or runs.worked_with_others(conn, result.run_id or ""):
        return None
    if added := result.credits.topped_up:
        spent = f"spent about {amount(start + added - end)}"
        return f"credits: {spent}, topped up about {amount(added)}, {amount(end)} left"
    reported, complete = spending.spent_in_run(conn, result.run_id or "")
    unexplained = round(start - end - (reported or 0.0), 6)
    if not unexplained:
        return None
    words = f"balance: {amount(start)} at the start, {amount(end)} at the end"
    if reported is None and result.created:
        return f"{words}; the tasks report no cost"
    cost = "no task created" if reported is None else f"reported cost {amount(reported)}{' so far' * (not complete)}"
    doubts = item_counts.new_in_run(conn, result.run_id or "", State.IN_DOUBT)
    part = f" ({counted(doubts, 'create')} in doubt may be part of it)" if doubts else ""
    return f"{words}; {cost}; {'+' * (unexplained > 0)}{amount(unexplained)} credits unexplained{part}"


def _examples(found: Sequence[Sequence[Any]]) -> str:
    """Items by the ids of their rows, with their errors; those with the same error together."""
    words = []
    for error, alike in groupby(found[:_SHOWN], key=itemgetter(1)):
        ids = [_name(row_ids) for row_ids, _ in alike]
        times = f"{len(ids)} times: " * (len(ids) > 1)
        words.append(f"{', '.join(ids)} ({times}{plain_error(error).rstrip('.')})")
    return ", ".join(words) + (", …" if len(found) > _SHOWN else "")
