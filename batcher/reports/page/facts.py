"""The page without its rows: outcome, states, credits and charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from statistics import median
from typing import Any, Final

from batcher.clock import local
from batcher.formatting import amount, counted, size, span
from batcher.item import NEEDS_ATTENTION, State
from batcher.ledger.ledger import Connection
from batcher.ledger.queries import ignored, report
from batcher.ledger.queries.report import RunFacts, Spent, TaskTimes
from batcher.ledger.records import Batch
from batcher.reports.page import charts

STATES: Final[dict[str, tuple[str, str, str]]] = {
    State.DONE: ("done", "Verified audio is on disk.", ""),
    State.RENDERED: ("rendered", "The next run downloads the audio.", ""),
    State.SUBMITTED: ("at the provider", "The next run collects the audio.", ""),
    State.SUBMITTING: ("being sent", "A request is in progress.", ""),
    State.PENDING: ("to go", "Not created yet; the next run creates it.", ""),
    "empty": ("empty", "Skipped: the row has no text yet.", ""),
    State.ABANDONED: ("abandoned", "Given up without audio.", "batcher retry --state abandoned"),
    State.IN_DOUBT: ("in doubt", "May have been bought: the answer was lost.", "batcher resolve"),
    State.FAILED: ("failed", "The provider could not render it.", "batcher retry --state failed"),
    State.REJECTED: ("rejected", "Fix the row, or retry it unchanged.", "batcher retry --state rejected"),
    State.GONE: ("gone", "No longer at the provider.", "batcher retry --state gone"),
    "invalid": ("invalid", "Skipped: fix the row in the manifest.", ""),
}
"""Every state of a row in the order of the page: its name there, its meaning, and the command to use."""
_FATES: Final = {
    "produced": "audio produced",
    "open": "in progress",
    "in_doubt": "in doubt (may have been bought)",
    "settled": "no longer in doubt (given up or bought again)",
    "lost": "no audio (failed or gone)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart with its title and caption. `has_dots`: its dots lead to rows."""

    name: str
    title: str
    caption: str
    svg: str
    has_dots: bool = False


def facts_of(conn: Connection, chosen: Sequence[Batch]) -> dict[str, Any]:
    """The template's values for everything but the rows, not yet escaped."""
    found = report.row_states(conn, chosen)
    seconds, size_bytes = report.audio_total(conn, chosen)
    total = sum(found.values())
    return {
        "rows": total,
        "done": found.get(State.DONE, 0),
        "attention": sum(found.get(state, 0) for state in (*NEEDS_ATTENTION, "invalid")),
        "states": [_state(state, found[state], total) for state in STATES if found.get(state)],
        "audio_length": _length(seconds),
        "audio_size": size(size_bytes),
        "halts": [
            f"Halted since {local(at)} ({kind}): {detail}. Nothing will be created until the halt ends."
            for kind, at, detail in report.open_halts(conn)
        ],
        "credits": _credits(conn, report.report_runs(conn, chosen), report.spent(conn, chosen)),
        "ignored": [f"{one.line()}." for one in ignored.ignored_in(conn, chosen)],
        "figures": _figures(list(report.task_times(conn, chosen))),
    }


def _state(state: str, number: int, total: int) -> dict[str, Any]:
    name, meaning, command = STATES[state]
    share = 100 * number / total
    return {
        "state": str(state),
        "name": name,
        "meaning": meaning,
        "command": command,
        "number": number,
        "share": f"{share:.1f}",
    }


def _credits(conn: Connection, runs: Sequence[RunFacts], spent: Sequence[Spent]) -> dict[str, Any]:
    found = report.report_credits(conn, runs, spent)
    cost = found.spent or 0.0
    return {
        "start": _number(found.start),
        "end": _number(found.end),
        "cost": _number(found.spent),
        "statement": _statement(found.start, found.end, cost if found.is_complete else None, found.topped_up),
        "runs": [_run(run) for run in runs],
        "spent": [_spent(one, cost) for one in sorted(spent, key=lambda one: list(_FATES).index(one.fate))],
    }


