"""Starts `batcher` in its own process by forking one that has imported everything, which is quicker than a new Python.

Only the start differs: the process has its own memory, files, signals and end, and can be killed. Tests of the start
itself, or of standard streams that are not files, start a new Python.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

MOST_SECONDS: Final = 30.0
"""Time limit of a command in a test, in seconds; one that takes longer hangs."""
_FORKS: Final = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.support.preloaded"])


@dataclass(frozen=True)
class Ended:
    """A command that has ended, with all its output."""

    exit_code: int  # negative: the signal that ended it
    out: str
    err: str

    @property
    def report(self) -> Any:
        """Standard output, which must be one line of JSON and nothing else."""
        assert self.out.count("\n") == 1, self
        return json.loads(self.out)


@dataclass(frozen=True)
class _Streams:
    """The files used as a command's standard streams."""

    stdin: Path
    stdout: Path
    stderr: Path

    def take(self) -> None:
        """Make them the standard streams of this process."""
        for number, path in enumerate((self.stdin, self.stdout, self.stderr)):
            descriptor = os.open(path, os.O_RDWR)
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)


class Started:
    """A running command; it is killed if the test ends first."""

    def __init__(self, process: ForkServerProcess, streams: _Streams) -> None:
        self._process = process
        self._streams = streams

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self._process.exitcode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.exitcode is None

    def end(self, seconds: float = MOST_SECONDS) -> Ended:
        """Wait for it to end, at most this long."""
        self._process.join(seconds)
        out, err = (path.read_text(encoding="utf-8") for path in (self._streams.stdout, self._streams.stderr))
        assert self._process.exitcode is not None, f"a command hangs that has said: {err}"
        return Ended(self._process.exitcode, out, err)

    def exit_code(self) -> int:
        """Wait for it to end; without its output."""
        self._process.join(MOST_SECONDS)
        assert self._process.exitcode is not None
        return self._process.exitcode

    def until_says(self, words: str) -> None:
        """Wait until these words appear on standard error."""
        self.until(lambda: words in self._streams.stderr.read_text(encoding="utf-8"))

    def until(self, holds: Callable[[], object]) -> None:
        """Wait until `holds` is true, checking it again and again."""
        give_up_at = time.monotonic() + 30.0
        while not holds():
            assert time.monotonic() < give_up_at, "what the test waits for did not come about"
            time.sleep(0.01)

    def close(self) -> None:
        """Make sure that the process is gone."""
        self._process.kill()
        self._process.join()


def begin(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    aside: Path,
    stdin: str = "",
    points: str = "",
    enter: Callable[[], None] | None = None,
    terminal: Path | None = None,
) -> Started:
    """Start `batcher` in `folder`, with `points` to kill it at (see `killing`).

    Its standard streams are the terminal, or files in `aside`. The process first calls `enter`, for example to move to
    another host.
    """
    streams = _Streams(terminal, terminal, terminal) if terminal else _files(aside, stdin)
    # On macOS much breaks after a plain fork, and another PYTHONPATH means another program.
    anew = sys.platform == "darwin" or environment.get("PYTHONPATH") != os.environ.get("PYTHONPATH")
    how = (list(arguments), folder, dict(environment), streams, points, anew, enter)
    process = _FORKS.Process(target=_become, args=how, daemon=True)
    process.start()
    return Started(process, streams)


def _files(aside: Path, stdin: str) -> _Streams:
    folder = Path(tempfile.mkdtemp(prefix="streams-", dir=aside))
    streams = _Streams(folder / "stdin", folder / "stdout", folder / "stderr")
    for path, text in ((streams.stdin, stdin), (streams.stdout, ""), (streams.stderr, "")):
        path.write_text(text, encoding="utf-8")
    return streams


def _become(
    arguments: list[str],
    folder: Path,
    environment: dict[str, str],
    streams: _Streams,
    points: str,
    anew: bool,
    enter: Callable[[], None] | None,
) -> None:
    """Turn this process into that command; `anew` starts a new Python for it."""
    from tests.support import killing

    os.chdir(folder)
    streams.take()
    if enter is not None:
        enter()
    if anew:
        program = [killing.__file__, points, "--"] if points else ["-m", "batcher"]
        os.execve(sys.executable, [sys.executable, *program, *arguments], environment)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    killing.run(points, arguments)


def struck(points: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Ended:
    """Run `batcher` with these arguments and points in `folder` to its end."""
    started = begin(arguments, folder, environment, aside=folder.parent, points=points)
    try:
        return started.end()
    finally:
        started.close()


def killed(points: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Run `batcher` with these arguments in `folder`, and check that one of the points has killed it."""
    ended = struck(points, arguments, folder, environment)
    assert ended.exit_code == -signal.SIGKILL, f"{points}: was not reached\n{ended.out}{ended.err}"
