"""The sandbox's server with more faults than its options have, in its own process until SIGINT::

    python -m tests.soak.server PORT STORE SEED COUNTS

COUNTS is the file for the number of faults of each kind, written at the end.
"""

from __future__ import annotations

import json
import random
import sys
from asyncio import Transport
from collections import Counter
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from batcher.sandbox import host, server
from batcher.sandbox.options import SandboxOptions
from batcher.sandbox.requests import ApiError
from tests.support.fake_tts import audio_of

URL_SECONDS: Final = 2.0
OPTIONS: Final[dict[str, Any]] = {
    "credits": 4_000.0,
    "speed": 0.5,
    "concurrent": 4,
    "rate": 8.0,
    "fail": 0.02,
    "drop": 0.01,
    "url_seconds": URL_SECONDS,
}
"""The sandbox's own faults: 429 with and without Retry-After, failed tasks, lost answers, and URLs that expire."""
CREATE_FAULTS: Final = {"500 without a task": 0.005}
READ_FAULTS: Final = {"500": 0.01, "502 from a proxy": 0.01, "429": 0.01, "429 with Retry-After": 0.005}
AUDIO_FAULTS: Final = {"a web page": 0.02, "cut off": 0.02, "another format": 0.02, "503": 0.02}
"""Share of the requests that get each answer."""

_COUNTS: Counter[str] = Counter()
_CHANCE = random.Random()
_PAGE: Final = b"<!doctype html><title>Bad gateway</title>" + b"<p>Please try again later.</p>" * 200


class TroubledSandbox(server.Sandbox):
    """The sandbox, with wrong answers at random."""

    async def create(self, request: Request) -> Response:
        """Create a task, or fail before that."""
        if _drawn("create", CREATE_FAULTS):
            raise ApiError(500, "internal_error", "the sandbox failed")
        return await super().create(request)

    async def read(self, request: Request) -> Response:
        """Return a task, or an error."""
        fault = _drawn("poll", READ_FAULTS)
        if fault == "500":
            raise ApiError(500, "internal_error", "the sandbox failed")
        if fault == "502 from a proxy":
            return Response(_PAGE, 502, media_type="text/html")
        if fault is not None:
            retry = {"Retry-After": "1"} if fault == "429 with Retry-After" else None
            raise ApiError(429, "rate_limited", "too many polls", retry)
        return await super().read(request)

    async def audio(self, request: Request) -> Response:
        """Return audio, or something else in its place."""
        try:
            good = await super().audio(request)
        except ApiError as error:
            _COUNTS[f"download: {error.code}"] += 1
            raise
        fault = _drawn("download", AUDIO_FAULTS)
        if fault == "a web page":
            return Response(_PAGE, media_type="text/html")
        if fault == "cut off":
            assert request.client is not None
            return _CutOff(bytes(good.body), self._connections[(request.client.host, request.client.port)])
        if fault == "another format":
            other = "wav" if request.path_params["name"].endswith(".mp3") else "mp3"
            return Response(audio_of("another format " * 20, other), media_type=good.media_type)
        if fault == "503":
            return Response(b"", 503)
        return good


class _CutOff(Response):
    """Sends half of the body, then resets the connection."""

    def __init__(self, body: bytes, connection: Transport) -> None:
        super().__init__(body)
        self._connection = connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})
        self._connection.abort()
        await receive()  # returns once the server has noticed


def _drawn(kind: str, faults: dict[str, float]) -> str | None:
    """The fault of the next request of this kind, mostly None."""
    drawn = _CHANCE.random()
    for fault, share in faults.items():
        if drawn < share:
            _COUNTS[f"{kind}: {fault}"] += 1
            return fault
        drawn -= share
    _COUNTS[f"{kind}: as usual"] += 1
    return None


def main() -> None:
    """Serve until SIGINT."""
    port, store, seed, counts = sys.argv[1:]
    _CHANCE.seed(int(seed))
    server.Sandbox = TroubledSandbox  # type: ignore[misc] # where the host looks it up
    host.serve(Path(store), SandboxOptions(seed=int(seed), **OPTIONS), host="127.0.0.1", port=int(port))
    Path(counts).write_text(json.dumps(_COUNTS))


if __name__ == "__main__":
    main()
