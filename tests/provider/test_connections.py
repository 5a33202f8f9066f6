"""Connections: reuse, limits, TLS, proxies and certificates."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import anyio
import httpcore
import pytest

from batcher.errors import UsageError
from batcher.provider import connections
from batcher.provider.answers import Cause
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint
from tests.support.client_kit import ID, TOKEN, breaking, created, go, noting, speaking
from tests.support.raw_server import Connection, answering, http, raw_server


async def test_consecutive_creates_share_a_connection() -> None:
    async with speaking(answering(http(202, ID))) as (client, server):
        for _ in range(3):
            assert (await client.create(b"{}", hold=go)).cause is Cause.OK
        assert (server.connections, len(server.requests)) == (1, 3)


def in_chunks(body: str) -> bytes:
    """A chunked answer: its length is not announced."""
    return f"HTTP/1.1 202 Yes\r\ntransfer-encoding: chunked\r\n\r\n{len(body):x}\r\n{body}\r\n0\r\n\r\n".encode()


@pytest.mark.parametrize("length", [None, 40, 20], ids=["whole", "without its end", "the status line alone"])
@pytest.mark.parametrize("form", [lambda body: http(202, body), in_chunks], ids=["announced", "in chunks"])
async def test_a_surplus_answer_is_never_taken_for_the_next_creates(
    form: Callable[[str], bytes], length: int | None
) -> None:
    """A second answer arrives along with the first on the same connection."""

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
    """A TLS context that uses and checks no certificates."""
    context = ssl.SSLContext(protocol)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("aNULL:@SECLEVEL=0")
    return context


@pytest.mark.parametrize("apart", [True, False])
async def test_a_surplus_answer_over_tls_is_never_taken_for_the_next_creates(
    apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS has read the second answer from the socket already, as its own record or together with the first."""

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


