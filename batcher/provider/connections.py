"""Connection pools built directly on httpcore, the transport of httpx.

An httpx client costs twice the CPU of the request itself and scans its whole pool for each request.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import anyio
import httpcore
import httpx

from batcher.errors import UsageError
from batcher.provider.addresses import AddressError, AudioHosts
from batcher.provider.limits import MAX_ADDRESSES

USER_AGENT: Final = f"tts-batcher/{version('tts-batcher')} (+python-httpx)"
KEEPALIVE_SECONDS: Final = 3.5  # servers commonly close after 5 s, and a create that hits the close ends in doubt

_STATUS_LINE: Final = b"HTTP/"  # start of every answer
_NEXT_ADDRESS_SECONDS: Final = 0.25  # before the next address of a host is tried beside a slow one

Headers = Sequence[tuple[bytes, bytes]]


class Pool:
    """Connections that carry one request at a time. The most recently used one is reused first: it is the warmest.

    `headers` are added to every request; `timeouts` are in seconds, by httpcore's names of the phases. `network` makes
    the connections.
    """

    def __init__(
        self,
        connections: int,
        headers: Headers,
        timeouts: Mapping[str, float],
        proxies: Mapping[str, httpcore.Proxy],
        network: WatchedNetwork,
    ) -> None:
        self._slots = anyio.Semaphore(connections, fast_acquire=True)
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []
        self._headers = [(b"User-Agent", USER_AGENT.encode()), (b"Accept-Encoding", b"identity"), *headers]
        self._extensions = {"timeout": timeouts}
        self._proxies = proxies
        self._network = network

    @asynccontextmanager
    async def send(
        self, method: str, url: httpcore.URL, headers: Headers = (), body: bytes | None = None, trace: object = None
    ) -> AsyncIterator[httpx.Response]:
        """Sends one request once, as soon as a connection is free, and yields its unread answer.

        `trace` is httpcore's trace callback. Raises httpcore's errors.
        """
        extensions = self._extensions if trace is None else self._extensions | {"trace": trace}
        request = httpcore.Request(method, url, headers=[*self._headers, *headers], content=body, extensions=extensions)
        async with self._slots:
            connection = self._idle.pop() if self._idle else self._new()
            try:
                answer = await connection.send(request)
                try:
                    yield httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))
                finally:
                    with anyio.CancelScope(shield=True):
                        await answer.aclose()
            finally:
                self._idle.append(connection)

    def _new(self) -> _Connection:
        connection = _Connection(self._proxies, self._network)
        self._all.append(connection)
        return connection

    async def aclose(self) -> None:
        """Closes all connections, in a cancelled task too."""
        with anyio.CancelScope(shield=True):
            for connection in self._all:
                await connection.aclose()


class _Connection:
    """At most one open connection, replaced when it has ended or the origin changes."""

    def __init__(self, proxies: Mapping[str, httpcore.Proxy], network: WatchedNetwork) -> None:
        self._proxies = proxies
        self._network = network
        self._origin: httpcore.Origin | None = None
        self._connection: httpcore.AsyncHTTPConnection | httpcore.AsyncConnectionPool | None = None

    async def send(self, request: httpcore.Request) -> httpcore.Response:
        origin = request.url.origin
        if self._connection is None or self._origin != origin or _has_ended(self._connection):
            await self.aclose()
            self._origin, self._connection = origin, self._connect(origin)
        try:
            return await self._connection.handle_async_request(request)
        except (ValueError, OverflowError, ExceptionGroup) as error:  # sockets and TLS on odd ports and names
            raise httpcore.UnsupportedProtocol(f"invalid address: {request.url.host!r}") from error

    def _connect(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection | httpcore.AsyncConnectionPool:
        try:
            context = trusting() if origin.scheme == b"https" else None
        except UsageError as error:  # reported before any other request: only a download gets here
            raise httpcore.UnsupportedProtocol(error.message) from None
        proxy = self._proxies.get(origin.scheme.decode())
        if proxy is None or is_near(origin):
            return httpcore.AsyncHTTPConnection(
                origin, context, keepalive_expiry=KEEPALIVE_SECONDS, network_backend=self._network
            )
        self._network.check_proxied(origin.host.decode())
        return httpcore.AsyncConnectionPool(
            context,
            proxy=proxy,
            max_connections=1,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=WatchedNetwork(),
        )

    async def aclose(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.aclose()


class WatchedNetwork(httpcore.AnyIOBackend):
    """httpcore's default network, with watched streams."""

    async def connect_tcp(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Watched(await super().connect_tcp(*args, **options))

    def check_proxied(self, host: str) -> None:
        """Check a host that is reached through a proxy."""


class ApiNetwork(WatchedNetwork):
    """The network of the API's own calls, which notes where the API is."""

    def __init__(self, hosts: AudioHosts) -> None:
        self._hosts = hosts

    async def connect_tcp(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        stream = await super().connect_tcp(*args, **options)
        peer = stream.get_extra_info("server_addr")
        if isinstance(peer, tuple):
            self._hosts.note_api(peer[0])
        return stream


class AudioNetwork(WatchedNetwork):
    """The network of downloads: looks a name up once, judges the addresses, and connects to one that it has judged.

    Raises AddressError beside httpcore's errors.
    """

    def __init__(self, hosts: AudioHosts) -> None:
        self._hosts = hosts

    async def connect_tcp(self, host: str, port: int, **options: Any) -> httpcore.AsyncNetworkStream:  # type: ignore[override]
        connect = partial(super().connect_tcp, port=port, **options)
        return await _first_connected(await self._permitted(host, port), connect)

    def check_proxied(self, host: str) -> None:
        """Judge the host as far as that is possible: the proxy looks up its name."""
        self._hosts.judge_name(host)

    async def _permitted(self, host: str, port: int) -> list[str]:
        """The permitted addresses of the host.

        Raises:
            AddressError: it has addresses, and none is permitted.
        """
        try:
            found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        permitted = [address for address in addresses if self._permits(host, address)][:MAX_ADDRESSES]
        if not permitted:
            self._hosts.judge(host, addresses[0])  # raises the reason
        return permitted

    def _permits(self, host: str, address: str) -> bool:
        try:
            self._hosts.judge(host, address)
        except AddressError:
            return False
        return True


async def _first_connected(
    addresses: Sequence[str], connect: Callable[[str], Awaitable[httpcore.AsyncNetworkStream]]
) -> httpcore.AsyncNetworkStream:
    """The first connection that succeeds; each attempt starts when the one before has failed or is slow."""
    streams: list[httpcore.AsyncNetworkStream] = []
    errors: list[Exception] = []

    async def attempt(address: str, failed: anyio.Event) -> None:
        try:
            streams.append(await connect(address))
            attempts.cancel_scope.cancel()
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            errors.append(error)
            failed.set()

    try:
        async with anyio.create_task_group() as attempts:
            for address in addresses:
                failed = anyio.Event()
                attempts.start_soon(attempt, address, failed)
                with anyio.move_on_after(_NEXT_ADDRESS_SECONDS):
                    await failed.wait()
        if not streams:
            raise errors[0]
        return streams.pop(0)
    finally:
        with anyio.CancelScope(shield=True):
            for surplus in streams:
                await surplus.aclose()


class _Watched(httpcore.AsyncNetworkStream):
    """A stream that is not reused after two answers to one request.

    The second answer, already read, would count as the answer to the next request: a create would get another item's
    task. httpcore reuses only connections that have nothing to read, but it sees only bytes still in the socket, so
    this stream reports itself as readable. An answer with a status line in its body merely costs a new connection.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._tls: ssl.SSLObject | None = stream.get_extra_info("ssl_object")
        self._status_lines = 0  # since something was last written
        self._end = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        data = await self._stream.read(max_bytes, timeout)
        seen = self._end + data
        self._status_lines += seen.count(_STATUS_LINE)
        self._end = seen[1 - len(_STATUS_LINE) :]
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's
        self._status_lines, self._end = 0, b""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Watched(await self._stream.start_tls(*args, **options))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and (self._status_lines > 1 or self._holds_more()):
            return True
        return self._stream.get_extra_info(info)

    def _holds_more(self) -> bool:
        """Whether TLS has buffered unread data or the end of the stream."""
        if self._tls is None:
            return False
        try:
            self._tls.read(1)
        except ssl.SSLError as error:
            return not isinstance(error, ssl.SSLWantReadError)
        return True


class _Body(httpx.AsyncByteStream):
    """The body as the stream type of httpx, which decodes it."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._answer.aiter_stream()


def _has_ended(connection: httpcore.AsyncHTTPConnection | httpcore.AsyncConnectionPool) -> bool:
    """Whether the other side has closed it or is about to. A proxied pool checks this itself."""
    if isinstance(connection, httpcore.AsyncConnectionPool):
        return False
    return connection.is_closed() or connection.has_expired()


def is_near(origin: httpcore.Origin) -> bool:
    """Whether NO_PROXY names the host, alone or with its port."""
    host = origin.host.decode()
    named = f"[{host}]" if ":" in host else host
    return any(map(proxy_bypass, (host, f"{named}:{origin.port}")))


def address(url: httpx.URL) -> httpcore.URL:
    """The URL in httpcore's type."""
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def named_proxies() -> dict[str, httpcore.Proxy]:
    """The environment's proxies by URL scheme; empty if NO_PROXY contains `*`.

    Raises:
        UsageError: one of them is unusable.
    """
    named = getproxies()
    if "*" in map(str.strip, named.get("no", "").split(",")):
        return {}
    found = {scheme: named.get(scheme) or named.get("all") for scheme in ("http", "https")}
    try:
        return {scheme: _proxy(url) for scheme, url in found.items() if url}
    except (ValueError, ImportError, httpx.InvalidURL):  # their messages may contain a proxy's password
        message = "the proxy set in the environment cannot be used"
        raise UsageError(message, "Check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY.") from None


def _proxy(url: str) -> httpcore.Proxy:
    proxy = httpx.Proxy(url if "://" in url else f"http://{url}")
    if proxy.url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ImportError("socksio")
    return httpcore.Proxy(address(proxy.url), auth=proxy.raw_auth, headers=proxy.headers.raw)


@functools.cache
def trusting() -> ssl.SSLContext:
    """The shared TLS context, created on first use: that takes 0.1 s or more.

    Raises:
        UsageError: SSL_CERT_FILE names a file without certificates.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # does not contain the file's name
        named = os.environ.get("SSL_CERT_FILE")
        if not named:
            raise
        message = f"cannot read certificates from {named} (SSL_CERT_FILE): {error.strerror}"
        raise UsageError(message, "Set SSL_CERT_FILE to a file of certificates in PEM format, or unset it.") from None
