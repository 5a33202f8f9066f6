"""Connections: reuse, limits, TLS, proxies and certificates."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import httpcore
import pytest

from batcher.errors import UsageError
from batcher.provider import connections
from batcher.provider.answers import Cause
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint
from tests.support.client_kit import ID, TOKEN, breaking, created, go, noting, speaking
from tests.support.raw_server import Connection, answering, http, raw_server


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


async def test_refused_connections() -> None:
    """Nobody listens: nothing was sent."""
    async with raw_server(answering(b"")) as server:
        origin = server.origin
    async with Client(Endpoint(origin, TOKEN), create_connections=1) as client:
        answer = await client.create(b"{}", hold=go)
        assert (answer.cause, (await client.profile()).cause) == (Cause.UNSENT, Cause.UNSENT)
    assert str(answer.transport).startswith("ConnectError")


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Speak plainly\r\n\r\n", b""])
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
