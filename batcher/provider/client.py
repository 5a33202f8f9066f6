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
from batcher.provider.answers import CREATE_RULES, READ_RULES, Answer, Fetched, ProfileAnswer, Received, SchemaAnswer
from batcher.provider.catalogue import CatalogueAnswer
from batcher.provider.connections import Headers, Pool, address, named_proxies, trusting
from batcher.provider.endpoint import Endpoint, is_loopback
from batcher.provider.exchange import Exchange
from batcher.provider.parsing import Reader, retry_after

FETCH_SECONDS: Final = 30.0
ABORT_GRACE_SECONDS: Final = 0.25
MAX_REDIRECTS: Final = 5

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
    httpx.DecodingError,
    httpx.InvalidURL,
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
        deadline_seconds: float = 60.0,
    ) -> None:
        self._endpoint = endpoint
        self._base = httpx.URL(endpoint.url.rstrip("/"))
        self._reader = Reader(endpoint.origin, endpoint.token, endpoint.no_credits_codes)
        self._now = now
        self._deadline_seconds = deadline_seconds
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
        self._create_pool = Pool(create_connections, headers, timeouts, proxies)
        self._poll_pool = Pool(poll_connections, headers, timeouts, proxies)
        timeouts = dict.fromkeys(("connect", "read", "write"), FETCH_SECONDS)
        self._download_pool = Pool(fetch_connections, [(b"Accept", b"*/*")], timeouts, proxies)
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

    async def fetch(self, url: str, sink: Callable[[bytes], object]) -> Fetched:
        """Streams the audio at `url` into `sink`, without credentials. Errors of the sink propagate.

        Follows up to 5 redirects, each only to addresses that the endpoint permits.
        """
        target: str | httpx.URL = url
        for _ in range(MAX_REDIRECTS + 1):
            outcome = await self._hop(target, sink)
            if isinstance(outcome, Fetched):
                return outcome
            target = outcome
        return Fetched(ok=False, reason=f"more than {MAX_REDIRECTS} redirects")

    async def _hop(self, target: str | httpx.URL, sink: Callable[[bytes], object]) -> Fetched | httpx.URL:
        """One request of a download: its outcome, or the address that it redirects to."""
        status, got = None, 0
        try:
            url = httpx.URL(target)
            if not self._endpoint.permits(url):
                return Fetched(ok=False, reason=f"the audio URL ({url.host or 'no host'}) is not https")
            async with self._download_pool.send("GET", address(url), [(b"Host", url.netloc)]) as response:
                status = response.status_code
                if response.has_redirect_location:
                    return url.join(response.headers["Location"])
                if response.is_success:
                    async for chunk in response.aiter_bytes():
                        got += len(chunk)
                        sink(chunk)
        except _BROKEN as error:
            why = _URL.sub("[URL]", self._reader.clean(_describe(error)))
            return Fetched(ok=False, http_status=status, bytes=got, reason=why)
        reason = _defect(response, url.host, got)
        return Fetched(
            ok=reason is None,
            http_status=status,
            content_type=response.headers.get("Content-Type"),
            bytes=got,
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
        transport: str | None = None
        if exchange.error is not None and not exchange.whole:
            transport = self._reader.clean(_describe(exchange.error))
        elif not exchange.whole:
            transport = f"aborted or not complete within {self._deadline_seconds:g} s"
        return Received(
            unsent=exchange.unsent,
            held=exchange.held,
            whole=exchange.whole,
            status=exchange.status,
            headers=exchange.headers,
            body=bytes(exchange.body),
            transport=transport,
        )


def _never_held() -> bool:
    """The latch of requests that cannot buy anything: never held."""
    return False


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _defect(response: httpx.Response, host: str, got: int) -> str | None:
    """Why a finished download is unusable. None if it is fine."""
    length = response.headers.get("Content-Length")
    if not response.is_success:
        return f"HTTP {response.status_code} from {host}"
    if length is not None and "Content-Encoding" not in response.headers and length != str(got):
        return f"{got} bytes arrived, Content-Length is {length}"
    return None
