"""Files that come as audio."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

from batcher.audio import checks
from batcher.sandbox.audio import render
from batcher.sandbox.requests import MODELS, SpeechRequest
from batcher.sandbox.speech import engine
from tests.fuzz.readers import edited, edits
from tests.support.fake_tts import audio_of

_PIECES = [b"\xff\xfb\x90\x00" + bytes(413), b"\xff\xfb", b"\xff\xff\xff\xff", b"ID3\x04\x00\x00", b"\x7f" * 4]
_PIECES += [b"ID3\x03\x00\x10\x00\x00\x00\x05", b"TAG" + bytes(125), b"APETAGEX", b"Xing\x00\x00\x00\x01", b"\xff" * 4]
_PIECES += [b"RIFF", b"WAVE", b"RF64", b"fmt \x10\x00\x00\x00", b"data", b"\x00\x00\x00\x00", b"LIST\x05\x00\x00\x00"]
_PIECES += [b"OggS\x00\x02", b"OggS\x00\x04" + bytes(20) + b"\x01\x05hello", b"OpusHead", b"\x1a\x45\xdf\xa3", b"<html"]
_FORMATS: Final = ["mp3", "wav", "ogg", "opus", "pcm"]
audio: Final = st.tuples(
    st.sampled_from(_FORMATS),
    st.lists(st.sampled_from(_PIECES) | st.binary(max_size=8), max_size=40).map(b"".join)
    | st.tuples(st.sampled_from(["mp3", "wav", "ogg", "opus"]), edits | st.just([])).map(lambda pair: _sample(*pair)),
    st.sampled_from([0, 1, 20, 1000]),
)


def examine(case: tuple[str, bytes, int]) -> None:
    """Any file gets a verdict and perhaps a duration."""
    audio_format, content, characters = case
    path = _folder() / f"sample.{audio_format}"
    path.write_bytes(content)
    verdict = checks.examine(path, audio_format, characters)
    assert verdict.fault is None or verdict.fault.isprintable()
    assert 0 <= verdict.audio_bytes <= len(content)
    if verdict.fault is None:
        seconds = checks.seconds(path, audio_format)
        assert seconds is None or seconds > 0


def _sample(audio_format: str, changes: list[Any]) -> bytes:
    return edited(_whole(audio_format), changes)


@cache
def _whole(audio_format: str) -> bytes:
    """A short, well-formed file."""
    if audio_format in ("mp3", "wav"):
        return audio_of("a short text", audio_format)
    return render(engine(), SpeechRequest(text="Hm.", voice="en", model=MODELS[0], format=audio_format), "task_0000")


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="batcher-fuzz-"))
