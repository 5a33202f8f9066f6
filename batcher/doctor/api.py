"""Checks the host, the token, the account, the clock, and the API's published schema."""

from __future__ import annotations

import difflib
from typing import Final
from urllib.parse import urlsplit

from batcher.clock import Clock
from batcher.doctor.finding import Finding, hint, ok, problem
from batcher.errors import BatcherError, CredentialsError
from batcher.formatting import amount, span
from batcher.ledger.storage import database
from batcher.pipeline.connection import profile_error, reach
from batcher.provider.answers import Cause, Profile, ProfileAnswer, SchemaAnswer
from batcher.provider.client import Client
from batcher.settings import DEFAULT_URL, Settings

_MAX_CLOCK_OFFSET_SECONDS: Final = 60.0
"""A larger difference from the server's clock makes times in the ledger and results misleading."""
_SIMILAR: Final = 0.75
"""Similarity (0 to 1) from which a host's name may be mistaken for the provider's."""
_JOBS: Final = "/speech/tts/jobs"
_CALLED: Final = (("POST", _JOBS), ("GET", f"{_JOBS}/{{}}"), ("GET", "/profile"))


async def check_api(settings: Settings, clock: Clock) -> list[Finding]:
    """Check what the API reports without charge."""
    if settings.sandbox and not database.exists(settings.ledger):
        return [ok("api", "the first run starts the sandbox")]
    found = [] if settings.sandbox else [_check_host(settings.api_url)]
    try:
        with reach(settings) as (endpoint, origin):
            async with Client(endpoint, create_connections=1, now=clock.now) as client:
                profile = await client.profile()
                schema = await client.schema()
    except BatcherError as error:
        topic = "token" if isinstance(error, CredentialsError) else "api"
        return [*found, problem(topic, error.message, error.hint)]
    found += [_check_account(profile, origin), *_check_clock(profile, clock.now())]
    has_answered = profile.profile is not None or profile.cause is Cause.CREDENTIALS
    return [*found, *_check_schema(schema)] if has_answered or schema.operations is not None else found


def _check_host(url: str) -> Finding:
    """Whether the token is sent to the provider's host."""
    usual, chosen = urlsplit(DEFAULT_URL), urlsplit(url)
    host, known = chosen.hostname or "", usual.hostname or ""
    if host == known or host.endswith(f".{known}"):
        if chosen.path.rstrip("/") == usual.path:
            return ok("host", f"{url} is the provider's API")
        return hint("host", f"{url} does not have the API's usual path {usual.path}", "Check --api-url.")
    if difflib.SequenceMatcher(None, host, known).ratio() >= _SIMILAR:
        message = f"the token is sent to {host}, which resembles {known} but is another host"
        return problem("host", message, "If that is a typo, fix --api-url, then revoke the token and use a new one.")
    return hint("host", f"the token is sent to {host}, not to {known}", "Check --api-url unless you chose that host.")


def _check_account(answer: ProfileAnswer, origin: str) -> Finding:
    if answer.profile is not None:
        return _check_balance(answer.profile)
    error = profile_error(answer, origin)
    passing = answer.cause not in (Cause.CREDENTIALS, Cause.WRONG_HOST)
    return problem("account", error.message, error.hint, passing=passing)


def _check_balance(profile: Profile) -> Finding:
    if profile.user_id is None:
        message = "the API accepts the token, but its profile does not name the account (no user_id)"
        return problem("account", message, "A run creates nothing. Check --api-url, then ask the provider.")
    balance = "balance unknown" if profile.balance is None else f"{amount(profile.balance)} credits left"
    message = f"the token belongs to the account {profile.user_id}; {balance}"
    if profile.balance is not None and profile.balance <= 0:
        return hint("account", message, "Top up before a run.")
    return ok("account", message)


def _check_clock(answer: ProfileAnswer, now: float) -> list[Finding]:
    """Compare the clock with the server's, which has a resolution of one second. Empty if that is unknown."""
    if answer.served_at is None:
        return []
    offset = now - answer.served_at
    if abs(offset) <= _MAX_CLOCK_OFFSET_SECONDS:
        return [ok("clock", "this machine's clock agrees with the server's")]
    direction = "ahead of" if offset > 0 else "behind"
    message = f"this machine's clock is {span(abs(offset))} {direction} the server's"
    return [hint("clock", message, "Synchronise it (NTP): it dates everything in the ledger and the report.")]


def _check_schema(answer: SchemaAnswer) -> list[Finding]:
    """Whether the published schema has the operations that batcher calls, and one that lists tasks."""
    if answer.operations is None:
        message = f"cannot read the API's published schema: {answer.explain()}"
        return [hint("schema", message, "No action is needed: runs do not use it. It would show changes in the API.")]
    missing = [f"{method} {path}" for method, path in _CALLED if not _has(answer, method, path)]
    if missing:
        message = f"the API's published schema lacks operations that batcher calls: {', '.join(missing)}"
        return [problem("schema", message, "Check --api-url. If it is right, the API has changed: ask the provider.")]
    found = [ok("schema", "the API's published schema has every operation that batcher calls")]
    if _has(answer, "GET", _JOBS):
        message = f"the API can list speech tasks (GET {_JOBS})"
        found.append(hint("schema", message, "Use it to look up creates in doubt, then run `batcher resolve`."))
    return found


def _has(answer: SchemaAnswer, method: str, path: str) -> bool:
    return any(known == method and there.endswith(path) for known, there in answer.operations or ())
