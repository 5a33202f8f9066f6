"""Formats numbers, credits, durations, sizes, error texts and long lines for people."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

_CLASS: Final = re.compile(r"[A-Z]\w*(?:Error|Timeout|Exception)")

_STYLE: Final = re.compile(r"\x1b\[[0-9;]*m")
_COLOURS: Final = {"red": 31, "green": 32, "yellow": 33}
_TO_COPY: Final = re.compile(r"\s+[^\sA-Z0-9`]")
"""The beginning of an indented line that is not a sentence: a command to copy."""


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


def one_line(text: str, most: int = 300) -> str:
    """The message of a server as one printable line of at most `most` characters."""
    text = "".join(char if char.isprintable() else " " for char in text[: 8 * most])
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


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


def listed(names: Iterable[str], limit: int) -> str:
    """The first names, and the number of the others: `a, b, … (3 more)`."""
    every = list(names)
    hidden = len(every) - limit
    return ", ".join(every[:limit]) + (f", … ({hidden:,} more)" if hidden > 0 else "")


def coloured(text: str, colour: str | None) -> str:
    """The text in a colour (red, green, yellow) of the terminal; unchanged without one."""
    return text if colour is None else f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def columns_of(text: str) -> int:
    """Columns that the text takes on a terminal: two for wide characters, none for styles and combining ones."""
    plain = _STYLE.sub("", text)
    if plain.isascii():
        return len(plain)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in plain
    )


def wrapped(text: str, width: int | None, *, hanging: int | None = None) -> str:
    """The text with lines of at most `width` columns, broken between words and indented like their beginning, or by
    `hanging` columns.

    Commands to copy stay on one line: indented lines that do not begin like a sentence.
    """
    if width is None:
        return text
    return "\n".join(line if _TO_COPY.match(line) else _wrapped_line(line, width, hanging) for line in text.split("\n"))


def _wrapped_line(line: str, width: int, hanging: int | None) -> str:
    if columns_of(line) <= width:
        return line
    words = line.lstrip(" ").split(" ")
    begin = len(line) - len(line.lstrip(" "))
    indent = " " * (begin if hanging is None else hanging)
    lines = [" " * begin + words[0]]
    for word in words[1:]:
        if columns_of(lines[-1]) + 1 + columns_of(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(indent + word)
    return "\n".join(lines)
