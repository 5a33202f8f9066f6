"""Memory, descriptors and threads of a process over time, from /proc."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

MOST_MEMORY_MIB: Final = 150.0
MOST_GROWTH: Final = {"memory, MiB": 10.0, "descriptors": 6.0, "threads": 3.0}
"""Most growth between the second and the last quarter of a run that counts as flat."""


@dataclass(frozen=True)
class Sample:
    """A process at one moment."""

    memory_mib: float
    descriptors: int
    threads: int


MEASURES: Final[dict[str, Callable[[Sample], float]]] = {
    "memory, MiB": lambda sample: sample.memory_mib,
    "descriptors": lambda sample: sample.descriptors,
    "threads": lambda sample: sample.threads,
}


def sample(pid: int) -> Sample | None:
    """The process now. None if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return Sample(int(fields["VmRSS"].split()[0]) / 1024, descriptors, int(fields["Threads"]))
    except (OSError, KeyError):  # a process that has ended has no memory
        return None


@dataclass(frozen=True)
class Course:
    """One measure in the course of a run: medians of its quarters, and the highest value."""

    quarters: tuple[float, ...]
    highest: float
    is_flat: bool


def courses(samples: Sequence[Sample]) -> dict[str, Course]:
    """The course of each measure; a run of fewer than 8 samples has none."""
    if len(samples) < 8:
        return {}
    cuts = [len(samples) * quarter // 4 for quarter in range(5)]
    found = {}
    for name, measure in MEASURES.items():
        values = [measure(one) for one in samples]
        quarters = tuple(median(values[start:end]) for start, end in pairwise(cuts))
        found[name] = Course(quarters, max(values), quarters[3] - quarters[1] <= MOST_GROWTH[name])
    return found
