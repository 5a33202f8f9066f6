"""Words that depend on a number."""

from __future__ import annotations


def counted(number: int, word: str) -> str:
    """`1 row`, `2 rows`, `3 batches`."""
    ending = "" if number == 1 else "es" if word.endswith(("ch", "s")) else "s"
    return f"{number:,} {word}{ending}"
