"""The API's calls. Each request is sent at most once: no retries, no redirects, no renewed login."""

from __future__ import annotations

import logging
import math
import re
import ssl
import time
from collections.abc import Callable
from typing import Final, Self
from urllib.parse import quote, urlencode

import anyio
import httpcore
import httpx

from batcher.item import Inputs, canonical
from batcher.provider.addresses import AddressError, AudioHosts
from batcher.provider.answers import CREATE_RULES, READ_RULES, Answer, Fetched, ProfileAnswer, Received, SchemaAnswer
from batcher.provider.catalogue import CatalogueAnswer
from batcher.provider.codings import CodingError, Decoder
from batcher.provider.connections import (
    ApiNetwork,
    AudioNetwork,
    Headers,
    Pool,
    address,
    named_proxies,
    trusting,
)
from batcher.provider.endpoint import Endpoint, is_loopback
from batcher.provider.exchange import Exchange
from batcher.provider.failures import describe, obstacle
from batcher.provider.limits import MAX_REDIRECTS, REQUEST_SECONDS, DownloadLimits
from batcher.provider.parsing import Reader, retry_after

ABORT_GRACE_SECONDS: Final = 0.25

_NO_HEADERS: Final[Headers] = ()
_JSON: Final[Headers] = ((b"Content-Type", b"application/json"),)
_URL: Final = re.compile(r"\w+://[^\s\"'<>]*")
_BROKEN: Final = (
    httpcore.ConnectionNotAvailable,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    ssl.SSLError,
)
"""Errors of a download itself. Others come from the sink and belong to the caller."""

for _name in ("httpx", "httpcore"):  # both print whole URLs
    logging.getLogger(_name).setLevel(logging.WARNING)


