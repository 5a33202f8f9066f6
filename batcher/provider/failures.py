"""Why a request got no answer: the errors of sockets, TLS and the name service in words for people."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import anyio
import httpcore


class Obstacle(StrEnum):
    """What keeps a request from reaching the API, as far as that decides what to do about it."""

    REFUSED = "refused"
    UNKNOWN_HOST = "unknown_host"
    TIMEOUT = "timeout"
    CERTIFICATE = "certificate"
    TLS = "tls"
    NETWORK = "network"


_NOT_THERE: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_NO_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})
"""Errors of one kind of address (such as IPv6) on a machine that has only the other."""
_CONNECTING: Final = (httpcore.ConnectError, httpcore.ConnectTimeout)


def describe(error: Exception) -> str:
    """The class of the error, and what happened: `ConnectError: connection refused`."""
    return f"{type(error).__name__}: {_words(error)}".rstrip(": ")


def obstacle(error: Exception | None) -> Obstacle | None:
    """What kept a request from reaching its host. None if the error came later, or for another reason."""
    if not isinstance(error, _CONNECTING):
        return None
    cause = _root(error)
    if isinstance(error, httpcore.ConnectTimeout) or isinstance(cause, TimeoutError):
        return Obstacle.TIMEOUT
    if isinstance(cause, ConnectionRefusedError):
        return Obstacle.REFUSED
    if isinstance(cause, socket.gaierror):
        return Obstacle.UNKNOWN_HOST
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Obstacle.CERTIFICATE
    if isinstance(cause, ssl.SSLError | anyio.EndOfStream):
        return Obstacle.TLS
    return Obstacle.NETWORK


def _words(error: Exception) -> str:
    cause = _root(error)
    if isinstance(error, httpcore.ConnectTimeout):
        return str(error) or "connection timed out"
    if isinstance(cause, socket.gaierror):
        is_unknown = cause.errno in _NOT_THERE
        return "unknown host name" if is_unknown else f"cannot look up the host name: {_sentence(cause.strerror)}"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"TLS certificate rejected: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return f"TLS failed: {cause.reason.replace('_', ' ').lower()}"
    if isinstance(error, httpcore.ConnectError) and isinstance(cause, anyio.EndOfStream):
        return "TLS failed: the connection was closed"
    if isinstance(cause, OSError) and cause.errno:
        return _sentence(os.strerror(cause.errno))  # its own text may be that of the event loop
    return str(error)


def _root(error: BaseException) -> BaseException:
    """The error that began it all; of several addresses of a host, that of one that there is a route to."""
    *_, last = _chain(error)
    return last


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        if isinstance(found, BaseExceptionGroup):
            found = min(found.exceptions, key=lambda one: getattr(one, "errno", None) in _NO_ROUTE)
        else:
            found = found.__cause__


def _sentence(text: str | None) -> str:
    """The text of an error of the operating system as part of a sentence."""
    return "" if not text else text[0].lower() + text[1:] if text[1:2].islower() else text
