"""Requests that get no answer, or half of one."""

from __future__ import annotations

import asyncio
import json

import anyio
import httpcore
import httpx
import pytest

from batcher.provider.answers import Cause
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint
from tests.support.client_kit import CHUNKED, HEAD, ID, LONG, TOKEN, breaking, created, go, oops, speaking
from tests.support.raw_server import Connection, answering, http

NEVER_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "LocalProtocolError"}
EXPORTED: list[type[Exception]] = [
    found
    for name in httpcore.__all__
    if isinstance(found := getattr(httpcore, name), type) and issubclass(found, Exception)
]


@pytest.mark.parametrize("raised", [*EXPORTED, httpx.DecodingError, OSError, anyio.BrokenResourceError, RuntimeError])
@pytest.mark.parametrize("got", ["nowhere", "head under way", "head gone"])
async def test_every_exception_of_httpcore(raised: type[Exception], got: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far the request had got decides; of what had started to leave only the named classes are never sent."""

    async def fail(connection: object, request: httpcore.Request) -> httpcore.Response:
        trace = request.extensions["trace"]
        if got != "nowhere":
            await trace("http11.send_request_headers.started", {"request": request})
        if got == "head gone":
            await trace("http11.send_request_headers.complete", {"return_value": None})
        error = raised.__new__(raised)
        error.args = ("made up",)
        raise error

    monkeypatch.setattr(httpcore.AsyncHTTPConnection, "handle_async_request", fail)
    async with Client(Endpoint("http://127.0.0.1:9", TOKEN), create_connections=1) as client:
        answer = await client.create(b"{}", hold=go)
        polled, profile = await client.read("t1"), await client.profile()
    unsent = got == "nowhere" or (got == "head under way" and raised.__name__ in NEVER_SENT)
    assert answer.cause is (Cause.UNSENT if unsent else Cause.UNCLEAR)
    assert answer.transport == f"{raised.__name__}: made up"
    assert polled.cause is Cause.UNCLEAR
    assert profile.cause is (Cause.UNSENT if unsent else Cause.UNCLEAR)


def test_the_list_of_exceptions_is_whole() -> None:
    """httpx exports the classes that never-sent is made of, and the list above has found more than these."""
    names = {found.__name__ for found in EXPORTED}
    assert names > NEVER_SENT | {"ReadError", "ReadTimeout", "WriteError", "WriteTimeout", "RemoteProtocolError"}


@pytest.mark.parametrize("how", ["close", "reset", "silent"])
@pytest.mark.parametrize(
    ("data", "cause", "raw"),
    [
        (b"", Cause.UNCLEAR, b""),
        (b"HTTP/1.1 202 Acc", Cause.UNCLEAR, b""),
        (LONG, Cause.UNCLEAR, b""),
        (LONG + ID[:9], Cause.UNCLEAR, ID[:9]),
        (LONG + ID, Cause.OK, ID),
        (CHUNKED + b"9\r\n" + ID[:9] + b"\r\n", Cause.UNCLEAR, ID[:9]),
        (CHUNKED + b"20\r\n" + ID + b"\r\n", Cause.OK, ID),
        (LONG.replace(b"202", b"403") + b"<html", Cause.UNCLEAR, b"<html"),
        (LONG.replace(b"202", b"302"), Cause.UNCLEAR, b""),
        (LONG.replace(b"202", b"402"), Cause.NO_CREDITS, b""),
    ],
)
async def test_broken_answers(data: bytes, how: str, cause: Cause, raw: bytes) -> None:
    """What breaks off is judged by its status and a complete JSON object; all bytes that came are kept."""
    # A quarter of the deadline is the connect's own: long enough for a busy machine.
    answer = await created(breaking(data, how), deadline_seconds=1.0 if how == "silent" else 20.0)
    assert (answer.cause, answer.raw) == (cause, raw)
    assert answer.transport


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 2x2 What\r\n\r\n", b"\x00" * 50])
async def test_what_is_no_http(data: bytes) -> None:
    """A server of another kind may have understood the request or not."""
    assert (await created(breaking(data))).cause is Cause.UNCLEAR


async def test_an_answer_without_length() -> None:
    """A body that ends with its connection is complete."""
    answer = await created(breaking(HEAD + b"\r\n" + ID))
    assert (answer.cause, answer.transport) == (Cause.OK, None)


async def test_an_answer_in_drops_within_the_deadline() -> None:
    """Only the whole request has a time limit, not each pause in the answer."""

    async def script(connection: Connection) -> None:
        await connection.request()
        for byte in http(202, ID):
            await connection.send(bytes([byte]))
            await asyncio.sleep(0)

    assert (await created(script)).cause is Cause.OK


async def test_too_long_an_answer() -> None:
    """Reading stops beyond 1 MiB, and 64 KiB of it are kept."""
    answer = await created(answering(http(202, json.dumps({"id": "t1", "more": "x" * (2 << 20)}))))
    assert answer.cause is Cause.UNCLEAR
    assert len(answer.raw) == 1 << 16
    assert "longer" in str(answer.transport)


async def test_a_body_that_nobody_reads() -> None:
    """A reset while the body is on its way leaves the create in doubt."""

    async def script(connection: Connection) -> None:
        await connection.reader.read(1000)
        connection.reset()

    async with speaking(script) as (client, _):
        assert (await client.create(b"x" * (8 << 20), hold=go)).cause is Cause.UNCLEAR


async def test_an_error_before_the_body_is_read() -> None:
    """A server may answer and close without reading it all; its answer counts."""

    async def script(connection: Connection) -> None:
        await connection.reader.read(1000)
        await connection.send(http(413, oops("too_long"), connection="close"))
        await connection.until_gone()

    async with speaking(script) as (client, _):
        assert (await client.create(b"x" * (1 << 20), hold=go)).cause is Cause.INVALID


async def test_nothing_is_sent_twice() -> None:
    """A failed create is one request on one connection."""
    async with speaking(breaking(b"")) as (client, server):
        await client.create(b"{}", hold=go)
        assert (server.connections, len(server.requests)) == (1, 1)
