"""Parses the API's answers: from the bytes of an exchange to the types of `batcher.provider.answers`. Pure.

The API has three shapes for a task and several for an error, with optional fields, so each value is searched in several
places, used if it is plausible, and unknown otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from batcher.formatting import one_line
from batcher.provider.answers import (
    NO_CREDITS_CODES,
    PROFILE_RULES,
    STATUS_WORDS,
    Answer,
    ApiError,
    Cause,
    Phase,
    Profile,
    ProfileAnswer,
    Received,
    Reply,
    Rules,
    SchemaAnswer,
    Task,
    judge,
    plain_code,
)
from batcher.provider.catalogue import CATALOGUE_RULES, CatalogueAnswer, read_catalogue
from batcher.provider.json_text import json_object
from batcher.provider.limits import (
    MAX_CREDITS,
    MAX_IGNORED,
    MAX_OPERATIONS,
    MAX_RAW_BYTES,
    MAX_RETRY_AFTER_SECONDS,
    MAX_SERVERS,
    MAX_URL_CHARACTERS,
)

_AUDIO_FIELDS: Final = ("audioUrl", "audio_url", "result_url")
_CREDITS: Final = ("creditsUsed", "credits_used", "x-openapi-credits-used")
_QUOTA: Final = ("quotaRemaining", "quota_remaining", "x-openapi-quota-remaining")
_IGNORED: Final = "x-openapi-ignored-parameters"
_EXPIRES: Final = ("expiresAt", "expires_at")
_STARTED: Final = ("createdAt", "created_at")
_ENDED: Final = ("completedAt", "completed_at", "finishedAt", "finished_at")
_MILLISECONDS: Final = 1e11  # a greater time cannot be in seconds
_CODE_LIKE: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)
_SECONDS: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_BRACES: Final = re.compile(r"\{[^{}]*\}")
_QUERY: Final = re.compile(r"(?<=\S)\?[^\s\"'<>]+")
_RUN: Final = re.compile(rb"[^\s\"'<>]+")
_RAW_QUERY: Final = re.compile(rb"\?|\\u003f", re.IGNORECASE)
_RAW_SLASH: Final = re.compile(rb"/|\\u002f", re.IGNORECASE)
_METHODS: Final = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_LEAST_SECRET: Final = 8  # replacing anything shorter would garble ordinary words

_Object = dict[str, Any]


class Reader:
    """Parses the answers of one API. Its origin completes relative URLs; its token is removed from everything."""

    def __init__(self, origin: str, token: str, no_credits_codes: frozenset[str]) -> None:
        self._origin = origin
        self._secret = token if len(token) >= _LEAST_SECRET else None
        self._raw_secret = _spellings(self._secret) if self._secret else None
        self._no_credits = NO_CREDITS_CODES | {plain_code(code) for code in no_credits_codes}

    def clean(self, text: str, most: int = 500) -> str:
        """`text` as one printable line of at most `most` characters, without the token and without URL queries."""
        text = text.replace(self._secret, "***") if self._secret else text
        return _QUERY.sub("?…", one_line(text, 8 * most))[:most]

    def answer(self, wire: Received, rules: Rules, now: float, asked: str | None = None) -> Answer:
        """The answer to a create, or to a poll of the task `asked`, classified by `rules`; `now` is in unix seconds."""
        try:
            return self._answer(wire, rules, now, asked)
        except Exception as error:  # noqa: BLE001 - the answer to a create must be stored, even if it reveals a bug
            cause = Cause.HELD if wire.held else Cause.UNSENT if wire.unsent else Cause.UNCLEAR
            return Answer(cause=cause, raw=self._raw(wire), transport=f"unreadable: {type(error).__name__}")

    def _answer(self, wire: Received, rules: Rules, now: float, asked: str | None) -> Answer:
        reply = self._reply(wire, asked)
        cause = judge(reply, rules)
        error = reply.error
        if cause is Cause.OK:
            error = ApiError(request_id=error.request_id, http_status=error.http_status)
        elif asked is not None and reply.named:
            error = replace(error, message="the answer is about another task")
        return Answer(
            cause=cause,
            task=reply.task if cause is Cause.OK else None,
            error=error,
            raw=self._raw(wire),
            retry_after_seconds=retry_after(wire.headers.get("retry-after"), now),
            credits_used=_cost(reply.json, wire),
            quota_remaining=_usage(reply.json, wire, _QUOTA),
            ignored=self._ignored(wire.headers.get(_IGNORED)),
            transport=wire.transport,
            obstacle=wire.obstacle,
        )

    def profile(self, wire: Received, now: float) -> ProfileAnswer:
        """The answer to a read of the account; `now` is in unix seconds."""
        reply = self._reply(wire, None)
        cause = judge(reply, PROFILE_RULES)
        places = [reply.json, _dig(reply.json, "data"), _dig(reply.json, "user"), _dig(reply.json, "data", "user")]
        profile = Profile(
            user_id=self._identifier(_first(places, "user_id", "userId")),
            credits=_number(_first(places, "credits")),
            quota=_number(_first(places, "api_quota_remaining")),
            tier=self._text(_first(places, "tier")),
            raw=self._raw(wire),
        )
        return ProfileAnswer(
            cause=cause,
            profile=profile if cause is Cause.OK else None,
            served_at=_http_date(wire.headers.get("date")),
            error=reply.error,
            retry_after_seconds=retry_after(wire.headers.get("retry-after"), now),
            transport=wire.transport,
            obstacle=wire.obstacle,
        )

    def catalogue(self, wire: Received) -> CatalogueAnswer:
        """The answer to a read of voices or models."""
        reply = self._reply(wire, None)
        return read_catalogue(reply, judge(reply, CATALOGUE_RULES), lambda value: self._text(value, most=200))

    def schema(self, wire: Received) -> SchemaAnswer:
        """The answer to a read of the published schema."""
        reply = self._reply(wire, None)
        found = _operations(reply.json) if reply.good and reply.json is not None else None
        return SchemaAnswer(operations=found, error=reply.error, transport=wire.transport)

    def _reply(self, wire: Received, asked: str | None) -> Reply:
        body = json_object(wire.body)
        code, message = self._error([body])
        named = _first([body, _dig(body, "error")], "requestId", "request_id")
        error = ApiError(
            code=code,
            message=message,
            request_id=self._text(named) or self._text(wire.headers.get("x-request-id")),
            http_status=wire.status,
        )
        lacking = plain_code(code) in self._no_credits
        return Reply(
            wire=wire, json=body, error=error, task=self._task(body, wire, error), lacks_credits=lacking, asked=asked
        )

    def _task(self, body: _Object | None, wire: Received, outer: ApiError) -> Task | None:
        """The task in a body of any of the three shapes; `outer` is the error of the body itself."""
        places = (_dig(body, "task"), _dig(body, "data"), body)
        found = ((place, self._identifier(place.get("id"))) for place in places if place)
        place, task_id = next((pair for pair in found if pair[1]), (None, None))
        if place is None or task_id is None:
            return None
        word = (self._text(place.get("status"), most=100) or "").lower()
        phase = STATUS_WORDS.get(word, Phase.RUNNING)
        code, message = self._error(_insides(place))
        return Task(
            id=task_id,
            word=word,
            phase=phase,
            audio_url=self._audio_url(_insides(place) + _insides(body)),
            audio_expires_at=_instant(_first(_insides(place) + _insides(body), *_EXPIRES)),
            error=replace(outer, code=code or outer.code, message=message) if phase is Phase.FAILED else None,
            credits_used=_cost(body, wire),
            took_seconds=_took(_insides(place)),
            known_word=word in STATUS_WORDS,
            no_credits_codes=self._no_credits,
        )

    def _error(self, places: Iterable[_Object | None]) -> tuple[str | None, str | None]:
        """The first code and the first message in these objects or their nested errors."""
        shallow = [place for place in places if place]
        deep = [inner for place in shallow if (inner := _dig(place, "error"))] + shallow
        code = self._text(_first(deep, "code", "errorCode", "error_code"), most=100)
        message = self._text(_first(deep, "message", "errorMessage", "error_message"))
        for place in shallow:
            if isinstance(text := place.get("error"), str):
                code = code or (self.clean(text) if _CODE_LIKE.fullmatch(text) else None)
                parts = (self._text(text), self._text(place.get("details")))
                message = message or self._text(": ".join(part for part in parts if part))
        return code, message

    def _ignored(self, header: str | None) -> tuple[str, ...]:
        """Names of parameters from a comma-separated header, without repetitions."""
        names = (self.clean(name, most=64) for name in (header or "").split(",")[:MAX_IGNORED])
        return tuple(dict.fromkeys(name for name in names if name))

    def _text(self, value: object, most: int = 500) -> str | None:
        """A string or an integer as clean text. None for anything else and for empty text."""
        return (self.clean(str(value), most) or None) if _is_plain(value) else None

    def _audio_url(self, places: Iterable[_Object]) -> str | None:
        values = (place.get(name) for place in places for name in _AUDIO_FIELDS)
        url = next((value for value in values if isinstance(value, str) and value and value.isprintable()), None)
        try:
            return None if url is None else urljoin(f"{self._origin}/", url)
        except ValueError:
            return None

    def _identifier(self, value: object) -> str | None:
        """A string or an integer usable as an id: 1 to 200 printable characters, without the token in them."""
        text = str(value) if _is_plain(value) else ""
        if not text.isprintable() or not 0 < len(text) <= 200 or (self._secret is not None and self._secret in text):
            return None
        return text

    def _raw(self, wire: Received) -> bytes:
        """The start of the body for the ledger, without the token in any spelling of JSON, and without URL queries."""
        raw = wire.body[: 2 * MAX_RAW_BYTES]
        if self._raw_secret is not None:
            raw = self._raw_secret.sub(b"***", raw)
        return _RUN.sub(_without_query, raw)[:MAX_RAW_BYTES] if _RAW_QUERY.search(raw) else raw[:MAX_RAW_BYTES]


def _without_query(run: re.Match[bytes]) -> bytes:
    """A run of characters in undecoded JSON; if it is a URL, without its query."""
    query = _RAW_QUERY.search(run[0])
    is_url = query is not None and _RAW_SLASH.search(run[0], 0, query.start()) is not None
    return run[0][: query.start()] + b"?..." if query is not None and is_url else run[0]


def _spellings(secret: str) -> re.Pattern[bytes]:
    """Matches the secret in undecoded JSON, where each character may be escaped."""
    return re.compile(b"".join(rb"(?:\\?%b|\\u00(?i:%02x))" % (re.escape(char.encode()), ord(char)) for char in secret))


def _http_date(text: str | None) -> float | None:
    """An HTTP date in unix seconds. None if invalid."""
    try:
        date = parsedate_to_datetime(text or "")
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _operations(document: _Object) -> frozenset[tuple[str, str]] | None:
    """Methods and paths of an OpenAPI document, each path below each server's path. None for other documents."""
    paths = document.get("paths")
    if not isinstance(paths, dict):
        return None
    found = (
        (method.upper(), base + _BRACES.sub("{}", path))
        for path, operations in paths.items()
        if isinstance(operations, dict)
        for method in operations
        if method.lower() in _METHODS
        for base in _bases(operations.get("servers")) or _bases(document.get("servers")) or [""]
    )
    return frozenset(islice(found, MAX_OPERATIONS))


