"""Runs `batcher` in this process and kills it, breaks it or fills its disk at the points given on the command line::

    python tests/support/killing.py "after batcher.ledger.lifecycle.claims:claim 2" -- run lines.csv

A point is `WHEN MODULE:NAME NTH`, where NAME is a function, or a method as `Class.method`. WHEN is

    before   SIGKILL when its NTH call begins
    after    SIGKILL when the NTH of its calls returns; a call that raises does not count
    bug      an unexpected error is raised when its NTH call begins
    full     from its NTH call on, no file grows beyond the present size of the ledger's journal, or the server of
             the ledger refuses what this process writes
    ballast  when its NTH call begins, the file `ballast` takes all the free space on the current folder's disk
    crammed  the same, and the folder `links` takes every further file or link that the disk could hold

Several points are separated by semicolons. Nothing else about the program changes, and a point that the run does not
reach has no effect. Instead of the program's arguments, a script may be named that uses the package.
"""

from __future__ import annotations

import errno
import importlib
import inspect
import itertools
import os
import resource
import runpy
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from batcher.cli.app import main
from tests.support import postgres


def kill() -> NoReturn:
    """End this process without warning, as SIGKILL does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process outlived SIGKILL")


def bug() -> NoReturn:
    """Raise an error that the program does not expect."""
    raise ZeroDivisionError("a bug that a test has put here")


def fill_disk() -> None:
    """Let files change but not grow: the kernel refuses every write beyond the journal's present size.

    With a ledger on a server, whose disk this process does not see, the server takes nothing more from it.
    """
    if server := os.environ.get("BATCHER_LEDGER"):
        postgres.end_sessions(server, of_process=os.getpid())
        return
    size = max(path.stat().st_size for path in Path.cwd().glob("*-wal"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def ballast(disk: Path = Path()) -> None:
    """Leave no free byte on the disk of this folder."""
    with _until_full(), (disk / "ballast").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))


def cram(disk: Path = Path()) -> None:
    """Leave neither a free byte nor room for another name."""
    ballast(disk)
    with _until_full():
        (disk / "links").mkdir(exist_ok=True)
        while True:
            (disk / "links" / uuid.uuid4().hex).hardlink_to(disk / "ballast")


@contextmanager
def _until_full() -> Iterator[None]:
    """Write until the disk takes no more."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def arm(point: str) -> None:
    """Wrap the function that the point names."""
    when, target, nth = point.split()
    module, _, path = target.partition(":")
    holder, _, name = path.rpartition(".")
    owner: Any = importlib.import_module(module)
    owner = getattr(owner, holder) if holder else owner
    happens = {"before": kill, "after": kill, "bug": bug, "full": fill_disk, "ballast": ballast, "crammed": cram}[when]
    setattr(owner, name, _wrapped(getattr(owner, name), happens, int(nth), when == "after"))


def _wrapped(function: Callable[..., Any], happens: Callable[[], None], nth: int, at_end: bool) -> Any:
    calls = itertools.count(1)

    def reached(end: bool) -> None:
        if end == at_end and next(calls) == nth:
            happens()

    @wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        reached(False)
        value = function(*args, **kwargs)
        reached(True)
        return value

    @wraps(function)
    async def waiting(*args: Any, **kwargs: Any) -> Any:
        reached(False)
        value = await function(*args, **kwargs)
        reached(True)
        return value

    return waiting if inspect.iscoroutinefunction(function) else plain


def run(points: str, arguments: Sequence[str]) -> None:
    """Run `batcher` with these arguments, or a script that uses it, with the points armed."""
    for point in filter(None, points.split(";")):
        arm(point)
    if arguments and arguments[0].endswith(".py"):
        sys.argv = [*arguments]
        runpy.run_path(arguments[0], run_name="__main__")
        return
    sys.argv = ["batcher", *arguments]
    main()


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[3:])
