"""Manifests of any length, and ledgers in which all of their rows are done, as if long runs lay behind them."""

from __future__ import annotations

import csv
import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

_WORDS = "the quiet river turned beneath old stones while morning light crossed every window that nobody had owned"


def line(index: int, batch: int = 0) -> str:
    """A text of 20 to 200 characters, as long in every batch, and the same in none."""
    length = random.Random(index).randint(20, 200)
    return f"{batch} {index:06d} {_WORDS} {_WORDS}."[:length]


def texts(number: int, characters: int = 120) -> Iterator[str]:
    """This number of different texts of that length."""
    chance = random.Random(7)
    words = _WORDS.split()
    for row in range(number):
        text = f"{row:07d} " + " ".join(chance.choices(words, k=characters // 7))
        yield text.ljust(characters, ".")[:characters]


def manifest(path: Path, number: int, characters: int = 120) -> Path:
    """A manifest with this number of rows, CSV or JSONL by its name."""
    rows = ({"id": f"r{row:07d}", "text": text} for row, text in enumerate(texts(number, characters)))
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            table = csv.DictWriter(file, ["id", "text"])
            table.writeheader()
            table.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


_DONE = """
    INSERT INTO accounts (id, origin, user_id) VALUES (1, 'https://bench.test', 'u1');
    INSERT INTO attempts (item_key, attempt, run_id, account_id, intended_at, answered_at, answer_no, outcome, batch_id)
        SELECT key, 1, (SELECT max(id) FROM runs), 1, 2.0, 3.0, rowid, 'accepted', 1 FROM items;
    INSERT INTO tasks (account_id, task_id, item_key, attempt, accepted_at, ended_at, credits, looks, missing_looks,
        unusable_looks) SELECT 1, 't' || rowid, key, 1, 3.0, 4.0, 12, 1, 0, 0 FROM items;
    UPDATE items SET state = 'done', attempt = 1, account_id = 1, task_id = 't' || rowid;
    INSERT INTO files
        SELECT key, 'audio', '.items/' || key || '.mp3', hex(randomblob(32)), 999, 1.5, 4.0, 5.0 FROM items;
    UPDATE rows SET linked_key = item_key, linked_output = output;
    INSERT INTO events (item_key, attempt, event, state, at) SELECT key, 1, 'saved', 'done', 5.0 FROM items;
"""


def finish(ledger: Path, out_dir: Path) -> None:
    """Make every item of the ledger done, and give every row a file (all of them empty, and one and the same)."""
    out_dir.mkdir(exist_ok=True)
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.executescript(f"BEGIN; {_DONE} COMMIT;")
        outputs = [row[0] for row in connection.execute("SELECT output FROM rows WHERE item_key IS NOT NULL")]
    for output in outputs:
        (out_dir / output).touch()
