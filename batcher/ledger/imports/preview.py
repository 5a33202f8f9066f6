"""Previews the import of manifests without changing the ledger.

New and changed rows go into temporary tables of a connection that otherwise only reads. Other connections cannot see
them, and they disappear when it is closed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple, ParamSpec

from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text

from batcher.errors import ManifestError
from batcher.item import State
from batcher.ledger.imports import importer, rebuys
from batcher.ledger.imports.conflicts import OtherBatch, other_batches
from batcher.ledger.imports.doubts import find_doubts
from batcher.ledger.imports.parse_options import refuse_other_filter
from batcher.ledger.imports.staging import Staging
from batcher.ledger.queries.item_counts import Counts, count
from batcher.ledger.queries.purchases import grouped
from batcher.ledger.queries.selection import PLACE_SHIFT, Candidate
from batcher.ledger.records import Batch, Purchase
from batcher.ledger.storage import bulk
from batcher.ledger.storage.schema import items
from batcher.ledger.storage.statements import execute, stream
from batcher.ledger.storage.temporary import number_rows, writable
from batcher.manifest.markup.doubts import Doubt
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules

P = ParamSpec("P")

_ROW_COLUMNS: Final = "number, id, line, item_key, skipped, output"
"""Columns of a row that a preview needs."""
_VALUES: Final = 10
"""Values of a parameter that are listed."""
_temporary: Final = MetaData()
_preview_items: Final = Table(
    "preview_items",
    _temporary,
    *(Column(one.name, one.type, primary_key=one.primary_key, nullable=one.nullable) for one in items.columns),
    prefixes=["TEMPORARY"],
)
"""Items that changed rows request, as they would be in `items`."""
_preview_changes: Final = Table(
    "preview_changes",
    _temporary,
    Column("position", Integer, primary_key=True),  # of the manifest among those previewed
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False),
    Column("line", Integer, nullable=False),
    Column("item_key", Text),
    Column("skipped", Text),
    Column("output", Text, nullable=False),
    prefixes=["TEMPORARY"],
)
"""Rows that would change. The view `preview_rows` adds the rows that would stay as they are."""
_preview_gaps: Final = Table(
    "preview_gaps",
    _temporary,
    Column("position", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    prefixes=["TEMPORARY"],
)
"""Numbers of rows that the batch has and the manifest has not, before its last row."""


class ManifestPreview(NamedTuple):
    """What the import of one manifest would change."""

    changed: dict[str, list[str]]  # by changed field, the ids of rows that the batch has with other inputs
    rebuy: ManifestError | None  # why `--rebuy` would be needed
    rename: ManifestError | None  # why `--rename` would be needed
    doubts: list[Doubt]  # contents of new texts that are hardly meant to be spoken


class ParameterValues(NamedTuple):
    """Values of one parameter: the most frequent ones with their numbers of rows, and the number of different ones."""

    values: dict[str, int]
    distinct: int


class ImportPreview:
    """The combined result of importing several manifests, one after another."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._out_dirs: dict[str, str] = {}  # by batch, in the order of the manifests
        self._unchanged: list[Batch] = []
        self._is_limited = False
        self._selects = ["SELECT * FROM preview_changes"]  # of the view
        with writable(conn):
            _temporary.create_all(conn)
            number_rows(conn, _preview_items)
            self._create_view()

    def add(
        self,
        manifest: Manifest,
        rules: Rules,
        *,
        out_dir: str,
        at: float,
        refilter: bool = False,
        ignores_case: bool = False,
    ) -> ManifestPreview:
        """Preview the import of one more manifest. `ignores_case`: see `importer.import_manifest`.

        Raises:
            ManifestError: it has faults that are not skipped; or, without `refilter`, it selects rows otherwise than
                the batch's last import.
        """
        if not refilter:
            refuse_other_filter(self._conn, rules, manifest.name)
        with writable(self._conn):
            others = self._others(rules.batch)
            how = partial(importer.stage, requested=_preview_items, others=others, ignores_case=ignores_case)
            staging = how(self._conn, manifest, rules, out_dir, at)
            execute(self._conn, _COPY_STATES)
            self._add_rows(staging)
        self._out_dirs[rules.batch] = out_dir
        changed = rebuys.changed_rows(self._conn, staging)
        doubts = find_doubts(self._conn, staging, rules)
        rename = _refusal(importer.refuse_renames_of, self._conn, staging, manifest, rules)
        rebuy = _refusal(importer.refuse_rebuys_of, self._conn, staging, manifest, rules)
        return ManifestPreview(changed, rebuy, rename, doubts)

    def add_unchanged(self, batch: Batch) -> None:
        """Add a batch whose file is as it was at its last import."""
        position = len(self._out_dirs)
        self._selects.append(
            f"SELECT {position}, {_ROW_COLUMNS} FROM rows WHERE batch_id = {batch.batch_id} AND is_current = 1"  # noqa: S608
        )
        with writable(self._conn):
            self._create_view()
        self._out_dirs[batch.name] = batch.out_dir
        self._unchanged.append(batch)

    def _add_rows(self, staging: Staging) -> None:
        position = len(self._out_dirs)
        execute(self._conn, f"INSERT INTO preview_changes SELECT {position}, {_ROW_COLUMNS} FROM staged")  # noqa: S608
        execute(self._conn, f"INSERT INTO preview_gaps SELECT {position}, number FROM gaps")  # noqa: S608
        bulk.analyze(self._conn, _preview_items, _preview_changes, _preview_gaps)
        self._selects.append(
            f"SELECT {position}, {_ROW_COLUMNS} FROM rows"  # noqa: S608
            f" WHERE batch_id = {staging.batch_id or 0} AND is_current = 1 AND number <= {staging.last}"
            " AND NOT EXISTS (SELECT 1 FROM preview_changes AS changed"
            f" WHERE changed.position = {position} AND changed.number = rows.number)"
            " AND NOT EXISTS (SELECT 1 FROM preview_gaps AS gap"
            f" WHERE gap.position = {position} AND gap.number = rows.number)"
        )
        self._create_view()

    def candidates(self) -> Iterator[Candidate]:
        """The items of the rows, each once, in no particular order."""
        return (Candidate(*row) for row in stream(self._conn, _CANDIDATES))

    def limit_to_places(self, places: Iterable[int]) -> None:
        """Leave out all rows but those at these places, and others that share their items. Call it last."""
        self._limit(_AT_PLACES, json.dumps(list(places)))

    def limit_to_ids(self, ids: Sequence[str]) -> list[str]:
        """Leave out all rows but those with these ids, and others that share their items. Call it last.

        Returns the ids that no row has.
        """
        self._limit(_WITH_IDS, json.dumps(ids))
        known = set(execute(self._conn, "SELECT id FROM preview_rows").scalars())
        return [row_id for row_id in ids if row_id not in known]

    def _limit(self, condition: str, values: str) -> None:
        self._is_limited = True
        with writable(self._conn):
            execute(self._conn, "DROP TABLE IF EXISTS temp.preview_limited")
            execute(self._conn, _LIMITED.format(condition=condition), {"values": values})
            execute(self._conn, "DROP VIEW temp.preview_rows")
            execute(self._conn, "CREATE TEMP VIEW preview_rows AS SELECT * FROM preview_limited")

    def _create_view(self) -> None:
        execute(self._conn, "DROP VIEW IF EXISTS temp.preview_rows")
        execute(self._conn, f"CREATE TEMP VIEW preview_rows AS {' UNION ALL '.join(self._selects)}")

    def _others(self, batch: str) -> list[OtherBatch]:
        """The other batches, as the manifests previewed so far would leave them."""
        others = [other for other in other_batches(self._conn, batch) if other.name not in self._out_dirs]
        for position, (name, out_dir) in enumerate(self._out_dirs.items()):
            outputs = f"SELECT output FROM preview_rows WHERE position = {position} AND skipped IS NULL"  # noqa: S608
            others.append(OtherBatch(name, out_dir, outputs))
        return others

    def counts(self) -> Counts:
        """Rows and items of all manifests."""
        if len(self._unchanged) == len(self._out_dirs) and not self._is_limited:
            return count(self._conn, self._unchanged)  # the ledger may have them cached
        states = dict.fromkeys(map(str, State), 0)
        states |= {row[0]: row[1] for row in execute(self._conn, _ITEMS)}
        rows, invalid, empty = execute(self._conn, _ROWS).one()
        return Counts(rows=rows, items=sum(states.values()), states=states, invalid=invalid, empty=empty)

    def purchases(self) -> list[Purchase]:
        """The items that would be created, by voice, model and parameters; most rows first."""
        return grouped(self._conn, _TO_CREATE, {})

    def lines_with(self, voices: Sequence[str]) -> Iterator[tuple[str, int, str]]:
        """Batch, line and voice of each row whose item would be created with one of these voices."""
        names = list(self._out_dirs)
        found = stream(self._conn, _LINES, {"voices": json.dumps(voices)})
        return ((names[row[0]], row[1], row[2]) for row in found)

    def voices(self) -> dict[str, int]:
        """Rows by voice, the most frequent first."""
        return {row[0]: row[1] for row in execute(self._conn, _VOICES)}

    def parameters(self) -> dict[str, ParameterValues]:
        """The parameters that the rows send besides text and voice, by their API names, with their values."""
        found: dict[str, ParameterValues] = {}
        for name, value, rows in execute(self._conn, _PARAMETERS):
            known = found.setdefault(name, ParameterValues({}, 0))
            shown = known.values if known.distinct >= _VALUES else {**known.values, str(value): rows}
            found[name] = ParameterValues(shown, known.distinct + 1)
        return found

    def sizes_to_buy(self) -> Iterator[tuple[str | None, int]]:
        """Model and bytes of each item that would be created, in the order in which a run would create them."""
        found = stream(self._conn, _SIZES)
        return ((row[0], row[1]) for row in found)


