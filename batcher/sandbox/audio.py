"""Renders a speech request into the bytes of an audio file."""

from __future__ import annotations

import functools
import io
import wave
from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from batcher.sandbox.requests import SpeechRequest
from batcher.sandbox.speech import RATE, Engine, Utterance
from batcher.sandbox.store import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTENT_TYPES: Final = {
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "pcm": f"audio/pcm;rate={RATE};channels=1",
    "opus": "audio/ogg;codecs=opus",
    "ogg": "audio/ogg;codecs=vorbis",
}
_OPUS_RATE: Final = 24_000  # Opus supports only a few rates, and not the one of eSpeak
_CACHE_BYTES: Final = 32_000_000
_SILENCE: Final = bytes(2 * (RATE // 4))


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats that the installed packages can encode."""
    needs = {"mp3": "lameenc", "opus": "soundfile", "ogg": "soundfile"}
    return tuple(name for name in CONTENT_TYPES if name not in needs or find_spec(needs[name]))


class AudioCache:
    """Renders the audio of a task on the first download, one task at a time in a thread, and caches the latest."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = anyio.Lock()
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._cached_bytes = 0

    async def audio(self, task: Task) -> bytes:
        """The audio file of a finished task."""
        async with self._lock:
            if task.id not in self._files:
                self._cache(task.id, await anyio.to_thread.run_sync(render, self._engine, task.request, task.id))
            self._files.move_to_end(task.id)
            return self._files[task.id]

    def _cache(self, task_id: str, data: bytes) -> None:
        self._files[task_id] = data
        self._cached_bytes += len(data)
        while self._cached_bytes > _CACHE_BYTES and len(self._files) > 1:
            self._cached_bytes -= len(self._files.popitem(last=False)[1])


def render(engine: Engine, request: SpeechRequest, task_id: str) -> bytes:
    """Render a request. Two tasks of the same request differ slightly, as two takes do.

    Raises:
        LookupError: this eSpeak does not have the voice; the task was created with another.
    """
    voice = engine.catalogue.find(request.voice)
    if voice is None:
        raise LookupError(f"no voice {request.voice!r}")
    nuance = int(task_id[-4:], 16)
    speed, pitch, volume = (
        request.params.get(name, default) for name, default in (("speed", 1), ("pitch", 0), ("volume", 0))
    )
    samples = engine.say(
        Utterance(
            text=request.text,
            voice=voice,
            words_per_minute=round(175 * speed) + nuance % 7 - 3,
            pitch=round(50 + 4 * pitch) + nuance // 7 % 5 - 2,
            amplitude=min(200, round(100 * 10 ** (volume / 20))),
        )
    )
    # For a text without words, eSpeak returns almost no samples, too few for a valid file.
    return _ENCODERS[request.format](samples + _SILENCE)


def _mp3(samples: bytes) -> bytes:
    import lameenc

    encoder = lameenc.Encoder()
    encoder.silence()
    encoder.set_channels(1)
    encoder.set_in_sample_rate(RATE)
    encoder.set_bit_rate(64)
    encoder.set_quality(7)
    return bytes(encoder.encode(samples) + encoder.flush())


def _wav(samples: bytes) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples)
    return out.getvalue()


def _opus(samples: bytes) -> bytes:
    import numpy

    wave_in = _floats(samples)
    moments = numpy.arange(len(wave_in) * _OPUS_RATE // RATE) * (RATE / _OPUS_RATE)
    resampled = numpy.interp(moments, numpy.arange(len(wave_in)), wave_in)
    return _ogg_file(resampled, _OPUS_RATE, "OPUS")


def _vorbis(samples: bytes) -> bytes:
    return _ogg_file(_floats(samples), RATE, "VORBIS")


def _floats(samples: bytes) -> NDArray[Any]:
    import numpy

    return numpy.frombuffer(samples, "<i2").astype("float32") / 32768


def _ogg_file(samples: NDArray[Any], rate: int, subtype: str) -> bytes:
    import soundfile

    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", rate, 1, subtype, format="OGG") as file:
        for start in range(0, len(samples), rate):  # libsndfile crashes on long writes of Vorbis
            file.write(samples[start : start + rate])
    return out.getvalue()


_ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "mp3": _mp3,
    "wav": _wav,
    "pcm": bytes,
    "opus": _opus,
    "ogg": _vorbis,
}
