"""Finds texts and voices among the items that an import adds that would be bought by mistake."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection

from batcher.errors import DoubtError, ManifestError
from batcher.formatting import counted
from batcher.ledger.imports.staging import UNCHANGED, Staging
from batcher.ledger.storage.schema import items
from batcher.ledger.storage.statements import execute, stream
from batcher.manifest.faults import CAUSES_SHOWN, literal
from batcher.manifest.markup.doubts import Doubt, Doubts
from batcher.manifest.rules import Rules

_TEXTS: Final = 32
"""Texts that are in memory at once; one may have megabytes."""
_ADDED: Final = (
    "staged JOIN {items} AS item ON item.key = staged.item_key AND item.rowid > :newest"
    " AND NOT EXISTS (SELECT 1 FROM recalled WHERE recalled.item_key = item.key){unknown}"
)
"""Staged rows with an item that the ledger did not have before: what an earlier run accepted is not doubted."""


def find_doubts(conn: Connection, staging: Staging, rules: Rules) -> list[Doubt]:
    """Doubts about the texts that the import adds."""
    added, parameters = _added(staging)
    new = f"SELECT DISTINCT voice FROM {staging.items} WHERE rowid > :newest"  # noqa: S608
    doubts = Doubts({*execute(conn, new, parameters).scalars(), *rules.voices})
    query = f"SELECT staged.number, staged.line, item.text FROM {added} ORDER BY staged.number"  # noqa: S608
    for row in stream(conn, query, parameters, at_once=_TEXTS):
        doubts.add(row.number, row.line, row.text)
    return doubts.found()


def refuse_doubts(conn: Connection, staging: Staging, name: str, rules: Rules, allow: Collection[str]) -> None:
    """Refuse an import whose new texts have contents of other types than those allowed.

    Raises:
        DoubtError: it has.
    """
    doubts = [doubt for doubt in find_doubts(conn, staging, rules) if doubt.type not in allow]
    if doubts:
        types = ",".join(doubt.type for doubt in doubts)
        message = f"{name}: texts with markup or placeholders ({types.replace(',', ', ')}); nothing was created"
        raise DoubtError(
            message, [doubt.line_in(name) for doubt in doubts], hint_of(types), frozenset(types.split(","))
        )


def hint_of(types: str) -> str:
    """What to do about doubts of these types, which are separated by commas."""
    remove, accept = f"Remove them with --strip {types}", f"buy the texts as they are with --allow {types}"
    restore = "Restore lost characters where the texts come from. " if "lost" in types.split(",") else ""
    return f"{restore}{remove}, or {accept}. See `batcher help manifest`."


def refuse_unlisted_voices(conn: Connection, staging: Staging, name: str, rules: Rules) -> None:
    """Refuse an import with new rows whose voice `[voices]` lacks, while other rows use that table.

    Raises:
        ManifestError: it has such rows.
    """
    if not rules.voices:
        return
    added, parameters = _added(staging)
    listed = {voice.strip() for voice in rules.voices.values()} | {rules.voice}
    query = (
        f"SELECT item.voice, min(staged.line) AS line, count(*) AS number FROM {added}"  # noqa: S608
        " WHERE ',' || staged.defaulted || ',' NOT LIKE '%,voice,%' GROUP BY item.voice ORDER BY line"
    )
    found = [row for row in execute(conn, query, parameters) if row.voice not in listed]
    if not found or not _uses_table(conn, staging, rules):
        return
    faults = []
    for row in found[:CAUSES_SHOWN]:
        near = difflib.get_close_matches(row.voice, rules.voices, n=1)
        similar = f" (did you mean {literal(near[0])}?)" if near else ""
        what = f"{literal(row.voice)} is not in [voices]{similar}"
        faults.append(f"{name}:{row.line}: voice: {what}, in {counted(row.number, 'row')}")
    raise ManifestError(
        f"{name}: {counted(len(found), 'voice')} missing in [voices]; nothing was created",
        faults,
        "Correct the rows, or add the voices to [voices] in batcher.toml; a voice ID may stand for itself.",
    )


def _uses_table(conn: Connection, staging: Staging, rules: Rules) -> bool:
    """Whether any row of the manifest has a voice of `[voices]`."""
    marks = ", ".join(f":voice{number}" for number in range(len(rules.voices)))
    voices = {f"voice{number}": voice.strip() for number, voice in enumerate(rules.voices.values())}
    uses = f"JOIN {{}} AS item ON item.key = {{}}.item_key AND item.voice IN ({marks})"
    query = (
        f"SELECT 1 FROM staged {uses.format(staging.items, 'staged')} "  # noqa: S608
        f"UNION ALL SELECT 1 FROM rows {uses.format('items', 'rows')} WHERE {UNCHANGED} LIMIT 1"
    )
    return execute(conn, query, staging.parameters | voices).first() is not None


def _added(staging: Staging) -> tuple[str, dict[str, int]]:
    """The source of a query for the added rows, and its parameters."""
    unknown = "" if staging.items is items else " AND NOT EXISTS (SELECT 1 FROM items WHERE items.key = item.key)"
    return _ADDED.format(items=staging.items, unknown=unknown), {"newest": staging.newest_item}
