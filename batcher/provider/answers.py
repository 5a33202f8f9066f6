"""What the API's answers mean: their types, and the tables of rules that classify them. Pure.

The first rule that matches in `CREATE_RULES`, `READ_RULES` or `PROFILE_RULES` determines the cause. Rules compare error
codes, never messages, since the wording of a message may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from batcher.formatting import plain_error
from batcher.item import Event
from batcher.provider.failures import Obstacle

NO_CREDITS_CODES: Final = frozenset(
    {
        "insufficient_credits",
        "insufficient_quota",
        "insufficient_balance",
        "quota_exceeded",
        "payment_required",
        "credits_exhausted",
    }
)
"""Error codes that mean the account is out of credits; settings can add more."""

_API_FIELDS: Final = frozenset({"code", "message", "error", "requestId", "request_id", "success"})
_BUSY_WORDS: Final = frozenset({"rate", "ratelimit", "ratelimited", "overload", "overloaded"})


class Phase(StrEnum):
    """What a provider's status word means. An unknown word counts as running, since only known words end a task."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


STATUS_WORDS: Final = (
    dict.fromkeys(("queued", "processing"), Phase.RUNNING)
    | dict.fromkeys(("completed", "succeeded", "success", "done"), Phase.SUCCEEDED)
    | dict.fromkeys(("failed", "error", "cancelled", "canceled", "expired"), Phase.FAILED)
)


class Cause(StrEnum):
    """How an answer, or the lack of one, is classified."""

    OK = "ok"
    UNSENT = "unsent"  # nothing of the request left this machine
    HELD = "held"  # stopped by the latch just before the first byte
    NO_CREDITS = "no_credits"
    INVALID = "invalid"  # the row must be fixed
    CREDENTIALS = "credentials"
    THROTTLED = "throttled"
    WRONG_HOST = "wrong_host"  # an edge, a proxy or another host answered instead of the API
    NOT_FOUND = "not_found"  # the API does not know the task
    UNCLEAR = "unclear"  # anything else


