"""Before the first create: does the API answer, for which account, and may anything be created for it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from batcher.clock import Clock
from batcher.errors import CredentialsError, TroubleError
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import runs
from batcher.ledger.queries import attention
from batcher.ledger.records import Balance, Batch
from batcher.pipeline.stop import Reason, Stop
from batcher.provider.answers import Cause, Profile, ProfileAnswer
from batcher.provider.client import Client

_WAITS_SECONDS: Final = (0.5, 1.0, 2.0)
"""Between the tries to read the profile; then the run ends, and the next one tries again."""
_LONGEST_WAIT_SECONDS: Final = 30.0


@dataclass(kw_only=True)
class Preflight:
    """Finds out about the account of one run."""

    ledger: Ledger
    client: Client
    stop: Stop
    clock: Clock
    run_id: str
    origin: str
    token: str

    async def enter(self, wanted: Sequence[Batch]) -> tuple[Profile, int | None]:
        """Read the profile and note it with the run. Returns it and the account's number, None for an unknown one.

        Stops creating when the account is unknown or wanted rows have open tasks with another. When the profile cannot
        be had, the account that the token was last seen with is good enough for collecting.

        Raises:
            CredentialsError: the token is refused.
            TroubleError: the profile cannot be had, and the token is new to the ledger.
        """
        try:
            profile = await self._profile()
        except TroubleError as error:
            return Profile(), await self._known_account(error)
        account_id = await self.ledger.do(
            runs.enter_account,
            self.run_id,
            origin=self.origin,
            user_id=profile.user_id,
            token=self.token,
            balance=Balance(credits=profile.credits, quota=profile.quota, tier=profile.tier),
            at=self.clock.now(),
        )
        if profile.user_id is None:
            message = "the profile does not say whose account this is (no user_id): nothing is created"
            self.stop.stop_creating(Reason.CREDENTIALS, message)
        foreign = await self.ledger.do(attention.foreign_tasks, wanted, account_id)
        if foreign:
            who = ", ".join(f"{number} of {name}" for name, number in foreign.items())
            message = f"open tasks belong to another account ({who}): use its token to collect them"
            self.stop.stop_creating(Reason.CREDENTIALS, message)
        return profile, account_id

    async def _known_account(self, error: TroubleError) -> int:
        account_id = await self.ledger.do(runs.account_of_token, origin=self.origin, token=self.token)
        if account_id is None:
            raise error
        self.stop.stop_creating(Reason.TROUBLE, error.one_line())
        return account_id

    async def _profile(self) -> Profile:
        for wait in (*_WAITS_SECONDS, None):
            answer = await self.client.profile()
            if answer.cause is Cause.OK and answer.profile is not None:
                return answer.profile
            if answer.cause is Cause.CREDENTIALS:
                raise CredentialsError(
                    f"the API refused the token: {answer.explain()}", "Set a valid one in BATCHER_API_TOKEN."
                )
            if answer.cause is Cause.WRONG_HOST or wait is None:
                break
            await self.clock.sleep(max(wait, min(answer.retry_after_seconds or 0.0, _LONGEST_WAIT_SECONDS)))
        raise _unavailable(self.origin, answer)


def _unavailable(origin: str, answer: ProfileAnswer) -> TroubleError:
    if answer.cause is Cause.WRONG_HOST:
        return TroubleError(
            f"something other than the API answers at {origin}: {answer.explain()}", "Check --api-url and any proxy."
        )
    return TroubleError(f"the API at {origin} gives no profile: {answer.explain()}", "Nothing was created; run again.")
