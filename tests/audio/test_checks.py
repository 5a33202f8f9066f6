"""Checks of downloaded audio, on real files, most of them made by real encoders."""

from __future__ import annotations

import io
import math
import random
import struct
import wave
from pathlib import Path
from typing import Any

import lameenc
import pytest
import soundfile

from batcher.audio import checks
from batcher.audio.verdict import End, Verdict
from tests.support.naming import by_words

RATE = 16_000


def samples(seconds: float) -> bytes:
    """A tone as signed 16-bit samples."""
    number = int(seconds * RATE)
    return struct.pack(f"<{number}h", *(int(9000 * math.sin(place / 9)) for place in range(number)))


def wav(seconds: float = 1.0) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples(seconds))
    return buffer.getvalue()


def mp3(seconds: float = 1.0) -> bytes:
    encoder = lameenc.Encoder()
    encoder.set_bit_rate(64)
    encoder.set_in_sample_rate(RATE)
    encoder.set_channels(1)
    encoder.silence()
    return bytes(encoder.encode(samples(seconds)) + encoder.flush())


def ogg(seconds: float = 1.0, codec: str = "VORBIS") -> bytes:
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", RATE, 1, format="OGG", subtype=codec) as file:
        file.buffer_write(samples(seconds), dtype="int16")
    return buffer.getvalue()


def examined(tmp_path: Path, audio_format: str, content: bytes, chars: int = 20) -> Verdict:
    path = tmp_path / "part"
    path.write_bytes(content)
    return checks.examine(path, audio_format, chars)


def fault(tmp_path: Path, audio_format: str, content: bytes, chars: int = 20) -> str | None:
    return examined(tmp_path, audio_format, content, chars).fault


def chunk(name: bytes, content: bytes, length: int | None = None) -> bytes:
    """A chunk of a WAVE file, whose header may name another length."""
    size = len(content) if length is None else length
    return name + size.to_bytes(4, "little") + content + bytes(len(content) % 2)


def id3(content: bytes = b"\0" * 300) -> bytes:
    """An ID3v2 tag."""
    size = len(content)
    return b"ID3\x04\0\0" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + content


def encoded(samples_: int, **options: Any) -> bytes:
    """MP3 as another encoder makes it, with a variable bit rate and a first frame that names the number of frames."""
    buffer = io.BytesIO()
    tone = [0.2 * math.sin(number / 9) for number in range(samples_)]
    soundfile.write(buffer, tone, 24_000, format="MP3", **options)
    return buffer.getvalue()


def free(head: bytes, length: int, frames: int, *, unit: int = 1) -> bytes:
    """MP3 in free format: its frames name no bit rate. Every third is padded by a unit, and all contain what looks like
    the header of another."""
    padded = bytes([head[0], head[1], head[2] | 2])
    return b"".join(
        (padded if number % 3 == 2 else head) + (b"\xc4" + head + bytes(range(1, 250)) * 30)[: length - 3]
        + b"p" * (unit if number % 3 == 2 else 0)
        for number in range(frames)
    )  # fmt: skip


PAD = bytes(200)
FREE = free(b"\xff\xfb\x00", 1306, 80)
HEADERS = {
    b"\xff\xfb\x90": 417,
    b"\xff\xfa\x90": 417,
    b"\xff\xf3\x40": 104,
    b"\xff\xf2\x40": 104,
    b"\xff\xe3\x40": 208,
    b"\xff\xfd\x40": 208,
    b"\xff\xff\x40": 136,
}
"""Beginnings of frames of each version and layer, with and without a checksum, and the frames' lengths."""
FMT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16))
DS64 = chunk(b"ds64", struct.pack("<QQQI", 300, len(PAD), 100, 0))
APE = (
    b"APETAGEX" + struct.pack("<IIII", 2000, 52, 1, 0) + bytes(28) + b"APETAGEX" + struct.pack("<IIII", 2000, 52, 1, 0)
)
WAV = wav()
MP3 = mp3()
XING = encoded(48_000)
OGG = ogg()
LONG_OGG = ogg(9.0)  # of several pages
OPUS = ogg(codec="OPUS")
PCM = samples(1.0)
HTML = b"<!DOCTYPE html><html><body>" + b"Sign in to continue. " * 20
JSON = b'{"code": "expired", "message": "' + b"the link has expired " * 20 + b'"}'
PADDING = b" " * 20


