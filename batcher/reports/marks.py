"""The file of marks that the report's page exports: what a listener thought of each row."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from batcher.errors import UsageError

VERSION: Final = 1


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A row that was marked: `key` begins the key of the item that was heard."""

    batch: str
    id: str
    key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16,64}$")]
    mark: Literal["good", "retake", ""]


class _Marks(msgspec.Struct, frozen=True):
    marks: int
    ledger: str
    rows: list[Mark]


def read_marks(path: Path, ledger_id: str) -> list[Mark]:
    """The rows of the file that are marked `retake`, in its order.

    Raises:
        UsageError: it is no such file, or was made from another ledger's page.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Marks)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"{path} is no file of marks: {error}", "`batcher report` makes a page that exports one."
        ) from None
    if found.marks != VERSION:
        raise UsageError(f"{path} was exported by another version of batcher", "Make the page anew and export again.")
    if found.ledger != ledger_id:
        raise UsageError(f"{path} was made from another ledger's page", "Name that one with --ledger.")
    return [mark for mark in found.rows if mark.mark == "retake"]
