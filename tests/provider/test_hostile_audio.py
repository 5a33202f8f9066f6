"""Audio hosts made to harm: a download ends in time, fills neither memory nor disk, and reaches no private network."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import httpx
import pytest

from batcher.provider.addresses import AddressError, AudioHosts, Range, range_of
from batcher.provider.answers import Fetched
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint
from batcher.provider.limits import MAX_URL_CHARACTERS, DownloadLimits
from tests.support.client_kit import TOKEN, go
from tests.support.naming import by_words
from tests.support.raw_server import Connection, RawServer, Script, answering, http, raw_server

AUDIO: Final = bytes(range(256)) * 400
QUICK: Final = DownloadLimits(seconds=0.6, seconds_per_character=0.0, window_seconds=0.2, bytes_per_second=5000.0)
BOMB: Final = gzip.compress(bytes(16 << 20), 9)


async def fetched(
    script: Script, *, limits: DownloadLimits | None = None, path: str = "/a.mp3?sig=abc", chars: int = 0
) -> tuple[Fetched, bytes, RawServer]:
    """A download from a server that runs the script."""
    api = Endpoint("http://127.0.0.1:9", TOKEN)
    async with raw_server(script) as audio, Client(api, create_connections=1, downloads=limits) as client:
        got = bytearray()
        with anyio.fail_after(20):
            return await client.fetch(audio.origin + path, got.extend, chars=chars), bytes(got), audio


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("identity", AUDIO),
        ("aws-chunked", AUDIO),
        ("gzip", gzip.compress(AUDIO)),
        ("GZIP", gzip.compress(AUDIO)),
        (" , identity,gzip", gzip.compress(AUDIO)),
    ],
    ids=by_words,
)
async def test_audio_in_one_known_coding_is_decoded(coding: str, body: bytes) -> None:
    result, got, _ = await fetched(answering(http(200, body, content_encoding=coding)))
    assert (result.ok, result.is_whole, result.bytes, got) == (True, True, len(AUDIO), AUDIO)


@pytest.mark.parametrize(
    ("coding", "body", "why"),
    [
        ("gzip, gzip", gzip.compress(gzip.compress(AUDIO)), "2 content codings"),
        ("br", AUDIO, "not asked for: br"),
        ("zstd", AUDIO, "not asked for: zstd"),
        ("gzip", AUDIO, "not gzip"),
        ("gzip", gzip.compress(AUDIO)[:-4], "cut off"),
        ("gzip", gzip.compress(AUDIO)[:-200], "cut off"),
        ("deflate", b"x", "cut off"),
    ],
    ids=by_words,
)
async def test_audio_in_another_coding_or_without_its_end_is_refused(coding: str, body: bytes, why: str) -> None:
    result, _, _ = await fetched(answering(http(200, body, content_encoding=coding)))
    assert not result.ok
    assert why in str(result.reason)


async def test_a_bomb_reaches_the_sink_in_small_pieces() -> None:
    """So the sink's own limit stops it before it fills the memory."""
    sizes: list[int] = []

    def sink(piece: bytes) -> None:
        sizes.append(len(piece))
        if sum(sizes) > 1 << 20:
            raise OSError("enough")

    api = Endpoint("http://127.0.0.1:9", TOKEN)
    async with (
        raw_server(answering(http(200, BOMB, content_encoding="gzip"))) as audio,
        Client(api, create_connections=1) as client,
    ):
        with pytest.raises(OSError, match="enough"):
            await client.fetch(audio.origin, sink)
    assert max(sizes) <= 1 << 16


@pytest.mark.parametrize("status", [201, 202, 203, 204, 205, 206, 226, 299, 300, 304, 305, 400, 416, 500, 999])
async def test_only_status_200_is_a_download(status: int) -> None:
    body = b"" if status in (204, 304) else AUDIO
    result, got, _ = await fetched(answering(http(status, body, content_range="bytes 0-99/200")))
    assert (result.ok, result.http_status, got) == (False, status, b"")


@pytest.mark.parametrize(
    ("response", "whole"),
    [
        (http(200, AUDIO), True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", False),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", False),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc", False),
    ],
)
async def test_a_body_that_ends_with_its_connection_may_be_incomplete(response: bytes, whole: bool) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(response)

    result, _, _ = await fetched(script)
    assert (result.ok, result.is_whole) == (True, whole)