def _bases(servers: object) -> list[str]:
    """The paths of an OpenAPI object's first servers. A server whose URL cannot be read has none."""
    urls = (
        [server.get("url") for server in servers[:MAX_SERVERS] if isinstance(server, dict)]
        if isinstance(servers, list)
        else []
    )
    return [path for url in urls if isinstance(url, str) and (path := _path(url)) is not None]


def _path(url: str) -> str | None:
    try:
        return urlsplit(url[:MAX_URL_CHARACTERS]).path.rstrip("/")
    except ValueError:
        return None


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait according to a Retry-After header, 0 to a year. None if it cannot be parsed.

    The header contains seconds or an HTTP date, which is compared to `now`, in unix seconds.
    """
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        date = _http_date(text)
        if date is None:
            return None
        seconds = date - now
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _dig(value: object, *names: str) -> _Object | None:
    """The nested object at the path `names`, or None."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else None


def _insides(place: _Object | None) -> list[_Object]:
    """An object and those nested in it that may hold its fields."""
    inner = (place, _dig(place, "result"), _dig(place, "output"), _dig(place, "record"))
    return [found for found in inner if found]


def _first(places: Iterable[Mapping[str, Any] | None], *names: str) -> Any:
    """The first non-null value of `names`, by the order of `places`, then of `names`."""
    values = (place.get(name) for place in places if place for name in names)
    return next((value for value in values if value is not None), None)


