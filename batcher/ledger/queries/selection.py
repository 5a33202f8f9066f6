"""Chooses the rows to which a run is limited, and reads the rows among which a sample chooses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, select

from batcher.ledger.records import Batch
from batcher.ledger.storage.chosen import choose, chosen
from batcher.ledger.storage.statements import execute, stream


class Candidate(NamedTuple):
    """An item with the place of its first row: the manifest's index times 2^32, plus the row's number."""

    place: int
    voice: str
    model: str | None
    format: str
    text: str


PLACE_SHIFT: Final = 32
"""Bits of a place that are the row's number."""
_CURRENT: Final = (
    "json_each(:batches) AS batch CROSS JOIN rows ON rows.batch_id = CAST(batch.value AS integer) AND is_current = 1"
)
_CANDIDATES: Final = f"""
    SELECT place, voice, model, format, text FROM (
        SELECT item_key, min(CAST(batch.key AS integer) * {1 << PLACE_SHIFT} + number) AS place FROM {_CURRENT}
        WHERE item_key IS NOT NULL GROUP BY item_key) AS used
    CROSS JOIN items ON key = item_key"""  # noqa: S608
_NAMED: Final = f"SELECT rows.batch_id, number FROM {_CURRENT} AND rows.id = :id"  # noqa: S608


_CHOOSE_SHARED: Final = """
    INSERT OR IGNORE INTO chosen SELECT other.batch_id, other.number FROM (
        SELECT DISTINCT item_key FROM chosen
        CROSS JOIN rows ON rows.batch_id = chosen.batch_id AND is_current = 1 AND rows.number = chosen.number
        WHERE item_key IS NOT NULL) AS shared
    CROSS JOIN rows AS other ON other.item_key = shared.item_key AND other.is_current = 1
    WHERE other.batch_id IN (SELECT CAST(value AS integer) FROM json_each(:batches))"""


def candidates(conn: Connection, wanted: Sequence[Batch]) -> Iterator[Candidate]:
    """The items of wanted rows, each once, in no particular order."""
    found = stream(conn, _CANDIDATES, {"batches": _numbers(wanted)})
    return (Candidate(*row) for row in found)


def selected_rows(conn: Connection) -> list[tuple[int, int]]:
    """The chosen rows, by batch and number."""
    return [(row.batch_id, row.number) for row in conn.execute(select(chosen.c.batch_id, chosen.c.number))]


def choose_places(conn: Connection, wanted: Sequence[Batch], places: Iterable[int]) -> None:
    """Choose the rows at these places, and other rows of `wanted` that share their items."""
    parts = (divmod(place, 1 << PLACE_SHIFT) for place in places)
    _choose(conn, wanted, ((wanted[index].batch_id, number) for index, number in parts))


def choose_ids(conn: Connection, wanted: Sequence[Batch], ids: Iterable[str]) -> list[str]:
    """Choose the rows of `wanted` with these ids, and others that share their items. Returns the ids that no row
    has."""
    found: list[tuple[int, int]] = []
    unknown = []
    for row_id in ids:
        named = execute(conn, _NAMED, {"batches": _numbers(wanted), "id": row_id}).all()
        found += [(row[0], row[1]) for row in named]
        unknown += [] if named else [row_id]
    _choose(conn, wanted, found)
    return unknown


def _choose(conn: Connection, wanted: Sequence[Batch], found: Iterable[tuple[int, int]]) -> None:
    choose(conn, found)
    execute(conn, _CHOOSE_SHARED, {"batches": _numbers(wanted)})


def _numbers(wanted: Sequence[Batch]) -> str:
    return json.dumps([batch.batch_id for batch in wanted])