def dripping(head: bytes, drop: bytes, every: float = 0.02) -> Script:
    """Answer with `head`, and then send `drop` for ever."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(head)
        while True:
            await connection.send(drop)
            await asyncio.sleep(every)

    return script


OK: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"
CHUNKED: Final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "late"),
    [
        (dripping(OK, b"x"), False),
        (dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), False),
        (dripping(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), False),
        (dripping(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"), False),
        (dripping(b"HTTP/1.1 200 OK\r\nx: ", b"y"), False),
        (dripping(CHUNKED, b"1;" + b"e" * 900 + b"\r\nx\r\n"), False),
        (dripping(b"", b""), False),
        (dripping(OK, b"x" * 400), True),
        (dripping(CHUNKED, b"190\r\n" + b"x" * 400 + b"\r\n"), True),
    ],
)
async def test_a_slow_or_endless_download_ends(script: Script, late: bool) -> None:
    """Below the least rate after one window, above it at the total deadline."""
    began = anyio.current_time()
    result, _, _ = await fetched(script, limits=QUICK)
    assert (result.ok, result.is_late) == (False, late)
    assert ("not complete within 0.6 s" if late else "slower than 5,000 bytes a second") in str(result.reason)
    assert anyio.current_time() - began < 5.0


async def test_the_deadline_spans_all_redirects() -> None:
    async def script(connection: Connection) -> None:
        while await connection.request():
            await asyncio.sleep(0.15)
            await connection.send(http(302, "", location="/again"))

    limits = DownloadLimits(seconds=0.4, window_seconds=9.0)
    result, _, server = await fetched(script, limits=limits)
    assert (result.ok, result.is_late) == (False, True)
    assert len(server.requests) <= 4


async def test_the_deadline_grows_with_the_text() -> None:
    limits = DownloadLimits(seconds=0.05, seconds_per_character=0.1, window_seconds=9.0)
    slow = dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n")
    for chars, seconds in ((0, "0.05 s"), (3, "0.35 s")):
        result, _, _ = await fetched(slow, limits=limits, chars=chars)
        assert f"not complete within {seconds}" in str(result.reason)
    assert DownloadLimits().deadline_seconds(5000) > 5000


async def test_a_slow_but_steady_download_is_left_alone() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 30000\r\n\r\n")
        for _ in range(30):
            await connection.send(b"x" * 1000)
            await asyncio.sleep(0.02)

    limits = DownloadLimits(seconds=20.0, window_seconds=0.3, bytes_per_second=5000.0)
    result, got, _ = await fetched(script, limits=limits)
    assert (result.ok, len(got)) == (True, 30_000)


UNREADABLE: Final = (
    "http://xn--/x",
    "https://xn--zzzzzzzzzzzzzzzzzzz--/x",
    "http://0177.0.0.1/x",
    "https://[/x",
    "https://[::1/x",
    "https://host:port/x",
    "https://host:999999/x",
    "https://" + "a" * 70 + ".test/x",
    "https://a..b/x",
    "https://" + "\u2028" + ".test/x",
    "https://user:pass word@/x",
    "https:///x",
    "//",
    "?",
    "",
    "file:///etc/passwd",
    "ftp://127.0.0.1/x",
    "data:audio/mpeg;base64,AAAA",
    "javascript:alert(1)",
    "gopher://127.0.0.1:25/",
    "https://host.test/" + "x" * MAX_URL_CHARACTERS,
)


@pytest.mark.parametrize("url", UNREADABLE)
async def test_a_url_that_cannot_be_called_fails_its_download_alone(url: str) -> None:
    """Whether the API names it or a redirect leads there; the client works on."""

    async def script(connection: Connection) -> None:
        while request := await connection.request():
            here = b"GET /a.mp3" in request
            line = url.encode("utf-8", "replace").replace(b"\xe2\x80\xa8", b"%E2%80%A8")
            away = b"HTTP/1.1 307 Go\r\ncontent-length: 0\r\nlocation: " + line + b"\r\n\r\n"
            await connection.send(http(200, b"abc") if here else away)

    api = Endpoint("http://127.0.0.1:9", TOKEN)
    async with raw_server(script) as audio, Client(api, create_connections=1) as client:
        direct = await client.fetch(url, bytearray().extend)
        redirected = await client.fetch(f"{audio.origin}/away", bytearray().extend)
        well = await client.fetch(f"{audio.origin}/a.mp3", bytearray().extend)
    assert (direct.ok, redirected.ok, well.ok) == (False, False, True)
    for failed in (direct, redirected):
        assert failed.reason
        assert not any(part in failed.reason for part in ("passwd", "pass word", "base64", "x" * 100))


PRIVATE: Final = (
    ("127.0.0.1", Range.LOOPBACK),
    ("127.255.0.9", Range.LOOPBACK),
    ("::1", Range.LOOPBACK),
    ("::ffff:127.0.0.1", Range.LOOPBACK),
    ("::127.0.0.1", Range.LOOPBACK),
    ("64:ff9b::7f00:1", Range.LOOPBACK),
    ("2002:7f00:1::", Range.LOOPBACK),
    ("10.0.0.1", Range.PRIVATE),
    ("172.31.255.255", Range.PRIVATE),
    ("192.168.1.1", Range.PRIVATE),
    ("100.64.0.1", Range.PRIVATE),
    ("fd00::1", Range.PRIVATE),
    ("::ffff:10.0.0.1", Range.PRIVATE),
    ("64:ff9b::a00:1", Range.PRIVATE),
    ("169.254.169.254", Range.LINK_LOCAL),
    ("fe80::1", Range.LINK_LOCAL),
    ("::ffff:169.254.169.254", Range.LINK_LOCAL),
    ("0.0.0.0", Range.SPECIAL),
    ("::", Range.SPECIAL),
    ("0.1.2.3", Range.SPECIAL),
    ("224.0.0.1", Range.SPECIAL),
    ("255.255.255.255", Range.SPECIAL),
    ("240.0.0.1", Range.SPECIAL),
    ("192.0.2.1", Range.SPECIAL),
    ("198.18.0.1", Range.SPECIAL),
    ("fec0::1", Range.SPECIAL),
    ("ff02::1", Range.SPECIAL),
    ("2001:db8::1", Range.SPECIAL),
)


@pytest.mark.parametrize(("address", "where"), PRIVATE)
def test_an_address_is_in_the_range_of_the_ipv4_address_in_it(address: str, where: Range) -> None:
    assert range_of(ipaddress.ip_address(address)) is where


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "172.32.0.1"])
def test_public_addresses_are_public(address: str) -> None:
    assert range_of(ipaddress.ip_address(address)) is Range.PUBLIC


def hosts(api: str, *allowed: str) -> AudioHosts:
    return AudioHosts(httpx.URL(api), frozenset(allowed))


@pytest.mark.parametrize(("address", "where"), PRIVATE)
def test_audio_may_be_where_the_api_is(address: str, where: Range) -> None:
    """Not at an address of another range, unless the user has named the host or its address."""
    with pytest.raises(AddressError, match=r"--allow-audio-host cdn\.test"):
        hosts("https://api.test").judge("cdn.test", address)
    for named in ("cdn.test", "CDN.test.", address):
        hosts("https://api.test", named).judge("cdn.test", address)
    with pytest.raises(AddressError):
        hosts("https://api.test", "other.test").judge("cdn.test", address)
    beside = hosts("https://api.test")
    beside.note_api(address)
    beside.judge("cdn.test", address)
    beside.judge("cdn.test", "1.1.1.1")
    for other, range_ in PRIVATE:
        if range_ is not where:
            with pytest.raises(AddressError):
                beside.judge("cdn.test", other)


@pytest.mark.parametrize("host", ["a\0b", "\0", "é", "\ud83d", "a" * 300, "", "%"])
def test_a_host_that_is_no_address_is_judged_by_its_name(host: str) -> None:
    hosts("https://api.test").judge_name(host)


LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]")


@asynccontextmanager
async def remote_client(**options: Any) -> Any:
    """A client of an API that is not on this machine."""
    async with Client(Endpoint("http://api.test", TOKEN, allow_http=True, **options), create_connections=1) as client:
        yield client


@pytest.mark.parametrize("host", LOOPBACK_NAMES)
async def test_no_spelling_of_this_machine_is_connected_to(host: str) -> None:
    """Not a single connection is made, directly or by a redirect from a permitted host."""
    async with raw_server(answering(http(200, AUDIO))) as inside, remote_client() as client:
        port = inside.origin.rpartition(":")[2]
        result = await client.fetch(f"http://{host}:{port}/a.mp3?sig=abc", bytearray().extend)
        assert (result.ok, inside.connections) == (False, 0)
        assert "this machine" in str(result.reason)
        assert "sig=" not in str(result.reason)


@pytest.mark.parametrize("host", LOOPBACK_NAMES)
async def test_a_named_host_is_connected_to(host: str) -> None:
    plain = host.strip("[]")
    async with raw_server(answering(http(200, AUDIO))) as inside, remote_client(audio_hosts={plain}) as client:
        port = inside.origin.rpartition(":")[2]
        assert (await client.fetch(f"http://{host}:{port}/a.mp3", bytearray().extend)).ok


async def test_a_redirect_into_the_machine_is_refused() -> None:
    async with raw_server(answering(http(200, AUDIO))) as inside:
        away = answering(http(302, "", location=inside.origin.replace("127.0.0.1", "127.0.0.2")))
        async with raw_server(away) as outside, remote_client(audio_hosts={"127.0.0.1"}) as client:
            result = await client.fetch(outside.origin, bytearray().extend)
    assert (result.ok, outside.connections, inside.connections) == (False, 1, 0)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[list[str]]]]:
    """What the resolver answers for names: the addresses of each look-up in turn; the last answer repeats."""
    answers: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in answers:
            return real(host, port, *args, **options)
        found = answers[name].pop(0) if len(answers[name]) > 1 else answers[name][0]
        return [one for address in found for one in real(address, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return answers  # type: ignore[return-value]


async def test_a_name_is_looked_up_once_and_the_judged_address_is_connected_to(
    names: dict[str, list[list[str]]],
) -> None:
    """A second look-up could lead elsewhere."""
    names["cdn.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    async with raw_server(answering(http(200, AUDIO))) as inside, remote_client(audio_hosts={"127.0.0.1"}) as client:
        port = inside.origin.rpartition(":")[2]
        assert (await client.fetch(f"http://cdn.test:{port}/", bytearray().extend)).ok
        assert len(names["cdn.test"]) == 1
        assert b"host: cdn.test" in inside.requests[0].lower()


async def test_a_public_name_that_resolves_inside_is_refused(names: dict[str, list[list[str]]]) -> None:
    names["cdn.test"] = [["127.0.0.1"]]
    async with raw_server(answering(http(200, AUDIO))) as inside, remote_client() as client:
        port = inside.origin.rpartition(":")[2]
        result = await client.fetch(f"http://cdn.test:{port}/", bytearray().extend)
    assert (result.ok, inside.connections) == (False, 0)
    why = "is on this machine, not at a public address; --allow-audio-host cdn.test would permit it"
    assert result.reason == f"the audio host cdn.test (127.0.0.1) {why}"


async def test_of_several_addresses_only_permitted_ones_are_tried(names: dict[str, list[list[str]]]) -> None:
    """The next one if the first does not answer."""
    names["cdn.test"] = [["127.0.0.9", "127.0.0.8", "127.0.0.1"]]
    allowed = {"127.0.0.8", "127.0.0.1"}
    async with raw_server(answering(http(200, AUDIO))) as inside, remote_client(audio_hosts=allowed) as client:
        port = inside.origin.rpartition(":")[2]
        assert (await client.fetch(f"http://cdn.test:{port}/", bytearray().extend)).ok
        nowhere = await client.fetch("http://cdn.test:1/", bytearray().extend)
    assert (nowhere.ok, nowhere.reason) == (False, "ConnectError: connection refused")


async def test_the_range_of_the_api_is_that_of_its_connection(names: dict[str, list[list[str]]]) -> None:
    """Not that of its name, which its owner could point anywhere."""
    names["api.test"] = [["127.0.0.1"]]
    async with raw_server(answering(http(200, b'{"id": "t1"}'))) as server:
        port = server.origin.rpartition(":")[2]
        async with Client(Endpoint(f"http://api.test:{port}", TOKEN, allow_http=True), create_connections=1) as client:
            before = await client.fetch(server.origin, bytearray().extend)
            await client.create(b"{}", hold=go)
            after = await client.fetch(server.origin, bytearray().extend)
    assert (before.ok, after.ok) == (False, True)


@pytest.mark.parametrize("url", ["http://cdn.test/a", "http://127.0.0.1/a", "http://localhost/a"])
async def test_an_encrypted_api_cannot_name_plain_audio(url: str) -> None:
    """Not even with --allow-http."""
    api = Endpoint("https://api.test", TOKEN, allow_http=True, audio_hosts=frozenset({"127.0.0.1", "localhost"}))
    async with Client(api, create_connections=1) as client:
        result = await client.fetch(url, bytearray().extend)
    assert "is not https" in str(result.reason)


@pytest.mark.parametrize("host", [*LOOPBACK_NAMES, "169.254.169.254", "[fd00::1]"])
async def test_a_proxy_is_not_asked_for_an_inside_address(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(answering(http(200, AUDIO))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        async with remote_client() as client:
            refused = await client.fetch(f"http://{host}/a", bytearray().extend)
            asked = await client.fetch("http://cdn.test/a", bytearray().extend)
    assert (refused.ok, asked.ok, len(proxy.requests)) == (False, True, 1)


async def test_credentials_in_a_url_are_not_sent() -> None:
    result, _, server = await fetched(answering(http(200, AUDIO)), path="/a.mp3")
    assert result.ok
    async with raw_server(answering(http(200, AUDIO))) as audio:
        async with Client(Endpoint("http://127.0.0.1:9", TOKEN), create_connections=1) as client:
            await client.fetch(audio.origin.replace("//", "//me:secret@"), bytearray().extend)
        assert all(word not in audio.requests[0].lower() for word in (b"secret", b"authorization", b"me:"))
    assert server.requests
