from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpcore
import httpx
import pytest

from batcher.errors import UsageError
from batcher.item import Event, Inputs
from batcher.provider import connections
from batcher.provider.answers import Answer, ApiError, Cause, Phase, ProfileAnswer, Task
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint
from batcher.provider.exchange import Exchange
from batcher.provider.parsing import retry_after
from tests.support.raw_server import Connection, RawServer, Script, answering, http, raw_server

TOKEN = "sk-very-secret-0123456789"
NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def go() -> bool:
    """The latch of a create that may leave."""
    return False


def noting(asked: list[str]) -> Callable[[], bool]:
    """The same, and it notes that it was asked."""

    def hold() -> bool:
        asked.append("asked")
        return False

    return hold


@asynccontextmanager
async def speaking(script: Script, **options: Any) -> AsyncIterator[tuple[Client, RawServer]]:
    """A client, and the server that it speaks to."""
    codes: frozenset[str] = options.pop("no_credits_codes", frozenset())
    settings: dict[str, Any] = {"create_connections": 2, "deadline_seconds": 5.0, "now": lambda: NOW}
    async with raw_server(script) as server:
        endpoint = Endpoint(f"{server.origin}/api/open/v1/", TOKEN, no_credits_codes=codes)
        async with Client(endpoint, **settings | options) as client:
            yield client, server


async def created(script: Script, **options: Any) -> Answer:
    async with speaking(script, **options) as (client, _):
        return await client.create(b'{"text":"hello"}', hold=go)


async def was_read(script: Script, **options: Any) -> Answer:
    async with speaking(script, **options) as (client, _):
        return await client.read("t1")


async def account(script: Script, **options: Any) -> ProfileAnswer:
    async with speaking(script, **options) as (client, _):
        return await client.profile()


def oops(code: object = "some_code") -> str:
    return json.dumps({"code": code, "message": "No.", "requestId": "req_1"})


HTML = "<html><title>Attention Required!</title></html>"
EDGE = '{"detail": "an object, but not one of this API"}'


# ---------------------------------------------------------------- the tables

CREATES: list[tuple[int, str, Cause]] = [
    (402, oops(), Cause.NO_CREDITS),
    (402, HTML, Cause.NO_CREDITS),
    (402, "", Cause.NO_CREDITS),
    *[
        (status, oops(code), Cause.NO_CREDITS)
        for status, code in (
            (400, "insufficient_credits"),
            (401, "Insufficient-Quota"),
            (403, "insufficient balance"),
            (429, "QUOTA_EXCEEDED"),
            (500, "payment_required"),
            (503, "credits_exhausted"),
            (400, "our_own_word"),
        )
    ],
    (400, '{"error": {"code": "insufficient_credits", "message": "Top up."}}', Cause.NO_CREDITS),
    (200, '{"success": false, "code": "insufficient_credits", "message": "Top up."}', Cause.NO_CREDITS),
    (200, '{"success": false, "code": "quota_exceeded", "data": {"id": "t1"}}', Cause.NO_CREDITS),
    (202, '{"id": "t1", "status": "failed", "code": "insufficient_credits"}', Cause.OK),
    (202, '{"id": "t1", "status": "queued"}', Cause.OK),
    (200, '{"task": {"id": "t1"}, "record": {"id": "r9"}, "requestId": "req_1", "id": "x"}', Cause.OK),
    (201, '{"success": true, "message": "ok", "data": {"id": "t1"}, "id": "x"}', Cause.OK),
    (202, '{"success": null, "id": 17}', Cause.OK),
    *[(status, oops(), Cause.INVALID) for status in (400, 413, 414, 415, 422)],
    (400, '{"error": "insufficient credits in the account"}', Cause.INVALID),
    *[(status, oops(), Cause.CREDENTIALS) for status in (401, 403)],
    (429, oops(), Cause.THROTTLED),
    (503, oops("rate_limited"), Cause.THROTTLED),
    (503, oops("rate-limit-exceeded"), Cause.THROTTLED),
    (503, oops("server overloaded"), Cause.THROTTLED),
    *[(status, oops(), Cause.WRONG_HOST) for status in (404, 405, 409)],
    *[(status, body, Cause.WRONG_HOST) for status in (401, 403, 404, 429) for body in (HTML, "", EDGE, "[1]")],
    *[(status, "", Cause.WRONG_HOST) for status in (300, 301, 302, 303, 304, 307, 308)],
    (303, '{"id": "t1"}', Cause.UNCLEAR),
    *[(status, "{}", Cause.UNCLEAR) for status in (200, 201, 202, 206)],
    (204, "", Cause.UNCLEAR),
    (202, HTML, Cause.UNCLEAR),
    (202, '{"success": false, "data": {"id": "t1"}, "message": "it went wrong"}', Cause.UNCLEAR),
    *[
        (202, json.dumps({"id": bad}), Cause.UNCLEAR)
        for bad in (None, "", True, 1.5, ["t1"], "t" * 201, "t\n1", "t\x001", "\ud800")
    ],
    *[(status, HTML, Cause.UNCLEAR) for status in (400, 405, 409, 413, 422)],
    *[(status, EDGE, Cause.UNCLEAR) for status in (405, 409)],
    *[(status, EDGE, Cause.INVALID) for status in (400, 413, 422)],
    *[(status, oops(), Cause.UNCLEAR) for status in (406, 408, 410, 418, 425, 451, 500, 501, 502, 503, 504, 520, 599)],
    *[(status, HTML, Cause.UNCLEAR) for status in (408, 500, 502, 503, 504)],
    (500, '{"id": "t1"}', Cause.UNCLEAR),
    (503, oops("generate_failed"), Cause.UNCLEAR),
]


