"""Looks through the chunks of a WAVE file."""

from __future__ import annotations

import mmap
from typing import Final

from batcher.audio.verdict import End, Verdict

_FORMS: Final = {b"RIFF": "little", b"RF64": "little", b"BW64": "little", b"RIFX": "big"}
_UNKNOWN: Final = 0x7FFF_0000
"""A header written before the length was known contains 0, or a number from here on."""
_MAX_CHUNKS: Final = 1000


def examine(data: mmap.mmap) -> Verdict:
    """Find the audio data and compare its length with what is there."""
    form, size, at = bytes(data[:4]), len(data), 12
    if form not in _FORMS or data[8:12] != b"WAVE":
        return Verdict(fault="it does not start like wav")
    order: Final = "big" if form == b"RIFX" else "little"
    whole = int.from_bytes(data[4:8], order) + 8
    long_length, has_format = None, False
    for _ in range(_MAX_CHUNKS):
        if at + 8 > size:
            break
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], order)
        if name == b"ds64":  # lengths of more than 32 bits
            long_length = int.from_bytes(data[at + 16 : at + 24], order)
        has_format |= name == b"fmt "
        if name == b"data" and has_format:
            announced = long_length if long_length is not None and length >= _UNKNOWN else length
            return _data(announced, size - at - 8, ends_here=whole == size)
        at += 8 + length
        # A chunk of odd length is padded, though not by every encoder; no name begins with a zero.
        at += length % 2 == 1 and data[at : at + 1] == b"\0"
    return Verdict(fault="it has no audio data" if has_format else "it has no format")


def _data(announced: int, there: int, *, ends_here: bool) -> Verdict:
    """The verdict on a data chunk of `announced` bytes with `there` bytes after its header."""
    if (announced == 0 and not ends_here) or announced >= _UNKNOWN:
        return Verdict(audio_bytes=there)
    if announced > there:
        return Verdict(fault=f"it was cut off: {there:,} of {announced:,} bytes of audio")
    return Verdict(end=End.WHOLE, audio_bytes=announced)
