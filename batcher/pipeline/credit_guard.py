"""The credit guard: whether this run may create, as the account's halts and its balance have it.

The halts themselves are durable and live in the ledger. Here is the latch that is looked at in the last moment before
a create leaves, and the decision whether a halt may be probed.
"""

from __future__ import annotations

import math
from typing import Final

from batcher.clock import Clock
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import halts, runs
from batcher.ledger.records import Balance, Halt, OpenTask
from batcher.provider.answers import Profile
from batcher.provider.client import Client

SUSPECT_SECONDS: Final = 10.0
"""So often at most is the balance read for tasks that failed without a word of why, and so long may that take."""


class Guard:
    """Watches over one account for one run."""

    def __init__(self, ledger: Ledger, clock: Clock, *, account_id: int, run_id: str) -> None:
        self._ledger = ledger
        self._clock = clock
        self._account_id = account_id
        self._run_id = run_id
        self._tripped = False
        self._permitted: set[int] = set()
        self._suspected_at = -math.inf
        self.halts: list[Halt] = []

    @property
    def tripped(self) -> bool:
        """Whether no create may leave."""
        return self._tripped

    @property
    def probing(self) -> bool:
        """Whether a halt is open that this run may probe: one create at a time, until its answer ends the halt."""
        return bool(self.halts) and not self._tripped

    def trip(self) -> None:
        """Let no further create leave; what made it so is recorded right after."""
        self._tripped = True

    async def begin(self, profile: Profile, *, override: bool) -> None:
        """Decide which of the account's halts this run may probe: risen balance, waited long enough, or `override`."""
        self.halts = await self._ledger.do(halts.open_halts, self._account_id)
        for halt in self.halts:
            if override or await self._may_probe(halt, profile):
                await self._ledger.do(halts.permit_probe, halt.id, self._run_id)
                self._permitted.add(halt.id)
        self._tripped = any(halt.id not in self._permitted for halt in self.halts)

    async def refresh(self) -> None:
        """Look at the halts again, after something was recorded that opens or closes them.

        What has tripped stays so for the rest of the run: a look that overlaps a trip must not undo it.
        """
        self.halts = await self._ledger.do(halts.open_halts, self._account_id)
        permitted = await self._ledger.do(halts.allowance, self._account_id, self._run_id, 1, busy=True)
        self._tripped = self._tripped or (bool(self.halts) and permitted == 0)

    async def note(self, profile: Profile | None) -> None:
        """Keep a balance that was read in the course of the run: it bounds what was spent before it."""
        if profile is not None:
            balance = Balance(credits=profile.credits, quota=profile.quota, tier=profile.tier)
            now = self._clock.now()
            await self._ledger.do(runs.note_balance, self._run_id, self._account_id, balance, at=now)

    async def suspect(self, client: Client, task: OpenTask) -> None:
        """A task failed and no code says why: halt when the balance does not pay for it. Its prose says nothing."""
        if self._clock.steady() - self._suspected_at < SUSPECT_SECONDS:
            return
        self._suspected_at = self._clock.steady()
        with self._clock.limit(SUSPECT_SECONDS):
            profile = (await client.profile()).profile
            await self.note(profile)
            if profile is not None and profile.balance is not None:
                now, left = self._clock.now(), profile.balance
                if await self._ledger.do(halts.after_unexplained, task, balance=left, at=now, run_id=self._run_id):
                    self.trip()

    async def settle(self, profile: Profile | None) -> None:
        """Keep the balance that is left once the last creates have landed; without one, the next run finds it out."""
        await self.note(profile)
        if profile is None or profile.balance is None:
            return
        if any(halt.kind == "credits" for halt in self.halts):
            now = self._clock.now()
            await self._ledger.do(halts.set_balance, self._account_id, profile.credits, profile.quota, now)
            self.halts = await self._ledger.do(halts.open_halts, self._account_id)

    async def _may_probe(self, halt: Halt, profile: Profile) -> bool:
        if halt.kind == "unstable":
            return self._clock.now() >= halt.probe_after_at
        if halt.balance_at is not None:
            return _risen(profile, halt.credits, halt.quota)
        # The run that met the halt ended before it could read what was left: what it began with bounds that.
        credits_, quota = await self._ledger.do(halts.balance_before, halt.id)
        if _risen(profile, credits_, quota):
            return True
        await self.settle(profile)
        return False


def _risen(profile: Profile, credits_: float | None, quota: float | None) -> bool:
    """Whether either number is known before and now, and higher now. An unknown one never counts as zero."""
    pairs = ((profile.credits, credits_), (profile.quota, quota))
    return any(now is not None and before is not None and now > before for now, before in pairs)