async def over(rows: list[tuple[int, str, Cause]], call: Callable[[Client], Awaitable[Any]]) -> list[str]:
    """The rows of a table for which a call does not come to the cause expected; one connection serves them all."""
    bodies = iter([http(status, "" if status in (204, 304) else body) for status, body, _ in rows])

    async def script(connection: Connection) -> None:
        while await connection.request():
            await connection.send(next(bodies))

    async with speaking(script, no_credits_codes=frozenset({"Our-own word"})) as (client, server):
        wrong = []
        for status, body, expected in rows:
            cause = (await call(client)).cause
            if cause is not expected:
                wrong.append(f"{status} {body}: {cause} instead of {expected}")
        assert len(server.requests) == len(rows)
    return wrong


async def test_every_answer_to_a_create() -> None:
    """Each row of the table for creates comes to its cause, by what a real server sends."""
    assert await over(CREATES, lambda client: client.create(b"{}", hold=go)) == []


READS: list[tuple[int, str, Cause]] = [
    (200, '{"id": "t1", "status": "queued"}', Cause.OK),
    (200, '{"task": {"id": "t1", "status": "completed"}, "record": {}, "requestId": "r"}', Cause.OK),
    (200, '{"success": false, "data": {"id": "t1", "status": "failed"}}', Cause.OK),
    (200, '{"id": "t2", "status": "queued"}', Cause.UNCLEAR),
    (200, '{"status": "queued"}', Cause.UNCLEAR),
    (200, HTML, Cause.UNCLEAR),
    (404, oops(), Cause.NOT_FOUND),
    (404, HTML, Cause.UNCLEAR),
    (404, EDGE, Cause.UNCLEAR),
    (401, oops(), Cause.CREDENTIALS),
    (403, oops(), Cause.CREDENTIALS),
    (401, HTML, Cause.UNCLEAR),
    (403, EDGE, Cause.UNCLEAR),
    (429, oops(), Cause.THROTTLED),
    (429, HTML, Cause.THROTTLED),
    (402, oops(), Cause.UNCLEAR),
    (200, oops("insufficient_credits"), Cause.UNCLEAR),
    *[(status, oops(), Cause.UNCLEAR) for status in (301, 400, 405, 408, 409, 410, 422, 500, 502, 503, 504)],
]


async def test_every_answer_to_a_poll() -> None:
    """Each row of the table for polls comes to its cause; none says anything that buying could follow from."""
    assert await over(READS, lambda client: client.read("t1")) == []


PROFILES: list[tuple[int, str, Cause]] = [
    (200, '{"user_id": "u", "credits": 5}', Cause.OK),
    (200, "{}", Cause.OK),
    (200, '{"success": false, "code": "x"}', Cause.UNCLEAR),
    (200, "[]", Cause.UNCLEAR),
    (200, HTML, Cause.UNCLEAR),
    (401, oops(), Cause.CREDENTIALS),
    (403, oops(), Cause.CREDENTIALS),
    (429, HTML, Cause.THROTTLED),
    *[(status, HTML, Cause.WRONG_HOST) for status in (401, 403, 404, 301, 302, 307, 308)],
    (404, oops(), Cause.UNCLEAR),
    *[(status, oops(), Cause.UNCLEAR) for status in (402, 400, 500, 503)],
]


async def test_every_answer_to_a_profile_read() -> None:
    """Each row of the table for the account comes to its cause."""
    assert await over(PROFILES, lambda client: client.profile()) == []


@pytest.mark.parametrize(
    ("cause", "event"),
    [
        (Cause.OK, Event.ACCEPTED),
        (Cause.UNSENT, Event.DEFERRED),
        (Cause.HELD, Event.DEFERRED),
        (Cause.NO_CREDITS, Event.DEFERRED),
        (Cause.CREDENTIALS, Event.DEFERRED),
        (Cause.THROTTLED, Event.DEFERRED),
        (Cause.WRONG_HOST, Event.DEFERRED),
        (Cause.INVALID, Event.REJECTED),
        (Cause.UNCLEAR, Event.LOST),
    ],
)
def test_events(cause: Cause, event: Event) -> None:
    """Each cause that a create can come to has its event."""
    assert Answer(cause=cause).event is event


# ---------------------------------------------------------------- when there is no answer, or half of one

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


