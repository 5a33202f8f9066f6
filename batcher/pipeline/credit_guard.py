"""The credit guard: whether the account's halts and its balance allow this run to create.

A 402 (`Cause.NO_CREDITS`) trips the guard in `submitter`, a task that failed for lack of credits in `poller`; both
then record the halt (`ledger.lifecycle.halts`). This module has the latch that is checked just before a create is sent,
and decides whether a halt may be probed.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from batcher.clock import Clock, utc
from batcher.formatting import rounded
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import halts, runs
from batcher.ledger.records import Balance, Halt, OpenTask
from batcher.log import log
from batcher.provider.answers import Profile

if TYPE_CHECKING:
    from batcher.provider.client import Client

SUSPECT_SECONDS: Final = 10.0
"""Shortest interval between reads of the balance for tasks that failed without an error code, and their deadline."""
SUSPECT_THROTTLED: Final = 12
"""After this many creates in a row were throttled (429), the balance is read: the API may mean that it is empty."""


OnHalt = Callable[[Halt], Awaitable[None]]
"""Learns of a halt that this run has caused."""


class Guard:
    """Decides for one run whether its account may create."""

    def __init__(
        self, ledger: Ledger, clock: Clock, *, account_id: int, run_id: str, on_halt: OnHalt | None = None
    ) -> None:
        self._on_halt = on_halt
        self._ledger = ledger
        self._clock = clock
        self._account_id = account_id
        self._run_id = run_id
        self._tripped = False
        self._follows = False  # another run probes a halt
        self._promising: dict[int, tuple[str, int]] = {}  # halts that this run may probe, as they were at its start
        self._suspected_at = -math.inf
        self._throttled = 0  # creates in a row
        self.halts: list[Halt] = []
        self._balance: float | None = None  # at the latest read, also of an earlier run

    @property
    def tripped(self) -> bool:
        """Whether no create may be sent."""
        return self._tripped

    @property
    def probing(self) -> bool:
        """Whether this run may probe an open halt: with one create at a time, until its answer closes the halt."""
        return bool(self.halts) and not self._tripped and not self._follows

    def trip(self) -> None:
        """Send no further create. The caller records the cause right after."""
        self._tripped = True

    async def begin(self, profile: Profile, *, override: bool) -> None:
        """Permit probes of the halts whose balance has risen or whose wait is over; with `override`, of all halts."""
        self.halts = await self._ledger.do(halts.open_halts, self._account_id)
        self._balance = await self._ledger.do(runs.balance_before, self._account_id, self._run_id)
        self._notice_top_up(profile)
        for halt in self.halts:
            log.info("still halted", **_facts(halt))
            if override or await self._may_probe(halt, profile):
                self._promising[halt.id] = (halt.run_id, halt.probes)
        await self._find_probers()

    async def refresh(self) -> None:
        """Reload the halts, after a record that may have opened or closed them.

        A tripped guard stays tripped for the rest of the run: a reload that overlaps a trip must not undo it.
        """
        found = await self._ledger.do(halts.open_halts, self._account_id)
        # Compared only now: another task may have reloaded them during the wait, and each halt is reported once.
        before = {halt.id: halt for halt in self.halts}
        self.halts = found
        for halt in found:
            if before.pop(halt.id, None) is None:
                log.warning("halted", **_facts(halt))
                if self._on_halt is not None and halt.run_id == self._run_id:
                    await self._on_halt(halt)
        for halt in before.values():
            log.info("resumed", **_facts(halt))
        await self._find_probers()

    async def _find_probers(self) -> None:
        """Trip unless each open halt may be probed, by this run or by another, whose result it then waits for.

        A run that was to probe a halt may have ended. Then another one that found the halt promising does it.
        """
        probers = set()
        for halt in list(self.halts):
            promising = self._promising.get(halt.id) == (halt.run_id, halt.probes)
            prober = await self._ledger.do(halts.find_prober, halt, self._run_id, may_probe=promising)
            probers.add(prober)
            if prober == "own":
                self._promising.pop(halt.id, None)  # once lost, the permission is not taken again
        self._follows = "other" in probers
        self._tripped = self._tripped or None in probers

    async def note(self, profile: Profile | None) -> None:
        """Record a balance that was read during the run, as evidence for creates in doubt."""
        if profile is not None:
            self._notice_top_up(profile)
            balance = Balance(credits=profile.credits, quota=profile.quota, tier=profile.tier)
            now = self._clock.now()
            await self._ledger.do(runs.note_balance, self._run_id, self._account_id, balance, at=now)

    def _notice_top_up(self, profile: Profile) -> None:
        """Log a balance that is above the one read before it."""
        before, now = self._balance, profile.balance
        if now is None:
            return
        self._balance = now
        if before is not None and now > before:
            log.info("top-up noticed", before=rounded(before), balance=rounded(now), credits=rounded(now - before))

    async def suspect(self, client: Client, task: OpenTask) -> None:
        """A task failed without an error code: halt if the balance is too low for it. Messages are not interpreted."""
        if self._clock.steady() - self._suspected_at < SUSPECT_SECONDS:
            return
        self._suspected_at = self._clock.steady()
        with self._clock.limit(SUSPECT_SECONDS):
            profile = (await client.profile()).profile
            what = "a task failed without an error code"
            await self._halt_if_short(profile, task.key, what, from_task=True)

    def answered(self) -> None:
        """A create was answered other than by 429."""
        self._throttled = 0

    async def throttled(self, client: Client, key: str) -> None:
        """The create of this item was throttled (429), which is recorded.

        After many in a row, read the balance once, and halt if it is too low for the item.
        """
        self._throttled += 1
        if self._throttled != SUSPECT_THROTTLED:
            return
        with self._clock.limit(SUSPECT_SECONDS):
            profile = (await client.profile()).profile
            what = f"{SUSPECT_THROTTLED} creates in a row were refused (HTTP 429)"
            await self._halt_if_short(profile, key, what)

    async def _halt_if_short(self, profile: Profile | None, key: str, what: str, *, from_task: bool = False) -> None:
        await self.note(profile)
        if profile is None or profile.balance is None:
            return
        if await self._ledger.do(
            halts.after_unexplained,
            self._account_id,
            key,
            what,
            balance=profile.balance,
            at=self._clock.now(),
            run_id=self._run_id,
            from_task=from_task,
        ):
            self.trip()

    async def record_balance(self, client: Client) -> None:
        """Record the balance that a halt met by this run is measured against, once the last creates are recorded.

        Repeated at the end, since a task can fail for lack of credits long after the last create.
        """
        await self.refresh()
        if self.tripped and any(halt.kind == "credits" and halt.balance_at is None for halt in self.halts):
            await self.settle((await client.profile()).profile)

    async def settle(self, profile: Profile | None) -> None:
        """Record the balance after the last creates were answered. If it is unknown, the next run records it."""
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
        # The run that opened the halt ended before it could read the balance: its balance at the start is the bound.
        credits_, quota = await self._ledger.do(halts.balance_before, halt.id)
        if _risen(profile, credits_, quota):
            return True
        await self.settle(profile)
        return False


def _facts(halt: Halt) -> dict[str, Any]:
    """The halt as a log line has it."""
    return {"kind": halt.kind, "since": utc(halt.since_at), "detail": halt.detail}


def _risen(profile: Profile, credits_: float | None, quota: float | None) -> bool:
    """Whether credits or quota have risen. An unknown number never counts as zero."""
    pairs = ((profile.credits, credits_), (profile.quota, quota))
    return any(now is not None and before is not None and now > before for now, before in pairs)
