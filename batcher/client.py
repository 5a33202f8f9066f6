"""The API over HTTP: create, read, profile, and the audio itself. The only importer of httpx.

Nothing is ever sent a second time here: no retry, no redirect, no renewed login. Each request keeps track of how far it
got, since a failure before its first byte left is harmless and the same failure afterwards may hide a purchase.
What the answers mean is in `batcher.answer`, whose names are to be had from here as well.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import math
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final, Self
from urllib.parse import quote

import anyio
import anyio.lowlevel
import httpx

from batcher.answer import (
    CREATE_RULES,
    READ_RULES,
    Answer,
    ApiError,
    Cause,
    Fetched,
    Phase,
    Profile,
    ProfileAnswer,
    Received,
    Task,
)
from batcher.errors import UsageError
from batcher.item import Inputs, canonical
from batcher.parsing import Reader, retry_after

__all__ = ["Answer", "ApiError", "Cause", "Client", "Endpoint", "Fetched", "Phase", "Profile", "ProfileAnswer", "Task"]

NEVER_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.LocalProtocolError,
)
"""What httpx raises about a request that did not leave. Whatever else it raises says nothing about that."""

USER_AGENT: Final = f"tts-batcher/{version('tts-batcher')} (+python-httpx)"
KEEPALIVE_SECONDS: Final = 3.5  # servers commonly close at 5, and a create that meets the close is a doubt
FETCH_SECONDS: Final = 30.0
ABORT_GRACE_SECONDS: Final = 0.25
MOST_BODY_BYTES: Final = 1 << 20
MOST_REDIRECTS: Final = 5

_URL: Final = re.compile(r"\w+://[^\s\"'<>]*")
_BROKEN: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    ssl.SSLError,
)
"""What can go wrong in a download. Other errors are the sink's and belong to the caller."""

for _name in ("httpx", "httpcore"):  # both print whole URLs
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API is, and the token for it, which no `repr` shows.

    Raises:
        UsageError: the URL is no plain http(s) address or is unencrypted without leave, or the token is unusable.
    """

    url: str
    token: str = field(repr=False)
    allow_http: bool = False
    no_credits_codes: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise UsageError(f"The API's URL cannot be read: {error}") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise UsageError("The API's URL must start with https:// and name a host.")
        if url.userinfo or "?" in self.url or "#" in self.url:
            raise UsageError("The API's URL may hold no user, query or fragment.", "The token is given separately.")
        if not self.permits(url):
            raise UsageError(f"The token would go to {url.host} unencrypted.", "Use https, or allow http explicitly.")
        if not re.fullmatch(r"[!-~]+", self.token):
            raise UsageError("The API token is empty or holds characters that no token has.", "Copy it once more.")

    @property
    def origin(self) -> str:
        """`scheme://host[:port]` in lower case, the port only where it is not the scheme's own."""
        url = httpx.URL(self.url)
        return f"{url.scheme}://{url.netloc.decode('ascii')}"

    def permits(self, url: httpx.URL) -> bool:
        """Whether `url` may be called: encrypted, on this machine, or http with the user's leave."""
        return url.scheme == "https" or (url.scheme == "http" and (self.allow_http or _is_loopback(url.host)))


