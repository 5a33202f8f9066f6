"""CPU per finished item, against what people write by hand, at the same number of open tasks::

    python -m tests.bench.cpu [--concurrency 50] [--items 1500]

Each program runs in a process of its own, twice: with a fifth of the items and with all. What lies between is the cost
of an item; the start of the program is not in it, and is printed by itself. The provider's CPU is not counted. The wall
time is set against that of tasks which follow one another without a gap. Memory is printed for both numbers of items.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.provider import TASK_SECONDS

FEWER = 5
"""The first run of each program has the items divided by this."""


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float, int]:
    """Run it to its end. Returns its CPU and wall time in seconds, and its greatest memory in KiB."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said.decode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - began, usage.ru_maxrss


def command(name: str, url: str, items: int, concurrency: int, folder: Path) -> list[str]:
    """How the program is started on so many items, in a folder of its own."""
    place = folder / f"{name}-{items}"
    place.mkdir()
    if name != "batcher":
        return [sys.executable, "-m", "tests.bench.loops", name, url, str(items), str(concurrency), str(place)]
    manifest = place / "lines.csv"
    lines = (f"r{number},Line number {number} of the script.,anna" for number in range(items))
    manifest.write_text("\n".join(["id,text,voice", *lines]))
    where = ["--api-url", url, "--concurrency", str(concurrency), "--quiet", "--yes"]
    return [sys.executable, "-m", "batcher", "run", str(manifest), *where]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--items", type=int, default=1500)
    asked = parser.parse_args()
    found = {}
    serving = [sys.executable, "-m", "tests.bench.provider"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as provider,
    ):
        assert provider.stdout is not None
        url = f"{provider.stdout.readline().strip()}/api/open/v1"
        for name in ("httpx", "aiohttp", "batcher"):
            sizes = (asked.items // FEWER, asked.items)
            runs = [
                measured(command(name, url, items, asked.concurrency, Path(folder)), {"BATCHER_API_TOKEN": "t"})
                for items in sizes
            ]
            found[name] = runs
        provider.communicate("")
    report(found, asked.items, asked.concurrency)


def report(found: dict[str, list[tuple[float, float, int]]], items: int, concurrency: int) -> None:
    """Print what was measured, and its ratios."""
    fewer = items // FEWER
    each = {name: (many[0] - few[0]) / (items - fewer) for name, (few, many) in found.items()}
    ideal = items / concurrency * TASK_SECONDS
    head = f"program   CPU/item  x httpx  x aiohttp  wall/ideal  memory at {fewer} and {items} items"
    lines = [f"{items} items, {concurrency} open at once", head]
    for name, (few, many) in found.items():
        ratios = f"{each[name] / each['httpx']:7.2f}  {each[name] / each['aiohttp']:9.2f}  {many[1] / ideal:10.2f}"
        lines.append(f"{name:8}  {each[name] * 1000:5.2f} ms  {ratios}  {few[2] / 1024:4.0f} {many[2] / 1024:4.0f} MiB")
    start = found["batcher"][0][0] - fewer * each["batcher"]
    lines.append(f"start and end of batcher: {start:.2f} s of CPU")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
