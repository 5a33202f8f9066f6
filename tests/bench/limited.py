"""The real `batcher run` and loops as people write them, as processes, against a server process that limits creates.

It permits 50 creates a second (saving up 10), or so many creates at once (5, then 2 for a while, then 5 again; each
takes a tenth of a second). Started by `python -m tests.bench.throttle --real`. With a name of a case for an argument
this is the server: it prints its address, ends with its standard input, and then prints what became of each create.
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
"""How the server limits creates, and how many there are."""
PROGRAMS: Final = {"batcher": "batcher", "httpx": "backoff", "heeding": "Retry-After"}
CONCURRENCY: Final = 64
TOLD_SECONDS: Final = 0.05
"""A create that arrives so soon after a refusal had left before."""


@dataclass
class Books:
    """When creates were let through and were refused, in seconds from the first, and how many came when told not to."""

    passed: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    too_early: int = 0


class Limited(Provider):
    """A provider that lets creates pass as a limiter says."""

    def __init__(self, limiter: Limiter, create_seconds: float, *, hints: bool) -> None:
        super().__init__(TASK_SECONDS)
        self.limiter = limiter
        self.books = Books()
        self._create_seconds = create_seconds
        self._hints = hints
        self._began_at: float | None = None
        self._told_at = self._not_before = -math.inf

    async def answer(self, method: bytes, path: str) -> bytes:
        """What comes back to a request; creates pass, or are told to come later."""
        if method != b"POST":
            return await super().answer(method, path)
        if self._began_at is None:
            self._began_at = time.monotonic()
        at = time.monotonic() - self._began_at
        self.books.too_early += self._told_at + TOLD_SECONDS < at < self._not_before
        if (wait := self.limiter.enter(at)) is not None:
            return self._refusal(at, math.ceil(wait))
        self.books.passed.append(at)
        await asyncio.sleep(self._create_seconds)
        self.limiter.leave()
        return await super().answer(method, path)

    def _refusal(self, at: float, wait: int) -> bytes:
        self.books.refused.append(at)
        body = json.dumps({"code": "rate_limited", "message": "later", "requestId": "r"}).encode()
        if not self._hints:
            return sent(429, "application/json", body)
        if at >= self._not_before:
            self._told_at = at
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
    print(json.dumps(asdict(server.books)), flush=True)  # noqa: T201


def main() -> None:
    """Print a line for each program and each case."""
    with tempfile.TemporaryDirectory() as folder:
        for case, items in CASES.items():
            for program, name in PROGRAMS.items():
                place = Path(folder) / case.replace("/", "") / program
                place.mkdir(parents=True)
                books = _books(case, program, items, place)
                print(f"{case:30} {name:12} {_row(case, books)}", flush=True)  # noqa: T201


def _books(case: str, program: str, items: int, place: Path) -> Books:
    serving = [sys.executable, "-m", "tests.bench.limited", case]
    with subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = f"{server.stdout.readline().strip()}/api/open/v1"
        measured(command(program, url, items, CONCURRENCY, place), {"BATCHER_API_TOKEN": "t"})
        server.stdin.close()
        books: dict[str, Any] = json.loads(server.stdout.read())
    return Books(**books)


def _row(case: str, books: Books) -> str:
    refused = f"{len(books.refused):5} refused, {books.too_early:5} inside a Retry-After"
    if case.startswith("50/s"):
        return f"{len(books.passed) / books.passed[-1] / RATE:6.3f} {'':14} {refused}"
    spans = ((5.0, DROP_AT, MOST), (DROP_AT + 5.0, RETURN_AT, FEW), (RETURN_AT + 5.0, books.passed[-1] - 1.0, MOST))
    shares = [_rate(books.passed, begin, end) * CREATE_SECONDS / most for begin, end, most in spans]
    return " ".join([*(f"{share:6.3f}" for share in shares), refused])


def _rate(times: list[float], begin: float, end: float) -> float:
    return (bisect(times, end) - bisect(times, begin)) / (end - begin)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
