"""A provider that costs little CPU itself: creates answer after 5 ms, tasks take half a second, audio is small.

Run as a program (`python -m tests.bench.provider [SECONDS [SIGMA]]`: the median duration of tasks, and its deviation on
a log scale) it serves on a free port of this machine and prints its address. A line on its standard input ends all
tasks at once, and later ones as soon as they begin; the end of the input ends it, and then it prints how many creates
there were.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Mapping
from functools import lru_cache

from tests.support.fake_tts import audio_of

CREATE_SECONDS = 0.005
TASK_SECONDS = 0.5


class Provider:
    """Its tasks, and when they end: `task_seconds` is the median, `sigma` the deviation on a log scale."""

    def __init__(self, task_seconds: float, sigma: float = 0.0) -> None:
        self.task_seconds = task_seconds
        self.sigma = sigma
        self.chance = random.Random(7)
        self.numbers = itertools.count(1)
        self.ends_at: dict[str, float] = {}
        self.origin = ""

    def end_all(self) -> None:
        """Every task has ended, including those created from now on."""
        self.task_seconds = 0.0
        self.ends_at = dict.fromkeys(self.ends_at, 0.0)

    async def listen(self) -> None:
        """Serve until standard input ends, and print the address first; each line of it ends all tasks."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=2000)
        self.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        print(self.origin, flush=True)  # noqa: T201 - the address is what a caller waits for
        while await asyncio.to_thread(sys.stdin.readline):
            self.end_all()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path, _ = head.split(b" ", 2)
                length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == _LENGTH), 0)
                body = await reader.readexactly(length)
                writer.write(await self.answer(method, path.decode(), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, method: bytes, path: str, body: bytes) -> bytes:  # noqa: ARG002
        """What comes back to a request."""
        name = path.rpartition("/")[2]
        if method == b"POST":
            await asyncio.sleep(CREATE_SECONDS)
            task_id = f"task_{next(self.numbers)}"
            self.ends_at[task_id] = time.monotonic() + self.task_seconds * self.chance.lognormvariate(0.0, self.sigma)
            return json_answer(202, {"task": {"id": task_id, "status": "queued"}, "requestId": "r", "creditsUsed": 1})
        if name == "profile":
            return json_answer(200, {"user_id": "u", "credits": 1e9})
        if name.endswith(".mp3"):
            return sent(200, "audio/mpeg", audio())
        if name not in self.ends_at:
            return json_answer(404, {"error": {"code": "ERR_NOT_FOUND", "message": "not served here"}})
        if time.monotonic() < self.ends_at[name]:
            return json_answer(200, {"task": {"id": name, "status": "processing"}})
        url = f"{self.origin}/{name}.mp3"
        return json_answer(200, {"task": {"id": name, "status": "completed", "audioUrl": url}, "creditsUsed": 1})


_LENGTH = b"content-length:"


@lru_cache
def audio() -> bytes:
    """The audio of every task."""
    return audio_of("the same for all " * 100, "mp3")


def json_answer(status: int, body: Mapping[str, object]) -> bytes:
    """A JSON answer as it goes over the wire."""
    return sent(status, "application/json", json.dumps(body).encode())


def sent(status: int, kind: str, body: bytes, more: str = "") -> bytes:
    """An answer as it goes over the wire; `more` are whole lines of headers."""
    head = f"HTTP/1.1 {status} OK\r\ncontent-type: {kind}\r\n{more}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _main() -> None:
    provider = Provider(*(map(float, sys.argv[1:3]) if len(sys.argv) > 1 else [TASK_SECONDS]))
    await provider.listen()
    print(next(provider.numbers) - 1, flush=True)  # noqa: T201 - and the creates are what it counts


if __name__ == "__main__":
    asyncio.run(_main())