class Client:
    """A client for one API. Use it with `async with`, within one event loop.

    Args:
        create_connections: maximum creates in flight at once (likewise for polls and downloads); more wait.
        now: the wall clock, in unix seconds, to which dates in answers are compared.
        deadline_seconds: total time limit of any request except a download.
        downloads: the limits of a download.

    Raises:
        UsageError: the environment names a proxy or certificates that cannot be used.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        create_connections: int,
        poll_connections: int = 8,
        fetch_connections: int = 4,
        now: Callable[[], float] = time.time,
        deadline_seconds: float = REQUEST_SECONDS,
        downloads: DownloadLimits | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._base = httpx.URL(endpoint.url.rstrip("/"))
        self._reader = Reader(endpoint.origin, endpoint.token, endpoint.no_credits_codes)
        self._now = now
        self._deadline_seconds = deadline_seconds
        self._downloads = downloads or DownloadLimits()
        self._hosts = AudioHosts(self._base, endpoint.audio_hosts)
        if self._base.scheme == "https":
            trusting()
        # No proxy for this machine itself: it would receive the token unencrypted.
        proxies = {} if is_loopback(self._base.host) else named_proxies()
        headers = [
            (b"Host", self._base.netloc),
            (b"Accept", b"application/json"),
            (b"Authorization", f"Bearer {endpoint.token}".encode()),
        ]
        # Cancelling a TLS handshake leaks its socket, so the connect timeout must end it before the deadline does.
        timeouts = {"connect": deadline_seconds / 4}
        network = ApiNetwork(self._hosts)
        self._create_pool = Pool(create_connections, headers, timeouts, proxies, network)
        self._poll_pool = Pool(poll_connections, headers, timeouts, proxies, network)
        timeouts = dict.fromkeys(("connect", "read", "write"), self._downloads.window_seconds)
        accept = [(b"Accept", b"*/*")]
        self._download_pool = Pool(fetch_connections, accept, timeouts, proxies, AudioNetwork(self._hosts))
        self._creates: set[Exchange] = set()
        self._aborted = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for pool in (self._create_pool, self._poll_pool, self._download_pool):
            await pool.aclose()

    @staticmethod
    def prepare(inputs: Inputs) -> bytes:
        """The body of the create request for these inputs: the JSON from which their key is computed."""
        return canonical(inputs.body())

    async def create(self, body: bytes, *, hold: Callable[[], bool]) -> Answer:
        """Sends one create, at most once, and returns its outcome; never raises for the network or the server.

        `hold` is called just before the first byte is sent; if it returns True, nothing is sent.
        """
        exchange = Exchange(hold, -math.inf if self._aborted else self._deadline_seconds)
        self._creates.add(exchange)
        try:
            await self._run(exchange, self._create_pool, "POST", self._below("/speech/tts/jobs"), body)
        finally:
            self._creates.discard(exchange)
        return self._reader.answer(self._received(exchange), CREATE_RULES, self._now())

    async def read(self, task_id: str) -> Answer:
        """Polls a task. Any failure is UNCLEAR and safe to repeat."""
        received = await self._get(self._below(f"/speech/tts/jobs/{quote(task_id, safe='')}"))
        return self._reader.answer(received, READ_RULES, self._now(), asked=task_id)

    async def profile(self) -> ProfileAnswer:
        """Reads the account."""
        return self._reader.profile(await self._get(self._below("/profile")), self._now())

    async def schema(self) -> SchemaAnswer:
        """Reads the API's published OpenAPI schema, which is at a fixed path of its origin."""
        return self._reader.schema(await self._get(self._at_origin("/api/openapi.json")))

    async def voices(self, *, search: str = "", limit: int = 100, offset: int = 0) -> CatalogueAnswer:
        """Reads a page of the list of voices, all or those that match `search`."""
        query = {"search": search} if search else {}
        path = f"/voices?{urlencode(query | {'limit': limit, 'offset': offset})}"
        return self._reader.catalogue(await self._get(self._below(path)))

    async def voice(self, path: str, voice_id: str) -> CatalogueAnswer:
        """Reads one voice, at a `path` of `CataloguePaths`."""
        target = path.replace("{}", quote(voice_id, safe=""))
        return self._reader.catalogue(await self._get(self._at_origin(target)))

    async def models(self, path: str) -> CatalogueAnswer:
        """Reads the models, at a `path` of `CataloguePaths`."""
        return self._reader.catalogue(await self._get(self._at_origin(path)))

    async def _get(self, url: httpcore.URL) -> Received:
        exchange = Exchange(_never_held, self._deadline_seconds)
        await self._run(exchange, self._poll_pool, "GET", url)
        return self._received(exchange)

    def abort_creates(self) -> None:
        """Ends the creates in progress: unsent ones immediately, the others after 0.25 s.

        Answers that have arrived by then count. No create is sent afterwards.
        """
        self._aborted = True
        for exchange in self._creates:
            end_at = anyio.current_time() + ABORT_GRACE_SECONDS if exchange.left else -math.inf
            exchange.scope.deadline = min(exchange.scope.deadline, end_at)

    async def fetch(self, url: str, sink: Callable[[bytes], object], *, chars: int = 0) -> Fetched:
        """Streams the audio at `url`, of a text of `chars` characters, into `sink`, without credentials.

        Follows up to 5 redirects, each only to an address that is permitted. Errors of the sink propagate.
        """
        download = _Download(sink, self._downloads, chars)
        try:
            with download.scope:
                target = self._hosts.url(url)
                for _ in range(MAX_REDIRECTS + 1):
                    outcome = await self._hop(target, download)
                    if isinstance(outcome, Fetched):
                        return outcome
                    target = outcome
                raise AddressError(f"more than {MAX_REDIRECTS} redirects")
        except (AddressError, CodingError) as error:
            reason = str(error)
        except _BROKEN as error:
            reason = _URL.sub("[URL]", self._reader.clean(describe(error)))
        else:
            reason = download.why_late()
        return Fetched(
            ok=False, http_status=download.status, bytes=download.bytes, reason=reason, is_late=download.is_late
        )

    async def _hop(self, url: httpx.URL, download: _Download) -> Fetched | httpx.URL:
        """One request of a download: its outcome, or the address that it redirects to."""
        async with self._download_pool.send("GET", address(url), [(b"Host", url.netloc)]) as response:
            if response.has_redirect_location:
                return self._hosts.url(response.headers["Location"], base=url)
            download.status = response.status_code
            if response.status_code == httpx.codes.OK:
                await download.take(response)
        reason = _defect(response, url.host, download)
        return Fetched(
            ok=reason is None,
            http_status=response.status_code,
            content_type=response.headers.get("Content-Type"),
            bytes=download.bytes,
            is_whole=_is_framed(response),
            retry_after_seconds=retry_after(response.headers.get("Retry-After"), self._now()),
            reason=reason,
        )

    def _below(self, path: str) -> httpcore.URL:
        """The URL of a path of the API."""
        base = self._base
        target = base.raw_path.rstrip(b"/") + path.encode("ascii")
        return httpcore.URL(scheme=base.raw_scheme, host=base.raw_host, port=base.port, target=target)

    def _at_origin(self, path: str) -> httpcore.URL:
        """The URL of a path of the API's origin."""
        return address(self._base.copy_with(raw_path=quote(path, safe="/%:@!$&'()*+,;=~-._").encode("ascii")))

    async def _run(
        self, exchange: Exchange, pool: Pool, method: str, url: httpcore.URL, body: bytes | None = None
    ) -> None:
        """Sends one request and stores in `exchange` what comes back before it ends or breaks."""
        headers = _NO_HEADERS if body is None else [*_JSON, (b"Content-Length", b"%d" % len(body))]
        try:
            with exchange.scope:
                async with pool.send(method, url, headers, body, exchange.trace) as response:
                    await exchange.take(response)
        # How far the request got, not the class of the error, decides what this means. None may escape.
        except Exception as error:  # noqa: BLE001
            exchange.error = error

    def _received(self, exchange: Exchange) -> Received:
        body, undecoded = exchange.body()
        transport: str | None = None
        if exchange.error is not None and not exchange.whole:
            transport = self._reader.clean(describe(exchange.error))
        elif not exchange.whole:
            transport = f"aborted or not complete within {self._deadline_seconds:g} s"
        return Received(
            unsent=exchange.unsent,
            held=exchange.held,
            whole=exchange.whole and undecoded is None,
            status=exchange.status,
            headers=exchange.headers,
            body=body,
            transport=transport or undecoded,
            obstacle=obstacle(exchange.error),
        )


