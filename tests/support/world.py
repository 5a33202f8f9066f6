"""A provider with two accounts to which things happen, and a record of who paid for what."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from typing import Any, Final

from tests.support.fake_tts import NO_CREDITS, Create, FakeTTS, Job, Twist, refusal

Body = tuple[str, str]
"""Text and voice: all that distinguishes one create from another on the wire. Takes are never sent."""
CREATES: Final = {
    "later": refusal(429, "slow_down", Retry_After="1"),
    "rejected": refusal(422, "bad_text"),
    "quota": refusal(429, "insufficient_quota"),
    "broken": Twist(status=500, body={"code": "internal", "message": "sorry"}),
    "broken, charged": Twist(status=500, body={"code": "internal", "message": "sorry"}, charge=True),
    "dropped": Twist(),
    "dropped, charged": Twist(charge=True),
    "page, charged": Twist(status=200, body=b"<html>hello</html>", charge=True),
    "cut off, charged": Twist(status=202, body=b'{"task": {"id": "ta', headers={"content-length": "90"}, charge=True),
}
"""What can happen to a create."""
LOST: Final = {what for what, twist in CREATES.items() if twist.charge}
"""Creates that make a task whose id the program does not learn."""
READS: Final = {
    "task unknown": refusal(404, "task_not_found"),
    "polls throttled": refusal(429, "slow_down"),
    "read broken": Twist(status=500, body=b"oops"),
    "read dropped": Twist(),
}
"""What can happen to the first poll of a task."""
AUDIO: Final = {
    "address expired": Twist(status=403, body=b"<Error>expired</Error>"),
    "audio dropped": Twist(),
    "audio cut off": Twist(status=200, body=b"\xff\xfb\x90\x00", headers={"content-length": "836"}),
    "audio is a page": Twist(status=200, body=b"<html>" + b"please log in " * 20),
}
"""What can happen to the first download of a task's audio."""
_UNFUNDED: Final = {"code": "insufficient_credits", "message": "the balance ran out"}
ENDINGS: Final[dict[str, dict[str, Any]]] = {
    "failed": {"status": "failed", "audioUrl": None, "error": {"code": "voice_broken", "message": "no"}},
    "failed, charged": {"status": "failed", "audioUrl": None, "creditsUsed": 1, "error": _UNFUNDED},
    "unfunded": {"status": "failed", "audioUrl": None, "creditsUsed": 0, "error": _UNFUNDED},
}
"""How a task can end badly."""
ADDRESSES: Final = {"no address": None, "address refused": "http://127.0.0.1:9/audio.mp3"}
"""What the first poll of a rendered task can return instead of a good address."""

USERS: Final = ("user-1", "user-2")
REFUSALS: Final = (402, 422, 429)
AFTER_KILL: Final = 1.0
"""Seconds before and after a SIGKILL within which the answer to a create may be lost."""


class World:
    """The provider with two accounts, the generated misfortunes, and a record of who paid for what."""

    def __init__(self, provider: FakeTTS) -> None:
        self.provider = provider
        self.misfortunes: list[str] = []
        self.befell: dict[str, str] = {}  # misfortune of each task, by its id
        self.senders: dict[int, str] = {}  # the account of each create, by its number
        self.unfunded: set[str] = set()  # tasks that the program has read as unfunded
        self.fed: set[str] = set()  # accounts that were topped up since they were last out of credits
        self.events = 0
        self.at_event: tuple[int, threading.Timer] | None = None
        self.killed_at = -math.inf
        self.most_open = 0  # tasks open at once, of those that the program can know, since `count_open`
        self._counted_from = 0
        self._purses = dict.fromkeys(USERS, 5.0)
        provider.create_seconds = 0.05
        provider.on_create, provider.on_read, provider.on_audio = self._create, self._read, self._audio
        provider.on_profile, provider.ending = self._profile, self._ending

    @property
    def user(self) -> str:
        """The account whose token is in use."""
        return self.provider.user_id

    @property
    def token(self) -> str:
        """The token in use."""
        return self.provider.token

    def switch(self, user: str) -> None:
        """Use the other account's token."""
        self._purses[self.user] = self.provider.credits
        self.provider.user_id, self.provider.token = user, f"sk-token-of-{user}"
        self.provider.credits = self._purses[user]

    def feed(self, credits_: int) -> None:
        """Top the account up."""
        self.provider.credits += credits_
        self.fed.add(self.user)

    def heal(self) -> None:
        """Stop all misfortunes; tasks that have ended badly stay so."""
        self.misfortunes = []
        self.befell = {task_id: what for task_id, what in self.befell.items() if what in ENDINGS}

    def count_open(self) -> None:
        """Count open tasks from now on, without those that are open already."""
        self._counted_from, self.most_open = len(self.provider.creates), 0

    def charged(self) -> dict[str, tuple[str, Body]]:
        """Every task: its account, text and voice."""
        found = (create for create in list(self.provider.creates) if create.task_id is not None)
        return {str(create.task_id): (self.senders[create.number], body_of(create)) for create in found}

    def spent(self) -> Counter[Body]:
        """The number of creates of each body that may have been charged, as far as the program can know."""
        sent = Counter(body_of(create) for create in self.provider.creates if create.status not in REFUSALS)
        return sent - Counter(body for task_id, (_, body) in self.charged().items() if task_id in self.unfunded)

    def _create(self, create: Create) -> Twist | None:
        self._arrived()
        self.senders[create.number] = self.user
        now = time.monotonic()
        new = self.provider.creates[self._counted_from :]
        self.most_open = max(self.most_open, sum(self._is_open(one, now) for one in new))
        if self.provider.credits < 1:
            self.fed.discard(self.user)
            return NO_CREDITS
        what = self.misfortunes.pop(0) if self.misfortunes else ""
        self.befell[f"task_{create.number}"] = what
        if what == "quota":
            self.fed.discard(self.user)
        return CREATES.get(what)

    def _is_open(self, create: Create, now: float) -> bool:
        """Whether the create is in flight or its task is open; not if its answer may have been lost."""
        answered_at = now if create.answered_at is None else create.answered_at
        if create.arrived_at < self.killed_at + AFTER_KILL and answered_at > self.killed_at - AFTER_KILL:
            return False
        if create.answered_at is None:
            return True
        job = self.provider.jobs.get(create.task_id or "")
        return job is not None and self.befell.get(job.id) not in LOST and now < job.ends_at

    def _read(self, job: Job) -> Twist | None:
        self._arrived()
        if self.senders[int(job.id.removeprefix("task_"))] != self.user:
            return refusal(404, "task_not_found")
        return READS.get(self.befell.get(job.id, "")) if job.reads == 1 else None

    def _audio(self, job: Job) -> Twist | None:
        self._arrived()
        return AUDIO.get(self.befell.get(job.id, "")) if job.downloads == 1 else None

    def _profile(self, _: int) -> None:
        self._arrived()

    def _ending(self, job: Job) -> dict[str, Any]:
        what = self.befell.get(job.id, "")
        if what == "unfunded" and job.id not in self.unfunded:
            self.unfunded.add(job.id)
            self.fed.discard(self.user)
        if what in ADDRESSES and job.reads == 1:
            return {"audioUrl": ADDRESSES[what]}
        return ENDINGS.get(what, {})

    def _arrived(self) -> None:
        self.events += 1
        if self.at_event is not None and self.events == self.at_event[0]:
            self.at_event[1].start()


def body_of(create: Create) -> Body:
    """Text and voice of the create."""
    return create.text, create.body["voiceId"]
