"""Checks of downloaded audio, on real files, most of them made by real encoders."""

from __future__ import annotations

import io
import math
import struct
import wave
from pathlib import Path

import lameenc
import pytest
import soundfile

from batcher.audio import checks

RATE = 16_000


def samples(seconds: float) -> bytes:
    """A tone as signed 16-bit samples."""
    return b"".join(struct.pack("<h", int(9000 * math.sin(number / 9))) for number in range(int(seconds * RATE)))


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


def fault(tmp_path: Path, audio_format: str, content: bytes, chars: int = 20) -> str | None:
    path = tmp_path / "part"
    path.write_bytes(content)
    return checks.fault(path, audio_format, chars)


PAD = bytes(200)
WAV = wav()
MP3 = mp3()
OGG = ogg()
OPUS = ogg(codec="OPUS")
PCM = samples(1.0)
HTML = b"<!DOCTYPE html><html><body>" + b"Sign in to continue. " * 20
JSON = b'{"code": "expired", "message": "' + b"the link has expired " * 20 + b'"}'
PADDING = b" " * 20


@pytest.mark.parametrize(
    ("audio_format", "content"),
    [
        ("mp3", MP3),
        ("mp3", b"ID3\x04\x00\x00\x00\x00\x00\x00" + PAD),
        *[("mp3", head + PAD) for head in (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xe3")],
        ("wav", WAV),
        ("wav", WAV + b"trailing"),
        ("wav", b"RIFF\x00\x00\x00\x00WAVE" + PAD),
        ("wav", b"RIFF\xff\xff\xff\xffWAVE" + PAD),
        ("wav", b"RF64\xff\xff\xff\xffWAVE" + PAD),
        ("ogg", OGG),
        ("ogg", OPUS),
        ("opus", OPUS),
        ("opus", b"\x1a\x45\xdf\xa3" + PAD),
        ("pcm", PCM),
        ("pcm", PAD),
        ("pcm", b"{\xff" + PAD),
    ],
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
        ("wav", MP3),
        ("wav", OGG),
        ("wav", b"RIFF\x00\x00\x00\x00AVI " + PAD),
        ("ogg", MP3),
        ("ogg", WAV),
        ("opus", OGG),
        ("opus", WAV),
    ],
)
def test_audio_of_another_format_is_refused_by_name(tmp_path: Path, audio_format: str, content: bytes) -> None:
    """So are bytes that are no audio."""
    assert fault(tmp_path, audio_format, content) == f"it does not start like {audio_format}"


@pytest.mark.parametrize("cut", [1, 2, 1000, len(WAV) - 100])
def test_a_wav_shorter_than_its_header_promises_is_refused(tmp_path: Path, cut: int) -> None:
    whole = len(WAV)
    assert fault(tmp_path, "wav", WAV[:-cut]) == f"it was cut off: {whole - cut:,} of {whole:,} bytes"


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


@pytest.mark.parametrize(("size", "chars", "good"), [(0, 1, False), (31, 1, False), (32, 1, True), (32, 400, False)])
def test_audio_too_short_for_its_text_is_refused(tmp_path: Path, size: int, chars: int, good: bool) -> None:
    """An empty file always is."""
    why = fault(tmp_path, "mp3", (MP3 + PAD)[:size], chars)
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
    assert checks.fault(path, audio_format, 20) is None
    assert checks.seconds(path, audio_format) == pytest.approx(length, abs=0.1)


@pytest.mark.parametrize(("audio_format", "content"), [("pcm", PCM), ("mp3", PAD), ("wav", HTML), ("ogg", b"OggS")])
def test_a_duration_that_no_header_holds_is_unknown(tmp_path: Path, audio_format: str, content: bytes) -> None:
    """It is neither zero nor an error."""
    path = tmp_path / "part"
    path.write_bytes(content)
    assert checks.seconds(path, audio_format) is None
