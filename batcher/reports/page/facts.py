"""What the upper part of the page tells: how far it is, who is needed, where the credits went, the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from batcher.clock import local
from batcher.formatting import amount, counted, span
from batcher.item import State
from batcher.ledger.ledger import Connection
from batcher.ledger.queries import report
from batcher.ledger.queries.report import RunFacts, Spent, TaskTimes
from batcher.ledger.records import Batch
from batcher.reports.page import charts

STATES: Final[dict[str, tuple[str, str, str]]] = {
    State.DONE: ("made", "verified audio is on disk", ""),
    State.RENDERED: ("rendered", "the next run fetches its audio", ""),
    State.SUBMITTED: ("at the provider", "the next run collects it", ""),
    State.SUBMITTING: ("being sent", "a create is on its way", ""),
    State.PENDING: ("waiting", "not bought yet; the next run creates it", ""),
    "empty": ("no text yet", "skipped, since its text is empty", ""),
    State.ABANDONED: ("given up", "a person settled it so", ""),
    State.IN_DOUBT: ("maybe bought", "its answer was lost:", "batcher resolve"),
    State.FAILED: ("failed", "the task ended badly:", "batcher retry --state failed"),
    State.REJECTED: ("refused", "mend the row, or", "batcher retry --state rejected"),
    State.GONE: ("gone", "the provider has it no more:", "batcher retry --state gone"),
    "invalid": ("invalid", "skipped: mend the row in the manifest", ""),
}
"""Every state of a row in the order of the page, with its name there, its meaning, and the command that helps."""
NEEDS_PERSON: Final = (State.IN_DOUBT, State.FAILED, State.REJECTED, State.GONE, "invalid")
_FATES: Final = {
    "made": "audio made",
    "open": "under way",
    "in_doubt": "maybe bought, answer lost",
    "lost": "without audio: failed or gone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture with its heading and a sentence below it."""

    name: str
    title: str
    words: str
    svg: str


def facts_of(conn: Connection, wanted: Sequence[Batch]) -> dict[str, Any]:
    """Everything that the template tells above the table, as words that still have to be escaped."""
    found = report.row_states(conn, wanted)
    seconds, size = report.audio_made(conn, wanted)
    total = sum(found.values())
    return {
        "rows": total,
        "made": found.get(State.DONE, 0),
        "states": [_state(state, found[state], total) for state in STATES if found.get(state)],
        "audio_length": _length(seconds),
        "audio_size": _size(size),
        "halts": [
            f"Halted since {local(at)} ({kind}): {detail}. Nothing is created until this is over."
            for kind, at, detail in report.open_halts(conn)
        ],
        "credits": _credits(report.report_runs(conn, wanted), report.spent(conn, wanted)),
        "figures": _figures(list(report.task_times(conn, wanted))),
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
        "needs_person": state in NEEDS_PERSON,
    }


def _credits(runs: Sequence[RunFacts], spent: Sequence[Spent]) -> dict[str, Any]:
    start, end = (runs[0].balance_start, runs[-1].balance_end) if runs else (None, None)
    told = sum(one.credits for one in spent)
    complete = all(one.told == one.creates for one in spent)
    return {
        "start": _number(start),
        "end": _number(end),
        "told": _number(told if any(one.told for one in spent) else None),
        "statement": _statement(start, end, told if complete else None),
        "runs": [_run(run) for run in runs],
        "spent": [_spent(one, told) for one in sorted(spent, key=lambda one: list(_FATES).index(one.fate))],
    }


def _statement(start: float | None, end: float | None, told: float | None) -> str:
    if start is None or end is None:
        return "What the balance was before and after is not known."
    if told is None:
        return "Not every task says what it cost, so the balance cannot be explained to the end."
    unexplained = round(start - end - told, 6)
    if not unexplained:
        return "The balance and what the tasks say they cost agree: nothing is unexplained."
    return (
        f"The balance fell by {_number(start - end)} and the tasks say {_number(told)}: {_number(unexplained)} were "
        "spent, or added, by something else: other batches of the account, a top-up, or creates in doubt."
    )


def _run(run: RunFacts) -> dict[str, str]:
    lasted = "at work, or killed" if run.ended_at is None else span(run.ended_at - run.started_at)
    return {
        "began": local(run.started_at)[:-9],
        "lasted": lasted,
        "start": _number(run.balance_start),
        "end": _number(run.balance_end),
        "created": f"{run.created:,}",
        "spent": _number(run.spent),
        "ending": run.message or "",
    }


def _spent(one: Spent, total: float) -> dict[str, str]:
    return {
        "model": one.model or "the provider's choice",
        "fate": _FATES[one.fate],
        "creates": f"{one.creates:,}",
        "credits": _number(one.credits) if one.told else "unknown",
        "share": f"{100 * one.credits / total:.0f} %" if total and one.told else "",
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
            words="Created, rendered and downloaded by when." + _idle(axis),
            svg=charts.progress(tasks, axis),
        )
    ]
    if any(task.saved_at is not None for task in tasks):
        title = "Downloads a minute"
        figures.append(Figure(name="throughput", title=title, words=_pace(tasks), svg=charts.throughput(tasks, axis)))
    figures += _scatters(tasks)
    words = "How often the provider was asked about a task before it had ended."
    return [*figures, Figure(name="looks", title="Looks per task", words=words, svg=charts.looks(tasks))]


def _idle(axis: charts.TimeAxis) -> str:
    number = len(axis.breaks)
    return f" {counted(number, 'idle stretch').capitalize()} left out, at the dashed lines." if number else ""


def _pace(tasks: Sequence[TaskTimes]) -> str:
    waits = [task.saved_at - task.created_at for task in tasks if task.saved_at is not None]
    return f"Half of the files were there within {span(median(waits))} of their create."


def _scatters(tasks: Sequence[TaskTimes]) -> list[Figure]:
    lengths = [(float(task.chars), task.audio_seconds) for task in tasks if task.audio_seconds]
    waits = [(float(task.chars), max(0.0, task.rendered_at - task.created_at)) for task in tasks if task.rendered_at]
    figures = []
    if lengths:
        pace = median(chars / seconds for chars, seconds in lengths)
        title = "Length of the audio by length of its text"
        words = f"Half speak faster than {pace:.1f} characters a second. What lies far off is worth hearing."
        figures.append(
            Figure(name="length", title=title, words=words, svg=charts.scatter(lengths, title, "characters"))
        )
    if waits:
        title = "Time to render by length of the text"
        words = f"Half of the tasks ended within {span(median(wait for _, wait in waits))}, as far as looks could tell."
        figures.append(Figure(name="wait", title=title, words=words, svg=charts.scatter(waits, title, "characters")))
    return figures


def _number(value: float | None) -> str:
    return "unknown" if value is None else amount(value)


def _length(seconds: float) -> str:
    """`3:07`, `1:02:45`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"
