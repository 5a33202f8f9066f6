"""Finds staged rows that would give finished audio another file name, so that the user must agree before many do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from sqlalchemy import Connection

from batcher.errors import ManifestError
from batcher.formatting import counted
from batcher.ledger.imports.staging import Staging
from batcher.ledger.storage.statements import execute, stream
from batcher.manifest.outputs import former_path

_MAX_RENAMED: Final = 20
_MAX_RENAMED_SHARE: Final = 0.1
"""Up to this many renamed rows, or this share of the rows with audio, count as ordinary edits."""
_MAX_SHOWN: Final = 5
"""Rows listed in an error."""

_SAME_ID: Final = """
    SELECT staged.number, staged.line, staged.id, staged.output, old.id AS old_id, old.output AS old_output,
        old.take FROM staged CROSS JOIN rows AS old ON old.batch_id = :batch_id AND old.id = staged.id
    WHERE old.is_current = 1 AND old.item_key = staged.item_key AND old.output <> staged.output
    AND old.linked_output IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM items WHERE key = old.linked_key AND items.take <> old.take)"""
"""Rows with another file name, except retakes that are not linked yet: a template with `{take}` renames them."""
_VANISHED: Final = """
    SELECT old.rowid FROM items AS old_item
    JOIN rows AS old ON old.item_key = old_item.key AND old.batch_id = :batch_id AND old.is_current = 1
    WHERE old_item.text_hash = item.text_hash AND old_item.state <> 'pending' AND old_item.voice = item.voice
    AND old_item.format = item.format AND old_item.model IS item.model AND old_item.params = item.params
    AND old.linked_output IS NOT NULL AND NOT EXISTS (SELECT 1 FROM staged WHERE staged.id = old.id)
    AND (old.number > :last OR EXISTS (SELECT 1 FROM staged WHERE staged.number = old.number)
        OR EXISTS (SELECT 1 FROM gaps WHERE gaps.number = old.number)) LIMIT 1"""
"""A row with the same inputs, except the take, that the manifest no longer has."""
_OTHER_ID: Final = f"""
    SELECT found.number, found.line, found.id, found.output, old.id AS old_id, old.output AS old_output,
        old.take FROM (
        SELECT staged.*, ({_VANISHED}) AS former
        FROM staged JOIN items AS item ON item.key = staged.item_key AND item.state <> 'pending'
        WHERE NOT EXISTS (SELECT 1 FROM rows WHERE batch_id = :batch_id AND rows.id = staged.id AND is_current = 1)
    ) AS found JOIN rows AS old ON old.rowid = found.former"""  # noqa: S608
_WITH_AUDIO: Final = "SELECT count(*) FROM rows WHERE batch_id = ? AND is_current = 1 AND linked_output IS NOT NULL"


class _Rename(NamedTuple):
    number: int
    line: int
    id: str
    output: str
    old_id: str
    old_output: str
    take: int

    def is_expected(self) -> bool:
        """Whether the name only loses the take that versions before 0.2 put into it."""
        return self.id == self.old_id and self.old_output == former_path(self.output, self.take)

    def why(self) -> str:
        """What would change, for an error message."""
        former = "" if self.id == self.old_id else f" (row {self.old_id})"
        return f"row {self.id}: its audio is {self.old_output}{former} and would be {self.output}"


def refuse_renames(
    conn: Connection, staging: Staging, name: str, columns: Mapping[str, str], *, same_file: bool
) -> None:
    """Refuse an import that would rename the audio of more than a few edited rows, of any by a setting, or of all
    because all ids are others.

    With `same_file` the manifest has not changed, so a setting has. `columns` is the column mapping of the last import.

    Raises:
        ManifestError: it would.
    """
    if staging.batch_id is None:
        return
    number, new_ids, first = 0, 0, list[_Rename]()
    for query in (_SAME_ID, _OTHER_ID):
        for row in stream(conn, query, staging.parameters):
            rename = _Rename(*row)
            if rename.is_expected():
                continue
            number += 1
            new_ids += query is _OTHER_ID
            if len(first) < _MAX_SHOWN:
                first.append(rename)
    if not number:
        return
    with_audio: int = execute(conn, _WITH_AUDIO, (staging.batch_id,)).scalar_one()
    few = number <= max(_MAX_RENAMED, _MAX_RENAMED_SHARE * with_audio)
    if few and not same_file and new_ids < max(with_audio, 2):
        return
    message = f"{name}: {counted(number, 'row')} with audio would get another file name; nothing was created"
    last = " ".join(f"--column {field}={header}" for field, header in columns.items() if field in ("id", "output"))
    before = f"The last run had {last}. " if last else ""
    raise ManifestError(
        message,
        [f"{name}:{row.line}: {row.why()}" for row in first],
        f"{before}Restore the ids, --column and --filename of the last run, or pass --rename to give the"
        " files their new names.",
    )
