"""How a process reaches the API, and which of the ledger's accounts its token belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from batcher.errors import CredentialsError, TroubleError
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import runs
from batcher.provider.answers import Answer, Cause, ProfileAnswer
from batcher.provider.catalogue import CatalogueAnswer
from batcher.provider.failures import Obstacle
from batcher.settings import NEW_CREDENTIALS, Settings

if TYPE_CHECKING:
    from batcher.provider.client import Client
    from batcher.provider.endpoint import Endpoint


_REMEDIES: Final = {
    Obstacle.REFUSED: "Nothing listens at that address: check --api-url. If it is right, the API is down; try later.",
    Obstacle.UNKNOWN_HOST: "Check the spelling in --api-url, and this machine's network and name service (DNS).",
    Obstacle.TIMEOUT: "Check the network and any firewall or proxy (HTTPS_PROXY). If they are right, try again later.",
    Obstacle.CERTIFICATE: (
        "If a proxy of your network opens TLS, set SSL_CERT_FILE to a file with its certificate. Also check this "
        "machine's date and --api-url."
    ),
    Obstacle.TLS: "Check whether --api-url should begin with http://, and any proxy (HTTPS_PROXY).",
}
_REMEDY: Final = "Check the network and --api-url. If both are right, try again later."


def remedy(answer: Answer | ProfileAnswer | CatalogueAnswer) -> str:
    """What to do about an API that did not answer."""
    return _REMEDY if answer.obstacle is None else _REMEDIES.get(answer.obstacle, _REMEDY)


def unreachable(answer: Answer) -> str:
    """That the API does not answer requests about tasks, why, and what to do."""
    return f"cannot reach the API: {answer.explain()}. {remedy(answer)}"


@contextmanager
def reach(settings: Settings) -> Iterator[tuple[Endpoint, str]]:
    """The API's endpoint, and the origin that identifies its accounts: for a sandbox, on any port, `sandbox`.

    Starts the sandbox and stops it at the end, if the settings ask for one.

    Raises:
        UsageError: the URL is invalid, or the sandbox's extra is not installed.
        CredentialsError: there is no token.
    """
    from batcher.provider.endpoint import Endpoint

    if settings.sandbox:
        from batcher.sandbox.host import running as sandbox_running

        with sandbox_running(settings.home / "batcher-sandbox.tasks.db") as sandbox:
            yield Endpoint(url=sandbox.url, token=sandbox.token), "sandbox"
        return
    endpoint = Endpoint(
        url=settings.api_url,
        token=settings.require_token(),
        allow_http=settings.allow_http,
        no_credits_codes=settings.no_credits_codes,
        audio_hosts=settings.audio_hosts,
    )
    yield endpoint, endpoint.origin


async def known_account(client: Client, ledger: Ledger, origin: str) -> int | None:
    """The number of the token's account. None if the ledger does not have it.

    Raises:
        CredentialsError: the API rejected the token.
        TroubleError: the profile cannot be read.
    """
    answer = await client.profile()
    if answer.profile is None:
        raise profile_error(answer, origin)
    return await ledger.do(runs.find_account, origin=origin, user_id=answer.profile.user_id)


def token_rejected(answer: Answer | ProfileAnswer | CatalogueAnswer) -> CredentialsError:
    """The error of a request whose answer is that the token is not valid."""
    return CredentialsError(f"the API rejected the token: {answer.explain()}", NEW_CREDENTIALS)


def _why_no_profile(answer: ProfileAnswer, origin: str) -> str:
    """Why the account's profile could not be read: the token, the host or the connection."""
    reason = answer.explain()
    if answer.cause is Cause.CREDENTIALS:
        return token_rejected(answer).message
    if answer.cause is Cause.WRONG_HOST:
        return f"another host answers in place of the API at {origin}: {reason}"
    if answer.cause is Cause.UNSENT:
        return f"cannot reach the API at {origin} ({reason})"
    return f"cannot read the account's profile at {origin} ({reason})"


def profile_error(answer: ProfileAnswer, origin: str) -> CredentialsError | TroubleError:
    """The error of a command that needs the account's profile."""
    message = _why_no_profile(answer, origin)
    if answer.cause is Cause.CREDENTIALS:
        return CredentialsError(message, NEW_CREDENTIALS)
    if answer.cause is Cause.WRONG_HOST:
        return TroubleError(message, "Check --api-url and any proxy. If both are right, try again later.")
    if answer.cause is Cause.UNSENT:
        return TroubleError(message, remedy(answer))
    if answer.error.http_status == 404:
        return TroubleError(message, "Check --api-url.")
    return TroubleError(message, "Try again later.")
