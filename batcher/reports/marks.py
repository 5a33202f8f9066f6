"""The marks file that the report page exports: a listener's verdict on each row."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from batcher import files
from batcher.errors import UsageError

VERSION: Final = 1


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A marked row. `key` is the beginning of the key of the item that was played."""

    batch: str
    id: str
    key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16,64}$")]
    mark: Literal["good", "retake", ""]


class _Marks(msgspec.Struct, frozen=True):
    marks: int
    ledger: str
    rows: list[Mark]


def read_marks(path: Path, ledger_id: str) -> list[Mark]:
    """The rows marked `retake`, in the file's order.

    Raises:
        UsageError: it is not a marks file, or it comes from another ledger's page.
    """
    try:
        with files.reading(path) as file:
            found = msgspec.json.decode(file.read(), type=_Marks)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"{path} is not a marks file: {error}", "Export one from the page that `batcher report` writes."
        ) from None
    if found.marks != VERSION:
        raise UsageError(f"{path} was exported by another version of batcher", "Write the page again, then export.")
    if found.ledger != ledger_id:
        raise UsageError(f"{path} was exported from another ledger's page", "Name that ledger with --ledger.")
    return [mark for mark in found.rows if mark.mark == "retake"]
