"""Every guarantee, checked after a soak from the ledger, the files and the server's own record.

Each check yields a line for each violation.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batcher.audio import checks as audio_checks
from batcher.sandbox.audio import render
from batcher.sandbox.requests import MODELS, SpeechRequest
from batcher.sandbox.speech import engine
from tests.soak.program import Ended
from tests.soak.record import ServedTask, query, served_tasks, speech_of

EXPECTED_EXITS: Final = {
    "run": (0, 3, 4, 6, 8, 130, -9),
    "resolve": (0, 8),
    "retry": (0, 8),
    "retake": (0,),
    "sandbox": (0,),
    "status": (0,),
    "verify": (0,),
}
"""Exit codes of each command that are no fault in the trouble of a soak. A run killed by the soak has -9."""
_UNEXPECTED: Final = ("Traceback", "unexpected", "Please report")
_ITEMS: Final = "SELECT key, text, voice, format, take, state, tasks.task_id, tasks.credits FROM items"


@dataclass(frozen=True)
class Evidence:
    """Everything that a soak leaves behind. Credits: `paid_in` in all, `takes` asked for, `spent` by `status`."""

    folder: Path
    store: Path
    ended: list[Ended]
    paid_in: float
    takes: int
    spent: float

    @property
    def ledger(self) -> Path:
        """The ledger of the program."""
        return self.folder / "batcher.db"

    def items(self, state: str = "") -> list[sqlite3.Row]:
        """Items with each of their tasks, or those in a state with the task that made them."""
        join = "JOIN tasks ON item_key = key"
        of_state = f" AND tasks.task_id = items.task_id WHERE state = '{state}'" if state else ""
        return query(self.ledger, f"{_ITEMS} {join}{of_state}")


def nothing_is_bought_twice(evidence: Evidence) -> Iterator[str]:
    """One charged task for each item, and for each request, one more for each take that somebody asked for."""
    charged = {id_: task for id_, task in served_tasks(evidence.store).items() if task.charged}
    by_item = Counter(row["key"] for row in evidence.items() if row["task_id"] in charged)
    yield from (f"item {key[:12]} has {times} charged tasks" for key, times in by_item.items() if times > 1)
    asked = query(
        evidence.ledger, "SELECT text, voice, format FROM events JOIN items ON key = item_key WHERE event = 'retake'"
    )
    takes, bought = Counter(map(speech_of, asked)), Counter(task.speech for task in charged.values())
    for speech, times in bought.items():
        if times > 1 + takes[speech]:
            yield f"{times} charged tasks, {takes[speech]} further takes asked for: {speech}"
    if takes.total() > evidence.takes:
        yield f"the ledger has {takes.total()} retakes, {evidence.takes} were asked for"


def no_task_is_lost(evidence: Evidence) -> Iterator[str]:
    """The ledger has each task of the server, for an item with the same request, and no other task."""
    served, known = served_tasks(evidence.store), {row["task_id"]: row for row in evidence.items()}
    yield from (f"the ledger does not know {id_}: {task.speech}" for id_, task in served.items() if id_ not in known)
    for id_, row in known.items():
        if id_ not in served:
            yield f"the server does not know {id_}"
        elif served[id_].speech != speech_of(row):
            yield f"{id_} has another request than its item"


def every_item_is_settled(evidence: Evidence) -> Iterator[str]:
    """All wanted rows are done, no task is open, and no item is in doubt."""
    sql = "SELECT key, state FROM items WHERE state NOT IN ('done', 'pending', 'abandoned')"
    yield from (f"item {row['key'][:12]} is {row['state']}" for row in query(evidence.ledger, sql))
    wanted = "SELECT rows.id, state FROM rows JOIN items ON item_key = key WHERE is_current AND state <> 'done'"
    yield from (f"row {row['id']} is {row['state']}" for row in query(evidence.ledger, wanted))


def files_are_complete(evidence: Evidence) -> Iterator[str]:
    """Each done item's file has the recorded content, which is exactly the audio of its own task; no part is left."""
    voices = engine()
    served = served_tasks(evidence.store)
    files = {row["item_key"]: row for row in query(evidence.ledger, "SELECT * FROM files")}
    for item in evidence.items("done"):
        file = files.get(item["key"])
        path = evidence.folder / file["out_dir"] / file["path"] if file else None
        if file is None or path is None or not path.is_file():
            yield f"item {item['key'][:12]} has no file"
            continue
        data, speech = path.read_bytes(), served[item["task_id"]].speech
        request = SpeechRequest(text=speech.text, voice=speech.voice, model=MODELS[0], format=speech.format)
        if hashlib.sha256(data).hexdigest() != file["sha256"]:
            yield f"{path} differs from the ledger"
        elif data != render(voices, request, item["task_id"]):
            yield f"{path} is not the audio of its task"
        elif audio_checks.examine(path, speech.format, len(speech.text)).fault is not None:
            yield f"{path} fails the checks"
    yield from (f"{path} is left over" for path in (evidence.folder / "audio").rglob(".*.part"))


