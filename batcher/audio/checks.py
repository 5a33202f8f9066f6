"""Is it the audio that was asked for? Judged by its first bytes, its length and what its own header says."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

_SMALLEST_BYTES: Final = 32
_BYTES_A_CHARACTER: Final = 0.25
"""Far below any speech: it catches the stub of a file, not a fast speaker."""
_MOST_BYTES: Final = 64 << 20
_MOST_BYTES_A_CHARACTER: Final = 512 << 10
_MARKUP: Final = (b"<!doctype", b"<html", b"<?xml", b"<error", b"{", b"[{")


def most_bytes(chars: int) -> int:
    """More bytes than speech of `chars` characters can have in any format: what is longer is not it."""
    return _MOST_BYTES + chars * _MOST_BYTES_A_CHARACTER


def fault(path: Path, audio_format: str, chars: int) -> str | None:
    """Why the file is not whole audio of `audio_format` for a text of `chars` characters; None when it is."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if size < max(_SMALLEST_BYTES, chars * _BYTES_A_CHARACTER):
        return f"{size} bytes are too few for {chars} characters"
    if head.lstrip()[:16].lower().startswith(_MARKUP) and not _is_pcm(audio_format, head):
        return "it is a page or a message, not audio"
    return _CHECKS[audio_format](head, size)


def seconds(path: Path, audio_format: str) -> float | None:
    """How long the audio plays, good to a tenth of a second; None where its format or its header does not tell."""
    if audio_format == "pcm":
        return None
    from tinytag import TinyTag, TinyTagException

    try:
        duration = TinyTag.get(path, tags=False).duration
    except (TinyTagException, OSError, ValueError, struct.error):
        return None
    return round(duration, 3) if duration else None


def _is_pcm(audio_format: str, head: bytes) -> bool:
    """Raw samples may begin with any byte: only what reads as text throughout is taken for a message."""
    return audio_format == "pcm" and not head.isascii()


def _mp3(head: bytes, _size: int) -> str | None:
    if head.startswith(b"ID3"):
        return None
    # MPEG audio: eleven set bits, then a version and a layer that exist.
    synced = head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    if synced and (head[1] >> 3) & 0b11 != 0b01 and (head[1] >> 1) & 0b11 != 0b00:
        return None
    return "it does not begin like mp3"


def _wav(head: bytes, size: int) -> str | None:
    if head[:4] not in (b"RIFF", b"RIFX", b"RF64") or head[8:12] != b"WAVE":
        return "it does not begin like wav"
    promised = int.from_bytes(head[4:8], "little") + 8
    # A header written before the length was known says 0 or the most there is.
    if head.startswith(b"RIFF") and 8 < promised < 0xFFFF_F000 and size < promised:
        return f"it was cut off: {size} bytes of {promised}"
    return None


def _ogg(head: bytes, _size: int) -> str | None:
    return None if head.startswith(b"OggS") else "it does not begin like ogg"


def _opus(head: bytes, _size: int) -> str | None:
    webm = head.startswith(b"\x1a\x45\xdf\xa3")
    return None if webm or (head.startswith(b"OggS") and b"OpusHead" in head) else "it does not begin like opus"


def _pcm(_head: bytes, size: int) -> str | None:
    return None if size % 2 == 0 else "it ends in the middle of a sample"


_CHECKS: Final = {"mp3": _mp3, "wav": _wav, "ogg": _ogg, "opus": _opus, "pcm": _pcm}
