"""The cause that the client assigns to each status and body."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from batcher.item import Event
from batcher.provider.answers import (
    CREATE_RULES,
    Answer,
    ApiError,
    Cause,
    Fetched,
    Phase,
    Profile,
    ProfileAnswer,
    Received,
    Reply,
    SchemaAnswer,
    Task,
    judge,
)
from batcher.provider.client import Client
from tests.support.client_kit import EDGE, HTML, go, oops, speaking
from tests.support.raw_server import Connection, http

FULL = "HTTP 429 rate_limited: Slow down; request r1"
CREATES: list[tuple[int, str, Cause]] = [
    (402, oops(), Cause.NO_CREDITS),
    (402, HTML, Cause.NO_CREDITS),
    (402, "", Cause.NO_CREDITS),
    *[
        (status, oops(code), Cause.NO_CREDITS)
        for status, code in (
            (400, "insufficient_credits"),
            (401, "Insufficient-Quota"),
            (403, "insufficient balance"),
            (429, "QUOTA_EXCEEDED"),
            (500, "payment_required"),
            (503, "credits_exhausted"),
            (400, "our_own_word"),
        )
    ],
    (400, '{"error": {"code": "insufficient_credits", "message": "Top up."}}', Cause.NO_CREDITS),
    (200, '{"success": false, "code": "insufficient_credits", "message": "Top up."}', Cause.NO_CREDITS),
    (200, '{"success": false, "code": "quota_exceeded", "data": {"id": "t1"}}', Cause.NO_CREDITS),
    (202, '{"id": "t1", "status": "failed", "code": "insufficient_credits"}', Cause.OK),
    (202, '{"id": "t1", "status": "queued"}', Cause.OK),
    (200, '{"task": {"id": "t1"}, "record": {"id": "r9"}, "requestId": "req_1", "id": "x"}', Cause.OK),
    (201, '{"success": true, "message": "ok", "data": {"id": "t1"}, "id": "x"}', Cause.OK),
    (202, '{"success": null, "id": 17}', Cause.OK),
    *[(status, oops(), Cause.INVALID) for status in (400, 413, 414, 415, 422)],
    (400, '{"error": "insufficient credits in the account"}', Cause.INVALID),
    *[(status, oops(), Cause.CREDENTIALS) for status in (401, 403)],
    (429, oops(), Cause.THROTTLED),
    (503, oops("rate_limited"), Cause.THROTTLED),
    (503, oops("rate-limit-exceeded"), Cause.THROTTLED),
    (503, oops("server overloaded"), Cause.THROTTLED),
    *[(status, oops(), Cause.WRONG_HOST) for status in (404, 405, 409)],
    *[(status, body, Cause.WRONG_HOST) for status in (401, 403, 404, 429) for body in (HTML, "", EDGE, "[1]")],
    *[(status, "", Cause.WRONG_HOST) for status in (300, 301, 302, 303, 304, 307, 308)],
    *[(status, '{"id": "t1"}', Cause.UNCLEAR) for status in (300, 303)],
    *[(status, "{}", Cause.UNCLEAR) for status in (200, 201, 202, 206)],
    (204, "", Cause.UNCLEAR),
    (202, HTML, Cause.UNCLEAR),
    (202, '{"success": false, "data": {"id": "t1"}, "message": "it went wrong"}', Cause.UNCLEAR),
    *[
        (202, json.dumps({"id": bad}), Cause.UNCLEAR)
        for bad in (None, "", True, 1.5, ["t1"], "t" * 201, "t\n1", "t\x001", "\ud800")
    ],
    *[(status, HTML, Cause.UNCLEAR) for status in (400, 405, 409, 413, 422)],
    *[(status, EDGE, Cause.UNCLEAR) for status in (405, 409)],
    *[(status, EDGE, Cause.INVALID) for status in (400, 413, 422)],
    *[(status, oops(), Cause.UNCLEAR) for status in (406, 408, 410, 418, 425, 451, 500, 501, 502, 503, 504, 520, 599)],
    *[(status, HTML, Cause.UNCLEAR) for status in (408, 500, 502, 503, 504)],
    (500, '{"id": "t1"}', Cause.UNCLEAR),
    (503, oops("generate_failed"), Cause.UNCLEAR),
    *[(status, oops("rate_limited"), Cause.UNCLEAR) for status in (408, 500, 502, 504)],
]


async def over(rows: list[tuple[int, str, Cause]], call: Callable[[Client], Awaitable[Any]]) -> list[str]:
    """Send each row of a table over one connection; list the rows whose cause differs from the expected one."""
    bodies = iter([http(status, "" if status in (204, 304) else body) for status, body, _ in rows])

    async def script(connection: Connection) -> None:
        while await connection.request():
            await connection.send(next(bodies))

    async with speaking(script, no_credits_codes=frozenset({"Our-own word"})) as (client, server):
        wrong = []
        for status, body, expected in rows:
            answer = await call(client)
            if answer.cause is not expected or answer.transport is not None:  # a rule that fails makes it unclear
                wrong.append(f"{status} {body}: {answer.cause} ({answer.transport}) instead of {expected}")
        assert len(server.requests) == len(rows)
    return wrong


async def test_each_answer_to_a_create_has_its_cause() -> None:
    """Statuses and bodies come from a real server."""
    assert await over(CREATES, lambda client: client.create(b"{}", hold=go)) == []


READS: list[tuple[int, str, Cause]] = [
    (200, '{"id": "t1", "status": "queued"}', Cause.OK),
    (200, '{"task": {"id": "t1", "status": "completed"}, "record": {}, "requestId": "r"}', Cause.OK),
    (200, '{"success": false, "data": {"id": "t1", "status": "failed"}}', Cause.OK),
    (200, '{"id": "t2", "status": "queued"}', Cause.UNCLEAR),
    (300, '{"id": "t1", "status": "queued"}', Cause.UNCLEAR),
    (200, '{"status": "queued"}', Cause.UNCLEAR),
    (200, HTML, Cause.UNCLEAR),
    (404, oops(), Cause.NOT_FOUND),
    (404, HTML, Cause.UNCLEAR),
    (404, EDGE, Cause.UNCLEAR),
    (401, oops(), Cause.CREDENTIALS),
    (403, oops(), Cause.CREDENTIALS),
    (401, HTML, Cause.UNCLEAR),
    (403, EDGE, Cause.UNCLEAR),
    (429, oops(), Cause.THROTTLED),
    (429, HTML, Cause.THROTTLED),
    (402, oops(), Cause.UNCLEAR),
    (200, oops("insufficient_credits"), Cause.UNCLEAR),
    *[(status, oops(), Cause.UNCLEAR) for status in (301, 400, 405, 408, 409, 410, 422, 500, 502, 503, 504)],
]


async def test_each_answer_to_a_poll_has_its_cause() -> None:
    """No answer to a poll has a cause that leads to a purchase."""
    assert await over(READS, lambda client: client.read("t1")) == []


PROFILES: list[tuple[int, str, Cause]] = [
    (200, '{"user_id": "u", "credits": 5}', Cause.OK),
    (200, "{}", Cause.OK),
    (200, '{"success": false, "code": "x"}', Cause.UNCLEAR),
    (200, "[]", Cause.UNCLEAR),
    (200, HTML, Cause.UNCLEAR),
    (401, oops(), Cause.CREDENTIALS),
    (403, oops(), Cause.CREDENTIALS),
    (429, HTML, Cause.THROTTLED),
    *[(status, HTML, Cause.WRONG_HOST) for status in (401, 403, 404, 301, 302, 307, 308)],
    (404, oops(), Cause.UNCLEAR),
    *[(status, oops(), Cause.UNCLEAR) for status in (402, 400, 500, 503)],
]


async def test_each_answer_to_a_profile_read_has_its_cause() -> None:
    assert await over(PROFILES, lambda client: client.profile()) == []


@pytest.mark.parametrize(
    ("cause", "event"),
    [
        (Cause.OK, Event.ACCEPTED),
        (Cause.UNSENT, Event.DEFERRED),
        (Cause.HELD, Event.DEFERRED),
        (Cause.NO_CREDITS, Event.DEFERRED),
        (Cause.CREDENTIALS, Event.DEFERRED),
        (Cause.THROTTLED, Event.DEFERRED),
        (Cause.WRONG_HOST, Event.DEFERRED),
        (Cause.INVALID, Event.REJECTED),
        (Cause.UNCLEAR, Event.LOST),
    ],
)
def test_each_cause_of_a_create_has_its_event(cause: Cause, event: Event) -> None:
    assert Answer(cause=cause).event is event


@pytest.mark.parametrize(("whole", "cause"), [(True, Cause.WRONG_HOST), (False, Cause.UNCLEAR)])
@pytest.mark.parametrize("status", [301, 401, 403, 404, 429])
def test_a_page_that_was_cut_short_may_be_the_apis(status: int, whole: bool, cause: Cause) -> None:
    """Its create may have been accepted, so the item must not be created again."""
    wire = Received(unsent=False, held=False, whole=whole, status=status, headers={}, body=b"<h", transport=None)
    reply = Reply(wire=wire, json=None, error=ApiError(), task=None, lacks_credits=False, asked=None)
    assert judge(reply, CREATE_RULES) is cause


@pytest.mark.parametrize(
    ("phase", "code", "charge", "unfunded"),
    [
        (Phase.FAILED, "insufficient_credits", None, True),
        (Phase.FAILED, "Insufficient-Credits", 0.0, True),
        (Phase.FAILED, "insufficient_credits", 0.5, False),
        (Phase.FAILED, "generate_failed", None, False),
        (Phase.FAILED, None, None, False),
        (Phase.RUNNING, "insufficient_credits", None, False),
        (Phase.SUCCEEDED, "insufficient_credits", None, False),
    ],
)
def test_only_a_failed_task_without_a_charge_is_unfunded(
    phase: Phase, code: str | None, charge: float | None, unfunded: bool
) -> None:
    """By its code: it may be created again, at no cost."""
    task = Task(id="t1", word="w", phase=phase, error=ApiError(code=code, message="no credits"), credits_used=charge)
    assert task.unfunded == unfunded
    assert not Task(id="t1", word="w", phase=phase).unfunded


@pytest.mark.parametrize(
    ("error", "transport", "line"),
    [
        (ApiError(), None, "no answer"),
        (ApiError(http_status=503), None, "HTTP 503"),
        (ApiError(code="busy", message="Try later."), None, "busy: Try later"),
        (ApiError(http_status=429, code="rate_limited", message="Slow down.", request_id="r1"), None, FULL),
        (ApiError(request_id="r1"), "ReadError: reset by peer.", "request r1; reset by peer"),
        (ApiError(message="Oops"), "ReadTimeout", "Oops; read timeout"),
    ],
)
def test_a_failed_request_is_explained_in_one_line(error: ApiError, transport: str | None, line: str) -> None:
    """By whatever is known of it, for each kind of answer."""
    answers = (
        Answer(cause=Cause.UNCLEAR, error=error, transport=transport),
        ProfileAnswer(cause=Cause.UNCLEAR, error=error, transport=transport),
        SchemaAnswer(error=error, transport=transport),
    )
    assert [one.explain() for one in answers] == [line] * 3


def test_the_body_of_an_answer_is_not_shown() -> None:
    """A log or a traceback may show the answer, and its body may hold anything."""
    assert "secret" not in repr((Answer(cause=Cause.UNCLEAR, raw=b"secret"), Profile(raw=b"secret")))


def test_a_download_of_which_nothing_is_known_brought_nothing() -> None:
    failed = Fetched(ok=False, reason="connection refused")
    assert (failed.bytes, failed.is_whole, failed.is_late) == (0, False, False)


@pytest.mark.parametrize(("credits_", "quota", "balance"), [(5.0, 0.0, 0.0), (5.0, None, 5.0), (None, None, None)])
def test_the_balance_is_the_quota_if_it_is_reported(
    credits_: float | None, quota: float | None, balance: float | None
) -> None:
    """Creates are charged to it; an unknown balance is not zero."""
    assert Profile(credits=credits_, quota=quota).balance == balance
