"""The client: latch, abort, the requests it sends, the audio it fetches."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import anyio
import httpcore
import pytest

from batcher.item import Event, Inputs
from batcher.provider.answers import Answer, Cause
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint
from batcher.provider.exchange import Exchange
from tests.support.client_kit import ID, LONG, TOKEN, breaking, go, speaking
from tests.support.raw_server import Connection, RawServer, Script, answering, http, raw_server


async def test_a_raised_latch_lets_no_byte_of_a_create_out() -> None:
    """The connection stands already when the client checks the latch."""
    seen = asyncio.get_running_loop().create_future()

    async def script(connection: Connection) -> None:
        seen.set_result(await connection.until_gone())

    async with speaking(script) as (client, server):
        answer = await client.create(b"{}", hold=lambda: True)
        assert (answer.cause, answer.event) == (Cause.HELD, Event.DEFERRED)
        assert (await seen, server.connections) == (b"", 1)


async def test_the_latch_is_checked_on_a_reused_connection_too() -> None:
    """The client works on after a create that the latch held."""
    ups = iter((False, True, False))
    async with speaking(answering(http(202, ID)), create_connections=1) as (client, server):
        causes = [(await client.create(b"{}", hold=lambda: next(ups))).cause for _ in range(3)]
        assert causes == [Cause.OK, Cause.HELD, Cause.OK]
        assert len(server.requests) == 2


async def test_a_create_cancelled_just_before_its_first_byte_is_unsent() -> None:
    """It is not in doubt, and the latch is not asked."""
    exchange = Exchange(lambda: pytest.fail("the latch was asked"), 60.0)
    with exchange.scope:
        exchange.scope.cancel()
        await exchange.trace("http11.send_request_headers.started", {"request": httpcore.Request("POST", "http://x")})
    assert exchange.unsent


async def test_an_abort_waits_briefly_for_answers_and_sends_nothing_more() -> None:
    """On a second signal, an answer within the grace period counts, a partial one is recorded, a queued create stays
    unsent.
    """
    arrived = 0
    all_in = asyncio.Event()

    async def script(connection: Connection) -> None:
        nonlocal arrived
        which = await connection.request()
        arrived += 1
        if arrived == 2:
            all_in.set()
        if b"soon" in which:
            await all_in.wait()
            await asyncio.sleep(0.05)
            await connection.send(http(202, ID))
        else:
            await connection.send(LONG + ID[:9])
        await connection.until_gone()

    answers: dict[bytes, Answer] = {}
    async with speaking(script) as (client, server):

        async def one(body: bytes) -> None:
            answers[body] = await client.create(body, hold=go)

        async with anyio.create_task_group() as group:
            for body in (b"soon", b"half", b"queued"):
                group.start_soon(one, body)
            await all_in.wait()
            started_at = time.monotonic()
            client.abort_creates()
            await one(b"late")
        assert time.monotonic() - started_at < 2.0
    assert {body: answer.cause for body, answer in answers.items()} == {
        b"soon": Cause.OK,
        b"half": Cause.UNCLEAR,
        b"queued": Cause.UNSENT,
        b"late": Cause.UNSENT,
    }
    assert answers[b"half"].raw == ID[:9]
    assert len(server.requests) == 2


async def test_polls_go_on_after_an_abort() -> None:
    async with speaking(answering(http(200, ID))) as (client, _):
        client.abort_creates()
        assert (await client.read("t1")).cause is Cause.OK


async def test_a_create_is_one_post_with_token_json_and_user_agent() -> None:
    body = Client.prepare(Inputs(text="Grüße", voice="v", model="m", format="wav", params={"speed": 1.0}))
    assert json.loads(body) == {"text": "Grüße", "voiceId": "v", "engineModelId": "m", "format": "wav", "speed": 1}
    async with speaking(answering(http(202, ID))) as (client, server):
        await client.create(body, hold=go)
    head, sent = server.requests[0].split(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /api/open/v1/speech/tts/jobs http/1.1"
    assert {f"authorization: bearer {TOKEN}", "content-type: application/json", "accept: application/json"} <= {*lines}
    assert any(line.startswith("user-agent: tts-batcher/") for line in lines)
    assert sent == body


async def test_a_task_id_is_escaped_in_the_path() -> None:
    async with speaking(answering(http(200, "{}"))) as (client, server):
        await client.read("a/b?c#d %é")
        await client.profile()
    assert [request.split(b" HTTP")[0] for request in server.requests] == [
        b"GET /api/open/v1/speech/tts/jobs/a%2Fb%3Fc%23d%20%25%C3%A9",
        b"GET /api/open/v1/profile",
    ]


async def test_redirects_are_not_followed() -> None:
    """Following one would send the token to another origin."""
    async with raw_server(answering(http(200, ID))) as other:
        elsewhere = http(307, "", location=f"{other.origin}/api/open/v1/speech/tts/jobs")
        async with speaking(answering(elsewhere)) as (client, _):
            causes = [(await client.create(b"{}", hold=go)).cause, (await client.read("t1")).cause]
            causes.append((await client.profile()).cause)
        assert causes == [Cause.WRONG_HOST, Cause.UNCLEAR, Cause.WRONG_HOST]
        assert other.connections == 0


async def fetched(script: Script, path: str = "/a.mp3?sig=abc") -> tuple[Any, bytes, RawServer]:
    api = Endpoint("http://127.0.0.1:9", TOKEN)
    async with raw_server(script) as audio, Client(api, create_connections=1) as client:
        got = bytearray()
        return await client.fetch(audio.origin + path, got.extend), bytes(got), audio


async def test_audio_comes_complete_and_its_host_never_sees_the_token() -> None:
    data = bytes(range(256)) * 1000
    result, got, server = await fetched(answering(http(200, data, content_type="audio/mpeg")))
    assert (result.ok, result.bytes, result.http_status, result.content_type) == (True, 256_000, 200, "audio/mpeg")
    assert got == data
    assert b"authorization" not in server.requests[0].lower()
    assert TOKEN.encode() not in server.requests[0]


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (answering(http(403, "<Error>expired</Error>")), 403),
        (answering(http(404)), 404),
        (answering(http(500, "x")), 500),
        (answering(http(304)), 304),
        (answering(b"HTTP/1.1 204 None\r\ncontent-length: 5\r\n\r\n"), 204),
        (breaking(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc"), 200),
        (breaking(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", "reset"), 200),
        (breaking(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"), 200),
        (breaking(b"", "reset"), None),
        (breaking(b"https://x/y?sig=abc\r\n\r\n"), None),
        (answering(http(302, "", location="http://audio.example.test/a?sig=abc")), None),
        (answering(http(302, "", location="ftp://127.0.0.1/a")), None),
        (answering(http(302, "", location="https://[/a?sig=abc")), None),
        (answering(http(302, "", location="https://127.0.0.1:99999/a?sig=abc")), None),
        (answering(http(302, "", location="/again?sig=abc")), None),
    ],
)
async def test_a_failed_download_has_a_reason_without_any_address(script: Script, status: int | None) -> None:
    result, got, server = await fetched(script)
    assert (result.ok, result.http_status, result.bytes) == (False, status, len(got))
    assert result.reason
    assert not any(part in result.reason for part in ("sig=", "://", "a.mp3", TOKEN))
    assert len(server.requests) <= 6


async def test_a_download_follows_a_relative_redirect() -> None:
    async def script(connection: Connection) -> None:
        while request := await connection.request():
            moved = request.startswith(b"GET /a.mp3")
            await connection.send(http(302, "", location="/b.mp3") if moved else http(200, b"abc"))

    result, got, _ = await fetched(script)
    assert (result.ok, got) == (True, b"abc")


async def test_an_error_of_the_sink_reaches_the_caller() -> None:
    """A full disk is not reported as a network error."""

    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    async with speaking(answering(http(200, b"abc"))) as (client, server):
        with pytest.raises(OSError, match="No space"):
            await client.fetch(server.origin, full)
