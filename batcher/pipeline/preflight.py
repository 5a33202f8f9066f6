"""Before the first create: does the API answer, for which account, and may that account create?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from batcher.clock import local
from batcher.errors import TroubleError
from batcher.ledger.lifecycle import runs
from batcher.ledger.queries import attention
from batcher.ledger.records import Balance, Batch
from batcher.pipeline.connection import profile_error
from batcher.pipeline.context import RunContext
from batcher.pipeline.refusal import too_long
from batcher.pipeline.stop import Reason
from batcher.provider.answers import Cause, Profile, ProfileAnswer
from batcher.provider.limits import PATIENT_RETRY_AFTER_SECONDS, PROFILE_SECONDS

if TYPE_CHECKING:
    from batcher.provider.client import Client

_WAITS_SECONDS: Final = (0.5, 1.0, 2.0)
"""Waits between attempts to read the profile; then the run stops, and the next one tries again."""
_MAX_WAIT_SECONDS: Final = 30.0
"""Bounds the wait that the API asks for between these attempts."""


@dataclass(kw_only=True)
class Preflight:
    """Determines the account of one run."""

    ctx: RunContext
    client: Client
    origin: str
    token: str

    async def enter(self, wanted: Sequence[Batch]) -> tuple[Profile, int | None]:
        """Read the profile and record it for the run. Returns it and the account's number, None without a user id.

        Stops creating if the account has no user id, or if open tasks of `wanted` belong to another account. If the
        profile cannot be read, the account last seen with this token is used, for collecting only.

        Raises:
            CredentialsError: the API rejected the token.
            TroubleError: the profile cannot be read, and the ledger has not seen the token before.
        """
        try:
            profile = await self._profile()
        except TroubleError as error:
            return Profile(), await self._account_of_token(error)
        account_id = await self.ctx.ledger.do(
            runs.enter_account,
            self.ctx.run_id,
            origin=self.origin,
            user_id=profile.user_id,
            token=self.token,
            balance=Balance(credits=profile.credits, quota=profile.quota, tier=profile.tier),
            at=self.ctx.clock.now(),
        )
        await self._check_account(profile, account_id, wanted)
        return profile, account_id

    async def _check_account(self, profile: Profile, account_id: int | None, wanted: Sequence[Batch]) -> None:
        """Stop creating for an unnamed account, or if open tasks of `wanted` belong to another one."""
        if profile.user_id is None:
            message = "the profile has no user_id, so the account is unknown; nothing was created"
            self.ctx.stop.stop_creating(Reason.CREDENTIALS, message)
        foreign = await self.ctx.ledger.do(attention.foreign_tasks, wanted, account_id)
        if foreign:
            numbers = ", ".join(f"{number:,} of {name}" for name, number in foreign.items())
            message = f"open tasks belong to another account ({numbers}); set its token to collect them"
            self.ctx.stop.stop_creating(Reason.CREDENTIALS, message)

    async def _account_of_token(self, error: TroubleError) -> int:
        account_id = await self.ctx.ledger.do(runs.account_of_token, origin=self.origin, token=self.token)
        if account_id is None:
            raise error
        self.ctx.stop.stop_creating(Reason.TROUBLE, error.one_line())
        return account_id

    async def _profile(self) -> Profile:
        answer = ProfileAnswer(cause=Cause.UNCLEAR, transport=f"no answer within {PROFILE_SECONDS:g} s")
        with self.ctx.clock.limit(PROFILE_SECONDS):
            for wait in (*_WAITS_SECONDS, None):
                answer = await self.client.profile()
                if answer.profile is not None:
                    return answer.profile
                asked = answer.retry_after_seconds or 0.0
                if asked > PATIENT_RETRY_AFTER_SECONDS:
                    raise TroubleError(too_long(local(self.ctx.clock.now() + asked)))
                if answer.cause in (Cause.CREDENTIALS, Cause.WRONG_HOST) or wait is None:
                    break
                await self.ctx.clock.sleep(max(wait, min(asked, _MAX_WAIT_SECONDS)))
        raise profile_error(answer, self.origin)
