"""What a server sends: answers, content codings, and addresses of audio."""

from __future__ import annotations

import contextlib
import gzip
import ipaddress
import json
import zlib
from typing import Any, Final

import httpx
from hypothesis import strategies as st

from batcher.provider.addresses import AddressError, AudioHosts
from batcher.provider.answers import CREATE_RULES, READ_RULES, Received
from batcher.provider.codings import CodingError, Decoder
from batcher.provider.limits import MAX_CREDITS, MAX_PIECE_BYTES, MAX_RAW_BYTES
from batcher.provider.parsing import Reader
from tests.fuzz.readers import edited, edits

_TOKEN: Final = "sk-a-token-of-the-fuzzer"
_READER: Final = Reader("https://api.test", _TOKEN, frozenset({"own-code"}))
_NOW: Final = 1_800_000_000.0

_NAMES = ["task", "data", "id", "status", "audioUrl", "audio_url", "url", "expiresAt", "error", "code", "message"]
_NAMES += ["details", "requestId", "creditsUsed", "credits", "user", "user_id", "api_quota_remaining", "quotaRemaining"]
_NAMES += ["result", "output", "record", "createdAt", "completedAt", "items", "voices", "models", "voiceId", "modelId"]
_NAMES += ["name", "controls", "paths", "servers", "get", "post", "success", "tier"]
_TEXTS = ["queued", "completed", "failed", "task_1", "insufficient_credits", "https://a.test/x.mp3?s=1", "http://["]
_TEXTS += [_TOKEN, "\ud83d", "\0", "2026-01-01T00:00:00Z", "2026-99-01", "9" * 400, "1e999", "-0", "nan", "", "a" * 300]
_LEAVES: Final = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, 1e308, -1, 2**63])
    | st.sampled_from(_TEXTS)
    | st.text(max_size=20)
)
_VALUES: Final = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_NAMES) | st.text(max_size=5), inner),
    max_leaves=30,
)
_BODIES: Final = (
    st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=8).map(json.dumps).map(str.encode)
    | st.binary(max_size=200)
    | st.lists(st.sampled_from(['{"a":', "[", '"', "}", "]", "1", ",", "\\u00", "9" * 50, "null"]), max_size=300)
    .map("".join)
    .map(str.encode)
)
_HEADER_VALUES: Final = st.sampled_from(
    [*_TEXTS, "Wed, 21 Oct 2099 07:28:00 GMT", "31 Feb 0000 99:99", "-1", "0.5", "\u0661"]
)
_HEADERS: Final = st.dictionaries(
    st.sampled_from(
        ["retry-after", "date", "x-request-id", "x-openapi-ignored-parameters", "credits_used", "x-credits"]
    ),
    _HEADER_VALUES | st.text(max_size=30),
)
answer: Final = st.builds(
    Received,
    unsent=st.booleans(),
    held=st.booleans(),
    whole=st.booleans(),
    status=st.none() | st.sampled_from([200, 202, 302, 400, 401, 402, 404, 429, 500, 503]) | st.integers(0, 999),
    headers=_HEADERS,
    body=_BODIES,
    transport=st.none() | st.just("reset"),
)


def read_answer(wire: Received) -> None:
    """Any answer to any request is classified, and what it says is credible and free of the token."""
    for rules, asked in ((CREATE_RULES, None), (READ_RULES, "task_1")):
        found = _READER.answer(wire, rules, _NOW, asked)
        assert not (found.transport or "").startswith("unreadable"), found.transport
        assert len(found.raw) <= MAX_RAW_BYTES
        assert _TOKEN.encode() not in found.raw
        assert _TOKEN not in found.explain()
        assert found.explain().isprintable()
        assert found.credits_used is None or 0 <= found.credits_used <= MAX_CREDITS
        assert found.task is None or (found.task.id.isprintable() and found.task.id)
    assert _READER.profile(wire, _NOW).explain().isprintable()
    assert _READER.catalogue(wire).explain().isprintable()
    assert _READER.schema(wire).explain().isprintable()


coding: Final = st.tuples(
    st.none()
    | st.sampled_from(["gzip", "x-gzip", "deflate", "identity", "GZIP, aws-chunked", "gzip, gzip", "br", ","]),
    st.sampled_from(["plain", "gzip", "zlib", "raw", "bomb"]),
    st.binary(max_size=300),
    edits | st.just([]),
    st.lists(st.integers(1, 50), max_size=20),
)


def decode(case: tuple[str | None, str, bytes, list[Any], list[int]]) -> None:
    """Any body in any coding is decoded in small pieces or refused."""
    header, kind, content, changes, lengths = case
    body = edited(_coded(kind, content), changes)
    with contextlib.suppress(CodingError):
        decoder, at = Decoder(header), 0
        for length in [*lengths, len(body)]:
            for piece in decoder.feed(body[at : at + length]):
                assert len(piece) <= max(MAX_PIECE_BYTES, length)
            at += length
        decoder.end()


def _coded(kind: str, content: bytes) -> bytes:
    if kind == "bomb":
        return gzip.compress(bytes(4 << 20))
    if kind == "raw":
        return zlib.compress(content)[2:-4]
    return gzip.compress(content) if kind == "gzip" else zlib.compress(content) if kind == "zlib" else content


_PIECES = [*":/@?#[]%.-_\\ \t\n\0", "http", "https", "://", "//", "localhost", "127.0.0.1", "0x7f.1", "::1", "xn--"]
_PIECES += [
    "[::ffff:10.0.0.1]",
    "audio.test",
    "é",
    "。",
    "\ud83d",
    "%00",
    "0",
    "99999",
    "1" * 70,
    "a" * 300,
    "fe80::1%eth0",
]
address: Final = st.tuples(
    st.sampled_from(["https://api.test/v1", "http://127.0.0.1:80/v1", "http://localhost/"]),
    st.lists(st.sampled_from(_PIECES), max_size=12).map("".join) | st.text(max_size=30),
    st.booleans(),
    st.ip_addresses().map(str) | st.lists(st.sampled_from(_PIECES), max_size=4).map("".join),
)


def judge_address(case: tuple[str, str, bool, str]) -> None:
    """Any URL and any host is permitted or refused, and a private address is never permitted to a public API."""
    api, text, is_relative, host = case
    hosts = AudioHosts(httpx.URL(api), frozenset({"audio.test"}))
    with contextlib.suppress(AddressError):
        url = hosts.url(text, httpx.URL(api) if is_relative else None)
        assert url.host
        assert url.scheme == "https" or api.startswith("http:")
        hosts.judge_name(url.host)
    hosts.note_api(host)
    hosts = AudioHosts(httpx.URL(api), frozenset())
    with contextlib.suppress(AddressError):
        hosts.judge_name(host)
    with contextlib.suppress(AddressError):
        hosts.judge("other.test", host)
        assert api.startswith("http:") or ":" in host or ipaddress.IPv4Address(host).is_global
