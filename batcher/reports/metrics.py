"""The result of a run in Prometheus' text format, for node_exporter's textfile collector.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from batcher import files
from batcher.reports.run_report import RunReport

_HELP: Final = {
    "batcher_items": "Items of the run's manifests, by state.",
    "batcher_halted": "Whether the account was halted when the last run ended, by kind of halt.",
    "batcher_last_run_created_items": "Items created by the last run.",
    "batcher_last_run_collected_items": "Items collected by the last run.",
    "batcher_last_run_credits": "Credits at the start and end of the last run, and credits spent by it.",
    "batcher_last_run_requests": "Requests sent by the last run, by kind.",
    "batcher_last_run_timestamp_seconds": "When the last run ended, in unix seconds.",
    "batcher_last_run_exit_code": "Exit code of the last run.",
    "batcher_last_run_elapsed_seconds": "Duration of the last run.",
}
_Sample = tuple[str, dict[str, str], float | None]


def render(report: RunReport, *, at: float) -> str:
    """The metrics of a run that ended at `at` (unix seconds), without unknown values."""
    common = {"ledger": report.ledger or "", "batches": ",".join(report.batches)}
    lines: list[str] = []
    seen: set[str] = set()
    for name, labels, value in _samples(report, at):
        if value is None:
            continue
        if name not in seen:
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge"]
            seen.add(name)
        pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in (common | labels).items())
        lines.append(f"{name}{{{pairs}}} {value:.17g}")
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Replace the file at `path` atomically. The collector, of another account, may read it; it ignores the draft.

    Raises:
        OSError: it cannot be written.
    """
    with files.replacing(path, mode=0o644, encoding="utf-8") as file:
        file.write(text)


def _samples(report: RunReport, at: float) -> Iterator[_Sample]:
    for state, number in report.states.items():
        yield "batcher_items", {"state": state}, number
    for kind in ("credits", "unstable"):
        halted = report.halt is not None and report.halt.kind == kind
        yield "batcher_halted", {"kind": kind}, float(halted)
    yield "batcher_last_run_created_items", {}, report.created
    yield "batcher_last_run_collected_items", {}, report.collected
    for when in ("start", "end", "spent"):
        yield "batcher_last_run_credits", {"kind": when}, getattr(report.credits, when)
    for kind, number in report.requests.items():
        yield "batcher_last_run_requests", {"kind": kind}, number
    yield "batcher_last_run_timestamp_seconds", {}, at
    yield "batcher_last_run_exit_code", {}, report.exit_code
    yield "batcher_last_run_elapsed_seconds", {}, report.elapsed_seconds


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
