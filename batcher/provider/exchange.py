"""One request and how far it got: a failure before the first byte is harmless, a later one may hide a purchase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
import anyio.lowlevel
import httpcore
import httpx

from batcher.provider.codings import CodingError, Decoder
from batcher.provider.limits import MAX_BODY_BYTES

NEVER_SENT: Final = (
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.PoolTimeout,
    httpcore.ProxyError,
    httpcore.LocalProtocolError,
)
"""httpcore errors that prove the request was not sent. Its other errors prove nothing."""


class Exchange:
    """One request and its answer, filled in as it arrives so that a broken connection loses nothing received."""

    def __init__(self, hold: Callable[[], bool], seconds: float) -> None:
        self.scope = anyio.CancelScope(deadline=anyio.current_time() + seconds)
        self.held = False
        self.left = False  # from here on a byte may be on its way
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.raw = bytearray()  # the body as it arrived, in its content coding
        self.whole = False  # whether all of it arrived
        self.error: Exception | None = None
        self._hold = hold
        self._head_sent = False

    @property
    def unsent(self) -> bool:
        """Whether the request certainly reached no server."""
        return not self.left or (isinstance(self.error, NEVER_SENT) and not self._head_sent)

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Trace callback of httpcore. A proxy tunnel's CONNECT also comes through here, but is not our request."""
        if event == "http11.send_request_headers.started" and info["request"].method != b"CONNECT":
            await anyio.lowlevel.checkpoint_if_cancelled()
            if self._hold():
                self.held = True
                raise _StopError("stopped before sending")
            self.left = True
        elif event == "http11.send_request_headers.complete" and self.left:
            self._head_sent = True

    async def take(self, response: httpx.Response) -> None:
        """Reads the answer as it arrives, up to the maximum body size."""
        self.status, self.headers = response.status_code, dict(response.headers)
        async for chunk in response.aiter_raw():
            self.raw += chunk[: MAX_BODY_BYTES + 1 - len(self.raw)]
            if len(self.raw) > MAX_BODY_BYTES:
                raise _StopError(_TOO_LONG)
        self.whole = True

    def body(self) -> tuple[bytes, str | None]:
        """The body without its content coding, as far as it arrived, and why it is not complete; None if it is.

        A body whose coding is refused or wrong is returned as it arrived.
        """
        body = bytearray()
        try:
            decoder = Decoder(self.headers.get("content-encoding"))
            for piece in decoder.feed(bytes(self.raw)):
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    return bytes(body[:MAX_BODY_BYTES]), _TOO_LONG
            decoder.end()
        except CodingError as error:
            return bytes(body or self.raw), str(error)
        return bytes(body), None


_TOO_LONG: Final = f"the answer is longer than {MAX_BODY_BYTES:,} bytes"


class _StopError(Exception):
    """Ends an exchange from our side."""
