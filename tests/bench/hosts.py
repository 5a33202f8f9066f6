"""CPU per finished item with the ledger on a server, against one in a file::

    python -m tests.bench.hosts [--open 50 200] [--seconds 0.5]

Each run has its own process, and is made twice: with a fifth of the items and with all. What lies between is the cost
of an item; the start of the program is not in it. The server's own CPU is printed beside that of the run, and the items
per second of the longer run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cpu import FEWER, ROUNDS, Cost, command, measured
from tests.bench.provider import TASK_SECONDS
from tests.support.postgres import Cluster, database_of


@dataclass(frozen=True)
class Measured:
    """What one run and the database's server took."""

    run: Cost
    server_seconds: float  # of CPU


def main() -> None:
    """Measure and print a line for each number of open tasks and each database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--seconds", type=float, default=TASK_SECONDS)
    asked = parser.parse_args()
    _say("open  ledger    CPU/item  x file  server's CPU/item  items/s")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        (folder / "server").mkdir()
        cluster = Cluster(folder / "server")
        cluster.start(fsync="on")
        try:
            for number in asked.open:
                _compare(number, asked.seconds, cluster, folder)
        finally:
            cluster.stop()


def _compare(concurrency: int, seconds: float, cluster: Cluster, folder: Path) -> None:
    items = ROUNDS * concurrency
    serving = [sys.executable, "-m", "tests.bench.provider", str(seconds), "0"]
    with subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as provider:
        assert provider.stdout is not None
        url = f"{provider.stdout.readline().strip()}/api/open/v1"
        in_file = 0.0
        for name in ("file", "server"):
            few, many = (
                _measure(name, url, number, concurrency, cluster, folder) for number in (items // FEWER, items)
            )
            own = (many.run.cpu_seconds - few.run.cpu_seconds) / (items - items // FEWER)
            of_server = (many.server_seconds - few.server_seconds) / (items - items // FEWER)
            in_file = in_file or own
            figures = f"{own * 1000:5.2f} ms  {own / in_file:6.2f}  {of_server * 1000:14.2f} ms"
            _say(f"{concurrency:4}  {name:8}  {figures}  {items / many.run.wall_seconds:7.0f}")
        provider.communicate("")


def _measure(name: str, url: str, items: int, concurrency: int, cluster: Cluster, folder: Path) -> Measured:
    place = folder / f"{name}-{concurrency}"
    place.mkdir(exist_ok=True)
    environment = {"BATCHER_API_TOKEN": "t"}
    program = command("batcher", url, items, concurrency, place)
    if name == "file":
        return Measured(measured(program, environment), 0.0)
    with database_of(cluster.url) as ledger:
        before = _server_seconds(cluster)
        run = measured(program, environment | {"BATCHER_LEDGER": ledger})
        return Measured(run, _server_seconds(cluster) - before)


def _server_seconds(cluster: Cluster) -> float:
    """CPU that the server and its ended processes have used, from Linux's `/proc`."""
    process = int((cluster.data / "postmaster.pid").read_text().splitlines()[0])
    found = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    user, system, of_ended_user, of_ended_system = (int(one) for one in found[11:15])
    return (user + system + of_ended_user + of_ended_system) / 100


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
