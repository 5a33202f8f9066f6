"""What manifests would come to, found out without a change to the ledger: all that would be new is kept aside.

The connection only reads; what it keeps are temporary tables of its own, which nobody else sees and which go with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text

from batcher.errors import ManifestError
from batcher.item import State
from batcher.ledger.imports import importer, rebuys
from batcher.ledger.imports.conflicts import OtherBatch, other_batches
from batcher.ledger.imports.staging import Staging
from batcher.ledger.queries.item_counts import Counts
from batcher.ledger.storage.schema import items
from batcher.manifest.reader import Manifest
from batcher.manifest.rows import Rules

_aside = MetaData()
planned: Final = Table(
    "planned",
    _aside,
    *(Column(one.name, one.type, primary_key=one.primary_key, nullable=one.nullable) for one in items.columns),
    prefixes=["TEMPORARY"],
)
"""What changed rows ask for, as it would be in `items`."""
foreseen: Final = Table(
    "foreseen",
    _aside,
    Column("place", Integer, primary_key=True),  # of the manifest among those that are taken in
    Column("number", Integer, primary_key=True),
    Column("item_key", Text),
    Column("skipped", Text),
    Column("output", Text, nullable=False),
    prefixes=["TEMPORARY"],
)
"""The rows that would change."""


class ImportPreview:
    """What the manifests that are taken in, one after another, come to altogether."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._out_dirs: dict[str, str] = {}
        self._parts = ["SELECT * FROM foreseen"]
        with _keeping_aside(conn):
            _aside.create_all(conn)
            self._view()

    def take_in(
        self, manifest: Manifest, rules: Rules, *, out_dir: str, at: float
    ) -> tuple[dict[str, list[str]], str | None]:
        """Foresee an import of the manifest.

        Returns what changes in rows that the ledger knows (fields, and the ids of all such rows), and why `--rebuy`
        would be wanted, if it would.

        Raises:
            ManifestError: it has faults that are not to be skipped.
        """
        with _keeping_aside(self._conn):
            staging = importer.stage(
                self._conn, manifest, rules, out_dir, at, requested=planned, others=self._others(rules.batch)
            )
            self._conn.exec_driver_sql(_AS_THEY_ARE)
            self._foresee(staging)
        self._out_dirs[rules.batch] = out_dir
        changed = rebuys.changed_rows(self._conn, staging)
        same_file = importer.is_same_file(self._conn, manifest, rules)
        try:
            rebuys.refuse_rebuys(self._conn, staging, manifest.name, rules.batch, same_file=same_file)
        except ManifestError as error:
            return changed, "\n".join([*error.faults, error.hint])
        return changed, None

    def _foresee(self, staging: Staging) -> None:
        place = len(self._out_dirs)
        self._conn.exec_driver_sql(f"INSERT INTO foreseen SELECT {place}, {_COLUMNS} FROM staged")  # noqa: S608
        changed = f"SELECT number FROM foreseen WHERE place = {place}"  # noqa: S608
        unchanged = f"is_current = 1 AND number <= {staging.last} AND number NOT IN ({changed})"
        batch = f"batch_id = {staging.batch_id or 0}"
        self._parts.append(f"SELECT {place}, {_COLUMNS} FROM rows WHERE {batch} AND {unchanged}")  # noqa: S608
        self._view()

    def _view(self) -> None:
        self._conn.exec_driver_sql("DROP VIEW IF EXISTS temp.foreseen_all")
        self._conn.exec_driver_sql(f"CREATE TEMP VIEW foreseen_all AS {' UNION ALL '.join(self._parts)}")

    def _others(self, batch: str) -> list[OtherBatch]:
        """The other batches, as the manifests previewed so far would leave them."""
        others = [other for other in other_batches(self._conn, batch) if other.name not in self._out_dirs]
        for place, (name, out_dir) in enumerate(self._out_dirs.items()):
            outputs = f"SELECT output FROM foreseen_all WHERE place = {place} AND skipped IS NULL"  # noqa: S608
            others.append(OtherBatch(name, out_dir, outputs))
        return others

    def counts(self) -> tuple[Counts, list[tuple[str | None, int, int]]]:
        """Rows and items of all the manifests; by model, bytes and characters of the texts that would be created."""
        found = self._conn.exec_driver_sql(_ITEMS).all()
        states = dict.fromkeys(map(str, State), 0)
        for state, _, number, *_ in found:
            states[state] += number
        rows, invalid, empty = self._conn.exec_driver_sql(_ROWS).one()
        counts = Counts(rows=rows, items=sum(states.values()), states=states, invalid=invalid, empty=empty)
        return counts, [(model, size, chars) for state, model, _, size, chars in found if state == State.PENDING]

    def sizes_to_buy(self) -> Iterator[tuple[str | None, int]]:
        """Model and bytes of each item that would be created, in the order in which a run would."""
        found = self._conn.exec_driver_sql(_SIZES)
        return ((row[0], row[1]) for row in found)


@contextmanager
def _keeping_aside(conn: Connection) -> Iterator[None]:
    """Temporary tables may be written; the ledger's own may not, since its file is opened for reading."""
    conn.exec_driver_sql("PRAGMA query_only = 0")
    try:
        yield
    finally:
        conn.exec_driver_sql("PRAGMA query_only = 1")


_COLUMNS: Final = "number, item_key, skipped, output"
_AS_THEY_ARE: Final = (
    "UPDATE planned SET state = (SELECT state FROM items WHERE items.key = planned.key)"
    " WHERE key IN (SELECT item_key FROM staged) AND key IN (SELECT key FROM items)"
)
_ROWS: Final = """
    SELECT count(*), count(CASE WHEN skipped = 'invalid' THEN 1 END), count(CASE WHEN skipped = 'empty' THEN 1 END)
    FROM foreseen_all"""
_OF_ITEM: Final = """
    LEFT JOIN items ON items.key = item_key LEFT JOIN planned ON items.key IS NULL AND planned.key = item_key"""
_STATE: Final = "coalesce(items.state, planned.state)"
_MODEL: Final = "iif(items.key IS NULL, planned.model, items.model)"
_BYTES: Final = "coalesce(items.bytes, planned.bytes)"
_ITEMS: Final = f"""
    WITH every AS MATERIALIZED (
        SELECT {_STATE} AS state, {_MODEL} AS model, {_BYTES} AS size,
            length(coalesce(items.text, planned.text)) AS chars
        FROM (SELECT DISTINCT item_key FROM foreseen_all WHERE item_key IS NOT NULL) {_OF_ITEM})
    SELECT state, model, count(*), sum(size), sum(chars) FROM every GROUP BY 1, 2"""  # noqa: S608
_SIZES: Final = f"""
    SELECT {_MODEL}, {_BYTES}
    FROM (SELECT item_key, min(place * {1 << 32} + number) AS first FROM foreseen_all WHERE item_key IS NOT NULL
        GROUP BY item_key) {_OF_ITEM}
    WHERE {_STATE} = 'pending' ORDER BY first"""  # noqa: S608
