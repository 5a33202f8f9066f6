"""What the reader of a format is given: the opened file, the rules for reading it, where to report what it finds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import BinaryIO, Final

from batcher.manifest.columns import Columns
from batcher.manifest.faults import Faults
from batcher.manifest.rules import Rules
from batcher.manifest.stream import Lines, Tap

_LONGEST_AHEAD: Final = 1 << 20
"""A line of this many characters is cut off there, and ends what can be looked at ahead."""


@dataclass(kw_only=True)
class Input:
    """One opened manifest.

    `ending` is that of its name in lower case, with the dot. `stream` can seek; `tap` reads it once, from where it was.
    A reader adds to `notes` what it decided about the file; they are printed on the batch's first import and by `plan`.
    """

    name: str
    ending: str
    is_stdin: bool
    stream: BinaryIO
    rules: Rules
    columns: Columns
    faults: Faults
    notes: list[str]
    tap: Tap = field(init=False)

    def __post_init__(self) -> None:
        self._begin = self.stream.tell()
        self.tap = Tap(self.name, self.stream)

    @cached_property
    def lines(self) -> Lines:
        """The decoded lines; they can be read once.

        Raises:
            ManifestError: the encoding is unknown.
        """
        return Lines(self.tap, self.rules.encoding)

    @contextmanager
    def lines_ahead(self) -> Iterator[Lines]:
        """The lines from the beginning, for a look that leaves the reading where it is. A line that is too long for
        memory ends them."""
        with self._rewound():
            yield Lines(Tap(self.name, self.stream), self.rules.encoding, longest=_LONGEST_AHEAD)

    def size(self) -> int:
        """The manifest's size in bytes."""
        with self._rewound():
            return self.stream.seek(0, io.SEEK_END) - self._begin

    def contains(self, text: str) -> bool:
        """Whether the first 64 MiB may contain this text, of characters of ASCII and one of them a double quote."""
        encoded = text.encode(self.lines.encoding)
        sought, before = encoded if len(encoded) == len(text) else b'"', b""
        with self._rewound():
            for _ in range(64):
                data = before + self.stream.read(1 << 20)
                if sought in data:
                    return True
                if len(data) == len(before):
                    return False
                before = data[len(data) - len(sought) + 1 :]
        return False

    @contextmanager
    def _rewound(self) -> Iterator[None]:
        position = self.stream.tell()
        self.stream.seek(self._begin)
        try:
            yield
        finally:
            self.stream.seek(position)
