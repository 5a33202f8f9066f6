"""What the API's answers mean: the words for them, and the tables that judge them. Pure.

The first rule that holds in `CREATE_RULES`, `READ_RULES` or `PROFILE_RULES` names the cause. Error codes are compared
and messages never are, since the wording of a message is nobody's promise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from batcher.formatting import plain_error
from batcher.item import Event

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
"""Error codes that say the account has run dry; an endpoint may know more."""

_API_FIELDS: Final = frozenset({"code", "message", "error", "requestId", "request_id", "success"})
_BUSY_WORDS: Final = frozenset({"rate", "ratelimit", "ratelimited", "overload", "overloaded"})


class Phase(StrEnum):
    """What a provider's status word means to us. A word that nobody knows is no end, so it counts as running."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


WORDS: Final = {
    **dict.fromkeys(("queued", "processing"), Phase.RUNNING),
    **dict.fromkeys(("completed", "succeeded", "success", "done"), Phase.SUCCEEDED),
    **dict.fromkeys(("failed", "error", "cancelled", "canceled", "expired"), Phase.FAILED),
}


class Cause(StrEnum):
    """What an answer, or the lack of one, comes down to."""

    OK = "ok"
    UNSENT = "unsent"  # nothing of the request left this machine
    HELD = "held"  # the latch said no just before the first byte
    NO_CREDITS = "no_credits"
    INVALID = "invalid"  # the row must be fixed
    CREDENTIALS = "credentials"
    THROTTLED = "throttled"
    WRONG_HOST = "wrong_host"  # an edge, a proxy or some other host answers in the API's place
    NOT_FOUND = "not_found"  # the API does not know the task that was asked about
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
    """What the API says went wrong. `message` is one line of at most 500 characters, without token or URL queries."""

    code: str | None = None
    message: str | None = None
    request_id: str | None = None
    http_status: int | None = None


