"""Disturbs the real program for minutes, then checks every guarantee against the server's record::

    python -m tests.soak [--minutes 15] [--seed N] [--keep]

The program runs again and again against the sandbox's server, which has its own process and every fault mixed: failed
tasks, lost answers, 429 with and without Retry-After, errors, wrong and incomplete audio, audio URLs valid for 2 s, and
too few credits. Runs are killed, interrupted once or twice, and limited by --max-runtime; the manifest is edited
between them; rows are retaken. One run in the middle is left alone for 40 % of the time, to see whether its
memory, descriptors and threads stay flat. At last everything is settled, and the guarantees are checked.

Prints a table; the exit code is 1 if anything is broken, and the folder is kept. `--seed` repeats the decisions and the
faults; times still vary.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.soak import checks, delays
from tests.soak.person import SETTLE_SECONDS, Person
from tests.soak.program import Disturbance, Ended, Program, Server
from tests.soak.record import query
from tests.soak.rows import EditedManifest
from tests.soak.sampling import MOST_MEMORY_MIB, courses
from tests.soak.server import OPTIONS

QUIET_SHARE: Final = 0.4
"""Share of the time for the run that is left alone."""
ROWS_PER_SECOND: Final = 4.0
"""Rows added for each second of that run, about as many as it can finish."""
MOST_LAST_RUNS: Final = 25
_SHOWN: Final = 5


class Soak:
    """One soak in its folder."""

    def __init__(self, folder: Path, server: Server, port: int, seed: int) -> None:
        self._chance = random.Random(seed)
        self.server = server
        self.program = Program(folder, port)
        self.person = Person(self.program, server.store, self._chance)
        self.manifest = EditedManifest(folder / "lines.csv", self._chance)
        self.quiet: Ended | None = None

    def run(self, seconds: float) -> None:
        """Disturb, leave alone, disturb again, and settle."""
        began, each = time.monotonic(), seconds * (1 - QUIET_SHARE) / 2
        self.manifest.add(30)
        self._run(Disturbance("first"), 15.0)
        self._disturb(until=began + each)
        self._leave_alone(seconds * QUIET_SHARE)
        self._disturb(until=began + seconds)
        self._settle()

    def _disturb(self, until: float) -> None:
        while time.monotonic() < until:
            self.manifest.add(self._chance.randint(5, 40))
            self.manifest.edit()
            disturbance, limit = self._trouble()
            ended = self._run(disturbance, limit)
            if ended.exit_code == 4 and self._chance.random() < 0.8:
                self.person.top_up(self._chance.uniform(500, 4_000))
            for act in self._chance.sample([*self._acts()], self._chance.randint(0, 2)):
                act()

    def _acts(self) -> tuple[Callable[[], None], ...]:
        return (self.person.settle_doubts, self.person.retry_failed, lambda: self.person.retake(4))

    def _trouble(self) -> tuple[Disturbance, float]:
        """How the next run is disturbed, and the limit of its time in seconds."""
        at = self._chance.uniform(0.5, 20.0)
        later = at + self._chance.uniform(0.2, 3.0)
        kinds = {
            Disturbance("killed", ((at, signal.SIGKILL),)): 5,
            Disturbance("terminated", ((at, signal.SIGTERM),)): 2,
            Disturbance("terminated twice", ((at, signal.SIGTERM), (later, signal.SIGTERM))): 1,
            Disturbance("limited"): 2,
        }
        disturbance = self._chance.choices(list(kinds), list(kinds.values()))[0]
        return disturbance, self._chance.uniform(8.0, 20.0) if disturbance.name == "limited" else 45.0

    def _run(self, disturbance: Disturbance, limit: float) -> Ended:
        lines = ["run", "lines.csv", "--yes", "--rebuy", "--log-file", "run.log", "--quiet"]
        limits = ["--max-runtime", f"{limit:.0f}s", "--concurrency", str(self._chance.choice([4, 10, 30]))]
        return self.program(*lines, *limits, *self.program.api, disturbance=disturbance, within=limit)

    def _leave_alone(self, seconds: float) -> None:
        """One long run with enough rows and credits."""
        self.manifest.add(round(seconds * ROWS_PER_SECOND))
        self.person.top_up(self._need())
        time.sleep(SETTLE_SECONDS)
        self.person.settle_doubts()
        self.quiet = self._run(Disturbance("left alone"), seconds)

    def _settle(self) -> None:
        """Decide everything and run until every row is done."""
        for _ in range(MOST_LAST_RUNS):
            self.person.top_up(self._need())
            time.sleep(SETTLE_SECONDS)
            self.person.settle_doubts()
            self.person.retry_failed()
            if self._run(Disturbance("last"), 120.0).exit_code == 0:
                return

    def _need(self) -> float:
        """More than enough credits for all rows that may not be done."""
        done = {
            row["text"]
            for row in query(self.program.folder / "batcher.db", "SELECT text FROM items WHERE state='done'")
        }
        return 1_000.0 + 1.2 * sum(len(row.text) for row in self.manifest.rows if row.text not in done)

    def evidence(self) -> checks.Evidence:
        """What is checked in the end."""
        status = self.program.command("status", "--json")
        self.program.command("verify")
        return checks.Evidence(
            folder=self.program.folder,
            store=self.server.store,
            ended=self.program.ended,
            paid_in=OPTIONS["credits"] + self.person.paid_in,
            takes=self.person.takes,
            spent=checks.spent(status),
        )


def judge(soak: Soak) -> bool:
    """Print the tables. Returns whether everything holds."""
    evidence = soak.evidence()
    runs = [ended for ended in soak.program.ended if ended.output.stem.endswith("-run")]
    kinds = Counter(ended.name for ended in runs)
    tasks = len(query(evidence.store, "SELECT id FROM tasks"))
    after_end, after_poll = delays.delays(evidence.ledger, evidence.store)
    _row("runs", ", ".join(f"{number} {name}" for name, number in kinds.items()))
    _row(
        "exit codes of runs",
        ", ".join(f"{code}: {times}" for code, times in Counter(r.exit_code for r in runs).items()),
    )
    _row("tasks; takes asked for", f"{tasks:,}; {soak.person.takes}")
    _row("audio after the end of its task", delays.summary(after_end))
    _row("audio after the poll that saw it", delays.summary(after_poll))
    _row("highest memory of any run", f"{max(one.memory_mib for run in runs for one in run.samples):.0f} MiB")
    good = all([_judge_resources(soak), *[_judge_check(check.__name__, [*check(evidence)]) for check in checks.CHECKS]])
    for name, times in sorted(soak.server.counts.items()):
        _row(f"server, {name}", f"{times:,}")
    return good


def _judge_resources(soak: Soak) -> bool:
    found = courses(soak.quiet.samples if soak.quiet is not None else [])
    for name, course in found.items():
        quarters = ", ".join(f"{value:.0f}" for value in course.quarters)
        flat = "flat" if course.is_flat else "GROWS"
        _row(f"{name}, quarters of the long run", f"{quarters}; highest {course.highest:.0f}: {flat}")
    peak = max(one.memory_mib for ended in soak.program.ended for one in ended.samples)
    return bool(found) and all(course.is_flat for course in found.values()) and peak < MOST_MEMORY_MIB


def _judge_check(name: str, broken: list[str]) -> bool:
    _row(name.replace("_", " "), "ok" if not broken else f"BROKEN, {len(broken):,} times")
    for line in broken[:_SHOWN]:
        _row("", line)
    return not broken


def _row(name: str, value: str) -> None:
    print(f"{name:40} {value}", flush=True)  # noqa: T201


def main() -> None:
    """Soak, print, and exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep", action="store_true", help="keep the folder although nothing is broken")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="batcher-soak-"))
    _row("seed; folder", f"{asked.seed}; {folder}")
    server = Server(folder, asked.seed)
    with server.serving() as port:
        soak = Soak(folder, server, port, asked.seed)
        soak.run(asked.minutes * 60)
    good = judge(soak)
    if good and not asked.keep:
        shutil.rmtree(folder)
    _row("result", "everything holds" if good else f"broken; repeat with --seed {asked.seed}; see {folder}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
