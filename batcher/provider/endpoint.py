"""Where the API is, and where nothing may go."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

import httpx

from batcher.errors import UsageError


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
            raise UsageError(f"The token would go to {url.host} unencrypted.", "Use https, or pass --allow-http.")
        if not re.fullmatch(r"[!-~]+", self.token):
            raise UsageError("The API token is empty or holds characters that no token has.", "Copy it once more.")

    @property
    def origin(self) -> str:
        """`scheme://host[:port]` in lower case, the port only where it is not the scheme's own."""
        url = httpx.URL(self.url)
        return f"{url.scheme}://{url.netloc.decode('ascii')}"

    def permits(self, url: httpx.URL) -> bool:
        """Whether `url` may be called: encrypted, on this machine, or http with the user's leave."""
        return url.scheme == "https" or (url.scheme == "http" and (self.allow_http or is_loopback(url.host)))


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
