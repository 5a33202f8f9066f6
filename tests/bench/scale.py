"""How time and memory grow with the manifest, from a thousand rows to a million::

    python -m tests.bench.scale [--rows 1000000] [--out FOLDER]

Each step runs in its own process, and this one stays small, since a process inherits the greatest memory so far.
For each number of rows (a thousand and its tens) a project is made, imported, given audio as if a long run lay behind
it, and run again. FOLDER gets the numbers and a plot of each step; the straight line beside a curve is that of the same
cost per row. Creates go to a provider of the bench's own: those of the run beside `status`, and of the nightly one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from batcher.ledger.imports import importer
from batcher.ledger.storage import database
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from tests.bench.made import finish, manifest
from tests.bench.plot import plot

_SETTLE_SECONDS = 2.1
"""A file must be this old before it is trusted to be known again."""
_RULES = Rules(batch="lines", voice="anna")
Usage = tuple[float, float, float]
"""Wall and CPU seconds, and MiB of memory at the most."""


def usage(*arguments: str | Path) -> Usage:
    """What a process of this interpreter uses."""
    return _usage(arguments, subprocess.DEVNULL)[0]


def _usage(arguments: Sequence[str | Path], stdout: int) -> tuple[Usage, str]:
    """Also what it prints, if `stdout` is a pipe."""
    began = time.monotonic()
    command = [sys.executable, "-m", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL, text=True)
    printed = process.stdout.read() if process.stdout is not None else ""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # 5: without a token nothing is created; all else is done.
    assert process.returncode in (0, 5), (process.returncode, arguments)
    return (time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024), printed


def read(file: Path, _: Path) -> None:
    """Read the manifest and judge its rows; keep nothing."""
    for _row in Manifest(file, _RULES).rows():
        pass


def take_in(file: Path, ledger: Path) -> None:
    """Import the manifest."""
    if not ledger.exists():
        database.create(ledger, "real")
    engine = database.open_existing(ledger)
    with engine.begin() as conn:
        importer.import_manifest(conn, Manifest(file, _RULES), _RULES, source="x", out_dir="audio", at=1.0)
    engine.dispose()


def bare(full: Path, ledger: Path) -> None:
    """Put the rows and items of the ledger `full` into the tables of an empty one, with nothing but `executemany`."""
    database.create(ledger, "real")
    with closing(sqlite3.connect(ledger)) as into, closing(sqlite3.connect(full)) as source:
        into.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN")
        for table in ("batches", "items", "rows"):
            found = source.execute(f"SELECT * FROM {table} ORDER BY rowid")
            places = ", ".join("?" * len(found.description))
            into.executemany(f"INSERT INTO {table} VALUES ({places})", found)
        into.commit()


def one_table(full: Path, ledger: Path) -> float:
    """Put them into one table without an index, a row with its item in each line; the CPU seconds of that alone."""
    with closing(sqlite3.connect(ledger)) as into, closing(sqlite3.connect(full)) as source:
        found = source.execute("SELECT rows.*, items.* FROM rows JOIN items ON key = item_key ORDER BY number")
        columns = ", ".join(f"c{number}" for number in range(len(found.description)))
        into.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t ({columns}); BEGIN")
        insert = f"INSERT INTO t VALUES ({', '.join('?' * len(found.description))})"
        used = 0.0
        while lines := found.fetchmany(10_000):
            began = time.process_time()
            into.executemany(insert, lines)
            used += time.process_time() - began
        began = time.process_time()
        into.commit()
        return used + time.process_time() - began


def remove(folder: Path, _: Path) -> None:
    """Remove the project; the names of a million files take memory, too."""
    shutil.rmtree(folder)


STEPS: dict[str, Callable[[Path, Path], float | None]] = {
    "read": read,
    "import": take_in,
    "bare": bare,
    "one table": one_table,
    "finish": finish,
    "remove": remove,
}


def step(name: str, *arguments: Path) -> Usage:
    """One of the steps, in its own process; its CPU is without the start of the interpreter."""
    used, printed = _usage(("tests.bench.scale", "--step", name, *arguments), subprocess.PIPE)
    return used[0], float(printed), used[2]


def grown(number: int, folder: Path) -> dict[str, Usage]:
    """All steps at this number of rows."""
    jsonl, csv = (manifest(folder / f"lines.{ending}", number) for ending in ("jsonl", "csv"))
    found = {"read JSONL": step("read", jsonl, folder), "read CSV": step("read", csv, folder)}
    found["import JSONL"] = step("import", jsonl, folder / "jsonl.db")
    found["import CSV"] = step("import", csv, folder / "csv.db")
    found["bare executemany"] = step("bare", folder / "jsonl.db", folder / "bare.db")
    found["one bare table"] = step("one table", folder / "jsonl.db", folder / "table.db")
    changed = folder / "changed.jsonl"
    with jsonl.open() as lines, changed.open("w") as file:
        file.writelines(line.replace("r0000500", "r-changed") for line in lines)
    found["one changed row"] = step("import", changed, folder / "jsonl.db")
    time.sleep(_SETTLE_SECONDS)
    run = ("batcher", "run", jsonl, "--voice", "anna")
    found["first run"] = usage(*run)
    found["plan"] = usage("batcher", "plan", jsonl, "--voice", "anna")
    found["status"] = usage("batcher", "status", jsonl)
    found |= beside_a_run(jsonl, folder)
    step("finish", folder / "batcher.db", folder / "audio")
    found["every output new"] = usage(*run)
    time.sleep(_SETTLE_SECONDS)
    found["first rerun"] = usage(*run)
    found["nothing to do"] = usage(*run)
    found["status, all done"] = usage("batcher", "status", jsonl)
    found |= nightly(jsonl, run)
    return found


def nightly(jsonl: Path, run: Sequence[str | Path]) -> dict[str, Usage]:
    """Runs that find a few new rows, nothing, and a deleted output."""
    with jsonl.open("a") as file:
        file.writelines(json.dumps({"id": f"new{row}", "text": f"new sentence {row}"}) + "\n" for row in range(20))
    time.sleep(_SETTLE_SECONDS)
    found = {}
    with serving() as api:
        os.environ["BATCHER_API_TOKEN"] = "t"
        found["20 new rows"] = usage(*run, "--yes", *api)
        del os.environ["BATCHER_API_TOKEN"]
    time.sleep(_SETTLE_SECONDS)
    found["after new rows"] = usage(*run)
    (jsonl.parent / "audio/new7.mp3").unlink()
    found["a deleted output"] = usage(*run)
    return found


@contextmanager
def serving() -> Iterator[tuple[str, str]]:
    """A provider, as options of a run."""
    command = [sys.executable, "-m", "tests.bench.provider"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as provider:
        assert provider.stdout is not None
        yield "--api-url", f"{provider.stdout.readline().strip()}/api/open/v1"
        provider.communicate("")


def beside_a_run(manifest_: Path, folder: Path) -> dict[str, Usage]:
    """`status` while a run creates and collects, and after that was killed, on a copy of the ledger."""
    ledger = folder / "beside.db"
    shutil.copy(folder / "batcher.db", ledger)
    where = ("--ledger", ledger, "--out-dir", folder / "beside", "--voice", "anna", "--yes", "--quiet")
    with serving() as api:
        command = [sys.executable, "-m", "batcher", "run", *map(str, (manifest_, *where, *api))]
        with subprocess.Popen(command, env=os.environ | {"BATCHER_API_TOKEN": "t"}) as run:
            while not _is_collecting(ledger):
                time.sleep(0.1)
            found = {"status beside a run": usage("batcher", "status", "--ledger", ledger)}
            run.kill()
    return found | {"status after a kill": usage("batcher", "status", "--ledger", ledger)}


def _is_collecting(ledger: Path) -> bool:
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT 1 FROM files LIMIT 1").fetchone() is not None


def start() -> dict[str, float]:
    """CPU of what needs no ledger, in multiples of an interpreter that does nothing."""
    commands = {"batcher --version": ["-m", "batcher", "--version"], "batcher --help": ["-m", "batcher", "--help"]}
    nothing = _cpu(["-c", "pass"])
    return {name: _cpu(command) / nothing for name, command in commands.items()}


def _cpu(command: list[str]) -> float:
    before = os.times()
    for _ in range(20):
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def say(line: str) -> None:
    """A line on standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tell(all_: dict[int, dict[str, Usage]], out: Path) -> None:
    """Print the tables, and leave them and the plots in the folder."""
    (out / "scale.json").write_text(json.dumps(all_, indent=1))
    most = max(all_)
    for index, unit in ((0, "s"), (2, "MiB")):
        say(f"\n{unit:20}" + "".join(f"{number:>12,}" for number in all_))
        for name in all_[most]:
            say(f"{name:20}" + "".join(f"{found[name][index]:>12.2f}" for found in all_.values()))
        for name in all_[most]:
            curve = {number: found[name][index] for number, found in all_.items()}
            (out / f"{name.replace(' ', '-').replace(',', '')}-{unit}.svg").write_text(plot(name, unit, curve))
    found = all_[most]
    for name, other in (("import JSONL", "bare executemany"), ("import CSV", "bare executemany")):
        say(f"{name}: {found[other][0] / found[name][0]:.2f} of the speed of {other}")
        table = "one bare table"
        say(f"{name}: {found[name][1] / found[table][1]:.1f} x the CPU of a bare executemany into one unindexed table")
    say(f"one changed row: {found['one changed row'][0] / found['read JSONL'][0]:.2f} x the reading of the file")
    for name, multiple in start().items():
        say(f"{name}: {multiple:.1f} x the CPU of `python -c pass`")
    say(f"numbers and plots: {out}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        began = time.process_time()
        used = STEPS[asked.step[0]](*map(Path, asked.step[1:]))
        say(str(time.process_time() - began if used is None else used))
        return
    out = asked.out or Path(tempfile.mkdtemp(prefix="scale-"))
    out.mkdir(parents=True, exist_ok=True)
    os.environ.pop("BATCHER_API_TOKEN", None)
    all_: dict[int, dict[str, Usage]] = {}
    for number in (1_000, 10_000, 100_000, 1_000_000):
        if number <= asked.rows:
            folder = Path(tempfile.mkdtemp(prefix="rows-", dir=out))
            all_[number] = grown(number, folder)
            say(f"{number:,} rows: {sum(wall for wall, _, _ in all_[number].values()):.0f} s")
            step("remove", folder, folder)
    tell(all_, out)


if __name__ == "__main__":
    main()
