"""Looks through MPEG audio frame by frame, tolerating the tags and the padding that encoders add."""

from __future__ import annotations

import mmap
from typing import Final

from batcher.audio.verdict import End, Verdict

_MAX_JUNK: Final = 4096
"""Bytes before a frame, between frames or after them that are neither frame nor tag."""
_MISSING_FRAMES: Final = 2
"""Frames that may be missing from the number in the first frame: encoders count differently."""

_FREE_BYTES: Final = range(24, 5761)
"""Lengths of frames in free format: 8 kbit/s at 24 kHz to 640 kbit/s at 8 kHz."""
_FREE_FRAMES: Final = 8
"""Frames in a row that confirm a length in free format: the bytes of a header may occur within audio too."""

_KBITS: Final = {  # by MPEG 1 or not, and layer
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES: Final = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def _lengths() -> dict[int, int]:
    """Length of a frame in bytes, by the second and third byte of its header; invalid headers are missing."""
    found = {}
    for version, rates in _RATES.items():
        for layer in (1, 2, 3):
            for index, kbits in enumerate(_KBITS[version == 3, layer]):
                for number, rate in enumerate(rates):
                    for bits in range(4):
                        padding, private = bits >> 1, bits & 1
                        samples = 48 if layer == 1 else 144 if layer == 2 or version == 3 else 72
                        length = samples * kbits * 1000 // rate
                        length = length // 4 * 4 + 4 * padding if layer == 1 else length + padding
                        if kbits:
                            second = 0xE0 | version << 3 | (4 - layer) << 1
                            third = index << 4 | number << 2 | padding << 1 | private
                            found[second << 8 | third] = found[(second | 1) << 8 | third] = length
    return found


_LENGTHS: Final = _lengths()


def examine(data: mmap.mmap) -> Verdict:
    """Follow the frames from the first to the last."""
    free = _free_format(data)
    lengths = _LENGTHS | free if free else _LENGTHS
    if not _frame(data, 0, lengths) and not _tag(data, 0):
        return Verdict(fault="it does not start like mp3")
    size, at, audio, frames, junk = len(data), 0, 0, 0, 0
    announced = 0
    while at < size:
        if length := _frame(data, at, lengths):
            if at + length > size:
                return _judged(frames, announced, audio, size - junk, End.CUT)
            announced = announced or (_announced(data[at : at + min(length, 200)]) if not frames else 0)
            at, audio, frames = at + length, audio + length, frames + 1
        elif length := _tag(data, at):
            if at + length > size:
                return (
                    Verdict(fault="it was cut off in a tag")
                    if not frames
                    else _judged(frames, announced, audio, audio, End.CUT)
                )
            at, junk = at + length, junk + length
        else:
            found = _resume(data, at, lengths)
            if found is None:
                is_cut = size - at < 4 and data[at] == 0xFF
                return _judged(frames, announced, audio, size - junk, End.CUT if is_cut else End.WHOLE)
            at = found
    return _judged(frames, announced, audio, size - junk, End.WHOLE)


def _judged(frames: int, announced: int, audio: int, content: int, end: End) -> Verdict:
    """The verdict on `frames` of `audio` bytes in all, in `content` bytes without tags."""
    if 2 * audio < content or not frames:
        return Verdict(fault="most of it is not mp3" if frames else "it has no complete mp3 frame")
    if frames < announced - _MISSING_FRAMES:
        return Verdict(fault=f"it was cut off: {frames:,} of {announced:,} frames")
    return Verdict(end=end, audio_bytes=audio)


def free_seconds(data: mmap.mmap) -> float | None:
    """Playing time of audio in free format, which has no bit rate to reckon it from; None if it is in another."""
    lengths = _free_format(data)
    if not lengths:
        return None
    at, frames = _start(data), 0
    second, third = data[at + 1 : at + 3]
    while at < len(data) and (length := _frame(data, at, lengths)):
        at, frames = at + length, frames + 1
    version, layer, rate = second >> 3 & 3, 4 - (second >> 1 & 3), third >> 2 & 3
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    return frames * samples / _RATES[version][rate]


def _start(data: mmap.mmap) -> int:
    """Where the first frame should be: after tags and zeros."""
    at, size = 0, len(data)
    while at < size and (length := _tag(data, at)):
        at += length
        most = min(size, at + _MAX_JUNK)
        while at < most and data[at] == 0:
            at += 1
    return at


def _free_format(data: mmap.mmap) -> dict[int, int]:
    """Length of a frame in bytes, by the second and third byte of its header, if the first frame names no bit rate: all
    are as long as the distance to the second one, but for padding. Empty if it names one."""
    start = _start(data)
    head = data[start : start + 3]
    if len(head) < 3 or head[0] != 0xFF or (head[1] << 8 | head[2] & 0x0F | 0x10) not in _LENGTHS or head[2] >> 4:
        return {}
    unit = 4 if head[1] >> 1 & 3 == 3 else 1
    at = start
    while (at := data.find(head[:2], at + 1, start + _FREE_BYTES.stop + 2)) >= 0:
        length = at - start - unit * (head[2] >> 1 & 1)
        lengths = {head[1] << 8 | head[2] & 0x0C | bits: length + unit * (bits >> 1) for bits in range(4)}
        if length in _FREE_BYTES and _repeats(data, start, lengths):
            return lengths
    return {}


def _repeats(data: mmap.mmap, at: int, lengths: dict[int, int]) -> bool:
    """Whether frames of these lengths follow one another from `at`, several or up to the end."""
    for number in range(_FREE_FRAMES):
        if at + 3 > len(data):
            return True
        length = _frame(data, at, lengths)
        if not length:
            return number > 1 and (data[at] == 0 or _tag(data, at) > 0)
        at += length
    return True


def _frame(data: mmap.mmap, at: int, lengths: dict[int, int]) -> int:
    """Length of the frame whose header is at `at`; 0 if there is none."""
    if data[at] != 0xFF or at + 3 > len(data):
        return 0
    return lengths.get(data[at + 1] << 8 | data[at + 2], 0)


def _tag(data: mmap.mmap, at: int) -> int:
    """Length of the tag at `at`: ID3v1, ID3v2, APE or Lyrics3. 0 if there is none."""
    head = data[at : at + 32]
    if head.startswith(b"ID3") and len(head) >= 10:
        has_footer = head[5] & 0x10
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return size + (20 if has_footer else 10)
    if head.startswith(b"TAG"):
        return 227 if head.startswith(b"TAG+") else min(128, len(data) - at)
    if head.startswith(b"APETAGEX") and len(head) >= 24:
        is_header = head[23] & 0x20
        return int.from_bytes(head[12:16], "little") + 32 if is_header else 32
    if head.startswith(b"LYRICSBEGIN"):
        end = max(data.find(b"LYRICS200", at), data.find(b"LYRICSEND", at))
        return end + 9 - at if end >= 0 else 0
    return 0


def _resume(data: mmap.mmap, at: int, lengths: dict[int, int]) -> int | None:
    """The next frame or tag after padding or a little junk. None if there is none."""
    size = len(data)
    start = at
    while start < size and data[start] == 0:
        start += 1
    if start > at and start < size and (_frame(data, start, lengths) or _tag(data, start)):
        return start
    for found in range(start, min(start + _MAX_JUNK, size - 3)):
        length = _frame(data, found, lengths)
        # A single header may be chance.
        if length and found + length + 3 <= size and _frame(data, found + length, lengths):
            return found
        if not length and data[found] in b"IATL" and _tag(data, found):
            return found
    return None


def _announced(frame: bytes) -> int:
    """Number of frames that the encoder has noted in the first one; 0 if it has not."""
    for name in (b"Xing", b"Info"):
        at = frame.find(name)
        if at >= 0 and len(frame) >= at + 12 and frame[at + 7] & 1:
            return int.from_bytes(frame[at + 8 : at + 12], "big")
    at = frame.find(b"VBRI")
    return int.from_bytes(frame[at + 14 : at + 18], "big") if at >= 0 else 0