class Client:
    """Speaks to one API. To be entered with `async with`; all its methods belong to one event loop.

    Args:
        create_connections: creates that can be in flight at once, as also for polls and downloads; more wait.
        now: the wall clock, in unix seconds, against which dates in answers are read.
        deadline_seconds: what any request but a download may take in all.
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
        self._base = endpoint.url.rstrip("/")
        self._reader = Reader(endpoint.origin, endpoint.token, endpoint.no_credits_codes)
        self._now = now
        self._deadline_seconds = deadline_seconds
        secure = httpx.URL(endpoint.url).scheme == "https"
        headers = {"Authorization": f"Bearer {endpoint.token}", "Accept": "application/json"}
        # httpx leaks a socket that is cancelled in its TLS handshake, so that has to time out before the deadline does.
        timeout = httpx.Timeout(None, connect=deadline_seconds / 4)
        # Nobody stands between this machine and itself: the token would go to a proxy in clear.
        proxied = not _is_loopback(httpx.URL(endpoint.url).host)
        self._creating = _Pool(create_connections, secure, headers, timeout, proxied=proxied)
        self._asking = _Pool(poll_connections, secure, headers, timeout, proxied=proxied)
        self._fetching = {
            scheme: _Pool(
                fetch_connections, scheme == "https", {"Accept": "*/*"}, httpx.Timeout(FETCH_SECONDS), proxied=proxied
            )
            for scheme in ("http", "https")
        }
        self._creates: set[_Exchange] = set()
        self._aborted = False

    async def __aenter__(self) -> Self:
        """Raises UsageError if a proxy that the environment names cannot be used."""
        self._creating.open()
        self._asking.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for pool in (self._creating, self._asking, *self._fetching.values()):
            await pool.aclose()

    @staticmethod
    def prepare(inputs: Inputs) -> bytes:
        """The body of the create for these inputs: the JSON that their key is made of."""
        return canonical(inputs.body())

    async def create(self, body: bytes, *, hold: Callable[[], bool]) -> Answer:
        """Sends one create, at most once, and says what came of it, whatever the network and the server do.

        `hold` is asked when everything is ready but the first byte; if it says yes, none leaves.
        """
        exchange = _Exchange(hold, -math.inf if self._aborted else self._deadline_seconds)
        self._creates.add(exchange)
        try:
            await self._run(exchange, self._creating, "POST", "/speech/tts/jobs", body)
        finally:
            self._creates.discard(exchange)
        return self._reader.answer(self._received(exchange), CREATE_RULES, self._now())

    async def read(self, task_id: str) -> Answer:
        """Asks about a task. Whatever kept the question from being answered is UNCLEAR, and safe to ask again."""
        exchange = _Exchange(_go_on, self._deadline_seconds)
        await self._run(exchange, self._asking, "GET", f"/speech/tts/jobs/{quote(task_id, safe='')}")
        return self._reader.answer(self._received(exchange), READ_RULES, self._now(), asked=task_id)

    async def profile(self) -> ProfileAnswer:
        """Asks about the account."""
        exchange = _Exchange(_go_on, self._deadline_seconds)
        await self._run(exchange, self._asking, "GET", "/profile")
        return self._reader.profile(self._received(exchange), self._now())

    def abort_creates(self) -> None:
        """Ends the creates under way: at once those that have not left, the others after a grace of 0.25 s.

        What has arrived by then is read. No create leaves afterwards.
        """
        self._aborted = True
        for exchange in self._creates:
            end_at = anyio.current_time() + ABORT_GRACE_SECONDS if exchange.left else -math.inf
            exchange.scope.deadline = min(exchange.scope.deadline, end_at)

    async def fetch(self, url: str, sink: Callable[[bytes], object]) -> Fetched:
        """Streams the audio at `url` into `sink`, without credentials. What the sink raises passes through.

        Up to 5 redirects are followed, each only to where the endpoint permits calls.
        """
        target: str | httpx.URL = url
        for _ in range(MOST_REDIRECTS + 1):
            outcome = await self._hop(target, sink)
            if isinstance(outcome, Fetched):
                return outcome
            target = outcome
        return Fetched(ok=False, reason=f"more than {MOST_REDIRECTS} redirects")

    async def _hop(self, target: str | httpx.URL, sink: Callable[[bytes], object]) -> Fetched | httpx.URL:
        """One request of a download: what came of it, or where it is redirected to."""
        status, got = None, 0
        try:
            url = httpx.URL(target)
            if not self._endpoint.permits(url):
                return Fetched(ok=False, reason=f"the audio is not offered over https by {url.host or 'any host'}")
            async with self._fetching[url.scheme].client() as client, client.stream("GET", url) as response:
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
        reason = _shortcoming(response, got)
        return Fetched(
            ok=reason is None,
            http_status=status,
            content_type=response.headers.get("Content-Type"),
            bytes=got,
            retry_after_seconds=retry_after(response.headers.get("Retry-After"), self._now()),
            reason=reason,
        )

    async def _run(self, exchange: _Exchange, pool: _Pool, method: str, path: str, body: bytes | None = None) -> None:
        """Sends one request and fills `exchange` with all that comes back before it ends or breaks off."""
        headers = None if body is None else {"Content-Type": "application/json"}
        sending: dict[str, Any] = {"content": body, "headers": headers, "extensions": {"trace": exchange.trace}}
        try:
            with exchange.scope:
                async with pool.client() as client, client.stream(method, self._base + path, **sending) as response:
                    await exchange.take(response)
        # How far the request had got decides what this means, whatever class it is of; none may escape unjudged.
        except Exception as error:  # noqa: BLE001
            exchange.error = error

    def _received(self, exchange: _Exchange) -> Received:
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


class _Exchange:
    """One request and what came of it, filled in while it happens so that a break loses nothing that had arrived."""

    def __init__(self, hold: Callable[[], bool], seconds: float) -> None:
        self.scope = anyio.CancelScope(deadline=anyio.current_time() + seconds)
        self.held = False
        self.left = False  # from here on a byte may be on its way
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.body = bytearray()
        self.whole = False
        self.error: Exception | None = None
        self._hold = hold
        self._head_sent = False

    @property
    def unsent(self) -> bool:
        """Whether it is certain that no server has seen the request."""
        return not self.left or (isinstance(self.error, NEVER_SENT) and not self._head_sent)

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Follows httpx on its way. A tunnel's CONNECT runs through here as well, but it isn't our request."""
        if event == "http11.send_request_headers.started" and info["request"].method != b"CONNECT":
            await anyio.lowlevel.checkpoint_if_cancelled()
            if self._hold():
                self.held = True
                raise _StopError("held back")
            self.left = True
        elif event == "http11.send_request_headers.complete" and self.left:
            self._head_sent = True

    async def take(self, response: httpx.Response) -> None:
        """Takes in the answer as it comes, up to the most that a body may have."""
        self.status, self.headers = response.status_code, response.headers
        async for chunk in response.aiter_bytes():
            self.body += chunk
            if len(self.body) > MOST_BODY_BYTES:
                raise _StopError(f"the answer is longer than {MOST_BODY_BYTES} bytes")
        self.whole = True


