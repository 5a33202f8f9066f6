"""Looks through the pages of an Ogg file."""

from __future__ import annotations

import mmap
from typing import Final

from batcher.audio.verdict import End, Verdict

_HEAD: Final = 27
_IS_LAST: Final = 4


def examine(data: mmap.mmap) -> Verdict:
    """Follow the pages from the first to the last."""
    size, at, position, flags = len(data), 0, 0, 0
    while at < size:
        if data[at : at + 4] != b"OggS"[: size - at]:
            if at == 0:
                return Verdict(fault="it does not start like ogg")
            if any(data[at:size]):
                return Verdict(fault=f"it is damaged after {at:,} bytes")
            break  # padding
        if at + _HEAD > size or (end := _page_end(data, at)) > size:
            return Verdict(fault=f"it was cut off after {at:,} bytes")
        flags = data[at + 5]
        position = max(position, int.from_bytes(data[at + 6 : at + 14], "little", signed=True))
        at = end
    if position <= 0:
        return Verdict(fault="it has headers, but no audio")
    return Verdict(end=End.WHOLE if flags & _IS_LAST else End.OPEN, audio_bytes=at)


def _page_end(data: mmap.mmap, at: int) -> int:
    segments = data[at + _HEAD - 1]
    return at + _HEAD + segments + sum(data[at + _HEAD : at + _HEAD + segments])
