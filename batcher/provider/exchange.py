"""One request, followed on its way: a failure before its first byte left is harmless, later it may hide a purchase."""

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
"""What httpcore raises about a request that did not leave. Whatever else it raises says nothing about that."""

MOST_BODY_BYTES: Final = 1 << 20


class Exchange:
    """One request and what came of it, filled in while it happens so that a break loses nothing that had arrived."""

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
        """Whether it is certain that no server has seen the request."""
        return not self.left or (isinstance(self.error, NEVER_SENT) and not self._head_sent)

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Follows httpcore on its way. A tunnel's CONNECT runs through here as well, but it isn't our request."""
        if event == "http11.send_request_headers.started" and info["request"].method != b"CONNECT":
            await anyio.lowlevel.checkpoint_if_cancelled()
            if self._hold():
                self.held = True
                raise _StopError("held back")
            self.left = True
        elif event == "http11.send_request_headers.complete" and self.left:
            self._head_sent = True

    async def take(self, response: httpx.Response) -> None:
        """Takes in the answer as it comes, up to the most that a body may have."""
        self.status, self.headers = response.status_code, dict(response.headers)
        async for chunk in response.aiter_bytes():
            self.body += chunk
            if len(self.body) > MOST_BODY_BYTES:
                raise _StopError(f"the answer is longer than {MOST_BODY_BYTES} bytes")
        self.whole = True


class _StopError(Exception):
    """We end an exchange ourselves."""
