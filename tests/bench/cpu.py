"""CPU per finished item, against what people write by hand, at the same number of open tasks::

    python -m tests.bench.cpu [--concurrency 10 50 200] [--items 1500] [--seconds 0.5] [--sigma 0] [--poll 0.5]

Tasks take `--seconds` in the median, varying by `--sigma` on a log scale; the loops poll every `--poll` seconds.

Each program runs in its own process, twice: with a fifth of the items and with all. What lies between is the cost
of an item; the start of the program is not in it, and is printed by itself. The provider's CPU is not counted. Where
Linux's `perf` may count them, the instructions of an item are printed too: they do not depend on what else the machine
does. The wall time is set against that of tasks which follow one another without a gap. Memory is printed for both
numbers of items.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.loops import POLL_SECONDS
from tests.bench.made import line
from tests.bench.provider import TASK_SECONDS

FEWER = 5
"""The first run of each program has the items divided by this."""
ROUNDS = 30
"""Number of tasks that follow one another in each slot, unless the number of items is given."""
PROGRAMS = ("httpx", "aiohttp", "batcher")


@dataclass(frozen=True)
class Cost:
    """What a process took, from its start to its end."""

    cpu_seconds: float
    wall_seconds: float
    memory_kib: int
    instructions: float  # its own, not the kernel's; not a number where they cannot be counted


def measured(command: list[str], environment: dict[str, str]) -> Cost:
    """Run it to its end."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with tempfile.NamedTemporaryFile() as counted:
        counting = ["perf", "stat", "-x,", "-e", "instructions:u", "-o", counted.name] if _perf_counts() else []
        process = subprocess.Popen(
            [*counting, *command], env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, said.decode()
        text = counted.read().decode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    numbers = [line.split(",")[0] for line in text.splitlines() if "instructions" in line]
    return Cost(cpu, time.monotonic() - began, usage.ru_maxrss, float(numbers[0]) if numbers else float("nan"))


def _perf_counts() -> bool:
    if shutil.which("perf") is None:
        return False
    tried = subprocess.run(
        ["perf", "stat", "-x,", "-e", "instructions:u", "true"], capture_output=True, text=True, check=False
    )
    return tried.returncode == 0 and tried.stderr.split(",")[0].isdigit()


def command(
    name: str, url: str, items: int, concurrency: int, folder: Path, poll_seconds: float = POLL_SECONDS
) -> list[str]:
    """The command that starts the program on this number of items, in its own folder."""
    place = folder / f"{name}-{items}"
    place.mkdir()
    if name != "batcher":
        how = (url, str(items), str(concurrency), str(place), str(poll_seconds))
        return [sys.executable, "-m", "tests.bench.loops", name, *how]
    manifest = manifest_of(items, place)
    where = ["--api-url", url, "--concurrency", str(concurrency), "--quiet", "--yes"]
    return [sys.executable, "-m", "batcher", "run", str(manifest), *where]


def manifest_of(items: int, folder: Path) -> Path:
    """Write a manifest of this number of different rows into the folder. Returns its path."""
    manifest = folder / "lines.csv"
    lines = (f"r{number},{line(number)},anna" for number in range(items))
    manifest.write_text("\n".join(["id,text,voice", *lines]))
    return manifest


def main() -> None:
    """Measure and print a table for each number of open tasks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[50])
    parser.add_argument("--items", type=int)
    parser.add_argument("--seconds", type=float, default=TASK_SECONDS)
    parser.add_argument("--sigma", type=float, default=0.0)
    parser.add_argument("--poll", type=float, default=POLL_SECONDS)
    asked = parser.parse_args()
    for concurrency in asked.concurrency:
        items = asked.items or ROUNDS * concurrency
        found = compared(items, concurrency, asked.seconds, asked.sigma, asked.poll)
        report(found, items, concurrency, asked.seconds * math.exp(asked.sigma**2 / 2))


def compared(
    items: int, concurrency: int, seconds: float, sigma: float, poll_seconds: float
) -> dict[str, tuple[Cost, Cost]]:
    """What each program takes for a fifth of the items, and for all."""
    serving = [sys.executable, "-m", "tests.bench.provider", str(seconds), str(sigma)]
    found = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as provider,
    ):
        assert provider.stdout is not None
        url = f"{provider.stdout.readline().strip()}/api/open/v1"
        for name in PROGRAMS:
            few, many = (
                measured(
                    command(name, url, number, concurrency, Path(folder), poll_seconds), {"BATCHER_API_TOKEN": "t"}
                )
                for number in (items // FEWER, items)
            )
            found[name] = (few, many)
        provider.communicate("")
    return found


def report(found: dict[str, tuple[Cost, Cost]], items: int, concurrency: int, mean_seconds: float) -> None:
    """Print what was measured, and its ratios."""
    fewer = items // FEWER
    cpu = {name: (many.cpu_seconds - few.cpu_seconds) / (items - fewer) for name, (few, many) in found.items()}
    work = {name: (many.instructions - few.instructions) / (items - fewer) for name, (few, many) in found.items()}
    ideal = items / concurrency * mean_seconds
    lines = [
        f"{items} items, {concurrency} open at once",
        "program   CPU/item  x httpx  x aiohttp  instructions/item  x httpx  x aiohttp  wall/ideal  "
        f"memory at {fewer} and {items} items",
    ]
    for name, (few, many) in found.items():
        times = f"{cpu[name] / cpu['httpx']:7.2f}  {cpu[name] / cpu['aiohttp']:9.2f}"
        counts = f"{work[name] / 1e6:15.1f} M  {work[name] / work['httpx']:7.2f}  {work[name] / work['aiohttp']:9.2f}"
        memory = f"{few.memory_kib / 1024:4.0f} {many.memory_kib / 1024:4.0f} MiB"
        wall = f"{many.wall_seconds / ideal:10.2f}"
        lines.append(f"{name:8}  {cpu[name] * 1000:5.2f} ms  {times}  {counts}  {wall}  {memory}")
    start = found["batcher"][0].cpu_seconds - fewer * cpu["batcher"]
    lines.append(f"start and end of batcher: {start:.2f} s of CPU")
    sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
