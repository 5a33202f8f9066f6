"""Runs `batcher` in this process and takes it, its disk or its wits away at points that the command line names::

    python tests/support/killing.py "after batcher.ledger.lifecycle.claims:claim 2" -- run lines.csv

A point is `WHEN MODULE:NAME NTH`, where NAME is a function, or a method as `Class.method`. WHEN is

    before   SIGKILL as its NTH call begins
    after    SIGKILL as the NTH of its calls to return does so; one that raises does not count
    bug      as its NTH call begins, an error is raised that nobody foresaw
    full     from the beginning of its NTH call on, no file grows beyond the ledger's journal as it is then
    ballast  as its NTH call begins, the file `ballast` takes all the room that the current folder's disk has left
    crammed  the same, and the folder `links` takes every further file or link that the disk could have held

Several points, separated by semicolons, may be given. Nothing else about the program is changed, and a point that
the run does not come to changes nothing at all.
"""

from __future__ import annotations

import errno
import importlib
import inspect
import itertools
import os
import resource
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from batcher.cli.app import main


def kill() -> NoReturn:
    """End this process as nothing in it can see coming."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process outlived SIGKILL")


def bug() -> NoReturn:
    """Fail as no code should."""
    raise ZeroDivisionError("a bug that a test has put here")


def fill_disk() -> None:
    """Let files only change, not grow: the kernel refuses every write behind the end of the journal."""
    size = max(path.stat().st_size for path in Path.cwd().glob("*-wal"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def ballast(disk: Path = Path()) -> None:
    """Leave not a byte of the disk that this folder is on."""
    with _until_full(), (disk / "ballast").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))


def cram(disk: Path = Path()) -> None:
    """Leave neither a byte nor room for another name."""
    ballast(disk)
    with _until_full():
        (disk / "links").mkdir(exist_ok=True)
        while True:
            (disk / "links" / uuid.uuid4().hex).hardlink_to(disk / "ballast")


@contextmanager
def _until_full() -> Iterator[None]:
    """Go on until the disk takes no more."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def arm(point: str) -> None:
    """Put a point in the way of the function that it names."""
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
    """Be `batcher` with these arguments, and points in its way."""
    for point in filter(None, points.split(";")):
        arm(point)
    sys.argv = ["batcher", *arguments]
    main()


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[3:])
