"""Names of the types of markup, for options and messages. Imports none of the patterns that find them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

SPEAKER: Final = "speaker"
"""The type of speaker names, such as `Anna: `, which `speakers` finds by comparing texts."""
NOUNS: Final = {
    "html": "HTML tags or entities",
    "ssml": "SSML tags",
    "braces": "text in braces",
    "bbcode": "BBCode",
    "sound": "references to media",
    "placeholders": "placeholders",
    "escapes": "escape sequences",
    "markdown": "Markdown",
    "controls": "control characters",
    "lost": "lost characters",
    "todo": "drafts",
    SPEAKER: "speaker names",
}
"""All types, and what each is called in messages."""
TABLE: Final = "table"
"""What `--allow` calls rows that look like the header of another table."""


def types(names: Iterable[str], *more: str) -> tuple[str, ...]:
    """These names of types, in lower case; `more` are further types.

    Raises:
        ValueError: one is none.
    """
    found = tuple(name.strip().lower() for name in names if name.strip())
    known = [*NOUNS, *more]
    if unknown := [name for name in found if name not in known]:
        raise ValueError(f"{unknown[0]!r} is not a type of markup: use {', '.join(known)}")
    return found