async def test_no_create_is_put_on_a_connection_that_closed_while_idle() -> None:
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
async def test_never_more_creates_in_flight_than_connections(connections: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection carries one create at a time, and none waits inside httpcore."""
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


async def test_a_create_that_gets_no_connection_in_time_is_unsent() -> None:
    async with speaking(answering(http(202, ID)), create_connections=1, deadline_seconds=0.2) as (client, server):
        async with client._create_pool._slots:
            assert (await client.create(b"{}", hold=go)).cause is Cause.UNSENT
        assert len(server.requests) == 0


async def test_plain_http_reads_no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them is slow."""
    monkeypatch.setattr("batcher.provider.connections.trusting", pytest.fail)
    assert (await created(answering(http(202, ID)))).cause is Cause.OK


async def test_a_refused_connection_leaves_the_create_unsent() -> None:
    async with raw_server(answering(b"")) as server:
        origin = server.origin
    async with Client(Endpoint(origin, TOKEN), create_connections=1) as client:
        answer = await client.create(b"{}", hold=go)
        assert (answer.cause, (await client.profile()).cause) == (Cause.UNSENT, Cause.UNSENT)
    assert str(answer.transport).startswith("ConnectError")


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Speak plainly\r\n\r\n", b""])
async def test_a_failed_tls_handshake_leaves_the_create_unsent(greeting: bytes) -> None:
    """The handshake fails, or gets no answer, before the latch is asked."""

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
async def test_a_proxy_that_refuses_the_tunnel_leaves_the_create_unsent(
    reply: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The headers of the tunnel's CONNECT are not mistaken for those of the create."""
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
async def test_no_proxy_exempts_hosts_with_or_without_a_port(
    near: str, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `*` in NO_PROXY exempts every host."""
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
def test_no_proxy_takes_ipv6_addresses_in_each_spelling(
    near: str, is_near: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bare, in brackets, or in brackets with a port."""
    monkeypatch.setenv("NO_PROXY", near)
    assert connections.is_near(httpcore.Origin(b"https", b"2001:db8::1", 8443)) is is_near


@pytest.mark.parametrize("host", [".example.test", f"{'a' * 64}.test"])
async def test_a_host_name_invalid_in_tls_fails_only_its_download(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy nothing checks the name before the handshake; the run goes on."""

    async def agrees_and_goes(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 Go on\r\n\r\n")

    async with raw_server(agrees_and_goes) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        async with Client(Endpoint("https://api.example.test/v1", TOKEN), create_connections=1) as client:
            result = await client.fetch(f"https://{host}/a.mp3", bytearray().extend)
    assert (result.ok, result.http_status) == (False, None)


async def test_an_unusable_proxy_is_refused_without_showing_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes before anything is sent."""
    monkeypatch.setenv("HTTPS_PROXY", "gopher://me:pass-word@127.0.0.1:1")
    with pytest.raises(UsageError, match="proxy") as caught:
        async with Client(Endpoint("https://api.example.test", TOKEN), create_connections=1):
            pass
    assert "pass-word" not in str(caught.value)


@pytest.fixture(params=["missing.pem", "no certificate.pem"])
def without_certificates(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Path in SSL_CERT_FILE of a file that is missing or holds no certificate."""
    (tmp_path / "no certificate.pem").write_text("Not one.", encoding="utf-8")
    path = str(tmp_path / request.param)
    monkeypatch.setenv("SSL_CERT_FILE", path)
    connections.trusting.cache_clear()
    return path


async def test_an_unusable_certificate_file_is_refused_by_name(without_certificates: str) -> None:
    """The error names SSL_CERT_FILE and the path, before anything is sent."""
    with pytest.raises(UsageError, match="SSL_CERT_FILE") as caught:
        Client(Endpoint("https://api.example.test", TOKEN), create_connections=1)
    assert without_certificates in caught.value.message


async def test_an_unusable_certificate_file_fails_only_downloads_that_need_it(without_certificates: str) -> None:
    """The API itself is reached by plain http here."""
    async with speaking(answering(http(202, ID))) as (client, _):
        assert (await client.create(b"{}", hold=go)).cause is Cause.OK
        result = await client.fetch("https://127.0.0.1:1/a.mp3", bytearray().extend)
    assert not result.ok
    assert without_certificates in (result.reason or "")


class Attentive:
    """A script that answers creates, and knows how many connections are open."""

    def __init__(self) -> None:
        self.open = 0

    async def __call__(self, connection: Connection) -> None:
        self.open += 1
        while await connection.request():
            await connection.send(http(202, ID))
        self.open -= 1

    async def wait(self) -> None:
        with anyio.fail_after(10.0):
            while self.open:  # noqa: ASYNC110 - no event marks the end of a connection
                await anyio.sleep(0.001)


async def test_a_client_that_is_closed_in_a_cancelled_task_closes_all_its_connections() -> None:
    """A Python program goes on after it cancels a run, and must not collect open sockets."""
    script = Attentive()
    async with raw_server(script) as server:
        client = Client(Endpoint(server.origin, TOKEN), create_connections=2)
        with anyio.CancelScope() as scope:
            async with client:
                for connection in (client._create_pool._new(), client._create_pool._new()):
                    await connection.send(httpcore.Request("GET", f"{server.origin}/", headers={"host": "api.test"}))
                assert server.connections == 2
                scope.cancel()
        await script.wait()


async def test_a_connection_is_closed_if_its_download_is_cancelled_at_that_moment() -> None:
    script = Attentive()
    made: list[httpcore.AsyncNetworkStream] = []
    async with raw_server(script) as server:
        port = int(server.origin.rpartition(":")[2])
        with anyio.CancelScope() as scope:

            async def connect(address: str) -> httpcore.AsyncNetworkStream:
                made.append(await httpcore.AnyIOBackend().connect_tcp(address, port))
                scope.cancel()
                return made[0]

            await connections._first_connected(["127.0.0.1"], connect)
        assert scope.cancelled_caught
        await script.wait()