def _statement(start: float | None, end: float | None, cost: float | None, added: float) -> str:
    if start is None or end is None:
        return "The balance at the start or at the end is unknown."
    if added:
        spent = _number(round(start + added - end, 6))
        return f"Spent about {spent}, topped up about {_number(added)}, {_number(end)} left."
    if cost is None:
        return "Some tasks report no cost, so the balance cannot be fully explained."
    unexplained = round(start - end - cost, 6)
    if not unexplained:
        return "The change of the balance equals the reported cost: nothing is unexplained."
    change = f"fell by {_number(start - end)}" if start >= end else f"rose by {_number(end - start)}"
    return (
        f"The balance {change} and the reported cost is {_number(cost)}. The difference of {_number(abs(unexplained))} "
        "may come from other batches of the account, a top-up, or requests in doubt."
    )


def _run(run: RunFacts) -> dict[str, str]:
    duration = "running or killed" if run.ended_at is None else span(max(0.0, run.ended_at - run.started_at))
    return {
        "started": local(run.started_at)[:-9],
        "duration": duration,
        "start": _number(run.balance_start),
        "end": _number(run.balance_end),
        "created": f"{run.created:,}",
        "cost": _number(run.spent),
        "outcome": run.message or "",
    }


def _spent(one: Spent, total: float) -> dict[str, str]:
    return {
        "model": one.model or "provider's default",
        "fate": _FATES[one.fate],
        "creates": f"{one.creates:,}",
        "credits": _number(one.credits) if one.priced else "unknown",
        "share": f"{100 * one.credits / total:.0f} %" if total and one.priced else "",
        "audio": _length(one.audio_seconds) if one.audio_seconds else "",
    }


def _figures(tasks: Sequence[TaskTimes]) -> list[Figure]:
    if not tasks:
        return []
    ends = (at for task in tasks for at in (task.rendered_at, task.saved_at) if at is not None)
    axis = charts.TimeAxis([*(task.created_at for task in tasks), *ends])
    figures = [
        Figure(
            name="progress",
            title="Tasks over time",
            caption="Cumulative number of tasks." + _idle(axis),
            svg=charts.progress(tasks, axis),
        )
    ]
    if any(task.saved_at is not None for task in tasks):
        title = "Downloads per minute"
        figures.append(
            Figure(name="throughput", title=title, caption=_latency(tasks), svg=charts.throughput(tasks, axis))
        )
    figures += _scatters(tasks)
    caption = "Status requests until the task ended."
    return [*figures, Figure(name="polls", title="Polls per task", caption=caption, svg=charts.polls(tasks))]


def _idle(axis: charts.TimeAxis) -> str:
    number = len(axis.breaks)
    return f" {counted(number, 'idle period')} left out (dashed)." if number else ""


def _latency(tasks: Sequence[TaskTimes]) -> str:
    waits = [task.saved_at - task.created_at for task in tasks if task.saved_at is not None]
    return f"Median time from request to file: {span(median(waits))}."


def _scatters(tasks: Sequence[TaskTimes]) -> list[Figure]:
    figures = []
    lengths = [(task, task.audio_seconds) for task in tasks if task.audio_seconds]
    if lengths:
        pace = median(task.chars / seconds for task, seconds in lengths)
        dots = [_dot(task, seconds, abs(log(max(task.chars, 1) / seconds / pace))) for task, seconds in lengths]
        caption = (
            f"Median pace: {pace:.1f} characters per second. Listen to the outliers first: a dot leads to its row."
        )
        figures.append(_scatter("length", "Audio length by text length", caption, dots))
    waits = [(task, max(0.0, task.rendered_at - task.created_at)) for task in tasks if task.rendered_at]
    if waits:
        usual = span(median(wait for _, wait in waits))
        caption = f"Median: {usual}, accurate to the interval between polls. A dot leads to its row."
        dots = [_dot(task, wait, wait) for task, wait in waits]
        figures.append(_scatter("wait", "Render time by text length", caption, dots))
    return figures


def _dot(task: TaskTimes, seconds: float, oddity: float) -> charts.Dot:
    return charts.Dot(x=task.chars, y=seconds, key=task.key, oddity=oddity)


def _scatter(name: str, title: str, caption: str, dots: Sequence[charts.Dot]) -> Figure:
    svg = charts.scatter(dots, title, "characters")
    return Figure(name=name, title=title, caption=caption, svg=svg, has_dots=True)


def _number(value: float | None) -> str:
    return "unknown" if value is None else amount(value)


def _length(seconds: float) -> str:
    """`3:07`, `1:02:45`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
