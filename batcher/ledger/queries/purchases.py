"""What is about to be bought: the items to be created, grouped by what the API can be asked about beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from batcher.ledger.records import Batch, Purchase
from batcher.ledger.storage.functions import call
from batcher.ledger.storage.statements import execute, stream
from batcher.provider.model_rules import LISTED_PRICE, listed_price

_GROUPS: Final = """
    WITH found AS MATERIALIZED (
        SELECT voice, model, uses,
            iif(params = '{{}}', '[]', (SELECT json_group_array(key) FROM json_each(params))) AS parameters,
             bytes, length(text) AS chars, {listed} AS listed FROM ({items}) AS wanted)
    SELECT voice, model, parameters, sum(uses), count(*), sum(bytes), sum(chars), sum(listed)
    FROM found GROUP BY voice, model, parameters ORDER BY sum(uses) DESC, voice, coalesce(model, ''), parameters"""
_OURS: Final = "batch_id IN (SELECT CAST(value AS integer) FROM json_each(:batches)) AND is_current = 1"
_TO_CREATE: Final = f"""
    SELECT voice, model, params, bytes, text, uses FROM (
        SELECT *, (SELECT count(*) FROM rows WHERE item_key = items.key AND {_OURS}) AS uses
        FROM items WHERE state = 'pending') AS used WHERE uses > 0"""  # noqa: S608
_CHOSEN_TO_CREATE: Final = f"""
    SELECT voice, model, params, bytes, text, uses FROM (
        SELECT item_key, count(*) AS uses FROM chosen
        CROSS JOIN rows ON rows.batch_id = chosen.batch_id AND is_current = 1 AND rows.number = chosen.number
        WHERE item_key IS NOT NULL AND rows.{_OURS} GROUP BY item_key) AS used
    CROSS JOIN items ON key = item_key WHERE state = 'pending'"""  # noqa: S608
_LINES: Final = f"""
    SELECT rows.batch_id, rows.line, items.voice FROM items CROSS JOIN rows ON rows.item_key = items.key
    WHERE items.state = 'pending' AND items.voice IN (SELECT value FROM json_each(:voices)) AND {_OURS}
    ORDER BY rows.batch_id, rows.number"""  # noqa: S608


def purchases(conn: Connection, wanted: Sequence[Batch], *, only_chosen: bool = False) -> list[Purchase]:
    """The items that wanted rows are still to be created for, by voice, model and parameters; most rows first.

    With `only_chosen`, those of rows in the table `chosen`.
    """
    return grouped(conn, _CHOSEN_TO_CREATE if only_chosen else _TO_CREATE, {"batches": _numbers(wanted)})


def grouped(conn: Connection, items: str, parameters: Mapping[str, Any]) -> list[Purchase]:
    """Group the items that the query `items` returns: voice, model, params, bytes, text and the number of their rows
    (`uses`)."""
    listed = call(conn, listed_price, "text", otherwise=LISTED_PRICE)
    found = execute(conn, _GROUPS.format(items=items, listed=listed), dict(parameters))
    return [
        Purchase(
            voice=row[0],
            model=row[1],
            parameters=tuple(json.loads(row[2])),
            rows=row[3],
            items=row[4],
            bytes=row[5],
            chars=row[6],
            listed_credits=row[7],
        )
        for row in found
    ]


def lines_with(conn: Connection, wanted: Sequence[Batch], voices: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Batch number, line and voice of each row whose item is to be created with one of these voices."""
    found = stream(conn, _LINES, {"batches": _numbers(wanted), "voices": json.dumps(voices)})
    return ((row[0], row[1], row[2]) for row in found)


def _numbers(wanted: Sequence[Batch]) -> str:
    return json.dumps([batch.batch_id for batch in wanted])
