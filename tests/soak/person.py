"""What a careful person does between runs: top up, settle doubts with the provider's history, retry and retake."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Final

from tests.soak.program import Program
from tests.soak.record import query, served_tasks, speech_of

SETTLE_SECONDS: Final = 8.0
"""Age of a create from which on the server has certainly made its task or never will."""


class Person:
    """Counts what it pays in and the takes that it asks for."""

    def __init__(self, program: Program, store: Path, chance: random.Random) -> None:
        self.paid_in = 0.0
        self.takes = 0
        self._program = program
        self._store = store
        self._ledger = program.folder / "batcher.db"
        self._chance = chance

    def top_up(self, credits: float) -> None:  # noqa: A002 - the domain word
        """Add to the balance."""
        self._program.command("sandbox", "--top-up", f"{credits:.0f}", "--store", str(self._store))
        self.paid_in += float(f"{credits:.0f}")

    def settle_doubts(self) -> None:
        """Adopt the task of each item in doubt if the server has one, and let the others be bought again."""
        known = {row["task_id"] for row in query(self._ledger, "SELECT task_id FROM tasks")}
        unknown = [task for task in served_tasks(self._store).values() if task.id not in known]
        doubts = query(
            self._ledger,
            "SELECT key, text, voice, format FROM items JOIN attempts ON item_key = key"
            " AND attempts.attempt = items.attempt WHERE state = 'in_doubt' AND intended_at < ?",
            [time.time() - SETTLE_SECONDS],
        )
        for doubt in doubts:
            task = next((task for task in unknown if task.speech == speech_of(doubt)), None)
            if task is not None:
                unknown.remove(task)
            decision = ["--adopt", task.id] if task is not None else ["--buy-again"]
            self._program.command("resolve", doubt["key"][:20], *decision, *self._program.api)

    def retry_failed(self) -> None:
        """Let failed items be created again."""
        if query(self._ledger, "SELECT 1 FROM items WHERE state = 'failed' LIMIT 1"):
            self._program.command("retry", "--state", "failed", *self._program.api)

    def retake(self, most: int) -> None:
        """Ask for another take of a few done rows."""
        done = query(
            self._ledger,
            "SELECT rows.id FROM rows JOIN items ON item_key = key WHERE is_current AND state = 'done' ORDER BY 1",
        )
        ids = [row["id"] for row in self._chance.sample(done, min(len(done), most))]
        if ids:
            self._program.command("retake", *ids)
            self.takes += len(ids)