def explained(error: ApiError, transport: str | None) -> str:
    """An answer that is not the wished-for one in a few words: status, code, message, request id; or why none came."""
    status = f"HTTP {error.http_status}" if error.http_status is not None else None
    request = f"request {error.request_id}" if error.request_id is not None else None
    named = " ".join(part for part in (status, error.code) if part)
    said = ": ".join(part for part in (named, (error.message or "").rstrip(".")) if part)
    came = plain_error(transport).rstrip(".") if transport is not None else None
    return "; ".join(part for part in (said, request, came) if part) or "no answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A remote job as one answer shows it. `word` is its status in lower case; `error` is there if it failed.

    `took_seconds` is the least and the most that it can have taken, if it carries the times of its own beginning and
    end.
    """

    id: str
    word: str
    phase: Phase
    audio_url: str | None = field(default=None, repr=False)
    error: ApiError | None = None
    credits_used: float | None = None
    took_seconds: tuple[float, float] | None = None
    known_word: bool = True
    no_credits_codes: frozenset[str] = field(default=NO_CREDITS_CODES, repr=False)

    @property
    def unfunded(self) -> bool:
        """It failed for lack of credits, by its code, and nothing says that it was charged."""
        lacking = self.error is not None and plain_code(self.error.code) in self.no_credits_codes
        return self.phase is Phase.FAILED and lacking and not self.credits_used


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a create or a read. `task` is there exactly when the cause is OK.

    `raw` is the body as far as it arrived, at most 64 KiB; `transport` says what cut the exchange short, if anything.
    """

    cause: Cause
    task: Task | None = None
    error: ApiError = ApiError()
    raw: bytes = field(default=b"", repr=False)
    retry_after_seconds: float | None = None
    credits_used: float | None = None
    quota_remaining: float | None = None
    transport: str | None = None

    @property
    def event(self) -> Event:
        """What this, as the answer to a create, does to its item."""
        return _EVENTS[self.cause]

    def explain(self) -> str:
        """The answer in a few words, for a person."""
        return explained(self.error, self.transport)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The account; None stands for whatever the answer left out."""

    user_id: str | None = None
    credits: float | None = None
    quota: float | None = None
    tier: str | None = None
    raw: bytes = field(default=b"", repr=False)

    @property
    def balance(self) -> float | None:
        """The credits if they are known, else the quota."""
        return self.quota if self.credits is None else self.credits


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileAnswer:
    """What came of reading the account. `profile` is there exactly when the cause is OK.

    `served_at` is when the server says that it answered, in unix seconds.
    """

    cause: Cause
    profile: Profile | None = None
    served_at: float | None = None
    error: ApiError = ApiError()
    retry_after_seconds: float | None = None
    transport: str | None = None

    def explain(self) -> str:
        """The answer in a few words, for a person."""
        return explained(self.error, self.transport)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaAnswer:
    """What came of reading the API's published schema: its operations, or None where no schema came.

    Each is a method and a path below the origin, with `{}` for whatever stands in braces.
    """

    operations: frozenset[tuple[str, str]] | None = None
    error: ApiError = ApiError()
    transport: str | None = None

    def explain(self) -> str:
        """The answer in a few words, for a person."""
        return explained(self.error, self.transport)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What came of a download. `ok`: a 2xx whose `bytes` all went to the sink. `reason`, if not, holds no URL."""

    ok: bool
    http_status: int | None = None
    content_type: str | None = None
    bytes: int = 0
    retry_after_seconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One exchange as the wire saw it. `whole`: the answer came to its end. Header names are in lower case."""

    unsent: bool
    held: bool
    whole: bool
    status: int | None
    headers: Mapping[str, str]
    body: bytes
    transport: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the rules look at: an exchange and what its body says. `asked` is the task id of a read."""

    wire: Received
    json: dict[str, Any] | None
    error: ApiError
    task: Task | None
    lacks_credits: bool
    asked: str | None

    def status(self, *statuses: int) -> bool:
        """Whether the HTTP status is one of these."""
        return self.wire.status in statuses

    def api(self, *statuses: int) -> bool:
        """The same, and the body is the API's own JSON."""
        return self.status(*statuses) and self._is_api

    def foreign(self, *statuses: int) -> bool:
        """The same, and a complete body that is not the API's JSON."""
        return self.status(*statuses) and self.wire.whole and not self._is_api

    @property
    def good(self) -> bool:
        """A 2xx with a JSON object that does not call itself a failure."""
        return self.status(*range(200, 300)) and self.json is not None and self.json.get("success") is not False

    @property
    def named(self) -> bool:
        """A good answer with a task id."""
        return self.good and self.task is not None

    @property
    def busy(self) -> bool:
        """The code says rate or overload."""
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
"""The answer to a create. A body that breaks off still counts if its JSON object is complete."""

READ_RULES: Final[Rules] = (
    (Cause.OK, lambda r: r.status(*range(200, 300)) and r.task is not None and r.task.id == r.asked),
    (Cause.NOT_FOUND, lambda r: r.api(404)),
    (Cause.CREDENTIALS, lambda r: r.api(401, 403)),
    (Cause.THROTTLED, lambda r: r.status(429)),
    (Cause.UNCLEAR, lambda _: True),
)
"""The answer to a poll. What was never sent is merely asked again later, so it has no row of its own."""

PROFILE_RULES: Final[Rules] = (
    (Cause.UNSENT, lambda r: r.wire.unsent),
    (Cause.OK, lambda r: r.good),
    (Cause.CREDENTIALS, lambda r: r.api(401, 403)),
    (Cause.THROTTLED, lambda r: r.status(429)),
    (Cause.WRONG_HOST, lambda r: r.foreign(401, 403, 404) or r.status(*_REDIRECTS)),
    (Cause.UNCLEAR, lambda _: True),
)
"""The answer to a read of the account."""


def plain_code(code: str | None) -> str:
    """An error code as codes are compared: lower case, `_` between its words, empty for none."""
    return (code or "").lower().replace("-", "_").replace(" ", "_")


def judge(reply: Reply, rules: Rules) -> Cause:
    """The cause that the first rule to hold names."""
    return next(cause for cause, holds in rules if holds(reply))
