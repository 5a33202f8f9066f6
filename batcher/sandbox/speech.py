"""Speech by eSpeak NG: through its library if that can be loaded, otherwise through its command."""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from batcher.errors import UsageError
from batcher.installation import this_installation

RATE: Final = 22_050
"""Sample rate of all eSpeak voices, in Hz."""

# Constants of eSpeak's speak_lib.h.
_SYNCHRONOUS, _UTF8, _FROM_CHARACTER = 2, 1, 1
_WORDS_PER_MINUTE, _AMPLITUDE, _PITCH = 1, 2, 3
_CHUNK_MS: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """A text with its voice and parameters in eSpeak's units. `voice` is a name returned by `Catalogue.find`."""

    text: str = field(repr=False)
    voice: str
    words_per_minute: int = 175
    pitch: int = 50  # 0 to 100, about 7 semitones each way
    amplitude: int = 100  # 0 to 200


class Catalogue:
    """The available voices by file name (`en-us`, `fr`) and by language tag (`fr-fr`, `zh`), ignoring case.

    `listed` has a (file, language tags) pair for each voice, in order of preference; a file is a path such as
    `gmw/en-US`. `variants` are the names of the variants, which go with any voice.
    """

    def __init__(self, listed: Iterable[tuple[str, Iterable[str]]], variants: Iterable[str]) -> None:
        self._files: dict[str, str] = {}
        for file, tags in (listed := list(listed)):
            for tag in tags:
                self._files.setdefault(tag.lower(), file)
        self._files |= {_last(file).lower(): file for file, _ in listed}
        self._variants = frozenset(variants)

    @property
    def voices(self) -> list[str]:
        """All names of voices, sorted."""
        return sorted(self._files)

    def find(self, name: str) -> str | None:
        """eSpeak's name for a voice, which may end in a variant (`en-us+f3`). None if the voice does not exist."""
        voice, plus, variant = name.partition("+")
        file = self._files.get(voice.lower())
        if file is None or (plus and variant not in self._variants):
            return None
        return file + plus + variant


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("padding", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class Library:
    """eSpeak NG as a library in this process.

    It is loaded again for every utterance, which takes a millisecond: it has state that no call resets, and the same
    utterance must always yield the same samples.

    Raises:
        OSError: the library or its data cannot be loaded.
    """

    def __init__(self, library: str, data: str) -> None:
        self._library = library
        self._data = data.encode()
        self._lock = threading.Lock()
        with self._loaded():
            pass

    @contextmanager
    def _loaded(self) -> Iterator[ctypes.CDLL]:
        with self._lock:
            library = ctypes.CDLL(self._library)
            try:
                if library.espeak_Initialize(_SYNCHRONOUS, _CHUNK_MS, self._data, 0) != RATE:
                    raise OSError(f"{self._library} cannot be initialised")
                yield library
                library.espeak_Terminate()
            finally:
                _unload(library)

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        """The voices in the library's data."""
        with self._loaded() as library:
            listed = [(voice.identifier.decode(), _tags(voice)) for voice in _listed(library)]
            variants = [_last(voice.identifier.decode()) for voice in _listed(library, "variant")]
        return Catalogue(listed, variants)

    def say(self, utterance: Utterance) -> bytes:
        """The speech as 16-bit little-endian mono samples at `RATE`.

        Raises:
            RuntimeError: eSpeak reports an error.
        """
        samples = bytearray()

        def collect(wave: int | None, count: int, _events: int | None) -> int:
            if wave:
                samples.extend(ctypes.string_at(wave, 2 * count))
            return 0

        callback = _Callback(collect)
        text = utterance.text.replace("\0", " ").encode()
        with self._loaded() as library:
            library.espeak_SetSynthCallback(callback)
            failure = library.espeak_SetVoiceByName(utterance.voice.encode())
            library.espeak_SetParameter(_WORDS_PER_MINUTE, utterance.words_per_minute, 0)
            library.espeak_SetParameter(_AMPLITUDE, utterance.amplitude, 0)
            library.espeak_SetParameter(_PITCH, utterance.pitch, 0)
            size = ctypes.c_size_t(len(text) + 1)
            failure |= library.espeak_Synth(text, size, 0, _FROM_CHARACTER, 0, _UTF8, None, None)
        if failure:
            raise RuntimeError(f"eSpeak cannot speak with the voice {utterance.voice}: error {failure}")
        return bytes(samples)


class Command:
    """eSpeak NG as a command, for machines without the library's package."""

    def __init__(self, path: str) -> None:
        self._path = path

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        """The voices that the command lists."""
        listed = []
        for line in self._table("--voices"):
            _priority, tag, _gender, _name, file = line.split()[:5]
            listed.append((file, [tag, *re.findall(r"\((\S+) \d+\)", line)]))
        variants = [re.findall(r"!v/(\S+(?: \S+)*)", line)[0] for line in self._table("--voices=variant")]
        return Catalogue(listed, variants)

    def _table(self, option: str) -> list[str]:
        return self._run([option], b"").decode().splitlines()[1:]

    def say(self, utterance: Utterance) -> bytes:
        """As `Library.say`."""
        numbers = {"-s": utterance.words_per_minute, "-p": utterance.pitch, "-a": utterance.amplitude}
        options = [word for option, number in numbers.items() for word in (option, str(number))]
        wave = self._run(["-b", "1", "-v", utterance.voice, *options, "--stdin", "--stdout"], utterance.text.encode())
        # In a pipe, the length in the header is a placeholder: everything after it is samples.
        return wave[wave.index(b"data") + 8 :]

    def _run(self, arguments: list[str], text: bytes) -> bytes:
        done = subprocess.run([self._path, *arguments], input=text, capture_output=True, check=True)  # noqa: S603 - no shell, checked voices
        return done.stdout


Engine = Library | Command


@functools.cache
def engine() -> Engine:
    """The eSpeak of this process, loaded once.

    Raises:
        UsageError: neither the library nor the command is installed.
    """
    try:
        import espeakng_loader

        return Library(espeakng_loader.get_library_path(), espeakng_loader.get_data_path())
    except (ImportError, OSError, RuntimeError):
        command = shutil.which("espeak-ng")
    if command is None:
        message = "the sandbox needs eSpeak NG, which is not installed"
        raise UsageError(message, this_installation().install("sandbox"))
    return Command(command)


def speech_seconds(text: str) -> float:
    """Duration of the speech for `text` in seconds; 0 if it is silent.

    Raises:
        UsageError: eSpeak is not installed.
    """
    voice = engine().catalogue.find("en-us")
    samples = engine().say(Utterance(text=text, voice=voice)) if voice is not None else b""
    return len(samples) / 2 / RATE if any(samples) else 0.0


def _listed(library: ctypes.CDLL, languages: str | None = None) -> list[Any]:
    wanted = ctypes.create_string_buffer((languages or "").encode())
    spec = _Voice(languages=ctypes.addressof(wanted))
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    found = library.espeak_ListVoices(ctypes.byref(spec) if languages else None)
    voices: list[Any] = []
    while found[len(voices)]:
        voices.append(found[len(voices)].contents)
    return voices


def _tags(voice: _Voice) -> list[str]:
    """A voice's language tags: a list of (priority byte, string), terminated by a zero."""
    tags, at = [], voice.languages
    while ctypes.string_at(at, 1) != b"\0":
        tag = ctypes.string_at(at + 1)
        tags.append(tag.decode())
        at += len(tag) + 2
    return tags


def _last(file: str) -> str:
    return file.rpartition("/")[2]


def _unload(library: ctypes.CDLL) -> None:
    if sys.platform != "win32":  # there the library stays loaded, and utterances differ by a few samples
        import _ctypes

        _ctypes.dlclose(library._handle)
