"""Formats numbers, credits, durations, sizes and error texts for people."""

from __future__ import annotations

import codecs
import re
from typing import Final

_CLASS: Final = re.compile(r"[A-Z]\w*(?:Error|Timeout|Exception)")


def escape(text: str) -> str:
    """Each UTF-16 unit of the text as `\\u` with four hex digits: readable anywhere, and valid in JSON strings."""
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return escape(error.object[error.start : error.end]), error.end


ESCAPE_UNENCODABLE: Final = "batcher.escape"
"""Error handler that writes what an encoding lacks as `escape` does."""
codecs.register_error(ESCAPE_UNENCODABLE, _escape_unencodable)


def counted(number: int, word: str) -> str:
    """A number with its noun: `1 row`, `2 rows`, `3 batches`."""
    ending = "" if number == 1 else "es" if word.endswith(("ch", "s")) else "s"
    return f"{number:,} {word}{ending}"


def plain_error(text: str) -> str:
    """An error text without the exception's class: `ReadError: reset by peer` becomes `reset by peer`.

    A class alone becomes words: `ReadTimeout` becomes `read timeout`.
    """
    name, _, rest = text.partition(": ")
    if not _CLASS.fullmatch(name):
        return text
    return rest or re.sub(r"(?<=[A-Za-z])(?=[A-Z][a-z])", " ", name).lower()


def amount(number: float) -> str:
    """Credits: `1,000,000`, `0.25`. Two decimals at most, six for amounts below 0.01."""
    return f"{number:,.{_decimals(number)}f}".rstrip("0").rstrip(".")


def rounded(number: float | None) -> float | None:
    """Credits as `amount` prints them, as a number; None if unknown."""
    return None if number is None else round(number, _decimals(number))


def _decimals(number: float) -> int:
    return 2 if abs(number) >= 0.01 else 6


def span(seconds: float) -> str:
    """A duration: `45 s`, `12 min`, `3.5 h`, `2 days`."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"


def size(number: float) -> str:
    """A number of bytes, in powers of 1000: `512 bytes`, `3.4 MB`, `1.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit == "bytes" or number >= 99.5 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"
