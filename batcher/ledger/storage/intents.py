"""The intents file: what a run on this host was about to create, in case the ledger's server loses its record of that.

A standby that takes over may lack the last commits. The next run on this host then finds here what may have been bought
since: see `restored_rows.add_lost_intents`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from batcher import files
from batcher.errors import StorageError
from batcher.ledger.records import Claimed
from batcher.ledger.storage.sqlite import sync


class Intent(NamedTuple):
    """A create that may have been sent: the item's key and the number of the attempt."""

    key: str
    attempt: int


class IntentsFile:
    """The intents file of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None  # once something is written
        self._end = 0

    def append(self, claimed: Sequence[Claimed]) -> None:
        """Make the intents to create these items durable.

        Raises:
            StorageError: the disk is full or refuses the write.
        """
        lines = "".join(f"{json.dumps([one.key, one.attempt])}\n" for one in claimed).encode()
        try:
            if self._descriptor is None:
                self._descriptor = files.open_own(self.path)
                sync(self.path.parent)
            files.write(self._descriptor, lines, self._end)
            os.fdatasync(self._descriptor)
            self._end += len(lines)
        except OSError as error:
            hint = "The project folder must be writable, with some space left. Nothing more was created."
            raise StorageError(f"cannot write {self.path}: {error.strerror}", hint) from error

    def read(self) -> list[Intent]:
        """The intents recorded; a line that a kill has cut off was never followed by a create.

        A file that does not exist has none: another run on this host has compared it with the ledger and removed it.

        Raises:
            StorageError: the file cannot be read.
        """
        try:
            with files.reading(self.path) as file:
                lines = file.read().split(b"\n")[:-1]
            return [Intent(str(key), int(attempt)) for key, attempt in map(json.loads, lines)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            hint = "It records what was bought. If it is not batcher's, move it away."
            raise StorageError(f"cannot read {self.path}: {error}", hint) from error

    def close(self) -> None:
        """Close the file if it is open."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Remove the file: the ledger has all of it, durably."""
        self.close()
        self.path.unlink(missing_ok=True)
