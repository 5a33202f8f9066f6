"""Answers made to harm: they fill no memory, end in time, hide no task id, and leak no secret."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from batcher.item import Event
from batcher.provider.answers import CREATE_RULES, Cause, Received
from batcher.provider.limits import MAX_BODY_BYTES, MAX_CREDITS, MAX_OPERATIONS, MAX_RAW_BYTES, MAX_SERVERS
from batcher.provider.parsing import Reader
from tests.support.client_kit import ID, NOW, TOKEN, account, created, speaking, was_read
from tests.support.naming import by_words
from tests.support.raw_server import Connection, Script, answering, http

BOMB = gzip.compress(bytes(16 << 20), 9)
"""16 MiB in 16 kB."""


@contextmanager
def little_memory(most: int = 12 << 20) -> Iterator[None]:
    """Check that the block never holds more than `most` bytes at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def deflated(data: bytes) -> bytes:
    """Deflate without its header, as many servers send it."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(ID)),
        ("x-gzip", gzip.compress(ID)),
        ("identity, gzip", gzip.compress(ID)),
        ("deflate", zlib.compress(ID)),
        ("deflate", deflated(ID)),
        ("identity", ID),
        ("gzip", ID),  # the header is wrong
        ("gzip, gzip", ID),
        ("br", ID),
    ],
    ids=by_words,
)
async def test_a_readable_answer_counts_whatever_its_header_says(coding: str, body: bytes) -> None:
    """A proxy may compress although nobody asked for it; a task that was bought is not lost by that."""
    answer = await created(answering(http(202, body, content_encoding=coding)))
    assert answer.cause is Cause.OK
    assert answer.task is not None
    assert answer.task.id == "t1"


@pytest.mark.parametrize(
    ("coding", "body", "why"),
    [
        ("gzip", BOMB, "longer than"),
        ("deflate", zlib.compress(bytes(16 << 20)), "longer than"),
        ("gzip, gzip", gzip.compress(BOMB), "2 content codings"),
        ("gzip, deflate, gzip", gzip.compress(BOMB), "3 content codings"),
        ("br", b"\x1b\x03", "not asked for: br"),
        ("zstd", b"\x28\xb5\x2f\xfd", "not asked for: zstd"),
        ("x" * 5000, b"x", "not asked for: x"),
        ("gzip", gzip.compress(ID)[:-12], "cut off"),
        ("gzip", b"\x1f\x8b\x08\x00" + b"\xff" * 100, "not gzip"),
    ],
    ids=by_words,
)
async def test_a_create_whose_body_is_refused_is_in_doubt_with_what_was_read(
    coding: str, body: bytes, why: str
) -> None:
    """It is never pending again: the task may have been made."""
    with little_memory():
        answer = await created(answering(http(202, body, content_encoding=coding)))
    assert (answer.cause, answer.event) == (Cause.UNCLEAR, Event.LOST)
    assert why in str(answer.transport)
    assert answer.raw
    assert len(answer.raw) <= MAX_RAW_BYTES


@pytest.mark.parametrize("status", [200, 402, 401, 500])
async def test_no_read_is_harmed_by_a_bomb(status: int) -> None:
    bomb = answering(http(status, BOMB, content_encoding="gzip"))
    with little_memory():
        assert (await was_read(bomb)).task is None
        assert (await account(bomb)).profile is None


def flood(head: bytes, line: bytes) -> Script:
    """Answer with `head`, and then with `line` again and again."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(head)
        while True:
            await connection.send(line * 100)
            await asyncio.sleep(0)

    return script


@pytest.mark.parametrize(
    "script",
    [
        flood(b"HTTP/1.1 202 Yes\r\n", b"x-more: " + b"y" * 100 + b"\r\n"),
        flood(b"HTTP/1.1 202 Yes\r\nx: ", b"y" * 100),
        flood(b"HTTP/1.1 202 Yes\r\ntransfer-encoding: chunked\r\n\r\n", b"1;" + b"e" * 100 + b"\r\nx\r\n"),
        flood(b"HTTP/1.1 202 Yes\r\ntransfer-encoding: chunked\r\n\r\n1;", b"e" * 100),
        flood(b"HTTP/1.1 202 Yes\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-trailer: y\r\n"),
        flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        flood(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"),
    ],
)
async def test_an_endless_answer_ends_in_time_and_is_in_doubt(script: Script) -> None:
    with little_memory(24 << 20):
        answer = await created(script, deadline_seconds=1.0)
    assert (answer.cause, answer.event) == (Cause.UNCLEAR, Event.LOST)


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "t1", "status": "queued", "x": ' + b"9" * 10_000 + b"}",
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "id": "t1"}',
        b'{"x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b', "id": "t1"}',
        b'{"id": "t1", "x": "' + b"[" * 200_000 + b'\\"]"}',
        b'{"id": "t1", "creditsUsed": 1e999, "quotaRemaining": -Infinity, "expiresAt": NaN}',
        b'{"id": "t1", "createdAt": "9999-99-99", "completedAt": 1e300}',
        b'{"id": "t1", "audioUrl": "http://[", "error": {"error": {"error": []}}}',
    ],
)
async def test_odd_values_beside_an_id_do_not_hide_it(body: bytes) -> None:
    answer = await created(answering(http(202, body)))
    assert answer.task is not None
    assert answer.task.id == "t1"


@pytest.mark.parametrize("text", ["[" * 2000 + '"' + '\\"' * 400_000, "/" * 1_000_000, "?/" * 500_000, '"' * 1_000_000])
def test_parsing_takes_time_that_grows_with_the_size_alone(text: str) -> None:
    """The suite's timeout would end it."""
    received = Received(
        unsent=False, held=False, whole=True, status=202, headers={}, body=text.encode(), transport=None
    )
    answer = Reader("https://api.test", TOKEN, frozenset()).answer(received, CREATE_RULES, NOW)
    assert answer.cause is Cause.UNCLEAR


