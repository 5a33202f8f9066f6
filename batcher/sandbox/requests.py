"""Parses and validates the body of a create request, as strictly as a provider would."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from batcher.sandbox.speech import Catalogue

MODELS: Final = ("fishaudio-s2pro", "fishaudio-s1", "minimax-2.8-hd", "qwen3-tts-flash")
MAX_CHARS: Final = 100_000
RANGES: Final = {
    "speed": (0.5, 2.0),
    "volume": (-20.0, 20.0),
    "pitch": (-12.0, 12.0),
    "stability": (0.5, 1.5),
    "similarity": (0.5, 1.5),
}
"""The numeric parameters and their limits."""
USED: Final = ("speed", "volume", "pitch")
"""Parameters that have an effect on eSpeak's speech. The answer to a create lists others as ignored."""
_WORDS: Final = ("language", "emotion")


class ApiError(Exception):
    """An error response of the API: HTTP status, code for programs, message for people."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRequest:
    """A valid request: everything that the audio depends on."""

    text: str = field(repr=False)
    voice: str
    model: str
    format: str
    params: dict[str, float] = field(default_factory=dict)


def parse(body: bytes, *, catalogue: Catalogue, formats: tuple[str, ...]) -> SpeechRequest:
    """Parse the body of a create request.

    Raises:
        ApiError: 400, with the code of the first error.
    """
    request = _object(body)
    voice, model, audio = (request.get(name) for name in ("voiceId", "engineModelId", "format"))
    if not isinstance(voice, str) or catalogue.find(voice) is None:
        raise ApiError(400, "unknown_voice", f"voiceId must be the name of a voice, not {voice!r:.60}")
    if model is not None and model not in MODELS:
        raise ApiError(400, "unknown_model", f"engineModelId must be one of {', '.join(MODELS)}")
    if audio is not None and audio not in formats:
        raise ApiError(400, "unsupported_format", f"format must be one of {', '.join(formats)}")
    return SpeechRequest(
        text=_text(request.get("text")),
        voice=voice,
        model=model or MODELS[0],
        format=audio or "mp3",
        params={name: _number(name, request[name]) for name in RANGES if request.get(name) is not None},
    )


def ignored(body: bytes) -> list[str]:
    """The parameters of a valid create request that have no effect."""
    request = _object(body)
    return [name for name in (*RANGES, *_WORDS) if name not in USED and request.get(name) is not None]


def _object(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "invalid_json", "the body is not JSON") from None
    if not isinstance(request, dict):
        raise ApiError(400, "invalid_json", "the body is not a JSON object")
    for name in _WORDS:
        if not isinstance(request.get(name), str | None):
            raise ApiError(400, "invalid_parameter", f"{name} must be a string")
    return request


def _text(text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ApiError(400, "invalid_text", "text must not be empty")
    if len(text) > MAX_CHARS:
        raise ApiError(400, "invalid_text", f"text has {len(text):,} characters, the maximum is {MAX_CHARS:,}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ApiError(400, "invalid_text", "text contains half of a surrogate pair") from None
    return text


def _number(name: str, value: Any) -> float:
    low, high = RANGES[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ApiError(400, "invalid_parameter", f"{name} must be a number from {low:g} to {high:g}")
    return float(value)
