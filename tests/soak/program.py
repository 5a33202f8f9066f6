"""Starts the program and the server, disturbs the program, and keeps all their output."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from batcher.sandbox.server import BASE, TOKEN
from tests.soak.sampling import Sample, sample

SAMPLE_SECONDS: Final = 0.25
HANG_SECONDS: Final = 180.0
"""A command that takes this much longer than it may hangs."""
_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Disturbance:
    """Signals sent to a run, each at a number of seconds after its start."""

    name: str
    signals: tuple[tuple[float, signal.Signals], ...] = ()


@dataclass
class Ended:
    """A command that has ended."""

    name: str
    exit_code: int
    seconds: float
    output: Path
    samples: list[Sample] = field(default_factory=list)
    hung: bool = False


class Program:
    """Runs `batcher` in one folder against one server."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.api = ["--api-url", f"http://127.0.0.1:{port}{BASE}"]
        self.ended: list[Ended] = []

    def __call__(self, *arguments: str, disturbance: Disturbance, within: float) -> Ended:
        """Run a command to its end, with the disturbance; it is killed if it hangs."""
        output = self.folder / "output" / f"{len(self.ended):04}-{arguments[0]}.txt"
        output.parent.mkdir(exist_ok=True)
        environment = os.environ | {"BATCHER_API_TOKEN": TOKEN, "PYTHONPATH": str(_ROOT)}
        began, due = time.monotonic(), list(disturbance.signals)
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "batcher", *arguments],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        ended = Ended(disturbance.name, 0, 0.0, output)
        while process.poll() is None:
            if (now := sample(process.pid)) is not None:
                ended.samples.append(now)
            age = time.monotonic() - began
            while due and due[0][0] <= age:
                process.send_signal(due.pop(0)[1])
            if age > within + HANG_SECONDS:
                ended.hung = True
                process.kill()
            time.sleep(SAMPLE_SECONDS)
        ended.exit_code, ended.seconds = process.returncode, time.monotonic() - began
        self.ended.append(ended)
        return ended

    def command(self, *arguments: str) -> Ended:
        """Run a short command to its end."""
        return self(*arguments, disturbance=Disturbance(arguments[0]), within=60.0)


class Server:
    """The troubled sandbox in its own process. `counts` are its faults by kind, once it has ended."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.store = folder / "server.tasks.db"
        self.counts: dict[str, int] = {}
        self._folder = folder
        self._seed = seed

    @contextmanager
    def serving(self) -> Iterator[int]:
        """Serve until the block is left; the port is given."""
        port, counts = _free_port(), self._folder / "counts.json"
        arguments: Sequence[str] = [str(port), str(self.store), str(self._seed), str(counts)]
        with (self._folder / "server.txt").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.server", *arguments], cwd=_ROOT, stdout=output, stderr=output
            )
        try:
            _wait_for(port, process)
            yield port
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
        self.counts = json.loads(counts.read_text(encoding="utf-8"))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + 60.0
    while process.poll() is None and time.monotonic() < give_up_at:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the server of the soak did not start")
