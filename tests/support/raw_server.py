"""A server of bare sockets, with which a test can do anything to a connection that a network or a bad server might."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

Script = Callable[["Connection"], Awaitable[None]]


@dataclass
class Connection:
    """The server's end of one connection."""

    server: RawServer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """Read one whole request and record it; empty if the client has gone."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
            whole = head + await self.reader.readexactly(int(length.split(b":")[1]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        self.server.requests.append(whole)
        return whole

    async def send(self, data: bytes) -> Self:
        """Send `data` unchanged."""
        self.writer.write(data)
        await self.writer.drain()
        return self

    def reset(self) -> None:
        """End the connection by a TCP reset."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def until_gone(self) -> bytes:
        """Wait for the client to go; return what it still sent."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""


@dataclass
class RawServer:
    """A running server: its address and what it has received."""

    origin: str
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0


@asynccontextmanager
async def raw_server(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Run `script` for every connection, and close the connection when it returns."""
    state = RawServer("")
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await script(Connection(state, reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            running.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=128, ssl=tls)
    state.origin = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running)


def http(status: int, body: str | bytes = b"", **headers: str) -> bytes:
    """A complete response; `_` in a header's name is sent as `-`."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def answering(response: bytes) -> Script:
    """A script that gives the same response to every request."""

    async def script(connection: Connection) -> None:
        while await connection.request():
            await connection.send(response)

    return script
