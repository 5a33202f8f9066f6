"""The API's address and token."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

import httpx

from batcher.errors import UsageError


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The API's URL and the token for it, which `repr` does not show.

    Raises:
        UsageError: the URL is not a plain http(s) address or must be https, or the token is invalid.
    """

    url: str
    token: str = field(repr=False)
    allow_http: bool = False
    no_credits_codes: frozenset[str] = frozenset()
    audio_hosts: frozenset[str] = frozenset()  # hosts of audio that are permitted wherever they are

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
            url.host  # noqa: B018 - a name that is not valid in IDNA shows only here
        except (httpx.InvalidURL, ValueError) as error:
            raise UsageError(f"the API URL is invalid: {error}") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise UsageError("the API URL must start with https:// and contain a host")
        if url.userinfo or "?" in self.url or "#" in self.url:
            raise UsageError("the API URL must not contain a user, query or fragment", "Pass the token separately.")
        if url.scheme == "http" and not self.allow_http and not is_loopback(url.host):
            raise UsageError(f"the token would be sent to {url.host} unencrypted", "Use https, or pass --allow-http.")
        if not re.fullmatch(r"[!-~]+", self.token):
            raise UsageError("the API token is empty or contains invalid characters", "Copy it again.")

    @property
    def origin(self) -> str:
        """`scheme://host[:port]` in lower case, without the scheme's default port."""
        url = httpx.URL(self.url)
        return f"{url.scheme}://{url.netloc.decode('ascii')}"


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
