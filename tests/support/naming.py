"""Ids of parametrized tests."""

from __future__ import annotations


def by_words(value: object) -> str:
    """Strings as they are, and the type of everything else: what encoders and compressors make varies."""
    return value if isinstance(value, str) else type(value).__name__