def outputs_hold_their_audio(evidence: Evidence) -> Iterator[str]:
    """The output of each row of the manifest is the file of its item."""
    sql = (
        "SELECT output, sha256, batches.out_dir FROM rows JOIN files USING (item_key)"
        " JOIN batches ON batches.id = batch_id WHERE is_current"
    )
    for row in query(evidence.ledger, sql):
        path = evidence.folder / row["out_dir"] / row["output"]
        if not path.is_file():
            yield f"{path} is missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
            yield f"{path} is not the audio of its row"


def credits_add_up(evidence: Evidence) -> Iterator[str]:
    """Cost of each task, all spending, and the balance of the server."""
    served = served_tasks(evidence.store)
    for row in evidence.items():
        task: ServedTask | None = served.get(row["task_id"])
        if task is not None and row["credits"] != task.charged:
            yield f"{row['task_id']} costs {task.charged:g}, the ledger has {row['credits']}"
    charged = sum(task.charged for task in served.values())
    if evidence.spent != charged:
        yield f"status reports {evidence.spent:,g} spent, the server charged {charged:,g}"
    balance = query(
        evidence.store,
        "SELECT balance + (SELECT total(cost) FROM tasks WHERE fails AND NOT given_back) AS credits FROM account",
    )[0]["credits"]
    if balance != evidence.paid_in - charged:
        yield f"the balance is {balance:,g}, not {evidence.paid_in:,g} paid in less {charged:,g} charged"


def nothing_unexpected_is_printed(evidence: Evidence) -> Iterator[str]:
    """No traceback in any output or log, no command that hangs, and no exit code that means a bug."""
    for ended in evidence.ended:
        command = ended.output.stem.partition("-")[2]
        if ended.hung:
            yield f"{ended.output} hung"
        elif ended.exit_code not in EXPECTED_EXITS[command]:
            yield f"{ended.output} ended with exit code {ended.exit_code}"
    for path in [*(ended.output for ended in evidence.ended), evidence.folder / "run.log"]:
        words = next((word for word in _UNEXPECTED if word in path.read_text("utf-8", "replace")), None)
        if words is not None:
            yield f"{path} contains {words!r}"


def the_ledger_is_sound(evidence: Evidence) -> Iterator[str]:
    """SQLite finds no damage, and foreign keys hold."""
    for pragma in ("integrity_check", "foreign_key_check"):
        found = [tuple(row) for row in query(evidence.ledger, f"PRAGMA {pragma}")]
        yield from (f"{pragma}: {row}" for row in found if row != ("ok",))


CHECKS: Final[tuple[Callable[[Evidence], Iterator[str]], ...]] = (
    nothing_is_bought_twice,
    no_task_is_lost,
    every_item_is_settled,
    files_are_complete,
    outputs_hold_their_audio,
    credits_add_up,
    nothing_unexpected_is_printed,
    the_ledger_is_sound,
)


def spent(status: Ended) -> float:
    """The credits spent, as `batcher status --json` printed them."""
    reported = json.loads(status.output.read_text(encoding="utf-8"))
    return float(reported["credits"]["spent"])
