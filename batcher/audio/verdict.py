"""What a look through a file shows: whether it is audio, and whether all of it is there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class End(Enum):
    """What the file's own structure shows about its end."""

    WHOLE = "nothing is missing"
    CUT = "its last frame is not complete"
    OPEN = "the format does not show where it ends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`fault`: why the file is not the audio, None if it is. `audio_bytes`: its size without tags and headers."""

    fault: str | None = None
    end: End = End.OPEN
    audio_bytes: int = 0