def breaking(data: bytes, how: str = "close") -> Script:
    """Reads the request, sends `data`, and then closes, resets or falls silent."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(data)
        await asyncio.sleep(0.02)  # a reset throws away what the other side has not taken in yet
        if how == "reset":
            connection.reset()
        elif how == "silent":
            await connection.until_gone()

    return script


ID = b'{"id": "t1", "status": "queued"}'
HEAD = b"HTTP/1.1 202 Accepted\r\n"
LONG = HEAD + b"content-length: 999\r\n\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


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


async def test_refused_connections() -> None:
    """Nobody listens: nothing was sent."""
    async with raw_server(answering(b"")) as server:
        origin = server.origin
    async with Client(Endpoint(origin, TOKEN), create_connections=1) as client:
        answer = await client.create(b"{}", hold=go)
        assert (answer.cause, (await client.profile()).cause) == (Cause.UNSENT, Cause.UNSENT)
    assert str(answer.transport).startswith("ConnectError")


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Speak plain_error\r\n\r\n", b""])
async def test_no_tls_where_tls_is_wanted(greeting: bytes) -> None:
    """A handshake that fails or gets no answer is before the request: nothing was sent, the latch was not asked."""

    async def script(connection: Connection) -> None:
        await connection.send(greeting)
        await connection.until_gone()

    asked: list[str] = []
    async with raw_server(script) as server:
        endpoint = Endpoint(server.origin.replace("http:", "https:"), TOKEN)
        async with Client(endpoint, create_connections=1, deadline_seconds=1.0) as client:
            answer = await client.create(b"{}", hold=noting(asked))
    assert (answer.cause, asked) == (Cause.UNSENT, [])
    assert str(answer.transport).startswith("Connect")


@pytest.mark.parametrize("reply", [b"HTTP/1.1 407 Who are you\r\n\r\n", b"HTTP/1.1 200 Go on\r\n\r\n", b""])
async def test_a_proxy_that_lets_nothing_through(reply: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The headers of a tunnel's CONNECT are not those of the request."""
    asked: list[str] = []
    async with raw_server(breaking(reply)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        async with Client(Endpoint("https://api.example.test/v1", TOKEN), create_connections=1) as client:
            answer = await client.create(b"{}", hold=noting(asked))
        assert proxy.requests[0].startswith(b"CONNECT api.example.test:443")
        assert TOKEN.encode() not in b"".join(proxy.requests)
    assert (answer.cause, asked) == (Cause.UNSENT, [])


@pytest.mark.parametrize(
    ("near", "proxied"),
    [
        ("api.example.test:8443", False),
        ("[2001:db8::1]:8443, .example.test", False),
        ("api.example.test:443", True),
        ("other.test:8443", True),
        ("*.example.test", True),
        ("other.test, *", False),
        ("", True),
    ],
)
async def test_no_proxy(near: str, proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that NO_PROXY names, perhaps with its port, is called without the proxy, and so is any if it has a `*`."""
    async with raw_server(breaking(b"HTTP/1.1 403 Not from here\r\n\r\n")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        monkeypatch.setenv("NO_PROXY", near)
        async with Client(Endpoint("https://api.example.test:8443/v1", TOKEN), create_connections=1) as client:
            answer = await client.create(b"{}", hold=go)
        assert (answer.cause, bool(proxy.requests)) == (Cause.UNSENT, proxied)


@pytest.mark.parametrize(
    ("near", "is_near"),
    [("2001:db8::1", True), ("[2001:db8::1]", True), ("[2001:db8::1]:8443", True), ("[2001:db8::1]:1", False)],
)
def test_no_proxy_with_addresses(near: str, is_near: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of IPv6 may be named as it is, in brackets, or with a port behind them."""
    monkeypatch.setenv("NO_PROXY", near)
    assert connections.is_near(httpcore.Origin(b"https", b"2001:db8::1", 8443)) is is_near


@pytest.mark.parametrize("host", [".example.test", f"{'a' * 64}.test"])
async def test_audio_at_a_host_that_tls_cannot_name(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy nothing else looks at the name; it ends a download like any other failure, and not the run."""

    async def agrees_and_goes(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 Go on\r\n\r\n")

    async with raw_server(agrees_and_goes) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        async with Client(Endpoint("https://api.example.test/v1", TOKEN), create_connections=1) as client:
            result = await client.fetch(f"https://{host}/a.mp3", bytearray().extend)
    assert (result.ok, result.http_status) == (False, None)


async def test_an_impossible_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that cannot be used is said before anything else happens, without its password."""
    monkeypatch.setenv("HTTPS_PROXY", "gopher://me:pass-word@127.0.0.1:1")
    with pytest.raises(UsageError, match="proxy") as caught:
        async with Client(Endpoint("https://api.example.test", TOKEN), create_connections=1):
            pass
    assert "pass-word" not in str(caught.value)


@pytest.fixture(params=["missing.pem", "no certificate.pem"])
def without_certificates(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file that SSL_CERT_FILE names and that is not there, or holds something else."""
    (tmp_path / "no certificate.pem").write_text("Not one.", encoding="utf-8")
    path = str(tmp_path / request.param)
    monkeypatch.setenv("SSL_CERT_FILE", path)
    connections.trusting.cache_clear()
    return path


async def test_an_impossible_file_of_certificates(without_certificates: str) -> None:
    """What SSL_CERT_FILE names is looked at before anything is sent, and both are named when it is of no use."""
    with pytest.raises(UsageError, match="SSL_CERT_FILE") as caught:
        Client(Endpoint("https://api.example.test", TOKEN), create_connections=1)
    assert without_certificates in caught.value.message


async def test_an_impossible_file_of_certificates_for_audio_alone(without_certificates: str) -> None:
    """Where the API itself goes without certificates, it ends the download of audio that needs them, and says why."""
    async with speaking(answering(http(202, ID))) as (client, _):
        assert (await client.create(b"{}", hold=go)).cause is Cause.OK
        result = await client.fetch("https://127.0.0.1:1/a.mp3", bytearray().extend)
    assert not result.ok
    assert without_certificates in (result.reason or "")


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


# ---------------------------------------------------------------- connections


async def test_a_connection_is_used_again() -> None:
    """Creates that follow each other share a connection."""
    async with speaking(answering(http(202, ID))) as (client, server):
        for _ in range(3):
            assert (await client.create(b"{}", hold=go)).cause is Cause.OK
        assert (server.connections, len(server.requests)) == (1, 3)


def in_chunks(body: str) -> bytes:
    """An answer whose length is not announced."""
    return f"HTTP/1.1 202 Yes\r\ntransfer-encoding: chunked\r\n\r\n{len(body):x}\r\n{body}\r\n0\r\n\r\n".encode()


@pytest.mark.parametrize("length", [None, 40, 20], ids=["whole", "without its end", "the status line alone"])
@pytest.mark.parametrize("form", [lambda body: http(202, body), in_chunks], ids=["announced", "in chunks"])
async def test_two_answers_to_one_create(form: Callable[[str], bytes], length: int | None) -> None:
    """A second answer that comes along with the first is not taken for that to the next create on the connection."""

    async def script(connection: Connection) -> None:
        while await connection.request():
            number = len(connection.server.requests)
            second = form(f'{{"id": "another of {number}"}}')[:length]
            await connection.send(form(f'{{"id": "t{number}"}}') + second)

    async with speaking(script, create_connections=1) as (client, server):
        answers = [await client.create(b"{}", hold=go) for _ in range(3)]
        assert [answer.task and answer.task.id for answer in answers] == ["t1", "t2", "t3"]
        assert server.connections == 3


def without_names(protocol: int) -> ssl.SSLContext:
    """TLS without certificates."""
    context = ssl.SSLContext(protocol)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("aNULL:@SECLEVEL=0")
    return context


@pytest.mark.parametrize("apart", [True, False])
async def test_two_answers_over_tls(apart: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where TLS has taken the second answer from the socket, as a record of its own or with the first."""

    async def script(connection: Connection) -> None:
        while await connection.request():
            number = len(connection.server.requests)
            first, second = http(202, f'{{"id": "t{number}"}}'), http(202, '{"id": "another"}')
            connection.writer.writelines([first, second] if apart else [first + second])

    monkeypatch.setattr(connections, "trusting", lambda: without_names(ssl.PROTOCOL_TLS_CLIENT))
    async with (
        raw_server(script, without_names(ssl.PROTOCOL_TLS_SERVER)) as server,
        Client(Endpoint(server.origin, TOKEN), create_connections=1) as client,
    ):
        answers = [await client.create(b"{}", hold=go) for _ in range(3)]
        assert [answer.task and answer.task.id for answer in answers] == ["t1", "t2", "t3"]


async def test_a_server_that_closes_idle_connections() -> None:
    """A connection that was closed while idle is noticed before a create is put on it."""
    gone = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(http(202, ID))
        connection.writer.close()
        await connection.writer.wait_closed()
        gone.set()

    async with speaking(script) as (client, server):
        for number in range(1, 6):
            assert (await client.create(b"{}", hold=go)).cause is Cause.OK
            await gone.wait()
            gone.clear()
            assert server.connections == number


@pytest.mark.parametrize("connections", [1, 3, 19])
async def test_never_more_in_flight_than_connections(connections: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many creates as there are connections run at once, over several clients, and none queues in httpx."""
    inside, most, handed, most_handed = 0, 0, 0, 0
    full = asyncio.Event()
    handle = httpcore.AsyncHTTPConnection.handle_async_request

    async def counted(transport: httpcore.AsyncHTTPConnection, request: httpcore.Request) -> httpcore.Response:
        nonlocal handed, most_handed
        handed += 1
        most_handed = max(most_handed, handed)
        try:
            return await handle(transport, request)
        finally:
            handed -= 1

    monkeypatch.setattr(httpcore.AsyncHTTPConnection, "handle_async_request", counted)

    async def script(connection: Connection) -> None:
        nonlocal inside, most
        while await connection.request():
            inside += 1
            most = max(most, inside)
            if inside == connections:
                full.set()
            await full.wait()
            await asyncio.sleep(0.01)
            inside -= 1
            await connection.send(http(202, ID))

    async with speaking(script, create_connections=connections) as (client, server):
        answers = await asyncio.gather(*[client.create(b"{}", hold=go) for _ in range(2 * connections)])
        assert {answer.cause for answer in answers} == {Cause.OK}
        assert most == most_handed == connections
        assert server.connections == connections


async def test_a_crowd_waits_within_the_deadline() -> None:
    """A create that never gets a connection was never sent."""
    async with speaking(breaking(b"", "silent"), create_connections=1, deadline_seconds=0.2) as (client, server):
        first, second = await asyncio.gather(*[client.create(b"{}", hold=go) for _ in range(2)])
        assert (first.cause, second.cause) == (Cause.UNCLEAR, Cause.UNSENT)
        assert len(server.requests) == 1


async def test_http_costs_no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow reading of certificates is left out where nothing is encrypted."""
    monkeypatch.setattr("batcher.provider.connections.trusting", pytest.fail)
    assert (await created(answering(http(202, ID)))).cause is Cause.OK


# ---------------------------------------------------------------- the latch, and the second signal


async def test_held_back() -> None:
    """A latch that is up when the connection stands lets not one byte out."""
    seen = asyncio.get_running_loop().create_future()

    async def script(connection: Connection) -> None:
        seen.set_result(await connection.until_gone())

    async with speaking(script) as (client, server):
        answer = await client.create(b"{}", hold=lambda: True)
        assert (answer.cause, answer.event) == (Cause.HELD, Event.DEFERRED)
        assert (await seen, server.connections) == (b"", 1)


async def test_a_latch_raised_between_two_creates() -> None:
    """On a connection in use the latch is looked at just as well, and the next create finds a working client."""
    ups = iter((False, True, False))
    async with speaking(answering(http(202, ID)), create_connections=1) as (client, server):
        causes = [(await client.create(b"{}", hold=lambda: next(ups))).cause for _ in range(3)]
        assert causes == [Cause.OK, Cause.HELD, Cause.OK]
        assert len(server.requests) == 2


async def test_out_of_time_in_the_last_moment() -> None:
    """A create that is ended just before its first byte has not left, and is no doubt; the latch is not asked."""
    exchange = Exchange(lambda: pytest.fail("the latch was asked"), 60.0)
    with exchange.scope:
        exchange.scope.cancel()
        await exchange.trace("http11.send_request_headers.started", {"request": httpcore.Request("POST", "http://x")})
    assert exchange.unsent


async def test_abort() -> None:
    """The second signal: an answer within the grace counts, half of one is kept, what has not left never does."""
    arrived = 0
    all_in = asyncio.Event()

    async def script(connection: Connection) -> None:
        nonlocal arrived
        which = await connection.request()
        arrived += 1
        if arrived == 2:
            all_in.set()
        if b"soon" in which:
            await all_in.wait()
            await asyncio.sleep(0.05)
            await connection.send(http(202, ID))
        else:
            await connection.send(LONG + ID[:9])
        await connection.until_gone()

    answers: dict[bytes, Answer] = {}
    async with speaking(script) as (client, server):

        async def one(body: bytes) -> None:
            answers[body] = await client.create(body, hold=go)

        async with anyio.create_task_group() as group:
            for body in (b"soon", b"half", b"queued"):
                group.start_soon(one, body)
            await all_in.wait()
            started_at = time.monotonic()
            client.abort_creates()
            await one(b"late")
        assert time.monotonic() - started_at < 2.0
    assert {body: answer.cause for body, answer in answers.items()} == {
        b"soon": Cause.OK,
        b"half": Cause.UNCLEAR,
        b"queued": Cause.UNSENT,
        b"late": Cause.UNSENT,
    }
    assert answers[b"half"].raw == ID[:9]
    assert len(server.requests) == 2


async def test_abort_leaves_questions_alone() -> None:
    """Polls go on after it."""
    async with speaking(answering(http(200, ID))) as (client, _):
        client.abort_creates()
        assert (await client.read("t1")).cause is Cause.OK


# ---------------------------------------------------------------- what is sent


async def test_the_create_as_sent() -> None:
    """One POST with the prepared body, the token, JSON, and a name of our own."""
    body = Client.prepare(Inputs(text="Grüße", voice="v", model="m", format="wav", params={"speed": 1.0}))
    assert json.loads(body) == {"text": "Grüße", "voiceId": "v", "engineModelId": "m", "format": "wav", "speed": 1}
    async with speaking(answering(http(202, ID))) as (client, server):
        await client.create(body, hold=go)
    head, sent = server.requests[0].split(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /api/open/v1/speech/tts/jobs http/1.1"
    assert {f"authorization: bearer {TOKEN}", "content-type: application/json", "accept: application/json"} <= {*lines}
    assert any(line.startswith("user-agent: tts-batcher/") for line in lines)
    assert sent == body


async def test_the_reads_as_sent() -> None:
    """A task's id cannot break out of its place in the path."""
    async with speaking(answering(http(200, "{}"))) as (client, server):
        await client.read("a/b?c#d %é")
        await client.profile()
    assert [request.split(b" HTTP")[0] for request in server.requests] == [
        b"GET /api/open/v1/speech/tts/jobs/a%2Fb%3Fc%23d%20%25%C3%A9",
        b"GET /api/open/v1/profile",
    ]


async def test_redirects_are_not_followed() -> None:
    """The token stays with the API's origin, for each of the calls."""
    async with raw_server(answering(http(200, ID))) as other:
        elsewhere = http(307, "", location=f"{other.origin}/api/open/v1/speech/tts/jobs")
        async with speaking(answering(elsewhere)) as (client, _):
            causes = [(await client.create(b"{}", hold=go)).cause, (await client.read("t1")).cause]
            causes.append((await client.profile()).cause)
        assert causes == [Cause.WRONG_HOST, Cause.UNCLEAR, Cause.WRONG_HOST]
        assert other.connections == 0


# ---------------------------------------------------------------- what is read out of an answer


TIMES: list[tuple[dict[str, Any], tuple[float, float] | None]] = [
    ({"createdAt": "2026-11-22T10:00:00Z", "completedAt": "2026-11-22T11:00:07+01:00"}, (6.0, 8.0)),
    ({"created_at": 1_700_000_000.25, "finished_at": "1700000000.75"}, (0.499, 0.501)),
    ({"createdAt": 1_700_000_000_000, "finishedAt": 1_700_000_002_500}, (2.499, 2.501)),
    ({"createdAt": 1_700_000_000, "completedAt": 1_700_000_000}, (0.0, 1.0)),
    ({"createdAt": "2026-11-22T10:00:00Z", "completedAt": "2026-11-22T09:00:00Z"}, None),
    ({"createdAt": "yesterday", "completedAt": {"at": 3}}, None),
    ({"createdAt": "2026-11-22T10:00:00Z"}, None),
]
"""What a task may say of its own beginning and end, and how long it then took, least and most."""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"id": "t1", "status": "queued"}, Task(id="t1", word="queued", phase=Phase.RUNNING)),
        ({"id": "t1", "status": " Processing"}, Task(id="t1", word="processing", phase=Phase.RUNNING)),
        ({"id": "t1", "status": "warming"}, Task(id="t1", word="warming", phase=Phase.RUNNING, known_word=False)),
        ({"id": "t1"}, Task(id="t1", word="", phase=Phase.RUNNING, known_word=False)),
        (
            {"task": {"id": "t1", "status": "COMPLETED", "audioUrl": "https://a/1?s=2"}, "record": {"id": 3}},
            Task(id="t1", word="completed", phase=Phase.SUCCEEDED, audio_url="https://a/1?s=2"),
        ),
        (
            {"task": {"id": "t1", "status": "done", "audioUrl": None}, "record": {"audio_url": "//a/2"}},
            Task(id="t1", word="done", phase=Phase.SUCCEEDED, audio_url="http://a/2"),
        ),
        (
            {"success": True, "data": {"id": "t1", "status": "success", "result": {"result_url": "https://a/3"}}},
            Task(id="t1", word="success", phase=Phase.SUCCEEDED, audio_url="https://a/3"),
        ),
        (
            {"data": {"id": "t1", "status": "succeeded"}, "audioUrl": "https://a/4", "creditsUsed": 2},
            Task(id="t1", word="succeeded", phase=Phase.SUCCEEDED, audio_url="https://a/4", credits_used=2.0),
        ),
        *[
            (
                {"id": "t1", "status": "done", **times},
                Task(id="t1", word="done", phase=Phase.SUCCEEDED, took_seconds=took),
            )
            for times, took in TIMES
        ],
        (
            {"task": {"id": "t1", "status": "failed", "error": {"code": 17, "message": "x"}, "credits_used": "0"}},
            Task(
                id="t1",
                word="failed",
                phase=Phase.FAILED,
                error=ApiError(code="17", message="x", http_status=200),
                credits_used=0.0,
            ),
        ),
        (
            {"data": {"id": "t1", "status": "failed"}, "code": "c", "message": "ok"},
            Task(id="t1", word="failed", phase=Phase.FAILED, error=ApiError(code="c", http_status=200)),
        ),
        *[
            (
                {"id": "t1", "status": word, "errorCode": "c", "errorMessage": "two\nlines"},
                Task(
                    id="t1",
                    word=word,
                    phase=Phase.FAILED,
                    error=ApiError(code="c", message="two lines", http_status=200),
                ),
            )
            for word in ("error", "cancelled", "canceled", "expired")
        ],
    ],
)
async def test_tasks(body: object, expected: Task) -> None:
    """The three shapes of a task, the status words, and the places where the audio's address and an error may be."""
    assert (await was_read(answering(http(200, json.dumps(body))))).task == expected


async def test_a_relative_audio_address() -> None:
    """It belongs to the API's origin."""
    async with speaking(answering(http(200, '{"id": "t1", "status": "done", "audioUrl": "/a/1.mp3"}'))) as (c, server):
        task = (await c.read("t1")).task
    assert task is not None
    assert task.audio_url == f"{server.origin}/a/1.mp3"
    assert "1.mp3" not in repr(task)


@pytest.mark.parametrize(
    ("status", "code", "used", "unfunded"),
    [
        ("failed", "INSUFFICIENT-CREDITS", None, True),
        ("failed", "our_own_word", 0, True),
        ("failed", "insufficient_credits", 3, False),
        ("failed", "render_failed", None, False),
        ("processing", "insufficient_credits", None, False),
    ],
)
async def test_unfunded(status: str, code: str, used: float | None, unfunded: bool) -> None:
    """A task lacked credits only if it failed, its code says so and nothing that was read says it was charged."""
    body = {"task": {"id": "t1", "status": status, "error": {"code": code}}, "record": {"creditsUsed": used}}
    answer = await was_read(answering(http(200, json.dumps(body))), no_credits_codes=frozenset({"our own word"}))
    assert answer.task is not None
    assert answer.task.unfunded is unfunded


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"code": "c", "message": "m", "requestId": "r"}, ("c", "m", "r")),
        ({"error": {"code": "c", "message": "m", "request_id": "r"}}, ("c", "m", "r")),
        ({"error": "Not a word more"}, (None, "Not a word more", "header")),
        ({"error": "bad_voice"}, ("bad_voice", "bad_voice", "header")),
        ({"error": "Bad Request", "code": 1004, "message": "m"}, ("1004", "m", "header")),
        ({"success": False, "code": "c", "message": "m"}, ("c", "m", "header")),
        ({"code": True, "message": ["m"], "requestId": {}}, (None, None, "header")),
        ({"message": f"Bad {TOKEN}\r\nat https://x/y?sig=abc now"}, (None, "Bad *** at https://x/y?… now", "header")),
        ({"message": "m" * 2000}, (None, "m" * 500, "header")),
    ],
)
async def test_errors(body: object, error: tuple[str | None, str | None, str]) -> None:
    """The shapes of an error; what people will read has one line and no secret."""
    answer = await created(answering(http(422, json.dumps(body), x_request_id="header")))
    assert answer.error == ApiError(code=error[0], message=error[1], request_id=error[2], http_status=422)


