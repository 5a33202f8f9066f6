"""The calls of the API.

Nothing is ever sent a second time here: no retry, no redirect, no renewed login.
"""

from __future__ import annotations

import logging
import math
import re
import ssl
import time
from collections.abc import Callable
from typing import Any, Final, Self
from urllib.parse import quote

import anyio
import httpx

from batcher.answer import CREATE_RULES, READ_RULES, Answer, Fetched, ProfileAnswer, Received, SchemaAnswer
from batcher.client.endpoint import Endpoint, is_loopback
from batcher.client.exchange import Exchange
from batcher.client.pool import Pool
from batcher.item import Inputs, canonical
from batcher.parsing import Reader, retry_after

FETCH_SECONDS: Final = 30.0
ABORT_GRACE_SECONDS: Final = 0.25
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
        proxied = not is_loopback(httpx.URL(endpoint.url).host)
        self._creating = Pool(create_connections, secure, headers, timeout, proxied=proxied)
        self._asking = Pool(poll_connections, secure, headers, timeout, proxied=proxied)
        self._fetching = {
            scheme: Pool(
                fetch_connections, scheme == "https", {"Accept": "*/*"}, httpx.Timeout(FETCH_SECONDS), proxied=proxied
            )
            for scheme in ("http", "https")
        }
        self._creates: set[Exchange] = set()
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
        exchange = Exchange(hold, -math.inf if self._aborted else self._deadline_seconds)
        self._creates.add(exchange)
        try:
            await self._run(exchange, self._creating, "POST", f"{self._base}/speech/tts/jobs", body)
        finally:
            self._creates.discard(exchange)
        return self._reader.answer(self._received(exchange), CREATE_RULES, self._now())

    async def read(self, task_id: str) -> Answer:
        """Asks about a task. Whatever kept the question from being answered is UNCLEAR, and safe to ask again."""
        exchange = Exchange(_go_on, self._deadline_seconds)
        await self._run(exchange, self._asking, "GET", f"{self._base}/speech/tts/jobs/{quote(task_id, safe='')}")
        return self._reader.answer(self._received(exchange), READ_RULES, self._now(), asked=task_id)

    async def profile(self) -> ProfileAnswer:
        """Asks about the account."""
        exchange = Exchange(_go_on, self._deadline_seconds)
        await self._run(exchange, self._asking, "GET", f"{self._base}/profile")
        return self._reader.profile(self._received(exchange), self._now())

    async def schema(self) -> SchemaAnswer:
        """Asks for the API's published description of itself, which lies at a fixed path of its origin."""
        exchange = Exchange(_go_on, self._deadline_seconds)
        await self._run(exchange, self._asking, "GET", f"{self._endpoint.origin}/api/openapi.json")
        return self._reader.schema(self._received(exchange))

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

    async def _run(self, exchange: Exchange, pool: Pool, method: str, url: str, body: bytes | None = None) -> None:
        """Sends one request and fills `exchange` with all that comes back before it ends or breaks off."""
        headers = None if body is None else {"Content-Type": "application/json"}
        sending: dict[str, Any] = {"content": body, "headers": headers, "extensions": {"trace": exchange.trace}}
        try:
            with exchange.scope:
                async with pool.client() as client, client.stream(method, url, **sending) as response:
                    await exchange.take(response)
        # How far the request had got decides what this means, whatever class it is of; none may escape unjudged.
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


def _go_on() -> bool:
    """The latch of a mere question."""
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
