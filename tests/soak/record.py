"""Reads the two records that must agree: the ledger of the program, and the tasks of the server."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Speech:
    """The part of a request that the rows of a soak vary."""

    text: str
    voice: str
    format: str


@dataclass(frozen=True)
class ServedTask:
    """A task in the server's record; `charged` is zero if it failed."""

    id: str
    speech: Speech
    charged: float
    ended_at: float


def query(database: Path, sql: str, values: Iterable[Any] = ()) -> list[sqlite3.Row]:
    """The rows that a query finds in a database that others may be writing."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(sql, tuple(values)).fetchall()


def served_tasks(store: Path) -> dict[str, ServedTask]:
    """All tasks of the server by id."""
    found = {}
    for row in query(store, "SELECT id, request, cost, ended_at, fails FROM tasks"):
        request = json.loads(row["request"])
        speech = Speech(request["text"], request["voice"], request["format"])
        found[row["id"]] = ServedTask(row["id"], speech, 0.0 if row["fails"] else row["cost"], row["ended_at"])
    return found


def speech_of(row: sqlite3.Row) -> Speech:
    """The request of an item, from a row with its text, voice and format."""
    return Speech(row["text"], row["voice"], row["format"])
