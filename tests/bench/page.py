"""What a page of many rows costs: time to write it, its size, time until a browser shows its rows.

`python -m tests.bench.page [ROWS [FOLDER]]` makes the ledger up. The times are this machine's and no promise.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert

from batcher.item import Inputs, State
from batcher.ledger.ledger import open_readonly
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.storage import database
from batcher.ledger.storage.schema import accounts, attempts, batches, files, items, rows, runs, tasks
from batcher.reports.page.page import Choices, write_page

AT: Final = 1_800_000_000.0
WORDS: Final = ("fog", "the sea", "a kettle", "nobody", "listening", "so thick", "where", "it ended", "and")
VOICES: Final = ("narrator", "anna", "tam", "pip", "keeper", "radio", "ferry", "gull")
ERRORS: Final = (("render_failed", "the model gave up"), ("invalid_voice", "no such voice"), (None, None))


def made_up(path: Path, number: int, *, seed: int = 1) -> None:
    """A ledger with this number of rows, most of them done, with tasks, files, and two nights of runs."""
    dice = random.Random(seed)
    database.create(path, "real")
    engine = database.open_existing(path)
    with engine.begin() as conn:
        conn.execute(insert(accounts).values(id=1, origin="https://api.test", user_id="u1"))
        batch = {"name": "novel", "source": "novel.csv", "digest": "", "rules": "", "out_dir": "audio"}
        conn.execute(insert(batches).values(id=1, version=1, imported_at=AT, **batch))
        for night in (0, 1):
            start = AT + night * 86400
            run: dict[str, Any] = {"pid": 1, "host": "h", "out_dir": "audio", "account_id": 1, "started_at": start}
            run |= {"profile_start": json.dumps({"credits": 9e6 - night * 3e6}), "ended_at": start + 7200}
            run |= {"profile_end": json.dumps({"credits": 6e6 - night * 3e6}), "exit_code": 0, "outcome": "done"}
            conn.execute(insert(runs).values(id=f"run-{night}", message="all rows are done or settled", **run))
        made = [_one(dice, n, number) for n in range(1, number + 1)]
        for table in (attempts, tasks, items, rows, files):
            found = [one[table.name] for one in made if table.name in one]
            if table is tasks:  # an item refers to its task and a task to its attempt
                conn.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
            conn.execute(insert(table), found)
    engine.dispose()


def _one(dice: random.Random, n: int, number: int) -> dict[str, dict[str, Any]]:
    words = dice.choices(WORDS, k=dice.randint(4, 26))
    inputs = Inputs(text=f"{' '.join(words).capitalize()}, {n}.", voice=dice.choice(VOICES))
    key, chars = inputs.key(), len(inputs.text)
    state = dice.choices((State.DONE, State.FAILED, State.IN_DOUBT, State.PENDING), (94, 2, 1, 3))[0]
    code, message = ERRORS[dice.randrange(2)] if state is State.FAILED else ERRORS[2]
    night = int(n > number * 0.6)
    created = AT + night * 86400 + (n - night * number * 0.6) / number * 9000
    rendered = created + 3 + chars * dice.uniform(0.02, 0.08)
    has_task = state in (State.DONE, State.FAILED)
    one: dict[str, dict[str, Any]] = {"items": {"key": key, "key_version": 1, "text_hash": "", "text": inputs.text}}
    one["items"] |= {"voice": inputs.voice, "format": "mp3", "params": "{}", "take": 1, "bytes": chars}
    one["items"] |= {"state": state, "attempt": int(state is not State.PENDING), "not_before_at": 0, "deferrals": 0}
    one["items"] |= {"account_id": 1 if has_task else None, "task_id": f"t{n}" if has_task else None}
    one["items"] |= {"error_code": code, "error_message": message, "created_at": AT, "changed_at": AT}
    done, output = state is State.DONE, f"n{n:06}.mp3"
    one["rows"] = {"batch_id": 1, "id": f"n{n:06}", "number": n, "line": n, "is_current": 1, "take": 1, "item_key": key}
    one["rows"] |= {"output": output, "extra": "{}", "linked_key": key if done else None}
    one["rows"] |= {"linked_output": output if done else None}
    if state is not State.PENDING:
        outcome = "accepted" if has_task else "lost"
        one["attempts"] = {"item_key": key, "attempt": 1, "run_id": f"run-{night}", "account_id": 1, "batch_id": 1}
        one["attempts"] |= {"intended_at": created, "answered_at": created, "outcome": outcome}
    if has_task:
        one["tasks"] = {"account_id": 1, "task_id": f"t{n}", "item_key": key, "attempt": 1, "accepted_at": created}
        one["tasks"] |= {"looks": dice.choice((1, 1, 1, 2, 2, 3, 5)), "ended_at": rendered, "credits": chars}
        one["tasks"] |= {"missing_looks": 0, "unusable_looks": 0}
    if done:
        seconds = chars / dice.gauss(15, 1.6)
        one["files"] = {"item_key": key, "out_dir": "audio", "path": f".items/{key}.mp3", "sha256": key, "bytes": 9000}
        one["files"] |= {"audio_seconds": seconds, "recorded_at": rendered, "saved_at": rendered + 1}
    return one


def main() -> None:
    """Make the ledger, write the page, open it."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp())
    ledger, page = folder / "batcher.db", folder / "novel.report.html"
    if not ledger.exists():
        made_up(ledger, number)
    began = time.perf_counter()
    with open_readonly(ledger) as conn:
        write_page(conn, current_batches(conn), Choices(path=page, home=folder, at=AT))
    _say(f"{number:,} rows: written in {time.perf_counter() - began:.2f} s, {page.stat().st_size / 1e6:.1f} MB")
    _open(page)


def _say(words: str) -> None:
    sys.stdout.write(words + "\n")


def _open(page: Path) -> None:
    from playwright.sync_api import sync_playwright

    binary = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        for _ in range(3):
            tab = browser.new_page()
            began = time.perf_counter()
            tab.goto(page.as_uri())
            tab.wait_for_selector("#window .row")
            _say(f"rows shown after {time.perf_counter() - began:.2f} s")
            began = time.perf_counter()
            tab.fill("#search", "kettle, 4")
            _say(f"searched in {time.perf_counter() - began:.2f} s: {tab.inner_text('#found')}")
            tab.close()
        browser.close()


if __name__ == "__main__":
    main()
