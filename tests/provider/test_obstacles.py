"""What keeps a request from reaching the API, in words, and what to do about it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from batcher.errors import BatcherError
from batcher.pipeline.connection import profile_error
from batcher.provider.answers import Cause, ProfileAnswer
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint
from batcher.provider.failures import Obstacle
from tests.support.client_kit import TOKEN
from tests.support.raw_server import Connection, raw_server


async def _profile(origin: str, **how: Any) -> tuple[ProfileAnswer, BatcherError]:
    async with Client(Endpoint(origin, TOKEN), create_connections=1, **how) as client:
        answer = await client.profile()
    return answer, profile_error(answer, origin)


async def _plain(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 400 Speak plainly\r\n\r\n")
    await connection.until_gone()


async def _silent(connection: Connection) -> None:
    await connection.until_gone()


async def _leaving(connection: Connection) -> None:
    del connection


async def test_a_refused_connection() -> None:
    async with raw_server(_silent) as server:
        origin = server.origin
    answer, error = await _profile(origin)
    assert (answer.cause, answer.obstacle) == (Cause.UNSENT, Obstacle.REFUSED)
    assert error.message == f"cannot reach the API at {origin} (connection refused)"
    assert "check --api-url" in error.hint


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (socket.EAI_NONAME, "unknown host name"),
        (socket.EAI_AGAIN, "cannot look up the host name: Temporary failure in name resolution"),
    ],
)
async def test_a_host_whose_name_is_not_found(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def look_up(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(number, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    answer, error = await _profile("https://api.test")
    assert (answer.cause, answer.obstacle) == (Cause.UNSENT, Obstacle.UNKNOWN_HOST)
    assert error.message.lower() == f"cannot reach the api at https://api.test ({words})".lower()
    assert "spelling" in error.hint


async def test_a_host_that_does_not_answer() -> None:
    async with raw_server(_silent) as server:
        answer, error = await _profile(server.origin.replace("http:", "https:"), deadline_seconds=0.4)
    assert (answer.cause, answer.obstacle) == (Cause.UNSENT, Obstacle.TIMEOUT)
    assert error.message.endswith("(connection timed out)")
    assert "firewall" in error.hint


@pytest.mark.parametrize(
    ("script", "words"),
    [(_plain, "(TLS failed: wrong version number)"), (_leaving, "(TLS failed: the connection was ")],
)
async def test_a_host_that_does_not_speak_tls(script: Callable[..., Any], words: str) -> None:
    async with raw_server(script) as server:
        answer, error = await _profile(server.origin.replace("http:", "https:"))
    assert (answer.cause, answer.obstacle) == (Cause.UNSENT, Obstacle.TLS)
    assert words in error.message
    assert "http://" in error.hint


async def test_a_certificate_that_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a proxy that opens TLS."""

    async def fail(*_: Any, **__: Any) -> Any:
        error = ssl.SSLCertVerificationError(
            1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed"
        )
        error.verify_message = "self-signed certificate"
        raise error

    monkeypatch.setattr("anyio.streams.tls.TLSStream.wrap", fail)
    async with raw_server(_silent) as server:
        answer, error = await _profile(server.origin.replace("http:", "https:"))
    assert (answer.cause, answer.obstacle) == (Cause.UNSENT, Obstacle.CERTIFICATE)
    assert error.message.endswith("(TLS certificate rejected: self-signed certificate)")
    assert "SSL_CERT_FILE" in error.hint


async def test_an_answer_that_breaks_off_is_no_obstacle() -> None:
    """The request has reached the API."""

    async def broken(connection: Connection) -> None:
        await connection.request()
        connection.reset()

    async with raw_server(broken) as server:
        answer, error = await _profile(server.origin)
    assert (answer.cause, answer.obstacle) == (Cause.UNCLEAR, None)
    assert "cannot read the account's profile" in error.message