@pytest.mark.parametrize(
    ("audio_format", "content"),
    [
        ("mp3", MP3),
        ("mp3", id3() + MP3),
        ("mp3", id3() + PAD + MP3),
        ("mp3", id3() + id3() + MP3 + id3()),
        ("mp3", MP3 + b"TAG" + bytes(125)),
        ("mp3", MP3 + APE + b"TAG" + bytes(125)),
        ("mp3", MP3 + PAD),
        ("mp3", MP3 + id3() + MP3),
        ("mp3", MP3 + b"between" + MP3),
        ("mp3", XING),
        ("mp3", XING + MP3),
        *[("mp3", (head + bytes(417))[:length] * 3) for head, length in HEADERS.items()],
        ("mp3", FREE),
        ("mp3", id3() + PAD + FREE + APE + b"TAG" + bytes(125)),
        ("mp3", FREE[: 1306 * 2]),
        ("mp3", free(b"\xff\xf3\x08", 326, 9)),
        ("mp3", free(b"\xff\xe2\x04", 5760, 9)),
        ("mp3", free(b"\xff\xff\x00", 1044, 9, unit=4)),
        ("wav", WAV),
        ("wav", WAV + b"trailing"),
        ("wav", b"RIFF\x00\x00\x00\x00WAVE" + FMT + chunk(b"data", PAD, 0)),
        ("wav", b"RIFF\xff\xff\xff\xffWAVE" + FMT + chunk(b"data", PAD, 0xFFFF_FFFF)),
        ("wav", b"RIFF\xff\xff\xff\x7fWAVE" + FMT + chunk(b"data", PAD, 0x7FFF_FFD8)),
        ("wav", b"RIFF\x00\x00\x00\x01WAVE" + FMT + chunk(b"LIST", b"odd") + chunk(b"data", PAD) + chunk(b"id3 ", PAD)),
        ("wav", b"RF64\xff\xff\xff\xffWAVE" + DS64 + FMT + chunk(b"data", PAD, 0xFFFF_FFFF)),
        ("wav", b"RIFF\x00\x00\x00\x01WAVE" + FMT + b"LIST\x03\0\0\0odd" + chunk(b"data", PAD)),
        ("ogg", OGG),
        ("ogg", OGG + OGG),
        ("ogg", OPUS),
        ("opus", OPUS),
        ("opus", b"\x1a\x45\xdf\xa3" + PAD),
        ("pcm", PCM),
        ("pcm", PAD),
        ("pcm", b"{\xff" + PAD),
    ],
    ids=by_words,
)
def test_complete_audio_of_the_right_format_passes(tmp_path: Path, audio_format: str, content: bytes) -> None:
    assert fault(tmp_path, audio_format, content) is None


@pytest.mark.parametrize(
    ("audio_format", "content"),
    [
        ("mp3", WAV),
        ("mp3", OGG),
        ("mp3", PAD),
        ("mp3", b"\xff\x1b" + PAD),
        ("mp3", b"\xff\xeb" + PAD),
        ("mp3", b"\xff\xf9" + PAD),
        ("mp3", b"plain words " * 20),
        ("mp3", FREE[:1306]),
        ("mp3", b"\xff\xfb\x0c" + FREE[3:]),
        ("wav", MP3),
        ("wav", OGG),
        ("wav", b"RIFF\x00\x00\x00\x00AVI " + PAD),
        ("ogg", MP3),
        ("ogg", WAV),
        ("opus", OGG),
        ("opus", WAV),
    ],
    ids=by_words,
)
def test_audio_of_another_format_is_refused_by_name(tmp_path: Path, audio_format: str, content: bytes) -> None:
    """So are bytes that are no audio."""
    assert fault(tmp_path, audio_format, content) == f"it does not start like {audio_format}"


