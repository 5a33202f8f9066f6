"""Checks that a file is the requested audio: its first bytes, its size, and the length in its header."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from batcher import files

_MIN_BYTES: Final = 32
_MIN_BYTES_PER_CHARACTER: Final = 0.25
"""Minimum size per character of text. Far below any speech: catches truncated files, not fast speakers."""
_MAX_BYTES: Final = 64 << 20
_MAX_BYTES_PER_CHARACTER: Final = 512 << 10
_MARKUP: Final = (b"<!doctype", b"<html", b"<?xml", b"<error", b"{", b"[{")


def most_bytes(chars: int) -> int:
    """Upper bound for the size of speech of `chars` characters in any format."""
    return _MAX_BYTES + chars * _MAX_BYTES_PER_CHARACTER


def fault(path: Path, audio_format: str, chars: int) -> str | None:
    """Why the file is not complete audio in `audio_format` for a text of `chars` characters. None if it is."""
    size = path.stat().st_size
    with files.reading(path) as file:
        head = file.read(512)
    if size < max(_MIN_BYTES, chars * _MIN_BYTES_PER_CHARACTER):
        return f"{size:,} bytes are too few for {chars:,} characters"
    if head.lstrip()[:16].lower().startswith(_MARKUP) and not _is_pcm(audio_format, head):
        return "it is a web page or an error message, not audio"
    return _CHECKS[audio_format](head, size)


def seconds(path: Path, audio_format: str) -> float | None:
    """Playing time, accurate to 0.1 s. None if the format or the header does not contain it."""
    if audio_format == "pcm":
        return None
    from tinytag import TinyTag, TinyTagException

    try:
        duration = TinyTag.get(path, tags=False).duration
    except (TinyTagException, OSError, ValueError, struct.error):
        return None
    return round(duration, 3) if duration else None


def _is_pcm(audio_format: str, head: bytes) -> bool:
    """Raw samples may start with any byte, so only pure ASCII counts as a message."""
    return audio_format == "pcm" and not head.isascii()


def _mp3(head: bytes, _size: int) -> str | None:
    if head.startswith(b"ID3"):
        return None
    # MPEG audio: eleven set bits, then a valid version and layer.
    synced = head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    if synced and (head[1] >> 3) & 0b11 != 0b01 and (head[1] >> 1) & 0b11 != 0b00:
        return None
    return "it does not start like mp3"


def _wav(head: bytes, size: int) -> str | None:
    if head[:4] not in (b"RIFF", b"RIFX", b"RF64") or head[8:12] != b"WAVE":
        return "it does not start like wav"
    announced = int.from_bytes(head[4:8], "little") + 8
    # A header written before the length was known contains 0 or the maximum.
    if head.startswith(b"RIFF") and 8 < announced < 0xFFFF_F000 and size < announced:
        return f"it was cut off: {size:,} of {announced:,} bytes"
    return None


def _ogg(head: bytes, _size: int) -> str | None:
    return None if head.startswith(b"OggS") else "it does not start like ogg"


def _opus(head: bytes, _size: int) -> str | None:
    webm = head.startswith(b"\x1a\x45\xdf\xa3")
    return None if webm or (head.startswith(b"OggS") and b"OpusHead" in head) else "it does not start like opus"


def _pcm(_head: bytes, size: int) -> str | None:
    return None if size % 2 == 0 else "it ends in the middle of a sample"


_CHECKS: Final = {"mp3": _mp3, "wav": _wav, "ogg": _ogg, "opus": _opus, "pcm": _pcm}