_EVENTS: Final = {
    Cause.OK: Event.ACCEPTED,
    Cause.UNSENT: Event.DEFERRED,
    Cause.HELD: Event.DEFERRED,
    Cause.NO_CREDITS: Event.DEFERRED,
    Cause.CREDENTIALS: Event.DEFERRED,
    Cause.THROTTLED: Event.DEFERRED,
    Cause.WRONG_HOST: Event.DEFERRED,
    Cause.INVALID: Event.REJECTED,
    Cause.UNCLEAR: Event.LOST,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiError:
    """An error reported by the API. `message` is one line of at most 500 characters, without token or URL queries."""

    code: str | None = None
    message: str | None = None
    request_id: str | None = None
    http_status: int | None = None


def explained(error: ApiError, transport: str | None) -> str:
    """A failed request in one line: status, code, message, request id, and any error that broke the connection."""
    status = f"HTTP {error.http_status}" if error.http_status is not None else None
    request = f"request {error.request_id}" if error.request_id is not None else None
    kind = " ".join(part for part in (status, error.code) if part)
    reported = ": ".join(part for part in (kind, (error.message or "").rstrip(".")) if part)
    broken = plain_error(transport).rstrip(".") if transport is not None else None
    return "; ".join(part for part in (reported, request, broken) if part) or "no answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A remote job as reported by one answer. `word` is its status in lower case; `error` is set if it failed.

    `took_seconds` is its shortest and longest possible duration, if the answer contains start and end times.
    `audio_expires_at` is when the audio URL expires, in unix seconds of the server's clock.
    """

    id: str
    word: str
    phase: Phase
    audio_url: str | None = field(default=None, repr=False)
    audio_expires_at: float | None = None
    error: ApiError | None = None
    credits_used: float | None = None
    took_seconds: tuple[float, float] | None = None
    known_word: bool = True
    no_credits_codes: frozenset[str] = field(default=NO_CREDITS_CODES, repr=False)

    @property
    def unfunded(self) -> bool:
        """Whether it failed for lack of credits, by its code, without a reported charge."""
        lacking = self.error is not None and plain_code(self.error.code) in self.no_credits_codes
        return self.phase is Phase.FAILED and lacking and not self.credits_used


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The outcome of a create or a poll. `task` is set exactly when the cause is OK.

    `raw` is the body as far as it arrived, at most 64 KiB; `transport` is the error that cut it short, if any, and
    `obstacle` what kept the request from reaching the API.
    `ignored` names the parameters that the model charged for and ignored, according to the API.
    """

    cause: Cause
    task: Task | None = None
    error: ApiError = ApiError()
    raw: bytes = field(default=b"", repr=False)
    retry_after_seconds: float | None = None
    credits_used: float | None = None
    quota_remaining: float | None = None
    ignored: tuple[str, ...] = ()
    transport: str | None = None
    obstacle: Obstacle | None = None

    @property
    def event(self) -> Event:
        """The event for the item if this is the answer to a create."""
        return _EVENTS[self.cause]

    def explain(self) -> str:
        """The answer in one line, for people."""
        return explained(self.error, self.transport)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The account; fields that the answer lacks are None."""

    user_id: str | None = None
    credits: float | None = None
    quota: float | None = None
    tier: str | None = None
    raw: bytes = field(default=b"", repr=False)

    @property
    def balance(self) -> float | None:
        """The quota, which is what API requests are charged to, if reported; else the credits."""
        return self.credits if self.quota is None else self.quota


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileAnswer:
    """The outcome of reading the account. `profile` is set exactly when the cause is OK.

    `served_at` is the server's time of the answer, in unix seconds.
    """

    cause: Cause
    profile: Profile | None = None
    served_at: float | None = None
    error: ApiError = ApiError()
    retry_after_seconds: float | None = None
    transport: str | None = None
    obstacle: Obstacle | None = None

    def explain(self) -> str:
        """The answer in one line, for people."""
        return explained(self.error, self.transport)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaAnswer:
    """The outcome of reading the API's published schema: its operations, or None if no schema was received.

    Each operation is a method and a path below the origin, with `{}` in place of each path parameter.
    """

    operations: frozenset[tuple[str, str]] | None = None
    error: ApiError = ApiError()
    transport: str | None = None

    def explain(self) -> str:
        """The answer in one line, for people."""
        return explained(self.error, self.transport)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The outcome of a download. `ok`: a 200 whose `bytes` all reached the sink. `reason` is set otherwise; no URLs.

    `is_whole`: HTTP itself shows that nothing is missing. `is_late`: the total deadline has passed.
    """

    ok: bool
    http_status: int | None = None
    content_type: str | None = None
    bytes: int = 0
    is_whole: bool = False
    is_late: bool = False
    retry_after_seconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One exchange on the wire. `whole`: the answer arrived completely. Header names are in lower case."""

    unsent: bool
    held: bool
    whole: bool
    status: int | None
    headers: Mapping[str, str]
    body: bytes
    transport: str | None
    obstacle: Obstacle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The rules' input: an exchange and its parsed body. `asked` is the task id of a poll."""

    wire: Received
    json: dict[str, Any] | None
    error: ApiError
    task: Task | None
    lacks_credits: bool
    asked: str | None

    def status(self, *statuses: int) -> bool:
        """Whether the HTTP status is one of `statuses`."""
        return self.wire.status in statuses

    def api(self, *statuses: int) -> bool:
        """Whether the status is one of these and the body is the API's JSON."""
        return self.status(*statuses) and self._is_api

    def foreign(self, *statuses: int) -> bool:
        """Whether the status is one of these and the complete body is not the API's JSON."""
        return self.status(*statuses) and self.wire.whole and not self._is_api

    @property
    def good(self) -> bool:
        """A 2xx with a JSON object whose `success` is not false."""
        return self.status(*range(200, 300)) and self.json is not None and self.json.get("success") is not False

    @property
    def named(self) -> bool:
        """A good answer with a task id."""
        return self.good and self.task is not None

    @property
    def busy(self) -> bool:
        """Whether the code is about rate or overload."""
        return not _BUSY_WORDS.isdisjoint(plain_code(self.error.code).split("_"))

    @property
    def _is_api(self) -> bool:
        return self.json is not None and (self.task is not None or not _API_FIELDS.isdisjoint(self.json))


Rules = tuple[tuple[Cause, Callable[[Reply], bool]], ...]
_REDIRECTS: Final = range(300, 400)

CREATE_RULES: Final[Rules] = (
    (Cause.HELD, lambda r: r.wire.held),
    (Cause.UNSENT, lambda r: r.wire.unsent),
    # A task that was accepted may carry its own failure's code; its id comes first.
    (Cause.NO_CREDITS, lambda r: r.status(402) or (r.lacks_credits and not r.named)),
    (Cause.OK, lambda r: r.named),
    (Cause.INVALID, lambda r: r.status(400, 413, 414, 415, 422) and r.json is not None),
    (Cause.CREDENTIALS, lambda r: r.api(401, 403)),
    (Cause.THROTTLED, lambda r: r.api(429) or (r.api(503) and r.busy)),
    (Cause.WRONG_HOST, lambda r: r.api(404, 405, 409)),
    (Cause.WRONG_HOST, lambda r: r.foreign(*_REDIRECTS, 401, 403, 404, 429)),
    (Cause.UNCLEAR, lambda _: True),
)
"""Rules for the answer to a create. A truncated body counts if its JSON object is complete."""

READ_RULES: Final[Rules] = (
    (Cause.OK, lambda r: r.status(*range(200, 300)) and r.task is not None and r.task.id == r.asked),
    (Cause.NOT_FOUND, lambda r: r.api(404)),
    (Cause.CREDENTIALS, lambda r: r.api(401, 403)),
    (Cause.THROTTLED, lambda r: r.status(429)),
    (Cause.UNCLEAR, lambda _: True),
)
"""Rules for the answer to a poll. An unsent poll is simply repeated later, so it needs no rule."""

PROFILE_RULES: Final[Rules] = (
    (Cause.UNSENT, lambda r: r.wire.unsent),
    (Cause.OK, lambda r: r.good),
    (Cause.CREDENTIALS, lambda r: r.api(401, 403)),
    (Cause.THROTTLED, lambda r: r.status(429)),
    (Cause.WRONG_HOST, lambda r: r.foreign(401, 403, 404) or r.status(*_REDIRECTS)),
    (Cause.UNCLEAR, lambda _: True),
)
"""Rules for the answer to a read of the account."""


def plain_code(code: str | None) -> str:
    """An error code in the form used for comparison: lower case, `_` between words, empty for None."""
    return (code or "").lower().replace("-", "_").replace(" ", "_")


def judge(reply: Reply, rules: Rules) -> Cause:
    """The cause of the first matching rule."""
    return next(cause for cause, matches in rules if matches(reply))
