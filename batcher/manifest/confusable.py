"""Names and texts that deceive the eye: characters that nobody sees, and names that look the same or are one on some
file systems."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

BIDI: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""Characters that change the direction of what follows, as in a set of a regular expression."""
INVISIBLE: Final = (
    rf"\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f"
    rf"\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff{BIDI}"
)
"""Characters without a glyph, as in a set of a regular expression: joiners, marks, fillers and selectors."""
_INVISIBLE: Final = re.compile(f"[{INVISIBLE}]")
_SEEN: Final = re.compile(rf"[^\s{INVISIBLE}]")
_AROUND: Final = re.compile(rf"^[\s{INVISIBLE}]+|[\s{INVISIBLE}]+$")
_RESERVED: Final = re.compile(
    r"(^|/)(con|prn|aux|nul|com[0-9\xb9\xb2\xb3]|lpt[0-9\xb9\xb2\xb3]) *(\.|/|$)|[. ](/|$)", re.IGNORECASE
)
"""Paths that Windows does not accept: names of devices, and names that end in a dot or a space."""


def without_invisible(text: str) -> str:
    """The text without characters that nobody sees."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def trimmed(text: str) -> str:
    """The text without white space and invisible characters at its beginning and its end."""
    return text.strip() if text.isascii() else _AROUND.sub("", text)


def is_seen(text: str) -> bool:
    """Whether the text has a character that is neither white space nor invisible."""
    return _SEEN.search(text) is not None


def folded(name: str) -> str:
    """A form that is equal for names that look the same, or differ only by case or by variants of their letters."""
    if name.isascii():
        return name.lower()
    plain = unicodedata.normalize("NFKC", without_invisible(name)).casefold()
    return unicodedata.normalize("NFKC", plain)


def differ_by_case(one: str, other: str) -> bool:
    """Whether two different names are the same but for upper and lower case."""
    return unicodedata.normalize("NFC", one).lower() == unicodedata.normalize("NFC", other).lower()


def is_reserved_on_windows(path: str) -> bool:
    """Whether Windows does not accept the path, or a folder in it."""
    return _RESERVED.search(path) is not None
