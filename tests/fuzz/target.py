"""Fuzzes one target in its own process, with limits of time and memory."""

from __future__ import annotations

import multiprocessing
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.fuzz import network, readers, sound

MOST_MEMORY_MIB: Final = 100.0
"""Most memory that all inputs of a target may add to what its process has; hypothesis itself is not counted."""
ADDRESS_SPACE_BYTES: Final = 4 << 30
"""A limit that the kernel enforces, so that a blow-up ends the target and not the machine."""
MOST_SECONDS: Final = 20.0
"""Most time for one input, on a busy machine."""
_ROUND: Final = 200
_KEPT: Final = Path(__file__).resolve().parents[2] / ".hypothesis" / "fuzz"

Target = tuple[st.SearchStrategy[Any], Callable[[Any], None]]
TARGETS: Final[dict[str, Target]] = {
    "tables": (readers.table, readers.read_table),
    "documents": (readers.document, readers.read_document),
    "any bytes": (readers.anything, readers.read_anything),
    "workbooks": (readers.workbook, readers.read_workbook),
    "answers": (network.answer, network.read_answer),
    "codings": (network.coding, network.decode),
    "addresses": (network.address, network.judge_address),
    "audio": (sound.audio, sound.examine),
}


@dataclass(frozen=True)
class Outcome:
    """What became of a target. `failure` is empty if nothing was found."""

    inputs: int
    seconds: float
    memory_mib: float
    failure: str = ""


def fuzz(name: str, seconds: float, results: Connection) -> None:
    """Fuzz one target in this process, and send the outcome."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    strategy, check = TARGETS[name]
    began, tried, memory_mib, failure = time.monotonic(), 0, 0.0, ""

    def counted(case: Any) -> None:
        nonlocal tried, memory_mib
        tried, before = tried + 1, _highest_mib()
        check(case)
        memory_mib += _highest_mib() - before

    counted.__qualname__ = check.__qualname__  # under this name its inputs are kept
    database = DirectoryBasedExampleDatabase(_KEPT / name.replace(" ", "-"))
    chosen = settings(
        max_examples=_ROUND,
        deadline=timedelta(seconds=MOST_SECONDS),
        database=database,
        suppress_health_check=list(HealthCheck),
    )
    try:
        while time.monotonic() < began + seconds:
            chosen(given(strategy)(counted))()
    except BaseException as error:  # noqa: BLE001 - a library in another language may raise one
        failure = "".join(traceback.format_exception(error))
    if not failure and memory_mib > MOST_MEMORY_MIB:
        failure = f"its inputs needed {memory_mib:.0f} MiB"
    results.send(Outcome(tried, time.monotonic() - began, memory_mib, failure))


def _highest_mib() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def outcome(name: str, seconds: float) -> Outcome:
    """Fuzz a target in its own process."""
    processes = multiprocessing.get_context("spawn")
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=fuzz, args=(name, seconds, sender))
    began = time.monotonic()
    process.start()
    sender.close()
    try:
        found: Outcome = receiver.recv()
    except EOFError:
        process.join()
        return Outcome(0, time.monotonic() - began, 0.0, f"its process ended with {process.exitcode}")
    process.join()
    return found