class _StopError(Exception):
    """We end an exchange ourselves."""


class _Pool:
    """Clients of one connection each, since httpx looks through a client's whole pool at every request.

    The one used last is lent first: its connection is the warmest, and the others may lapse.
    """

    def __init__(
        self, connections: int, secure: bool, headers: Mapping[str, str], timeout: httpx.Timeout, *, proxied: bool
    ) -> None:
        self._proxied = proxied
        self._slots = anyio.Semaphore(connections)
        self._idle: list[httpx.AsyncClient] = []
        self._all: list[httpx.AsyncClient] = []
        self._secure = secure
        self._headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        self._timeout = timeout

    def open(self) -> None:
        """Makes one more client. Raises UsageError if a proxy that the environment names cannot be used."""
        try:
            client = httpx.AsyncClient(
                verify=_trusting() if self._secure else _plain(),
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_SECONDS),
                headers=self._headers,
                timeout=self._timeout,
                follow_redirects=False,
                trust_env=self._proxied,
            )
        except (ValueError, ImportError, httpx.InvalidURL):  # the texts of these may show a proxy's password
            raise UsageError("The proxy that the environment names cannot be used.", "See HTTPS_PROXY.") from None
        self._all.append(client)
        self._idle.append(client)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Lends a client for one request, as soon as fewer are lent than there may be connections."""
        async with self._slots:
            if not self._idle:
                self.open()
            client = self._idle.pop()
            try:
                yield client
            finally:
                self._idle.append(client)

    async def aclose(self) -> None:
        for client in self._all:
            await client.aclose()


@functools.cache
def _plain() -> ssl.SSLContext:
    """What httpx wants for http, where it is never used."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@functools.cache
def _trusting() -> ssl.SSLContext:
    """The one context for all of https, made when first needed: it takes a tenth of a second and more."""
    return httpx.create_ssl_context()


def _go_on() -> bool:
    """The latch of a mere question."""
    return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _shortcoming(response: httpx.Response, got: int) -> str | None:
    """Why a finished download is no good, or None."""
    length = response.headers.get("Content-Length")
    if not response.is_success:
        return f"HTTP {response.status_code} from {response.url.host}"
    if length is not None and "Content-Encoding" not in response.headers and length != str(got):
        return f"{got} bytes where {length} were announced"
    return None
