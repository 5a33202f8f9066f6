"""Names of the types of markup, for options and messages. Imports none of the patterns that find them."""

from __future__ import annotations

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
    "todo": "drafts",
    SPEAKER: "speaker names",
}
"""All types, and what each is called in messages."""
