"""A client connected to a raw socket server, and the answers that the provider's tests share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from batcher.provider.answers import Answer, ProfileAnswer
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint
from tests.support.raw_server import Connection, RawServer, Script, raw_server

TOKEN = "sk-very-secret-0123456789"
NOW = 1_800_000_000.0
HTML = "<html><title>Attention Required!</title></html>"
EDGE = '{"detail": "an object, but not one of this API"}'
ID = b'{"id": "t1", "status": "queued"}'
HEAD = b"HTTP/1.1 202 Accepted\r\n"
LONG = HEAD + b"content-length: 999\r\n\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def go() -> bool:
    """A latch that lets every create leave."""
    return False


def noting(asked: list[str]) -> Callable[[], bool]:
    """A latch that lets every create leave and records in `asked` each time it is asked."""

    def hold() -> bool:
        asked.append("asked")
        return False

    return hold


@asynccontextmanager
async def speaking(script: Script, **options: Any) -> AsyncIterator[tuple[Client, RawServer]]:
    """A client and the raw server that it is connected to."""
    codes: frozenset[str] = options.pop("no_credits_codes", frozenset())
    settings: dict[str, Any] = {"create_connections": 2, "deadline_seconds": 5.0, "now": lambda: NOW}
    async with raw_server(script) as server:
        endpoint = Endpoint(f"{server.origin}/api/open/v1/", TOKEN, no_credits_codes=codes)
        async with Client(endpoint, **settings | options) as client:
            yield client, server


async def created(script: Script, **options: Any) -> Answer:
    """The answer to one create."""
    async with speaking(script, **options) as (client, _):
        return await client.create(b'{"text":"hello"}', hold=go)


async def was_read(script: Script, **options: Any) -> Answer:
    """The answer to one poll of the task `t1`."""
    async with speaking(script, **options) as (client, _):
        return await client.read("t1")


async def account(script: Script, **options: Any) -> ProfileAnswer:
    """The answer to one read of the profile."""
    async with speaking(script, **options) as (client, _):
        return await client.profile()


def oops(code: object = "some_code") -> str:
    """The JSON of an error of the API."""
    return json.dumps({"code": code, "message": "No.", "requestId": "req_1"})


def breaking(data: bytes, how: str = "close") -> Script:
    """Read the request, send `data`, then close, reset or fall silent."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(data)
        await asyncio.sleep(0.02)  # a reset discards data that the other side has not read yet
        if how == "reset":
            connection.reset()
        elif how == "silent":
            await connection.until_gone()

    return script
