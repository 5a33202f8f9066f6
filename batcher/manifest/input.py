"""What the reader of a format is given: the opened file, the rules for reading it, where to report what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from batcher.manifest.columns import Columns
from batcher.manifest.faults import Faults
from batcher.manifest.rows import Rules
from batcher.manifest.stream import Lines, Tap


@dataclass(kw_only=True)
class Input:
    """One opened manifest.

    `ending` is that of its name in lower case, with the dot. A reader adds to `notes` what it decided about the file;
    they are printed on the batch's first import and by `plan`.
    """

    name: str
    ending: str
    is_stdin: bool
    tap: Tap
    rules: Rules
    columns: Columns
    faults: Faults
    notes: list[str] = field(default_factory=list)

    @cached_property
    def lines(self) -> Lines:
        """The decoded lines; they can be read once.

        Raises:
            ManifestError: the encoding is unknown.
        """
        return Lines(self.tap, self.rules.encoding)
