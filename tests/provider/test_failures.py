"""Creates whose answer is missing, broken off or malformed."""

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
async def test_each_exception_of_httpcore_is_unsent_or_unclear(
    raised: type[Exception], got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the headers leave a create is unsent; while they leave, only the classes in NEVER_SENT mean that; later it
    is unclear.
    """

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


def test_the_list_of_exceptions_is_complete() -> None:
    """It holds NEVER_SENT and more."""
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
async def test_a_broken_answer_counts_if_its_status_or_whole_json_decides(
    data: bytes, how: str, cause: Cause, raw: bytes
) -> None:
    """All bytes received are recorded."""
    # A quarter of the deadline is for connecting: enough on a busy machine.
    answer = await created(breaking(data, how), deadline_seconds=1.0 if how == "silent" else 20.0)
    assert (answer.cause, answer.raw) == (cause, raw)
    assert answer.transport


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 2x2 What\r\n\r\n", b"\x00" * 50])
async def test_an_answer_that_is_not_http_is_unclear(data: bytes) -> None:
    """A server of another kind may have acted on the request."""
    assert (await created(breaking(data))).cause is Cause.UNCLEAR


async def test_a_body_may_end_with_its_connection() -> None:
    answer = await created(breaking(HEAD + b"\r\n" + ID))
    assert (answer.cause, answer.transport) == (Cause.OK, None)


async def test_an_answer_may_arrive_byte_by_byte() -> None:
    """Only the request as a whole has a deadline, not each pause in the answer."""

    async def script(connection: Connection) -> None:
        await connection.request()
        for byte in http(202, ID):
            await connection.send(bytes([byte]))
            await asyncio.sleep(0)

    assert (await created(script)).cause is Cause.OK


async def test_reading_stops_after_1_mib_of_an_answer() -> None:
    """Its first 64 KiB are recorded."""
    answer = await created(answering(http(202, json.dumps({"id": "t1", "more": "x" * (2 << 20)}))))
    assert answer.cause is Cause.UNCLEAR
    assert len(answer.raw) == 1 << 16
    assert "longer" in str(answer.transport)


async def test_a_reset_while_the_body_is_sent_is_unclear() -> None:
    async def script(connection: Connection) -> None:
        await connection.reader.read(1000)
        connection.reset()

    async with speaking(script) as (client, _):
        assert (await client.create(b"x" * (8 << 20), hold=go)).cause is Cause.UNCLEAR


async def test_an_error_sent_before_the_body_is_read_counts() -> None:
    """A server may answer and close without reading the whole body."""

    async def script(connection: Connection) -> None:
        await connection.reader.read(1000)
        await connection.send(http(413, oops("too_long"), connection="close"))
        await connection.until_gone()

    async with speaking(script) as (client, _):
        assert (await client.create(b"x" * (1 << 20), hold=go)).cause is Cause.INVALID


async def test_a_failed_create_is_not_sent_again() -> None:
    """It is one request on one connection."""
    async with speaking(breaking(b"")) as (client, server):
        await client.create(b"{}", hold=go)
        assert (server.connections, len(server.requests)) == (1, 1)