class Headers(dict[str, str]):
    """Headers that break whatever reads them."""

    def get(self, *_: Any) -> Any:
        raise RuntimeError("made up")


@pytest.mark.parametrize(("asked", "unsent", "cause"), [(None, False, Cause.UNCLEAR), (None, True, Cause.UNSENT)])
def test_an_answer_that_breaks_the_parser_is_kept_raw(asked: str | None, unsent: bool, cause: Cause) -> None:
    headers: Mapping[str, str] = Headers()
    received = Received(unsent=unsent, held=False, whole=True, status=202, headers=headers, body=ID, transport=None)
    answer = Reader("https://api.test", TOKEN, frozenset()).answer(received, CREATE_RULES, NOW, asked)
    assert (answer.cause, answer.raw) == (cause, ID)
    assert "RuntimeError" in str(answer.transport)


@pytest.mark.parametrize("number", ["1e308", "-1e308", str(2 * MAX_CREDITS), "-1", "Infinity", "NaN", "9" * 400])
async def test_an_incredible_cost_is_unknown(number: str) -> None:
    """So that no sum is infinite, which JSON cannot hold."""
    body = f'{{"id": "t1", "creditsUsed": {number}}}'
    headers = {"x-openapi-credits-used": number}
    assert (await created(answering(http(202, body)))).credits_used is None
    assert (await created(answering(http(202, ID, **headers)))).credits_used is None
    profile = (await account(answering(http(200, f'{{"user_id": "u", "credits": {number}}}')))).profile
    assert profile is not None
    assert profile.credits is None or abs(profile.credits) <= MAX_CREDITS


ESCAPED = "".join(f"\\u{ord(char):04X}" for char in TOKEN)


@pytest.mark.parametrize("spelling", [TOKEN, ESCAPED, f"\\u{ord(TOKEN[0]):04x}{TOKEN[1:]}"])
@pytest.mark.parametrize("around", ["{}", "task-{}", "{}-1"])
async def test_an_id_that_contains_the_token_is_none(spelling: str, around: str) -> None:
    """A create is then in doubt, and an account unknown; the token is nowhere in what is stored."""
    named = around.format(spelling)
    answer = await created(answering(http(202, f'{{"id": "{named}"}}')))
    assert (answer.cause, answer.task) == (Cause.UNCLEAR, None)
    assert b"***" in answer.raw
    profile = (await account(answering(http(200, f'{{"user_id": "{named}", "credits": 5}}')))).profile
    assert profile is not None
    assert profile.user_id is None
    assert all(secret not in str((answer.raw, profile.raw)) for secret in (TOKEN, ESCAPED, spelling))


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.test/a.mp3?X-Signature=c2ln&b=2",
        "https:\\/\\/cdn.test\\/a.mp3?X-Signature=c2ln",
        "https://cdn.test/a.mp3\\u003fX-Signature=c2ln",
        "https:\\u002F\\u002Fcdn.test\\u002fa.mp3\\u003FX-Signature=c2ln",
        "/a.mp3?X-Signature=c2ln",
    ],
)
async def test_a_stored_answer_has_no_signature_of_a_url(url: str) -> None:
    """What is no URL stays as it is."""
    body = f'{{"id": "t1", "status": "completed", "audioUrl": "{url}", "text": "Is it you?Yes. No?"}}'
    answer = await was_read(answering(http(200, body)))
    assert answer.task is not None
    assert answer.task.audio_url is not None
    assert "c2ln" in answer.task.audio_url
    assert b"c2ln" not in answer.raw
    assert b"Is it you?Yes. No?" in answer.raw
    assert json.loads(answer.raw)["id"] == "t1"


def published(paths: dict[str, Any], servers: object) -> Callable[[], bytes]:
    """A schema with these paths and servers."""
    return lambda: json.dumps({"openapi": "3.1.0", "servers": servers, "paths": paths}).encode()


@pytest.mark.parametrize(
    "document",
    [
        published({"/profile": {"get": {}}}, [{"url": "http://["}]),
        published({"/profile": {"get": {}}}, [{"url": "http://[::1"}, {"url": 5}, "x", None]),
        published({f"/p{number}": {"get": {}} for number in range(20_000)}, [{"url": f"/{n}"} for n in range(9000)]),
        published({"/p": {f"m{number}": {} for number in range(60_000)}}, []),
        published({"/p" + "{x}" * 100_000: {"get": {}}}, {"url": "/"}),
        published({"/profile": [1, 2]}, "no list"),
    ],
)
async def test_a_schema_has_bounded_servers_and_operations(document: Callable[[], bytes]) -> None:
    with little_memory(60 << 20):
        async with speaking(answering(http(200, document()))) as (client, _):
            answer = await client.schema()
    assert answer.operations is not None
    assert len(answer.operations) <= MAX_OPERATIONS
    assert len({path.split("/")[1] for _, path in answer.operations}) <= max(MAX_SERVERS, 1)


async def test_an_answer_of_exactly_the_limit_is_read() -> None:
    """One byte more is not."""
    filler = MAX_BODY_BYTES - len(b'{"id": "t1", "x": ""}')
    for more, cause in ((0, Cause.OK), (1, Cause.UNCLEAR)):
        body = b'{"id": "t1", "x": "' + b"x" * (filler + more) + b'"}'
        assert (await created(answering(http(202, body)))).cause is cause
        packed = http(202, gzip.compress(body), content_encoding="gzip")
        assert (await created(answering(packed))).cause is cause