async def test_a_poll_answered_about_another_task() -> None:
    """It is said what is wrong, and the other task is not passed on."""
    answer = await was_read(answering(http(200, '{"id": "t2", "status": "completed"}')))
    assert "another task" in str(answer.error.message)
    assert answer.task is None
    assert b"t2" in answer.raw


async def test_usage_in_headers_and_bodies() -> None:
    """Credits and quota are taken from the body, else from the headers."""
    headers = {"X_OpenAPI_Credits_Used": "7", "X_OpenAPI_Quota_Remaining": "93.5"}
    plain = await created(answering(http(202, ID, **headers)))
    assert (plain.credits_used, plain.quota_remaining) == (7.0, 93.5)
    body = '{"task": {"id": "t1", "quotaRemaining": 5}, "creditsUsed": 12}'
    told = await created(answering(http(202, body, **headers)))
    assert (told.credits_used, told.quota_remaining) == (12.0, 5.0)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"user_id": "u", "credits": 5, "api_quota_remaining": 9, "tier": "pro"}, ("u", 5.0, 9.0, "pro", 5.0)),
        ({"user_id": 7, "credits": "5.5", "tier": None}, ("7", 5.5, None, None, 5.5)),
        ({"data": {"user_id": "u", "api_quota_remaining": "9"}}, ("u", None, 9.0, None, 9.0)),
        ({"user": {"user_id": "u", "credits": 0}}, ("u", 0.0, None, None, 0.0)),
        ({"user_id": "", "credits": "many", "api_quota_remaining": True}, (None, None, None, None, None)),
        ({"credits": "nan", "api_quota_remaining": "inf"}, (None, None, None, None, None)),
        ({}, (None, None, None, None, None)),
    ],
)
async def test_profiles(body: object, expected: tuple[object, ...]) -> None:
    """Every field may be missing or be a string, and what is unknown is never zero."""
    profile = (await account(answering(http(200, json.dumps(body))))).profile
    assert profile is not None
    assert (profile.user_id, profile.credits, profile.quota, profile.tier, profile.balance) == expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-4", 0.0),
        ("999999999", 86_400.0),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0),
        ("Fri, 15 Jan 2027 08:01:00 -0000", 60.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("1e3", None),
        ("Fri, 99 Jan 2027 08:01:00 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Seconds and dates; the past is now, more than a day is a day, and rubbish is nothing."""
    assert retry_after(value, NOW) == seconds


async def test_retry_after_in_all_answers() -> None:
    """Each call passes it on, with dates taken against the clock it was given."""
    busy = answering(http(429, oops(), retry_after="Fri, 15 Jan 2027 08:01:00 GMT"))
    async with speaking(busy) as (client, server):
        waits = [
            (await client.create(b"{}", hold=go)).retry_after_seconds,
            (await client.read("t1")).retry_after_seconds,
        ]
        waits.append((await client.profile()).retry_after_seconds)
        waits.append((await client.fetch(server.origin, len)).retry_after_seconds)
    assert waits == [60.0] * 4


async def test_bad_bytes_do_not_hide_an_id() -> None:
    """A byte order mark, broken UTF-8 or a raw line break in some string leaves the id readable."""
    body = b'\xef\xbb\xbf{"note": "\xff\n", "id": "t1"}'
    assert (await created(answering(http(202, body)))).cause is Cause.OK


# ---------------------------------------------------------------- audio


async def fetched(script: Script, path: str = "/a.mp3?sig=abc") -> tuple[Any, bytes, RawServer]:
    async with raw_server(script) as audio, Client(Endpoint("https://api.test", TOKEN), create_connections=1) as client:
        got = bytearray()
        return await client.fetch(audio.origin + path, got.extend), bytes(got), audio


async def test_audio() -> None:
    """The bytes come complete, and the token does not go to where they come from."""
    data = bytes(range(256)) * 1000
    result, got, server = await fetched(answering(http(200, data, content_type="audio/mpeg")))
    assert (result.ok, result.bytes, result.http_status, result.content_type) == (True, 256_000, 200, "audio/mpeg")
    assert got == data
    assert b"authorization" not in server.requests[0].lower()
    assert TOKEN.encode() not in server.requests[0]


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (answering(http(403, "<Error>expired</Error>")), 403),
        (answering(http(404)), 404),
        (answering(http(500, "x")), 500),
        (answering(http(304)), 304),
        (answering(b"HTTP/1.1 204 None\r\ncontent-length: 5\r\n\r\n"), 204),
        (breaking(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc"), 200),
        (breaking(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", "reset"), 200),
        (breaking(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"), 200),
        (breaking(b"", "reset"), None),
        (breaking(b"https://x/y?sig=abc\r\n\r\n"), None),
        (answering(http(302, "", location="http://audio.example.test/a?sig=abc")), None),
        (answering(http(302, "", location="ftp://127.0.0.1/a")), None),
        (answering(http(302, "", location="https://[/a?sig=abc")), None),
        (answering(http(302, "", location="https://127.0.0.1:99999/a?sig=abc")), None),
        (answering(http(302, "", location="/again?sig=abc")), None),
    ],
)
async def test_audio_that_does_not_come(script: Script, status: int | None) -> None:
    """Whatever goes wrong is an answer with a reason, and no reason shows an address."""
    result, got, server = await fetched(script)
    assert (result.ok, result.http_status, result.bytes) == (False, status, len(got))
    assert result.reason
    assert not any(part in result.reason for part in ("sig=", "://", "a.mp3", TOKEN))
    assert len(server.requests) <= 6


async def test_audio_behind_a_redirect() -> None:
    """Relative redirects are followed."""

    async def script(connection: Connection) -> None:
        while request := await connection.request():
            moved = request.startswith(b"GET /a.mp3")
            await connection.send(http(302, "", location="/b.mp3") if moved else http(200, b"abc"))

    result, got, _ = await fetched(script)
    assert (result.ok, got) == (True, b"abc")


async def test_a_full_disk_is_no_network_error() -> None:
    """What the sink raises reaches the caller."""

    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    async with speaking(answering(http(200, b"abc"))) as (client, server):
        with pytest.raises(OSError, match="No space"):
            await client.fetch(server.origin, full)


# ---------------------------------------------------------------- the endpoint, and secrets


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://FishAudio.org/api/open/v1", "https://fishaudio.org"),
        ("https://fishaudio.org:443/api/", "https://fishaudio.org"),
        ("https://fishaudio.org:8443", "https://fishaudio.org:8443"),
        ("http://localhost:8000/v1", "http://localhost:8000"),
        ("http://127.9.9.9/v1", "http://127.9.9.9"),
        ("http://[::1]:80/v1", "http://[::1]"),
    ],
)
def test_origins(url: str, origin: str) -> None:
    """Addresses that name the same place have the same origin."""
    assert Endpoint(url, TOKEN).origin == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "fishaudio.org/api",
        "ftp://fishaudio.org",
        "https://",
        "https:///api",
        "https://me:pw@fishaudio.org",
        "https://fishaudio.org?x=1",
        "https://fishaudio.org/?",
        "https://fishaudio.org/#top",
        "https://fishaudio.org:port",
        "https://fish\naudio.org",
        "http://fishaudio.org",
        "http://localhost.example.test",
        "http://10.0.0.1",
        "http://0.0.0.0",
    ],
)
def test_bad_endpoints(url: str) -> None:
    """An address that the token must not go to is refused."""
    with pytest.raises(UsageError):
        Endpoint(url, TOKEN)


def test_unencrypted_with_leave() -> None:
    """A person may allow plain http."""
    assert Endpoint("http://10.0.0.1/v1", TOKEN, allow_http=True).origin == "http://10.0.0.1"


@pytest.mark.parametrize("token", ["", "two words", "line\n", "schlüssel"])
def test_bad_tokens(token: str) -> None:
    """A token that no header can carry is refused, and not shown."""
    with pytest.raises(UsageError) as caught:
        Endpoint("https://fishaudio.org", token)
    assert not token or token not in str(caught.value)


async def test_secrets_stay_home(caplog: pytest.LogCaptureFixture) -> None:
    """The token is in no repr, answer or log, even if the server sends it back; nor are whole URLs."""
    caplog.set_level(logging.DEBUG)
    echo = answering(http(400, json.dumps({"code": TOKEN, "message": f"{TOKEN} https://a/b?c=d"}), x_request_id=TOKEN))
    async with speaking(echo) as (client, server):
        answer = await client.create(b"{}", hold=go)
        await client.fetch(f"{server.origin}/a?sig=abc", len)
        shown = f"{client!r} {Endpoint('https://a.test', TOKEN)!r} {answer!r} {answer.raw!r}"
    assert TOKEN not in shown
    assert TOKEN not in caplog.text
    assert "sig=abc" not in caplog.text
    assert answer.cause is Cause.INVALID
