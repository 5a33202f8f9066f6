"""One ledger and several runs: what an item costs, and how many are done per second::

    python -m tests.bench.hosts [--open 50 200] [--seconds 0.5 4] [--runs 1 2 4] [--rounds 30]

One run with its ledger in a file is set against 1, 2 and 4 runs, each in its own process, that share a ledger on a
server. `--open` is the `--concurrency` that holds for all of them together. Tasks of 0.5 s need more CPU than the
machine has, so it is the limit; with tasks of 4 s, the slots are.

Everything is run twice: with a fifth of the items and with all. What lies between is the cost of an item; the start of
the program is not in it. Items per second are those of the latter half of the creates, when all runs have started.
`slots` is the share of the open tasks permitted that this rate keeps open; `cores` are those that it keeps busy, in the
runs, the database's server and the provider; `others` are the cores that other programs used meanwhile. Ratios between
lines hold on other machines; lines with different `others` are hard to compare.
"""

from __future__ import annotations

import argparse
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.bench.cpu import FEWER, ROUNDS, command
from tests.support.postgres import Cluster, database_of

_ACCEPTED = "SELECT accepted_at FROM tasks ORDER BY accepted_at"


@dataclass(frozen=True)
class Used:
    """CPU seconds that the runs, the database's server and the provider took; those of all programs; and times."""

    runs: float
    server: float
    provider: float
    machine: float
    wall: float
    per_second: float  # items created

    @property
    def others(self) -> float:
        """Cores that other programs used."""
        return max(0.0, (self.machine - self.runs - self.server - self.provider) / self.wall)


@dataclass(frozen=True)
class Bench:
    """What all measurements share: a server, and a folder for the projects."""

    cluster: Cluster
    folder: Path
    rounds: int


def main() -> None:
    """Measure and print a line for each duration of tasks, number of open tasks, and ledger with its runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.5, 4.0])
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    _say("task    open  ledger  runs  CPU/item  x file  server's  provider's  items/s  slots  cores  others  load")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        (folder / "server").mkdir()
        cluster = Cluster(folder / "server")
        cluster.start(fsync="on", shared_buffers="128MB")
        try:
            for seconds in asked.seconds:
                for number in asked.open:
                    _compare(Bench(cluster, folder, asked.rounds), number, seconds, asked.runs)
        finally:
            cluster.stop()


def _compare(bench: Bench, concurrency: int, seconds: float, runs: list[int]) -> None:
    items = bench.rounds * concurrency
    in_file = 0.0
    for ledger, number in (("file", 1), *(("server", number) for number in runs)):
        few, many = (_measure(bench, ledger, number, count, concurrency, seconds) for count in (items // FEWER, items))
        own, server, provider = (
            (getattr(many, part) - getattr(few, part)) / (items - items // FEWER)
            for part in ("runs", "server", "provider")
        )
        in_file = in_file or own
        rate = many.per_second
        costs = f"{own * 1000:5.2f} ms  {own / in_file:6.2f}  {server * 1000:5.2f} ms  {provider * 1000:7.2f} ms"
        busy = f"{rate * seconds / concurrency:5.0%}  {rate * (own + server + provider):5.2f}  {many.others:6.2f}"
        what = f"{seconds:4} s  {concurrency:4}  {ledger:6}  {number:4}"
        _say(f"{what}  {costs}  {rate:7.1f}  {busy}  {os.getloadavg()[0]:4.1f}")


def _measure(bench: Bench, ledger: str, runs: int, items: int, concurrency: int, seconds: float) -> Used:
    place = Path(tempfile.mkdtemp(dir=bench.folder))
    with _provider(seconds) as (url, provider):
        program = command("batcher", f"{url}/api/open/v1", items, concurrency, place)
        if ledger == "file":
            file = place / "ledger.db"
            used = _used(bench, program, str(file), runs, provider)
            with closing(sqlite3.connect(file)) as connection:
                return Used(**used, per_second=_rate([at for (at,) in connection.execute(_ACCEPTED)], concurrency))
        with database_of(bench.cluster.url) as database:
            used = _used(bench, program, database, runs, provider)
            with psycopg.connect(database) as session:
                return Used(**used, per_second=_rate([at for (at,) in session.execute(_ACCEPTED)], concurrency))


@contextmanager
def _provider(seconds: float) -> Iterator[tuple[str, int]]:
    """A provider whose tasks take this long: its address, and its process."""
    serving = [sys.executable, "-m", "tests.bench.provider", str(seconds), "0"]
    with subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as provider:
        assert provider.stdout is not None
        yield provider.stdout.readline().strip(), provider.pid
        provider.communicate("")


def _used(bench: Bench, program: list[str], ledger: str, runs: int, provider: int) -> dict[str, float]:
    """What runs of the same program, started together, used until the last has ended."""
    server = int((bench.cluster.data / "postmaster.pid").read_text().splitlines()[0])
    before = (_of_ended(), _of(server), _of(provider), _of_machine(), time.monotonic())
    environment = os.environ | {"BATCHER_API_TOKEN": "t", "BATCHER_LEDGER": ledger}
    with tempfile.TemporaryFile() as said:
        started = [subprocess.Popen(program, env=environment, stdout=said, stderr=said) for _ in range(runs)]
        codes = [one.wait() for one in started]
        said.seek(0)
        assert set(codes) == {0}, (codes, said.read().decode())
    after = (_of_ended(), _of(server), _of(provider), _of_machine(), time.monotonic())
    names = ("runs", "server", "provider", "machine", "wall")
    return {name: last - first for name, first, last in zip(names, before, after, strict=True)}


def _rate(accepted_at: list[float], concurrency: int) -> float:
    """Creates per second in the latter half of them. Slots become free together, so it counts all slots or none."""
    number = len(accepted_at) // 2 // concurrency * concurrency or len(accepted_at) // 2
    return number / (accepted_at[-1] - accepted_at[-1 - number])


def _of_ended() -> float:
    """CPU seconds of this process's children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _of(process: int) -> float:
    """CPU seconds of a process and its children, whether they have ended or not, from Linux's `/proc`."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return sum(_ticks(process)) + sum(sum(_ticks(int(child))[:2]) for child in children)


def _ticks(process: int) -> list[float]:
    """CPU seconds of a process, of user and system, then of its children that have ended; none if it has ended."""
    try:
        found = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return []
    return [int(one) / os.sysconf("SC_CLK_TCK") for one in found[11:15]]


def _of_machine() -> float:
    """CPU seconds of all programs since the machine was started: not idle, not waiting for a disk."""
    user, nice, system, _, _, *interrupts = Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    return sum(map(int, (user, nice, system, *interrupts))) / os.sysconf("SC_CLK_TCK")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