def _refusal(refuse: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> ManifestError | None:
    """The error that `refuse` raises; None if it raises none."""
    try:
        refuse(*args, **kwargs)
    except ManifestError as error:
        return error
    return None


_COPY_STATES: Final = (
    "UPDATE preview_items SET state = (SELECT state FROM items WHERE items.key = preview_items.key)"
    " WHERE key IN (SELECT item_key FROM staged) AND key IN (SELECT key FROM items)"
)
_ROWS: Final = """
    SELECT count(*), count(CASE WHEN skipped = 'invalid' THEN 1 END), count(CASE WHEN skipped = 'empty' THEN 1 END)
    FROM preview_rows"""
_JOIN_ITEM: Final = """
    LEFT JOIN items ON items.key = item_key
    LEFT JOIN preview_items ON items.key IS NULL AND preview_items.key = item_key"""
_PLACE: Final = f"position * {1 << PLACE_SHIFT} + number"
_FIRST: Final = f"""(
    SELECT item_key, min({_PLACE}) AS first FROM preview_rows WHERE item_key IS NOT NULL GROUP BY item_key) AS used"""  # noqa: S608
"""The items of the rows, each with the place of its first row."""
_CANDIDATES: Final = f"""
    SELECT first, coalesce(items.voice, preview_items.voice), iif(items.key IS NULL, preview_items.model, items.model),
        coalesce(items.format, preview_items.format), coalesce(items.text, preview_items.text)
    FROM {_FIRST} {_JOIN_ITEM}"""  # noqa: S608
_LIMITED: Final = """
    CREATE TEMP TABLE preview_limited AS
    WITH direct AS MATERIALIZED (SELECT position, number, item_key FROM preview_rows WHERE {condition})
    SELECT * FROM preview_rows WHERE (position, number) IN (SELECT position, number FROM direct)
        OR item_key IN (SELECT item_key FROM direct)"""
_AT_PLACES: Final = f"{_PLACE} IN (SELECT CAST(value AS bigint) FROM json_each(:values))"  # noqa: S608
_WITH_IDS: Final = "id IN (SELECT value FROM json_each(:values))"
_STATE: Final = "coalesce(items.state, preview_items.state)"
_MODEL: Final = "iif(items.key IS NULL, preview_items.model, items.model)"
_BYTES: Final = "coalesce(items.bytes, preview_items.bytes)"
_VOICE: Final = "coalesce(items.voice, preview_items.voice)"
_ITEMS: Final = f"""
    SELECT {_STATE}, count(*)
    FROM (SELECT DISTINCT item_key FROM preview_rows WHERE item_key IS NOT NULL) AS used {_JOIN_ITEM} GROUP BY 1"""  # noqa: S608
_VOICES: Final = f"""
    SELECT {_VOICE}, count(*) FROM preview_rows {_JOIN_ITEM}
    WHERE item_key IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"""  # noqa: S608
_PARAMETERS: Final = f"""
    WITH sent AS MATERIALIZED (
        SELECT coalesce(items.format, preview_items.format) AS format, {_MODEL} AS model,
            coalesce(items.params, preview_items.params) AS params, count(*) AS number
        FROM preview_rows {_JOIN_ITEM} WHERE item_key IS NOT NULL GROUP BY 1, 2, 3)
    SELECT name, value, sum(number) FROM (
        SELECT 'format' AS name, format AS value, number FROM sent
        UNION ALL SELECT 'engineModelId', model, number FROM sent WHERE model IS NOT NULL
        UNION ALL SELECT one.key, iif(one.type IN ('true', 'false'), one.type, one.value), number
        FROM sent, json_each(sent.params) AS one WHERE sent.params <> '{{}}') AS found
    GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2"""  # noqa: S608
_TO_CREATE: Final = f"""
    SELECT {_VOICE} AS voice, {_MODEL} AS model, coalesce(items.params, preview_items.params) AS params,
        {_BYTES} AS bytes, coalesce(items.text, preview_items.text) AS text, uses
    FROM (SELECT item_key, count(*) AS uses FROM preview_rows WHERE item_key IS NOT NULL GROUP BY item_key) AS used
    {_JOIN_ITEM} WHERE {_STATE} = 'pending'"""  # noqa: S608
_LINES: Final = f"""
    SELECT position, line, {_VOICE} FROM preview_rows {_JOIN_ITEM}
    WHERE {_STATE} = 'pending' AND {_VOICE} IN (SELECT value FROM json_each(:voices))
    ORDER BY position, number"""  # noqa: S608
_SIZES: Final = f"""
    SELECT {_MODEL}, {_BYTES} FROM {_FIRST} {_JOIN_ITEM}
    WHERE {_STATE} = 'pending' ORDER BY first"""  # noqa: S608