def _usage(body: _Object | None, wire: Received, names: tuple[str, ...]) -> float | None:
    """A number from the task, the body around it or, failing these, a header."""
    places = _insides(_dig(body, "task")) + _insides(_dig(body, "data")) + _insides(body)
    return _number(_first([*places, wire.headers], *names))


def _cost(body: _Object | None, wire: Received) -> float | None:
    """The reported cost of a task. A negative one is none."""
    cost = _usage(body, wire, _CREDITS)
    return None if cost is None or cost < 0 else cost


def _took(places: list[_Object]) -> tuple[float, float] | None:
    """A task's shortest and longest possible duration by its own times; whole seconds may be rounded either way."""
    started, ended = _instant(_first(places, *_STARTED)), _instant(_first(places, *_ENDED))
    if started is None or ended is None or ended < started:
        return None
    blur = 1.0 if started.is_integer() and ended.is_integer() else 0.001
    return max(ended - started - blur, 0.0), ended - started + blur


def _instant(value: object) -> float | None:
    """Unix seconds from unix seconds, milliseconds or ISO 8601 (UTC by default)."""
    if (number := _number(value)) is not None:
        return number / 1000.0 if number > _MILLISECONDS else number
    if not isinstance(value, str):
        return None
    try:
        date = datetime.fromisoformat(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _number(value: object) -> float | None:
    """A credible number from a number or a string: finite, and at most `MAX_CREDITS` from zero."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if abs(number) <= MAX_CREDITS else None
