"""Fields read from an answer: task, error, usage, profile, Retry-After."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batcher.provider.answers import ApiError, Cause, Phase, Task
from batcher.provider.parsing import retry_after
from tests.support.client_kit import ID, NOW, TOKEN, account, created, go, oops, speaking, was_read
from tests.support.raw_server import answering, http

TIMES: list[tuple[dict[str, Any], tuple[float, float] | None]] = [
    ({"createdAt": "2026-11-22T10:00:00Z", "completedAt": "2026-11-22T11:00:07+01:00"}, (6.0, 8.0)),
    ({"created_at": 1_700_000_000.25, "finished_at": "1700000000.75"}, (0.499, 0.501)),
    ({"createdAt": 1_700_000_000_000, "finishedAt": 1_700_000_002_500}, (2.499, 2.501)),
    ({"createdAt": 1_700_000_000, "completedAt": 1_700_000_000}, (0.0, 1.0)),
    ({"createdAt": "2026-11-22T10:00:00Z", "completedAt": "2026-11-22T09:00:00Z"}, None),
    ({"createdAt": "yesterday", "completedAt": {"at": 3}}, None),
    ({"createdAt": "2026-11-22T10:00:00Z"}, None),
]
"""The times in a task, and the shortest and longest duration that they allow, in seconds."""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"id": "t1", "status": "queued"}, Task(id="t1", word="queued", phase=Phase.RUNNING)),
        ({"id": "t1", "status": " Processing"}, Task(id="t1", word="processing", phase=Phase.RUNNING)),
        ({"id": "t1", "status": "warming"}, Task(id="t1", word="warming", phase=Phase.RUNNING, known_word=False)),
        ({"id": "t1"}, Task(id="t1", word="", phase=Phase.RUNNING, known_word=False)),
        (
            {"task": {"id": "t1", "status": "COMPLETED", "audioUrl": "https://a/1?s=2"}, "record": {"id": 3}},
            Task(id="t1", word="completed", phase=Phase.SUCCEEDED, audio_url="https://a/1?s=2"),
        ),
        (
            {"task": {"id": "t1", "status": "done", "audioUrl": None}, "record": {"audio_url": "//a/2"}},
            Task(id="t1", word="done", phase=Phase.SUCCEEDED, audio_url="http://a/2"),
        ),
        (
            {"success": True, "data": {"id": "t1", "status": "success", "result": {"result_url": "https://a/3"}}},
            Task(id="t1", word="success", phase=Phase.SUCCEEDED, audio_url="https://a/3"),
        ),
        (
            {"data": {"id": "t1", "status": "succeeded"}, "audioUrl": "https://a/4", "creditsUsed": 2},
            Task(id="t1", word="succeeded", phase=Phase.SUCCEEDED, audio_url="https://a/4", credits_used=2.0),
        ),
        *[
            (
                {"id": "t1", "status": "done", **times},
                Task(id="t1", word="done", phase=Phase.SUCCEEDED, took_seconds=took),
            )
            for times, took in TIMES
        ],
        (
            {"task": {"id": "t1", "status": "failed", "error": {"code": 17, "message": "x"}, "credits_used": "0"}},
            Task(
                id="t1",
                word="failed",
                phase=Phase.FAILED,
                error=ApiError(code="17", message="x", http_status=200),
                credits_used=0.0,
            ),
        ),
        (
            {"data": {"id": "t1", "status": "failed"}, "code": "c", "message": "ok"},
            Task(id="t1", word="failed", phase=Phase.FAILED, error=ApiError(code="c", http_status=200)),
        ),
        *[
            (
                {"id": "t1", "status": word, "errorCode": "c", "errorMessage": "two\nlines"},
                Task(
                    id="t1",
                    word=word,
                    phase=Phase.FAILED,
                    error=ApiError(code="c", message="two lines", http_status=200),
                ),
            )
            for word in ("error", "cancelled", "canceled", "expired")
        ],
    ],
)
async def test_each_shape_of_a_task_is_parsed(body: object, expected: Task) -> None:
    """Three envelopes, all status words, and each field where the audio's address or an error may stand."""
    assert (await was_read(answering(http(200, json.dumps(body))))).task == expected


async def test_a_relative_audio_address_belongs_to_the_apis_origin() -> None:
    async with speaking(answering(http(200, '{"id": "t1", "status": "done", "audioUrl": "/a/1.mp3"}'))) as (c, server):
        task = (await c.read("t1")).task
    assert task is not None
    assert task.audio_url == f"{server.origin}/a/1.mp3"
    assert "1.mp3" not in repr(task)


