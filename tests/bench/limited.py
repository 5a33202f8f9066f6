"""The real `batcher run` and the usual loops, as processes, against a server process that limits creates.

It permits 50 creates a second (saving up 10), or a number in flight (5, then 2 for a while, then 5 again; each takes a
tenth of a second). Started by `python -m tests.bench.throttle --real`. With the name of a case as its argument this is
the server: it prints its address, stops at the end of its standard input, and then prints what it admitted and refused.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import tempfile
import time
from bisect import bisect
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.bench.cpu import command, measured
from tests.bench.provider import TASK_SECONDS, Provider, sent
from tests.support.limiters import AtOnce, Limiter, TokenBucket

RATE: Final = 50
CREATE_SECONDS: Final = 0.1
DROP_AT, RETURN_AT = 15.0, 30.0
MOST, FEW = 5, 2
CASES: Final = {"50/s": 1500, "50/s, Retry-After": 1500, "5, 2, 5 at once": 1700, "5, 2, 5 at once, Retry-After": 1700}
"""Number of creates by how the server limits them."""
PROGRAMS: Final = {"batcher": "batcher", "httpx": "backoff", "heeding": "Retry-After"}
CONCURRENCY: Final = 64
GRACE_SECONDS: Final = 0.05
"""A create that arrives within this time after a refusal is taken to have left before it."""


@dataclass
class Record:
    """When creates were admitted and refused (seconds from the first), and how many came inside a `Retry-After`."""

    passed: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    too_early: int = 0


class Limited(Provider):
    """A provider that admits creates by the rule of a limiter."""

    def __init__(self, limiter: Limiter, create_seconds: float, *, hints: bool) -> None:
        super().__init__(TASK_SECONDS)
        self.limiter = limiter
        self.record = Record()
        self._create_seconds = create_seconds
        self._hints = hints
        self._began_at: float | None = None
        self._refused_at = self._not_before = -math.inf

    async def answer(self, method: bytes, path: str, body: bytes) -> bytes:
        """The response to a request; a create may be refused."""
        if method != b"POST":
            return await super().answer(method, path, body)
        if self._began_at is None:
            self._began_at = time.monotonic()
        at = time.monotonic() - self._began_at
        self.record.too_early += self._refused_at + GRACE_SECONDS < at < self._not_before
        if (wait := self.limiter.enter(at)) is not None:
            return self._refusal(at, math.ceil(wait))
        self.record.passed.append(at)
        await asyncio.sleep(self._create_seconds)
        self.limiter.leave()
        return await super().answer(method, path, body)

    def _refusal(self, at: float, wait: int) -> bytes:
        self.record.refused.append(at)
        body = json.dumps({"code": "rate_limited", "message": "later", "requestId": "r"}).encode()
        if not self._hints:
            return sent(429, "application/json", body)
        if at >= self._not_before:
            self._refused_at = at
        self._not_before = max(self._not_before, at + wait)
        return sent(429, "application/json", body, f"retry-after: {wait}\r\n")


def _server(case: str) -> Limited:
    hints = case.endswith("Retry-After")
    if case.startswith("50/s"):
        return Limited(TokenBucket(RATE, 10), 0.0, hints=hints)
    return Limited(AtOnce(lambda at: FEW if DROP_AT <= at < RETURN_AT else MOST), CREATE_SECONDS, hints=hints)


async def _serve(case: str) -> None:
    server = _server(case)
    await server.listen()
    print(json.dumps(asdict(server.record)), flush=True)  # noqa: T201


def main() -> None:
    """Print one line per program and case."""
    with tempfile.TemporaryDirectory() as folder:
        for case, items in CASES.items():
            for program, name in PROGRAMS.items():
                path = Path(folder) / case.replace("/", "") / program
                path.mkdir(parents=True)
                record = _record(case, program, items, path)
                print(f"{case:30} {name:12} {_row(case, record)}", flush=True)  # noqa: T201


def _record(case: str, program: str, items: int, path: Path) -> Record:
    serving = [sys.executable, "-m", "tests.bench.limited", case]
    with subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = f"{server.stdout.readline().strip()}/api/open/v1"
        measured(command(program, url, items, CONCURRENCY, path), {"BATCHER_API_TOKEN": "t"})
        server.stdin.close()
        record: dict[str, Any] = json.loads(server.stdout.read())
    return Record(**record)


def _row(case: str, record: Record) -> str:
    refused = f"{len(record.refused):5} refused, {record.too_early:5} inside a Retry-After"
    if case.startswith("50/s"):
        return f"{len(record.passed) / record.passed[-1] / RATE:6.3f} {'':14} {refused}"
    spans = ((5.0, DROP_AT, MOST), (DROP_AT + 5.0, RETURN_AT, FEW), (RETURN_AT + 5.0, record.passed[-1] - 1.0, MOST))
    shares = [_rate(record.passed, begin, end) * CREATE_SECONDS / most for begin, end, most in spans]
    return " ".join([*(f"{share:6.3f}" for share in shares), refused])


def _rate(times: list[float], begin: float, end: float) -> float:
    return (bisect(times, end) - bisect(times, begin)) / (end - begin)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