class _Download:
    """The progress of one download through its redirects, against its limits."""

    def __init__(self, sink: Callable[[bytes], object], limits: DownloadLimits, chars: int) -> None:
        self.status: int | None = None
        self.arrived = 0
        """Bytes of the body as they arrived, in its content coding."""
        self.bytes = 0
        """Bytes that reached the sink."""
        self._sink = sink
        self._limits = limits
        self._seconds = limits.deadline_seconds(chars)
        self._ends_at = anyio.current_time() + self._seconds
        self._in_window = 0
        self.scope = anyio.CancelScope()
        self._begin_window()

    async def take(self, response: httpx.Response) -> None:
        """Pass the decoded body on as it arrives.

        Raises:
            CodingError: its content coding is refused, or wrong, or not complete.
        """
        decoder = Decoder(response.headers.get("Content-Encoding"))
        async for chunk in response.aiter_raw():
            self.arrived += len(chunk)
            for piece in decoder.feed(chunk):
                self._sink(piece)
                self.bytes += len(piece)
            self._in_window += len(chunk)
            if self._in_window >= self._limits.window_seconds * self._limits.bytes_per_second:
                self._begin_window()
        decoder.end()

    def _begin_window(self) -> None:
        self._in_window = 0
        self.scope.deadline = min(self._ends_at, anyio.current_time() + self._limits.window_seconds)

    @property
    def is_late(self) -> bool:
        """Whether the total deadline has passed."""
        return anyio.current_time() >= self._ends_at

    def why_late(self) -> str:
        """Why the scope has ended the download."""
        if self.is_late:
            return f"not complete within {self._seconds:g} s ({self.bytes:,} bytes arrived)"
        window, least = self._limits.window_seconds, self._limits.bytes_per_second
        return f"slower than {least:,.0f} bytes a second for {window:g} s ({self.bytes:,} bytes arrived)"


def _never_held() -> bool:
    """The latch of requests that cannot buy anything: never held."""
    return False


def _defect(response: httpx.Response, host: str, download: _Download) -> str | None:
    """Why a finished download is unusable. None if it is fine."""
    length = response.headers.get("Content-Length")
    if response.status_code != httpx.codes.OK:
        return f"HTTP {response.status_code} from {host}"
    if length is not None and length != str(download.arrived):
        return f"{download.arrived} bytes arrived, Content-Length is {length}"
    return None


def _is_framed(response: httpx.Response) -> bool:
    """Whether HTTP shows where the body ends. Otherwise it ends where the connection does, or breaks."""
    headers = response.headers
    return "Content-Length" in headers or "chunked" in headers.get("Transfer-Encoding", "").lower()
