"""A way to the network that bounds answers, for the library of object stores, which reads errors and listings whole.

It is a proxy on loopback, in a thread of its own. It forwards requests as they are (with TLS it sees only their
length), and closes the connection of an answer that is too long.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import threading
from contextlib import suppress
from functools import cache
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies

MAX_ANSWER_BYTES: Final = 8 << 20
"""Bounds the answer to a request. A page of a listing has less, and larger objects are read in parts."""
MAX_REPLY_BYTES: Final = 1 << 18
"""Bounds the answer to a request that writes. Many are under way at once, and an error takes a multiple of its size."""
_PIECE_BYTES: Final = 1 << 16
_END: Final = b"\r\n\r\n"


def proxy_for(prefix: str, most: int) -> str | None:
    """The URL of the proxy for answers of at most `most` bytes, from a store whose variables begin with `prefix`. None
    if the user has set another proxy."""
    if {"http", "https", "all"} & getproxies().keys() or f"{prefix}_PROXY_URL" in os.environ:
        return None
    return _relay(os.getpid()).url(most)


def cuts() -> int:
    """The number of answers that were too long so far."""
    return _relay(os.getpid()).cuts


@cache
def _relay(pid: int) -> _Relay:  # noqa: ARG001 - threads do not survive a fork
    return _Relay()


class _Flow:
    """One connection through the relay: the length of the answer that is arriving, and the most that it may have."""

    def __init__(self, most: int) -> None:
        self.received = 0
        self.most = most


class _Relay:
    """The proxy. Its URLs contain a password, so that other accounts cannot use it, and the limit as the user."""

    def __init__(self) -> None:
        self.cuts = 0
        self._password = secrets.token_urlsafe(16)
        started: list[int] = []
        ready = threading.Event()
        run = threading.Thread(target=lambda: asyncio.run(self._run(started, ready)), name="relay", daemon=True)
        run.start()
        ready.wait()
        self._port = started[0]

    def url(self, most: int) -> str:
        """The proxy's URL, for answers of at most `most` bytes."""
        return f"http://{most}:{self._password}@127.0.0.1:{self._port}"

    def _limit(self, head: bytes) -> int | None:
        """The limit that a request names. None if it lacks the password."""
        given = base64.b64decode((_header(head, b"proxy-authorization") or b"").removeprefix(b"Basic "))
        most, _, password = given.decode().partition(":")
        return int(most) if secrets.compare_digest(password, self._password) else None

    async def _run(self, started: list[int], ready: threading.Event) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        started.append(server.sockets[0].getsockname()[1])
        ready.set()
        async with server:
            await server.serve_forever()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either side closes it."""
        head = await reader.readuntil(_END)
        most = self._limit(head)
        if most is None:
            return
        method, target = head.split(b" ", 2)[:2]
        is_tunnel = method == b"CONNECT"
        url = urlsplit(f"//{target.decode()}" if is_tunnel else target.decode())
        there, onward = await asyncio.open_connection(url.hostname, url.port or (443 if is_tunnel else 80))
        flow = _Flow(most)
        try:
            if is_tunnel:
                writer.write(b"HTTP/1.1 200 OK" + _END)
                sending = self._send(reader, onward, flow)
            else:
                sending = self._send_requests(head, reader, onward, flow)
            tasks = [asyncio.ensure_future(one) for one in (sending, self._receive(there, writer, flow))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            onward.close()

    async def _send(self, reader: asyncio.StreamReader, onward: asyncio.StreamWriter, flow: _Flow) -> None:
        while piece := await reader.read(_PIECE_BYTES):
            flow.received = 0
            onward.write(piece)
            await onward.drain()

    async def _send_requests(
        self, head: bytes, reader: asyncio.StreamReader, onward: asyncio.StreamWriter, flow: _Flow
    ) -> None:
        """Send requests in the form that a server expects: with the path alone."""
        while True:
            flow.received = 0
            onward.write(_for_server(head))
            left = int(_header(head, b"content-length") or 0)
            while left and (piece := await reader.read(min(left, _PIECE_BYTES))):
                onward.write(piece)
                await onward.drain()
                left -= len(piece)
            head = await reader.readuntil(_END)

    async def _receive(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: _Flow) -> None:
        while piece := await there.read(_PIECE_BYTES):
            flow.received += len(piece)
            if flow.received > flow.most:
                self.cuts += 1
                return
            writer.write(piece)
            await writer.drain()


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        found, _, value = line.partition(b":")
        if found.lower() == name:
            return value.strip()
    return None


def _for_server(head: bytes) -> bytes:
    first, *lines = head.split(b"\r\n")
    method, target, version = first.split(b" ")
    url = urlsplit(target)
    path = (url.path or b"/") + (b"?" + url.query if url.query else b"")
    kept = [line for line in lines if not line.lower().startswith(b"proxy-")]
    return b"\r\n".join([b" ".join((method, path, version)), *kept])