@pytest.mark.parametrize(
    ("status", "code", "used", "unfunded"),
    [
        ("failed", "INSUFFICIENT-CREDITS", None, True),
        ("failed", "our_own_word", 0, True),
        ("failed", "insufficient_credits", 3, False),
        ("failed", "render_failed", None, False),
        ("processing", "insufficient_credits", None, False),
    ],
)
async def test_a_task_is_unfunded_only_if_it_failed_uncharged_with_a_credits_code(
    status: str, code: str, used: float | None, unfunded: bool
) -> None:
    body = {"task": {"id": "t1", "status": status, "error": {"code": code}}, "record": {"creditsUsed": used}}
    answer = await was_read(answering(http(200, json.dumps(body))), no_credits_codes=frozenset({"our own word"}))
    assert answer.task is not None
    assert answer.task.unfunded is unfunded


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"code": "c", "message": "m", "requestId": "r"}, ("c", "m", "r")),
        ({"error": {"code": "c", "message": "m", "request_id": "r"}}, ("c", "m", "r")),
        ({"error": "Not a word more"}, (None, "Not a word more", "header")),
        ({"error": "bad_voice"}, ("bad_voice", "bad_voice", "header")),
        ({"error": "Bad Request", "code": 1004, "message": "m"}, ("1004", "m", "header")),
        ({"success": False, "code": "c", "message": "m"}, ("c", "m", "header")),
        ({"error": "No such voice", "details": "anna", "code": "c"}, ("c", "No such voice: anna", "header")),
        ({"error": "Invalid request body", "details": {"a": 1}}, (None, "Invalid request body", "header")),
        ({"code": True, "message": ["m"], "requestId": {}}, (None, None, "header")),
        ({"message": f"Bad {TOKEN}\r\nat https://x/y?sig=abc now"}, (None, "Bad *** at https://x/y?… now", "header")),
        ({"message": "m" * 2000}, (None, "m" * 500, "header")),
    ],
)
async def test_each_shape_of_an_error_is_parsed(body: object, error: tuple[str | None, str | None, str]) -> None:
    """A message for people is one line and shows no secret."""
    answer = await created(answering(http(422, json.dumps(body), x_request_id="header")))
    assert answer.error == ApiError(code=error[0], message=error[1], request_id=error[2], http_status=422)


async def test_a_poll_answered_with_another_task_is_an_error() -> None:
    """The other task is not passed on."""
    answer = await was_read(answering(http(200, '{"id": "t2", "status": "completed"}')))
    assert "another task" in str(answer.error.message)
    assert answer.task is None
    assert b"t2" in answer.raw


async def test_usage_comes_from_the_body_or_else_from_headers() -> None:
    headers = {"X_OpenAPI_Credits_Used": "7", "X_OpenAPI_Quota_Remaining": "93.5"}
    plain = await created(answering(http(202, ID, **headers)))
    assert (plain.credits_used, plain.quota_remaining) == (7.0, 93.5)
    body = '{"task": {"id": "t1", "quotaRemaining": 5}, "creditsUsed": 12}'
    told = await created(answering(http(202, body, **headers)))
    assert (told.credits_used, told.quota_remaining) == (12.0, 5.0)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"user_id": "u", "credits": 5, "api_quota_remaining": 9, "tier": "pro"}, ("u", 5.0, 9.0, "pro", 9.0)),
        ({"user_id": 7, "credits": "5.5", "tier": None}, ("7", 5.5, None, None, 5.5)),
        ({"data": {"user_id": "u", "api_quota_remaining": "9"}}, ("u", None, 9.0, None, 9.0)),
        ({"user": {"user_id": "u", "credits": 0}}, ("u", 0.0, None, None, 0.0)),
        ({"user_id": "", "credits": "many", "api_quota_remaining": True}, (None, None, None, None, None)),
        ({"credits": "nan", "api_quota_remaining": "inf"}, (None, None, None, None, None)),
        ({}, (None, None, None, None, None)),
    ],
)
async def test_each_field_of_a_profile_may_be_missing_or_a_string(body: object, expected: tuple[object, ...]) -> None:
    """An unknown balance is never zero."""
    profile = (await account(answering(http(200, json.dumps(body))))).profile
    assert profile is not None
    assert (profile.user_id, profile.credits, profile.quota, profile.tier, profile.balance) == expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-4", 0.0),
        ("999999999", 366 * 86_400.0),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0),
        ("Fri, 15 Jan 2027 08:01:00 -0000", 60.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("1e3", None),
        ("Fri, 99 Jan 2027 08:01:00 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_a_year(value: str | None, seconds: float | None) -> None:
    """A past date is 0, more than a day is a day, and anything else is None."""
    assert retry_after(value, NOW) == seconds


async def test_every_call_returns_retry_after() -> None:
    """Dates are measured against the client's clock."""
    busy = answering(http(429, oops(), retry_after="Fri, 15 Jan 2027 08:01:00 GMT"))
    async with speaking(busy) as (client, server):
        waits = [
            (await client.create(b"{}", hold=go)).retry_after_seconds,
            (await client.read("t1")).retry_after_seconds,
        ]
        waits.append((await client.profile()).retry_after_seconds)
        waits.append((await client.fetch(server.origin, len)).retry_after_seconds)
    assert waits == [60.0] * 4


async def test_bad_bytes_do_not_hide_an_id() -> None:
    """A byte order mark, invalid UTF-8 or a raw line break inside a string."""
    body = b'\xef\xbb\xbf{"note": "\xff\n", "id": "t1"}'
    assert (await created(answering(http(202, body)))).cause is Cause.OK


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("emotion,pitch", ("emotion", "pitch")),
        (" emotion , ,pitch, emotion", ("emotion", "pitch")),
        ("", ()),
        (None, ()),
        (",".join(f"p{number}" for number in range(99)), tuple(f"p{number}" for number in range(50))),
    ],
)
async def test_ignored_parameters_are_read_from_creates_and_polls(header: str | None, names: tuple[str, ...]) -> None:
    headers = {} if header is None else {"X_OpenAPI_Ignored_Parameters": header}
    assert (await created(answering(http(202, ID, **headers)))).ignored == names
    assert (await was_read(answering(http(200, ID, **headers)))).ignored == names


@pytest.mark.parametrize("expiry", [{"expiresAt": 1_800_000_060}, {"expires_at": "2027-01-15T08:01:00Z"}])
async def test_the_expiry_of_an_audio_url_is_read(expiry: dict[str, Any]) -> None:
    body = {"task": {"id": "t1", "status": "completed", "audioUrl": "https://a/1", **expiry}}
    task = (await was_read(answering(http(200, json.dumps(body))))).task
    assert task is not None
    assert task.audio_expires_at == NOW + 60.0
