"""The gap between the end of a task and the create that takes its slot, step by step::

    python -m tests.bench.gap [--concurrency 5 50] [--items 1000] [--seconds 2] [--sigma 0.4]

Runs the program itself, in this process, against a provider in another. Functions of the program are wrapped from the
outside to take the time of each step. The k-th slot that becomes free belongs to the k-th create after those that
filled the slots at first. With `TMPDIR=/dev/shm`, the disk takes no time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any, Final
from unittest.mock import patch

from batcher.cli.app import cli
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import claims, collection
from batcher.ledger.records import Claimed
from batcher.pipeline.slots import Slots
from batcher.pipeline.submitter import Submitter
from batcher.provider.answers import Answer, Phase
from batcher.provider.client import Client
from batcher.provider.exchange import Exchange
from batcher.throttle.gate import Sent
from tests.bench.cpu import manifest_of

_WARM_UP: Final = 2
"""Multiple of the open tasks whose first creates are not counted: the rate of creates is still rising."""


@dataclass
class Gap:
    """When each step of one gap happened, in monotonic seconds; 0 if it has not."""

    answered: float = 0.0
    end_recorded: float = 0.0
    slot_freed: float = 0.0
    claim_begun: float = 0.0
    claim_committed: float = 0.0
    sent: float = 0.0


STEPS: Final = (
    ("answered", "end_recorded"),
    ("answered", "slot_freed"),
    ("slot_freed", "claim_begun"),
    ("claim_begun", "claim_committed"),
    ("claim_committed", "sent"),
    ("answered", "sent"),
)
"""What is printed: the end is recorded beside the other steps, which follow one another, and the last is the whole."""

_ending: ContextVar[Gap | None] = ContextVar("ending", default=None)
_creating: ContextVar[Gap | None] = ContextVar("creating", default=None)


class Tracer:
    """Takes the time of each step of the gaps, while its patches are in force."""

    def __init__(self, concurrency: int) -> None:
        self.gaps: list[Gap] = []
        self._free: deque[Gap | None] = deque([None] * concurrency)
        self._claimed: dict[str, Gap] = {}

    def patches(self) -> list[Any]:
        """The patches, to be entered around a run."""
        wrapped: Mapping[type, tuple[str, Any]] = {
            Client: ("read", self._read),
            Ledger: ("do", self._do),
            Slots: ("release", self._release),
            Submitter: ("_create", self._create),
            Exchange: ("trace", self._trace),
        }
        return [
            patch.object(owner, name, _calling(around, getattr(owner, name)))
            for owner, (name, around) in wrapped.items()
        ]

    async def _read(self, original: Any, client: Client, task_id: str) -> Answer:
        answer: Answer = await original(client, task_id)
        if answer.task is not None and answer.task.phase is not Phase.RUNNING:
            _ending.set(Gap(answered=time.monotonic()))
        return answer

    async def _do(self, original: Any, ledger: Ledger, verb: Any, *args: Any, **named: Any) -> Any:
        begun = time.monotonic()
        result = await original(ledger, verb, *args, **named)
        now = time.monotonic()
        if verb is collection.record_rendered and (gap := _ending.get()) is not None:
            gap.end_recorded = now
        if verb is claims.claim:
            for one in result[0]:
                if (freed := self._free.popleft()) is not None:
                    freed.claim_begun, freed.claim_committed = begun, now
                    self._claimed[one.key] = freed
        return result

    def _release(self, original: Any, slots: Slots) -> None:
        gap = _ending.get()
        if gap is not None:
            gap.slot_freed = time.monotonic()
        self._free.append(gap)
        original(slots)

    async def _create(self, original: Any, submitter: Submitter, claimed: Claimed, sent: Sent) -> None:
        _creating.set(self._claimed.pop(claimed.key, None))
        await original(submitter, claimed, sent)

    async def _trace(self, original: Any, exchange: Exchange, event: str, info: Mapping[str, Any]) -> None:
        await original(exchange, event, info)
        gap = _creating.get()
        if gap is not None and event == "http11.send_request_body.complete":
            gap.sent = time.monotonic()
            self.gaps.append(gap)
            _creating.set(None)


def _calling(around: Any, original: Any) -> Any:
    """A method that calls `around` with the original method and its arguments."""
    return lambda *args, **named: around(original, *args, **named)


def traced(url: str, items: int, concurrency: int) -> list[Gap]:
    """Run the program on this number of items; the gaps after the warm-up."""
    tracer = Tracer(concurrency)
    with tempfile.TemporaryDirectory() as folder:
        manifest = manifest_of(items, Path(folder))
        where = ["--api-url", url, "--concurrency", str(concurrency), "--quiet", "--yes"]
        patches = tracer.patches()
        for one in patches:
            one.start()
        try:
            code = cli.main(["run", str(manifest), *where], standalone_mode=False)
        finally:
            for one in patches:
                one.stop()
    assert not code, f"the run ended with exit code {code}"
    return tracer.gaps[_WARM_UP * concurrency :]


def report(gaps: list[Gap], concurrency: int) -> None:
    """Print the median and the 90th percentile of each step and of the whole, in ms."""
    lines = [f"{concurrency} tasks open, {len(gaps)} gaps", f"{'ms':32}  median     p90"]
    for before, after in STEPS:
        ms = [(getattr(gap, after) - getattr(gap, before)) * 1000 for gap in gaps]
        tenths = quantiles(ms, n=10)
        label = f"{before} -> {after}".replace("_", " ")
        lines.append(f"{label:32}  {tenths[4]:6.1f}  {tenths[8]:6.1f}")
    sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()


def main() -> None:
    """Measure and print a table for each number of open tasks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[5, 50])
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--sigma", type=float, default=0.4)
    asked = parser.parse_args()
    os.environ["BATCHER_API_TOKEN"] = "t"
    serving = [sys.executable, "-m", "tests.bench.provider", str(asked.seconds), str(asked.sigma)]
    with subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as provider:
        assert provider.stdout is not None
        url = f"{provider.stdout.readline().strip()}/api/open/v1"
        for concurrency in asked.concurrency:
            report(traced(url, min(asked.items, 20 * concurrency), concurrency), concurrency)
        provider.communicate("")


if __name__ == "__main__":
    main()
