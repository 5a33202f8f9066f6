"""One request and how far it got: a failure before the first byte is harmless, a later one may hide a purchase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
import anyio.lowlevel
import httpcore
import httpx

NEVER_SENT: Final = (
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.PoolTimeout,
    httpcore.ProxyError,
    httpcore.LocalProtocolError,
)
"""httpcore errors that prove the request was not sent. Its other errors prove nothing."""

MAX_BODY_BYTES: Final = 1 << 20


class Exchange:
    """One request and its answer, filled in as it arrives so that a broken connection loses nothing received."""

    def __init__(self, hold: Callable[[], bool], seconds: float) -> None:
        self.scope = anyio.CancelScope(deadline=anyio.current_time() + seconds)
        self.held = False
        self.left = False  # from here on a byte may be on its way
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.body = bytearray()
        self.whole = False
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
        async for chunk in response.aiter_bytes():
            self.body += chunk
            if len(self.body) > MAX_BODY_BYTES:
                raise _StopError(f"the answer is longer than {MAX_BODY_BYTES:,} bytes")
        self.whole = True


class _StopError(Exception):
    """Ends an exchange from our side."""
