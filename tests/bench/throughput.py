"""How soon a batch is finished, against the loops that people write, on the same provider::

    python -m tests.bench.throughput [--open 5 20 50] [--kinds log-normal constant ...] [--polls 20]

The provider is a second process with a stopwatch (`timed_provider`). For each kind of durations and number of tasks
open at once, one program after the other speaks the same number of items: loops that poll every 0.25 s and every
second, a durable-workflow engine where one is installed, and batcher, first with an empty ledger, then with what the
first run has learned. Every program gets tasks of the same durations, except the first run of batcher.

Wall time is measured from the first create to the last download, without the start and end of the process. The floor
is the time that the same tasks take in the same order when every slot takes the next one the moment it is free; "work"
is the sum of their durations divided by the slots, which leaves out that the last tasks do not end together. "Idle" is
the share of the slots' time in which no task ran, until the last create. With `--polls` the provider refuses polls
above that number per second.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tests.bench.cpu import measured
from tests.bench.made import line
from tests.bench.timed_provider import KINDS

ROUNDS = 12
"""Number of tasks that follow one another in each slot."""
LOOPS = {"loop, 0.25 s": ("httpx", 0.25), "loop, 1 s": ("httpx", 1.0), "workflows, 0.25 s": ("dbos", 0.25)}


def main() -> None:
    """Measure and print one table for each kind of durations and number of open tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--open", type=int, nargs="+", default=[5, 20, 50])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), help="the beginnings of their names")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--polls", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    with provider() as url:
        for slots in asked.open:
            for kind in KINDS:
                if kind.startswith(tuple(asked.kinds)):
                    _say(f"{kind}; {slots} open, {asked.rounds * slots} items")
                    compare(Setting(url, kind, slots, asked.polls), asked.rounds * slots, asked.seed)


@dataclass(frozen=True)
class Setting:
    """A provider, and how it behaves."""

    url: str
    kind: str
    slots: int
    polls_per_second: float

    def begin(self, seed: int) -> None:
        """Start a measurement."""
        asked = {"kind": self.kind, "seed": seed, "slots": self.slots, "polls": self.polls_per_second}
        with urllib.request.urlopen(f"{self.url}/begin?{urlencode(asked)}"):
            pass

    def figures(self) -> dict[str, float]:
        """The figures of the measurement."""
        with urllib.request.urlopen(f"{self.url}/figures") as answer:
            figures: dict[str, float] = json.load(answer)
        return figures


@contextmanager
def provider() -> Iterator[str]:
    """The address of a provider in a process of its own."""
    serving = [sys.executable, "-m", "tests.bench.timed_provider"]
    with subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate("")


def compare(setting: Setting, items: int, seed: int) -> None:
    """Let every program do the same work, and print what it took."""
    _say("    program             wall/floor  wall/work  polls  refused    late    idle   CPU/item")
    api, slots = f"{setting.url}/api/open/v1", str(setting.slots)
    with tempfile.TemporaryDirectory() as folder:
        for name, (loop, seconds) in LOOPS.items():
            if loop == "httpx" or importlib.util.find_spec(loop) is not None:
                command = [
                    sys.executable,
                    "-m",
                    "tests.bench.loops",
                    loop,
                    api,
                    str(items),
                    slots,
                    folder,
                    str(seconds),
                ]
                _measure(name, command, setting, seed)
        for batch, name in enumerate(("batcher, at first", "batcher, learned")):
            manifest = Path(folder) / f"batch-{batch}.jsonl"
            rows = (
                json.dumps({"id": f"{batch}-{row}", "text": line(row, batch), "voice": "a"}) for row in range(items)
            )
            manifest.write_text("\n".join(rows))
            where = ["--ledger", f"{folder}/speech.db", "--out-dir", f"{folder}/audio", "--api-url", api]
            command = [sys.executable, "-m", "batcher", "run", str(manifest), *where, "--concurrency", slots]
            _measure(name, [*command, "--quiet", "--yes"], setting, seed if batch else seed + 1)


def _measure(name: str, command: list[str], setting: Setting, seed: int) -> None:
    setting.begin(seed)
    cost = measured(command, {"BATCHER_API_TOKEN": "t"})
    figures = setting.figures()
    _say(
        f"    {name:18} {figures['wall'] / figures['floor']:11.3f} {figures['wall'] / figures['work']:10.3f}"
        f" {figures['polls']:6.2f} {figures['refused']:8.1%} {figures['late']:5.2f} s {figures['idle']:7.1%}"
        f" {1000 * cost.cpu_seconds / figures['tasks']:7.1f} ms"
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
