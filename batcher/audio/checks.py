"""Checks that a file is the requested audio, complete, and plausibly as long as its text."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final

from batcher import files
from batcher.audio import mp3, ogg, wav
from batcher.audio.verdict import Verdict

_MIN_BYTES: Final = 32
_MIN_BYTES_PER_CHARACTER: Final = 0.25
"""Minimum size per character of text. Far below any speech: catches truncated files, not fast speakers."""
_MAX_BYTES: Final = 64 << 20
_MAX_BYTES_PER_CHARACTER: Final = 512 << 10
_MARKUP: Final = (b"<!doctype", b"<html", b"<?xml", b"<error", b"{", b"[{")


def most_bytes(chars: int) -> int:
    """Upper bound for the size of speech of `chars` characters in any format."""
    return _MAX_BYTES + chars * _MAX_BYTES_PER_CHARACTER


def examine(path: Path, audio_format: str, chars: int) -> Verdict:
    """Whether the file is audio in `audio_format` for a text of `chars` characters, and whether all of it is there."""
    size = path.stat().st_size
    least = max(_MIN_BYTES, chars * _MIN_BYTES_PER_CHARACTER)
    if size < least:
        return Verdict(fault=f"{size:,} bytes are too few for {chars:,} characters")
    with files.reading(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:512].lstrip()[:16].lower().startswith(_MARKUP) and not _is_pcm(audio_format, data[:512]):
            return Verdict(fault="it is a web page or an error message, not audio")
        verdict = _CHECKS[audio_format](data)
    if verdict.fault is None and verdict.audio_bytes < least:
        return Verdict(fault=f"{verdict.audio_bytes:,} bytes of audio are too few for {chars:,} characters")
    return verdict


def seconds(path: Path, audio_format: str) -> float | None:
    """Playing time, accurate to 0.1 s. None if the format or the header does not contain it."""
    if audio_format == "pcm":
        return None
    if audio_format == "mp3" and (free := _free_seconds(path)) is not None:
        return round(free, 3)
    from tinytag import TinyTag, TinyTagException

    try:
        duration = TinyTag.get(path, tags=False).duration
    except (TinyTagException, OSError, ValueError, struct.error):
        return None
    return round(duration, 3) if duration else None


def _free_seconds(path: Path) -> float | None:
    try:
        with files.reading(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return mp3.free_seconds(data)
    except (OSError, ValueError):  # ValueError: it is empty
        return None


def _is_pcm(audio_format: str, head: bytes) -> bool:
    """Raw samples may start with any byte, so only pure ASCII counts as a message."""
    return audio_format == "pcm" and not head.isascii()


def _opus(data: mmap.mmap) -> Verdict:
    if data[:4] == b"\x1a\x45\xdf\xa3":  # in WebM
        return Verdict(audio_bytes=len(data))
    if data[:4] != b"OggS" or b"OpusHead" not in data[:512]:
        return Verdict(fault="it does not start like opus")
    return ogg.examine(data)


def _pcm(data: mmap.mmap) -> Verdict:
    is_odd = len(data) % 2 == 1
    return Verdict(fault="it ends in the middle of a sample" if is_odd else None, audio_bytes=len(data))


_CHECKS: Final = {"mp3": mp3.examine, "wav": wav.examine, "ogg": ogg.examine, "opus": _opus, "pcm": _pcm}
