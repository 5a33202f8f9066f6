"""How long after the end of its task a download was complete."""

from __future__ import annotations

from pathlib import Path
from statistics import quantiles

from tests.soak.record import query, served_tasks


def delays(ledger: Path, store: Path) -> tuple[list[float], list[float]]:
    """Seconds from the end of a task, and from the poll that saw it, to its saved audio.

    Only tasks that ended during a run that also saved their audio: those of other runs wait for the next one.
    """
    served = served_tasks(store)
    found = query(
        ledger,
        "SELECT items.task_id, seen.at AS seen_at, saved.at AS saved_at, started_at FROM items"
        " JOIN events AS saved ON saved.item_key = key AND saved.event = 'saved'"
        " JOIN events AS seen ON seen.item_key = key AND seen.event = 'rendered' AND seen.run_id = saved.run_id"
        " JOIN runs ON runs.id = saved.run_id WHERE items.state = 'done'",
    )
    timely = [
        (served[row["task_id"]].ended_at, row["seen_at"], row["saved_at"])
        for row in found
        if served[row["task_id"]].ended_at >= row["started_at"]
    ]
    return [saved - ended for ended, _, saved in timely], [saved - seen for _, seen, saved in timely]


def summary(seconds: list[float]) -> str:
    """Median, 95th percentile and longest."""
    if len(seconds) < 2:
        return "too few"
    cuts = quantiles(seconds, n=100, method="inclusive")
    return f"median {cuts[49]:.2f} s, 95 % within {cuts[94]:.2f} s, longest {max(seconds):.1f} s"
