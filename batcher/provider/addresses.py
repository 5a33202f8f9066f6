"""Which hosts audio may be downloaded from: the API names them, so they must not reach into the user's network."""

from __future__ import annotations

import ipaddress
import socket
from enum import StrEnum
from typing import Final

import httpx

from batcher.provider.limits import MAX_URL_CHARACTERS

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_SITE_LOCAL: Final = ipaddress.IPv6Network("fec0::/10")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")  # an obsolete form of IPv4 addresses
_PRIVATE: Final = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)


class AddressError(Exception):
    """Audio must not be downloaded from this address. The message contains no URL."""


class Range(StrEnum):
    """Where an address is. Only public ones may be reached without permission."""

    PUBLIC = "at a public address"
    LOOPBACK = "on this machine"
    PRIVATE = "in a private network"
    LINK_LOCAL = "on the local link"
    SPECIAL = "in a reserved range"


class AudioHosts:
    """Judges the addresses of audio.

    Permitted are public addresses, those in the same range as the API itself, and hosts that the user has named in
    `allowed` (names or addresses). Plain HTTP is permitted only if the API uses it.
    """

    def __init__(self, api: httpx.URL, allowed: frozenset[str]) -> None:
        self._schemes = ("https",) if api.scheme == "https" else ("https", "http")
        self._allowed = frozenset(map(_plain, allowed))
        literal = Range.LOOPBACK if api.host == "localhost" else _range_of_literal(api.host)
        self._ranges = {Range.PUBLIC} | ({literal} if literal is not None else set())

    def note_api(self, address: str) -> None:
        """The API was reached at this address: audio may be in its range."""
        if (parsed := _parsed(address)) is not None:
            self._ranges.add(range_of(parsed))

    def url(self, text: str, base: httpx.URL | None = None) -> httpx.URL:
        """Parse the URL of audio, which may be relative to `base`. The address behind its name is judged later.

        Raises:
            AddressError: it cannot be read, is too long, or has a scheme that is not permitted.
        """
        if len(text) > MAX_URL_CHARACTERS:
            raise AddressError(f"the audio URL has more than {MAX_URL_CHARACTERS:,} characters")
        try:
            url = httpx.URL(text) if base is None else base.join(text)
            scheme, host, _ = url.scheme, url.host, url.port
        except (httpx.InvalidURL, ValueError) as error:  # a name that is not valid in IDNA is a ValueError
            raise AddressError("the audio URL cannot be read") from error
        if not host or scheme not in ("https", "http"):
            raise AddressError(
                f"the audio URL is not https but {scheme:.20}" if scheme else "the audio URL has no host"
            )
        if scheme not in self._schemes:
            raise AddressError(f"the audio URL ({host}) is not https")
        return url

    def judge(self, host: str, address: str) -> None:
        """Check the address to which the name `host` leads.

        Raises:
            AddressError: audio must not be downloaded from there.
        """
        parsed = _parsed(address)
        where = Range.SPECIAL if parsed is None else range_of(parsed)
        if where not in self._ranges and _plain(host) not in self._allowed and _plain(address) not in self._allowed:
            named = host if _plain(host) == _plain(address) else f"{host} ({address})"
            raise AddressError(
                f"the audio host {named} is {where}, not at a public address; --allow-audio-host {host} would permit it"
            )

    def judge_name(self, host: str) -> None:
        """Check a host that a proxy will look up: only an address in its place can be judged.

        Raises:
            AddressError: audio must not be downloaded from there.
        """
        literal = "127.0.0.1" if _plain(host) == "localhost" else _literal(host)
        if literal is not None:
            self.judge(host, literal)


def range_of(address: _Address) -> Range:
    """The range of an address; an IPv6 address that stands for an IPv4 address is in the range of that."""
    address = _embedded(address)
    if address.is_loopback:
        return Range.LOOPBACK
    if address.is_link_local:
        return Range.LINK_LOCAL
    if any(address in network for network in _PRIVATE):
        return Range.PRIVATE
    is_special = address.is_multicast or address.is_unspecified or address.is_reserved or not address.is_global
    return Range.SPECIAL if is_special or address in _SITE_LOCAL else Range.PUBLIC


def _embedded(address: _Address) -> _Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    mapped = address.ipv4_mapped or address.sixtofour
    if mapped is not None:
        return mapped
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.teredo[1] if address.teredo is not None else address


def _literal(host: str) -> str | None:
    """The address that a host is in itself, also in the old forms of IPv4: octal, hexadecimal, a single number."""
    plain = _plain(host)
    if _parsed(plain) is not None:
        return plain
    try:
        return socket.inet_ntoa(socket.inet_aton(plain))
    except (OSError, ValueError):  # a NUL is a ValueError, and so is what ASCII lacks
        return None


def _range_of_literal(host: str) -> Range | None:
    parsed = None if (literal := _literal(host)) is None else _parsed(literal)
    return None if parsed is None else range_of(parsed)


def _parsed(address: str) -> _Address | None:
    try:
        return ipaddress.ip_address(address.partition("%")[0])  # without the interface of a link-local address
    except ValueError:
        return None


def _plain(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")
