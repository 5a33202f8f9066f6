"""The standard streams: always there, in an encoding that takes every character, and without control sequences.

What commands print contains names and messages from manifests, servers and file systems. A terminal would obey escape
sequences in them.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from typing import Final, TextIO

from batcher.formatting import ESCAPE_UNENCODABLE, escape
from batcher.manifest.confusable import BIDI

_ESCAPED: Final = re.compile(
    # Colours, as this program sets them, stay; so do line breaks, tabs and the carriage returns of a progress bar.
    rf"(?!\x1b\[(?:0|1|2|3[0-7]|9[0-7])m)[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{BIDI}]"
)


class _Output(io.TextIOWrapper):
    """A standard stream that shows control characters as escapes, which are valid in JSON strings too."""

    replaced: TextIO | None = None  # if it were deleted, it would close the stream below both

    def write(self, text: str, /) -> int:
        """Write the text; a closed or full stream raises what any file would."""
        return super().write(_ESCAPED.sub(lambda found: escape(found[0]), text))


def prepare() -> None:
    """Make the standard streams usable, even if they are closed or in another encoding.

    A closed one becomes the null device: otherwise, the next file opened would be the stream of its number, and get
    what is printed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)
    sys.stdout, sys.stderr = _prepared(sys.stdout, 1), _prepared(sys.stderr, 2)


def _is_usable(encoding: str) -> bool:
    """Whether characters that the encoding lacks can be escaped in it. ASCII is what systems without a locale have."""
    try:
        "\ud800".encode(encoding, ESCAPE_UNENCODABLE)
    except (UnicodeError, LookupError):
        return False
    return codecs.lookup(encoding).name != "ascii"


def _prepared(stream: TextIO | None, number: int) -> TextIO:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    if not _is_usable(encoding):
        encoding = "utf-8"
    lines = number == 2 or bool(getattr(stream, "line_buffering", False))
    buffer = getattr(stream, "buffer", None) or os.fdopen(number, "wb", closefd=False)
    output = _Output(buffer, encoding=encoding, errors=ESCAPE_UNENCODABLE, line_buffering=lines)
    output.replaced = stream
    return output
