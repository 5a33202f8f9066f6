"""The endpoint's address and token, and what keeps them secret."""

from __future__ import annotations

import json
import logging

import pytest

from batcher.errors import UsageError
from batcher.provider.answers import Cause
from batcher.provider.endpoint import Endpoint
from tests.support.client_kit import TOKEN, go, speaking
from tests.support.raw_server import answering, http


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://FishAudio.org/api/open/v1", "https://fishaudio.org"),
        ("https://fishaudio.org:443/api/", "https://fishaudio.org"),
        ("https://fishaudio.org:8443", "https://fishaudio.org:8443"),
        ("http://localhost:8000/v1", "http://localhost:8000"),
        ("http://127.9.9.9/v1", "http://127.9.9.9"),
        ("http://[::1]:80/v1", "http://[::1]"),
    ],
)
def test_spellings_of_one_address_have_one_origin(url: str, origin: str) -> None:
    assert Endpoint(url, TOKEN).origin == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "fishaudio.org/api",
        "ftp://fishaudio.org",
        "https://",
        "https:///api",
        "https://me:pw@fishaudio.org",
        "https://fishaudio.org?x=1",
        "https://fishaudio.org/?",
        "https://fishaudio.org/#top",
        "https://fishaudio.org:port",
        "https://xn--/api",
        "https://fish\naudio.org",
        "http://fishaudio.org",
        "http://localhost.example.test",
        "http://10.0.0.1",
        "http://0.0.0.0",
    ],
)
def test_an_address_that_must_not_get_the_token_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        Endpoint(url, TOKEN)


def test_plain_http_is_allowed_on_request() -> None:
    assert Endpoint("http://10.0.0.1/v1", TOKEN, allow_http=True).origin == "http://10.0.0.1"


@pytest.mark.parametrize("token", ["", "two words", "line\n", "schlüssel"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint("https://fishaudio.org", token)
    assert not token or token not in str(caught.value)


async def test_token_and_urls_appear_in_no_repr_answer_or_log(caplog: pytest.LogCaptureFixture) -> None:
    """Not even if the server sends the token back."""
    caplog.set_level(logging.DEBUG)
    echo = answering(http(400, json.dumps({"code": TOKEN, "message": f"{TOKEN} https://a/b?c=d"}), x_request_id=TOKEN))
    async with speaking(echo) as (client, server):
        answer = await client.create(b"{}", hold=go)
        await client.fetch(f"{server.origin}/a?sig=abc", len)
        shown = f"{client!r} {Endpoint('https://a.test', TOKEN)!r} {answer!r} {answer.raw!r}"
    assert TOKEN not in shown
    assert TOKEN not in caplog.text
    assert "sig=abc" not in caplog.text
    assert answer.cause is Cause.INVALID
