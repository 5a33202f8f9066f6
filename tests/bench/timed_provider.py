"""A provider whose tasks take times drawn from a named distribution, and which measures whoever uses it.

`POST /begin?kind=KIND&seed=SEED&slots=SLOTS&polls=RATE` starts a measurement, `GET /figures` returns the figures since
then. The n-th task takes the n-th time of that kind and seed, whoever creates it. More than RATE polls per second are
refused; 0 permits any number.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final
from urllib.parse import parse_qs, urlsplit

from tests.bench.provider import CREATE_SECONDS, Provider, audio, json_answer, sent

Draw = Callable[[int, random.Random], float]
KINDS: Final[dict[str, Draw]] = {
    "log-normal, median 2 s, sigma 0.8": lambda _, chance: 2.0 * math.exp(0.8 * chance.gauss(0.0, 1.0)),
    "0.5 s and 0.03 s a character": lambda size, _: 0.5 + 0.03 * size,
    "constant 3 s": lambda *_: 3.0,
    "two humps: a third 1 s, the others 6 s": lambda _, chance: (
        (1.0 if chance.random() < 1 / 3 else 6.0) * math.exp(0.15 * chance.gauss(0.0, 1.0))
    ),
    "1 s and 0.02 s a character, sigma 0.3": lambda size, chance: (
        (1.0 + 0.02 * size) * math.exp(0.3 * chance.gauss(0.0, 1.0))
    ),
}
"""Seconds that a task takes, by the length of its text."""


@dataclass(slots=True)
class Timed:
    """One task, in monotonic seconds."""

    began_at: float
    ends_at: float
    polls: int = 0
    seen_at: float = math.nan  # when a poll found it ended


@dataclass
class Measurement:
    """One program's use of the provider."""

    draw: Draw
    chance: random.Random
    slots: int
    polls_per_second: float = 0.0
    allowed: float = 0.0  # polls saved up, at most those of a second
    polled_at: float = 0.0
    refused: int = 0
    tasks: dict[str, Timed] = field(default_factory=dict)
    last_at: float = 0.0

    def admits_poll(self, now: float) -> bool:
        """Whether a poll is admitted: a token bucket that holds the polls of one second."""
        if not self.polls_per_second:
            return True
        saved = self.allowed + (now - self.polled_at) * self.polls_per_second
        self.allowed, self.polled_at = min(saved, self.polls_per_second), now
        admitted = self.allowed >= 1.0
        self.allowed -= admitted
        self.refused += not admitted
        return admitted

    def figures(self) -> dict[str, float]:
        """What the program achieved; `floor` is what nobody can beat who creates in this order."""
        tasks = list(self.tasks.values())
        first, last_create = tasks[0].began_at, tasks[-1].began_at
        busy = sum(min(task.ends_at, last_create) - task.began_at for task in tasks)
        free = [0.0] * self.slots
        for task in tasks:
            heapq.heappush(free, heapq.heappop(free) + task.ends_at - task.began_at)
        return {
            "tasks": len(tasks),
            "wall": self.last_at - first,
            "floor": max(free),
            "work": sum(task.ends_at - task.began_at for task in tasks) / self.slots,
            "polls": fmean(task.polls for task in tasks),
            "refused": self.refused / (self.refused + sum(task.polls for task in tasks)),
            "late": fmean(task.seen_at - task.ends_at for task in tasks),
            "idle": 1.0 - busy / (self.slots * (last_create - first)),
        }


class TimedProvider(Provider):
    """The provider, with a stopwatch."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.now = Measurement(KINDS["constant 3 s"], random.Random(0), 1)

    async def answer(self, method: bytes, path: str, body: bytes) -> bytes:
        """What comes back to a request."""
        parts = urlsplit(path)
        name = parts.path.rpartition("/")[2]
        if name == "begin":
            asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
            chance, slots, polls = random.Random(asked["seed"]), int(asked["slots"]), float(asked["polls"])
            self.now = Measurement(KINDS[asked["kind"]], chance, slots, polls)
            return json_answer(200, {})
        if name == "figures":
            return json_answer(200, self.now.figures())
        if name == "profile":
            return json_answer(200, {"user_id": "u", "credits": 1e9})
        if method == b"GET" and name not in self.now.tasks and not name.endswith(".mp3"):
            return json_answer(404, {"error": {"code": "ERR_NOT_FOUND", "message": "not served here"}})
        self.now.last_at = time.monotonic()
        if method == b"POST":
            return await self._create(json.loads(body))
        if name.endswith(".mp3"):
            return sent(200, "audio/mpeg", audio())
        return self._read(name)

    async def _create(self, asked: dict[str, str]) -> bytes:
        task_id, began_at = f"task_{next(self.numbers)}", time.monotonic()
        seconds = self.now.draw(len(asked["text"]), self.now.chance)
        self.now.tasks[task_id] = Timed(began_at, began_at + seconds)
        await asyncio.sleep(CREATE_SECONDS)
        return json_answer(202, {"task": {"id": task_id, "status": "queued"}, "requestId": "r", "creditsUsed": 1})

    def _read(self, task_id: str) -> bytes:
        task, now = self.now.tasks[task_id], time.monotonic()
        if not self.now.admits_poll(now):
            return json_answer(429, {"error": {"code": "ERR_RATE_LIMIT", "message": "too many polls"}})
        task.polls += 1
        if now < task.ends_at:
            return json_answer(200, {"task": {"id": task_id, "status": "processing"}})
        task.seen_at = now
        url = f"{self.origin}/{task_id}.mp3"
        return json_answer(200, {"task": {"id": task_id, "status": "completed", "audioUrl": url}, "creditsUsed": 1})


if __name__ == "__main__":
    asyncio.run(TimedProvider().listen())
