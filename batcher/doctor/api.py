"""The token, the host, the account, the clock, and what the API says of itself."""

from __future__ import annotations

import difflib
from typing import Final
from urllib.parse import urlsplit

from batcher.clock import Clock
from batcher.doctor.finding import Finding, hint, ok, problem
from batcher.errors import BatcherError, CredentialsError
from batcher.formatting import amount
from batcher.pipeline.connection import reach
from batcher.provider.answers import Cause, ProfileAnswer, SchemaAnswer
from batcher.provider.client import Client
from batcher.settings import DEFAULT_URL, Settings

_CLOCK_SECONDS: Final = 60.0
"""A clock that is further off than this makes the times in ledger and results misleading."""
_SIMILAR: Final = 0.75
"""Of hosts' names: from here on they may be meant to be taken for each other."""
_JOBS: Final = "/speech/tts/jobs"
_NEEDED: Final = (("POST", _JOBS), ("GET", f"{_JOBS}/{{}}"), ("GET", "/profile"))


async def examine(settings: Settings, clock: Clock) -> list[Finding]:
    """Ask the API what can be asked for nothing."""
    if settings.sandbox and not settings.ledger.exists():
        return [ok("api", "the sandbox starts with the first run")]
    found = [] if settings.sandbox else [_host(settings.api_url)]
    try:
        with reach(settings) as (endpoint, _):
            async with Client(endpoint, create_connections=1, now=clock.now) as client:
                profile = await client.profile()
                schema = await client.schema()
    except BatcherError as error:
        topic = "token" if isinstance(error, CredentialsError) else "api"
        return [*found, problem(topic, error.message, error.hint)]
    found.append(_account(profile))
    found += _clock(profile, clock.now())
    return [*found, *_schema(schema)]


def _host(url: str) -> Finding:
    """Whether the token goes where it is meant to go."""
    usual, chosen = urlsplit(DEFAULT_URL), urlsplit(url)
    host, known = chosen.hostname or "", usual.hostname or ""
    if host == known or host.endswith(f".{known}"):
        if chosen.path.rstrip("/") == usual.path:
            return ok("host", f"{url} is the provider's usual address")
        return hint("host", f"{url} has another path than the API's usual {usual.path}", "Check --api-url.")
    if difflib.SequenceMatcher(None, host, known).ratio() >= _SIMILAR:
        message = f"{host} is like {known} but is another host, and the token goes there"
        return problem("host", message, "If it is a slip, mend --api-url and have the token replaced.")
    return hint("host", f"the token goes to {host} instead of the usual {known}", "Fine, if you know that host.")


def _account(answer: ProfileAnswer) -> Finding:
    if answer.profile is not None:
        who, left = answer.profile.user_id, answer.profile.balance
        if who is None:
            message = "the token is accepted, but the profile does not say whose it is: a run creates nothing"
            return problem("account", message, "Check --api-url; ask the provider.")
        balance = "an unknown balance" if left is None else f"{amount(left)} credits"
        if left is not None and left <= 0:
            return hint("account", f"the token is that of {who}, with {balance}", "Top up before a run.")
        return ok("account", f"the token is that of {who}, with {balance}")
    said = answer.explain()
    if answer.cause is Cause.CREDENTIALS:
        return problem("account", f"the API refuses the token: {said}", "Set a valid one in BATCHER_API_TOKEN.")
    if answer.cause is Cause.WRONG_HOST:
        message = f"something other than the API answers (an edge, a proxy, another host): {said}"
        return problem("account", message, "Check --api-url and any proxy; an edge's 403 may pass.")
    return problem("account", f"the API gives no profile: {said}", "Try again later.", passing=True)


def _clock(answer: ProfileAnswer, now: float) -> list[Finding]:
    """The clock against the server's, which is told to the second."""
    if answer.served_at is None:
        return []
    off = now - answer.served_at
    if abs(off) <= _CLOCK_SECONDS:
        return [ok("clock", "this machine's clock agrees with the server's")]
    which = "ahead of" if off > 0 else "behind"
    return [hint("clock", f"this machine's clock is {abs(off):,.0f} s {which} the server's", "Have it set (NTP).")]


def _schema(answer: SchemaAnswer) -> list[Finding]:
    """Whether the published schema has what we call, and a listing that could settle doubts."""
    if answer.operations is None:
        message = f"the API's schema cannot be read: {answer.explain()}"
        return [hint("schema", message, "Nothing depends on it; it would tell whether the API has changed.")]
    missing = [f"{method} {path}" for method, path in _NEEDED if not _has(answer, method, path)]
    if missing:
        message = f"the published schema lacks what batcher calls: {', '.join(missing)}"
        return [problem("schema", message, "The API may have changed, or --api-url names another: ask the provider.")]
    found = [ok("schema", "the published schema has all that batcher calls")]
    if _has(answer, "GET", _JOBS):
        message = "the schema has a listing of speech tasks"
        found.append(hint("schema", message, f"`GET {_JOBS}` can show what a create in doubt became; then `resolve`."))
    return found


def _has(answer: SchemaAnswer, method: str, path: str) -> bool:
    return any(known == method and there.endswith(path) for known, there in answer.operations or ())