@pytest.mark.parametrize("cut", [1, 2, 1000, len(WAV) - 100])
def test_a_wav_shorter_than_its_header_promises_is_refused(tmp_path: Path, cut: int) -> None:
    whole = len(WAV) - 44
    assert fault(tmp_path, "wav", WAV[:-cut]) == f"it was cut off: {whole - cut:,} of {whole:,} bytes of audio"


@pytest.mark.parametrize(
    ("audio_format", "content", "why"),
    [
        ("mp3", id3(), "it has no complete mp3 frame"),
        ("mp3", id3() + b"<html>" * 50, "it has no complete mp3 frame"),
        ("mp3", id3(bytes(100_000))[:1000], "it was cut off in a tag"),
        ("mp3", MP3[:200], "it has no complete mp3 frame"),
        ("mp3", MP3[:1000] + bytes(range(255)) * 100, "most of it is not mp3"),
        ("mp3", FREE[:13_100] + bytes(range(1, 255)) * 100, "most of it is not mp3"),
        ("mp3", b"\xff\xfb\x00" + PAD + b"\xff\xfb\x00" + PAD * 9, "most of it is not mp3"),
        ("mp3", XING[: len(XING) // 2], "it was cut off: "),
        ("wav", b"RIFF\x00\x00\x00\x00WAVE" + FMT + PAD[:12], "it has no audio data"),
        ("wav", b"RIFF\x00\x00\x00\x00WAVE" + FMT + chunk(b"junk", PAD) * 2, "it has no audio data"),
        ("wav", b"RIFF\x00\x00\x00\x00WAVE" + chunk(b"data", PAD), "it has no format"),
        (
            "wav",
            b"RIFF\x00\x00\x00\x00WAVE" + FMT + b"junk\0\0\0\0" * 5000 + chunk(b"data", PAD),
            "it has no audio data",
        ),
        ("wav", b"RIFF\x00\x01\x00\x00WAVE" + FMT + chunk(b"data", b"abc") + PAD, "3 bytes of audio are too few"),
        ("ogg", OGG[:-1], "it was cut off after "),
        ("ogg", OGG[:100], "it was cut off after "),
        ("ogg", OGG + b"<html>", "it is damaged after "),
        ("ogg", OGG[:58], "it has headers, but no audio"),
        ("opus", OPUS[:-1], "it was cut off after "),
    ],
    ids=by_words,
)
def test_a_file_without_its_audio_or_its_end_is_refused(
    tmp_path: Path, audio_format: str, content: bytes, why: str
) -> None:
    assert (fault(tmp_path, audio_format, content) or "").startswith(why)


@pytest.mark.parametrize(
    ("audio_format", "content", "end"),
    [
        ("mp3", MP3, End.WHOLE),
        ("mp3", XING, End.WHOLE),
        ("mp3", MP3[:-1], End.CUT),
        ("mp3", MP3 + b"\xff\xf3", End.CUT),
        ("mp3", MP3[:-100], End.CUT),
        ("mp3", FREE, End.WHOLE),
        ("mp3", FREE[:-1], End.CUT),
        ("wav", WAV, End.WHOLE),
        ("wav", b"RIFF\xff\xff\xff\xffWAVE" + FMT + chunk(b"data", PAD, 0xFFFF_FFFF), End.OPEN),
        ("ogg", OGG, End.WHOLE),
        ("ogg", LONG_OGG, End.WHOLE),
        ("ogg", LONG_OGG[: LONG_OGG.rfind(b"OggS")], End.OPEN),
        ("pcm", PCM, End.OPEN),
        ("opus", b"\x1a\x45\xdf\xa3" + PAD, End.OPEN),
    ],
    ids=by_words,
)
def test_a_file_shows_whether_its_end_is_there(tmp_path: Path, audio_format: str, content: bytes, end: End) -> None:
    """A transfer that HTTP does not delimit is believed only then."""
    verdict = examined(tmp_path, audio_format, content, chars=1)
    assert (verdict.fault, verdict.end) == (None, end)


@pytest.mark.parametrize("head", [b"\xff\xfb\x90", b"ID3\x04\0\0\0\0\0\0", b"RIFF\0\0\0\0WAVE", b"OggS\0\0OpusHead"])
@pytest.mark.parametrize("audio_format", ["mp3", "wav", "ogg", "opus"])
def test_noise_is_examined_without_an_error(tmp_path: Path, audio_format: str, head: bytes) -> None:
    """And in time that grows with its size alone."""
    noise = random.Random(7).randbytes(200_000)
    for content in (
        noise,
        b"\xff" * 200_000,
        b"ID3" * 60_000,
        bytes(200_000),
        b"\xff\xfb\x90\0" * 50_000,
        b"\xff\xfb\0\0" * 50_000,
    ):
        examined(tmp_path, audio_format, head + content)


@pytest.mark.parametrize("audio_format", ["mp3", "wav", "ogg", "opus", "pcm"])
@pytest.mark.parametrize(
    "content",
    [
        HTML,
        PADDING + HTML,
        b"\n<html>" + HTML,
        b'<?xml version="1.0"?>' + HTML,
        b"<Error><Code>AccessDenied" + HTML,
        JSON,
        b'[{"error": 1}]' + PADDING,
    ],
)
def test_web_pages_and_error_bodies_are_refused_in_every_format(
    tmp_path: Path, audio_format: str, content: bytes
) -> None:
    even = content + b" " * (len(content) % 2)
    assert fault(tmp_path, audio_format, even) == "it is a web page or an error message, not audio"


@pytest.mark.parametrize(("size", "chars", "good"), [(0, 1, False), (31, 1, False), (576, 1, True), (576, 4000, False)])
def test_audio_too_short_for_its_text_is_refused(tmp_path: Path, size: int, chars: int, good: bool) -> None:
    """An empty file always is."""
    why = fault(tmp_path, "mp3", MP3[:size], chars)
    assert why == (None if good else f"{size:,} bytes are too few for {chars:,} characters")


def test_raw_audio_that_ends_within_a_sample_is_refused(tmp_path: Path) -> None:
    assert fault(tmp_path, "pcm", PCM[:-1]) == "it ends in the middle of a sample"


def test_the_size_limit_of_a_download_grows_with_the_text() -> None:
    """It leaves room for an hour of raw samples."""
    assert checks.most_bytes(1) > 64 << 20
    hour = 3600 * 48_000 * 2
    assert checks.most_bytes(45_000) > hour
    assert checks.most_bytes(2000) - checks.most_bytes(1000) == 1000 * (checks.most_bytes(1) - checks.most_bytes(0))


@pytest.mark.parametrize("length", [0.5, 2.0])
@pytest.mark.parametrize(
    ("audio_format", "make"),
    [("wav", wav), ("mp3", mp3), ("ogg", ogg), ("opus", lambda seconds: ogg(seconds, "OPUS"))],
)
def test_a_duration_is_right_to_a_tenth_of_a_second(
    tmp_path: Path, audio_format: str, make: object, length: float
) -> None:
    assert callable(make)
    path = tmp_path / "part"
    path.write_bytes(make(length))
    assert checks.examine(path, audio_format, 20).fault is None
    assert checks.seconds(path, audio_format) == pytest.approx(length, abs=0.1)


@pytest.mark.parametrize(
    ("content", "length"),
    [
        (FREE, 80 * 1152 / 44_100),
        (id3() + free(b"\xff\xf3\x08", 326, 500) + b"TAG" + bytes(125), 500 * 576 / 16_000),
        (free(b"\xff\xfd\x04", 700, 50), 50 * 1152 / 48_000),
        (free(b"\xff\xff\x00", 1044, 90, unit=4), 90 * 384 / 44_100),
    ],
)
def test_the_duration_of_free_format_is_counted_by_its_frames(tmp_path: Path, content: bytes, length: float) -> None:
    path = tmp_path / "part"
    path.write_bytes(content)
    assert checks.seconds(path, "mp3") == pytest.approx(length, abs=0.001)


@pytest.mark.parametrize(("audio_format", "content"), [("pcm", PCM), ("mp3", PAD), ("wav", HTML), ("ogg", b"OggS")])
def test_a_duration_that_no_header_holds_is_unknown(tmp_path: Path, audio_format: str, content: bytes) -> None:
    """It is neither zero nor an error."""
    path = tmp_path / "part"
    path.write_bytes(content)
    assert checks.seconds(path, audio_format) is None
