"""The connections that requests go over."""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Final

import anyio
import httpx

from batcher.errors import UsageError

USER_AGENT: Final = f"tts-batcher/{version('tts-batcher')} (+python-httpx)"
KEEPALIVE_SECONDS: Final = 3.5  # servers commonly close at 5, and a create that meets the close is a doubt


class Pool:
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
                verify=trusting() if self._secure else _plain(),
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
        """Closes all of them."""
        for client in self._all:
            await client.aclose()


@functools.cache
def _plain() -> ssl.SSLContext:
    """What httpx wants for http, where it is never used."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@functools.cache
def trusting() -> ssl.SSLContext:
    """The one context for all of https, made when first needed: it takes a tenth of a second and more."""
    return httpx.create_ssl_context()
