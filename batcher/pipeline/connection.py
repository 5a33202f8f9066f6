"""The API's address and client of one process, and the account that its token belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from batcher.errors import CredentialsError, TroubleError
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import runs
from batcher.provider.answers import Cause
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint
from batcher.settings import Settings


@contextmanager
def reach(settings: Settings) -> Iterator[tuple[Endpoint, str]]:
    """Where the API answers, and the origin that its accounts are known by: a sandbox is one, on whatever port.

    Raises:
        UsageError: the address cannot be used, or the sandbox's extra is missing.
        CredentialsError: there is no token.
    """
    if settings.sandbox:
        from batcher.sandbox.host import running as sandbox_running

        with sandbox_running(settings.ledger.with_name("batcher-sandbox.tasks.db")) as sandbox:
            yield Endpoint(url=sandbox.url, token=sandbox.token), "sandbox"
        return
    endpoint = Endpoint(
        url=settings.api_url,
        token=settings.require_token(),
        allow_http=settings.allow_http,
        no_credits_codes=settings.no_credits_codes,
    )
    yield endpoint, endpoint.origin


async def known_account(client: Client, ledger: Ledger, origin: str) -> int | None:
    """The number of the account that the token opens; None for one that the ledger does not know.

    Raises:
        CredentialsError: the token is refused.
        TroubleError: the profile cannot be had.
    """
    answer = await client.profile()
    if answer.cause is Cause.CREDENTIALS:
        raise CredentialsError(f"the API refused the token: {answer.explain()}")
    if answer.profile is None:
        raise TroubleError(f"the API gives no profile: {answer.explain()}", "Try again later.")
    return await ledger.do(runs.find_account, origin=origin, user_id=answer.profile.user_id)
