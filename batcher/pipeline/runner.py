"""One run, as a table of contents: lock, recover, take the manifests in, preflight, work, report."""

from __future__ import annotations

import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, Final

import anyio
from anyio.abc import TaskGroup

from batcher.audio.store import Store
from batcher.clock import Clock, Wakeup
from batcher.errors import CredentialsError, TroubleError, UsageError
from batcher.formatting import amount
from batcher.item import State
from batcher.ledger.ledger import Ledger, open_ledger
from batcher.ledger.lifecycle import collection, restored_rows, runs
from batcher.ledger.money import spending
from batcher.ledger.money.spending import Budget
from batcher.ledger.queries import item_counts, status
from batcher.ledger.records import Halt
from batcher.ledger.storage.lock import owner_lock
from batcher.pacing.pace import Pacing
from batcher.pipeline import restore
from batcher.pipeline.connection import reach
from batcher.pipeline.credit_guard import Guard
from batcher.pipeline.delivery import Delivery, take_up_files
from batcher.pipeline.downloader import Downloader
from batcher.pipeline.finish import Finish
from batcher.pipeline.ingest import Ingest
from batcher.pipeline.poller import Poller
from batcher.pipeline.preflight import Preflight
from batcher.pipeline.slots import Slots
from batcher.pipeline.startup import need_manifests, ready_ledger, spool
from batcher.pipeline.stop import Reason, Stop
from batcher.pipeline.submitter import Submitter
from batcher.provider.answers import Profile
from batcher.provider.client import Client
from batcher.reports import run_report
from batcher.reports.progress import Progress
from batcher.reports.tally import Tally
from batcher.settings import Settings
from batcher.throttle.gate import Throttle

DRAIN_SECONDS: Final = 30.0
"""After the first signal, open tasks are collected for so long; the next run collects the rest at no cost."""
ASK_ABOVE: Final = 50
"""More new items than this are created for real money only after a person at a terminal has said so."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CREATES_AT_ONCE: Final = 128
_POLLS_AT_ONCE: Final = 8
_DOWNLOADS_AT_ONCE: Final = 4


def run(
    settings: Settings, progress: Progress, *, confirm: Callable[[str], Awaitable[bool]] | None = None
) -> run_report.RunReport:
    """Bring the wanted rows of the manifests to their end, as far as that can be done now; may be repeated at will.

    `confirm` asks a person before many new items are created for real money; without it nobody is asked.

    Raises:
        LockedError: another run holds the ledger.
        UsageError: there is neither a manifest nor a ledger, or the ledger cannot be used.
        StorageError: the disk takes nothing.
    """
    if not settings.ledger.exists():
        need_manifests(settings)
    stdin = spool() if any(source.path is None for source in settings.sources) else None
    with owner_lock(settings.ledger, wait_seconds=settings.wait_lock_seconds):
        new = ready_ledger(settings, progress)
        progress.say(f"ledger {settings.ledger}{' (NEW)' if new else ''}, output folder {settings.out_dir}")
        outdated = restore.need_consent(settings)
        with open_ledger(settings.ledger, settings.world) as ledger:
            return anyio.run(_Run(settings, ledger, progress, Clock(), confirm, stdin).run, outdated)


class _Run:
    """What the stages of one run share."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        progress: Progress,
        clock: Clock,
        confirm: Callable[[str], Awaitable[bool]] | None,
        stdin: BinaryIO | None,
    ) -> None:
        self.settings = settings
        self.confirm = confirm
        self.ledger = ledger
        self.progress = progress
        self.clock = clock
        self.run_id = uuid.uuid4().hex[:12]
        self.stop = Stop()
        self.tally = Tally()
        self.store = Store(settings.ledger.parent, settings.out_dir)
        self.ingest = Ingest(settings, ledger, self.store, progress, clock, stdin)
        self.client: Client | None = None
        self.profiles: list[Profile] = []
        self.halts: list[Halt] = []
        self.overdue: list[str] = []
        self.last_end: tuple[int | None, str | None] = (None, None)  # how the run before this one ended

    async def run(self, outdated: bool) -> run_report.RunReport:
        started_at = self.clock.now()
        async with anyio.create_task_group() as beside:
            await beside.start(self._heed_signals, beside)
            beside.start_soon(self._limit_runtime)
            await self._recover(started_at)
            if outdated or self.settings.restored:
                how: dict[str, Any] = {"run_id": self.run_id, "at": started_at, "outdated": outdated}
                await restore.recall(self.ledger, self.settings, self.progress, **how)
            await self.ingest.run()
            delivery = await self._deliver_leftovers()
            if await self._has_work():
                await self._work(delivery)
            result = await self._ending(started_at).tell()
            # All is done but the telling: a signal must not keep the report from being printed.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            beside.cancel_scope.cancel()
        return result

    async def _recover(self, at: float) -> None:
        """Take up what an earlier run left in mid-air: the spill file, creates without an answer."""
        out_dir = str(self.settings.out_dir)
        self.last_end = await self.ledger.do(runs.begin_run, self.run_id, out_dir=out_dir, at=at)
        self.ingest.told = self.last_end[1]
        doubts = await self.ledger.recover(run_id=self.run_id, at=at, max_in_doubt=self.settings.max_in_doubt)
        if doubts:
            self.progress.warn(f"an earlier run ended before {doubts} of its creates were answered: maybe bought")

    async def _deliver_leftovers(self) -> Delivery:
        """Take up what an earlier run left on disk, and link what new rows share with done items."""
        delivery = Delivery(
            ledger=self.ledger,
            store=self.store,
            tally=self.tally,
            clock=self.clock,
            run_id=self.run_id,
            named=[batch.batch_id for batch in self.ingest.named],
        )
        await take_up_files(self.ledger, self.store, delivery)
        await delivery.link_saved(self.ingest.surveyed)
        return delivery

    async def _has_work(self) -> bool:
        counts = await self.ledger.do(item_counts.count, self.ingest.named)
        self.tally.begin(counts.items, done=counts.states[State.DONE], in_doubt=counts.states[State.IN_DOUBT])
        if counts.states[State.PENDING] and self.ingest.wanted:
            return True
        return await self.ledger.do(item_counts.collectable) > 0 or await self.ledger.do(restored_rows.due)

    async def _work(self, delivery: Delivery) -> None:
        """Create and collect; what makes that impossible is a reason to stop like any other: the run still reports."""
        try:
            self.store.prepare()
            async with self._api() as (client, preflight):
                profile, account_id, guard = Profile(), None, None
                with self.stop.scope("collecting"):
                    profile, account_id = await preflight.enter(self.ingest.named)
                self.profiles.append(profile)
                self.tally.credits = profile.balance
                if account_id is not None:
                    imported = bool(self.settings.sources) and self.ingest.refused is None
                    how: dict[str, Any] = {"account_id": account_id, "clock": self.clock, "imported": imported}
                    await restore.take_up(delivery, self.progress, **how)
                await self._agree(profile)
                if not await self.ledger.do(restored_rows.due):
                    await restore.sign(self.ledger, self.store, self.run_id, self._names(), whole=False)
                if account_id is not None:
                    guard = Guard(self.ledger, self.clock, account_id=account_id, run_id=self.run_id)
                    await guard.begin(profile, override=self.settings.override_halt)
                    self.ledger.spill.reserve()
                    await self._drive(client, guard, delivery, account_id)
                    self.halts = guard.halts
                with self.stop.scope("collecting"):
                    if (end := (await client.profile()).profile) is not None:
                        self.profiles.append(end)
                        if guard is not None:
                            await guard.note(end)
        except UsageError as error:
            self.ingest.refuse(error.message, [], error.hint)
        except CredentialsError as error:
            self.stop.stop_all(Reason.CREDENTIALS, error.one_line())
        except TroubleError as error:
            self.stop.stop_all(Reason.TROUBLE, error.one_line())

    def _names(self) -> list[str]:
        """The batches of the run whose results are in its output folder."""
        return [batch.name for batch in self.ingest.named if batch.out_dir == self.store.out_dir]

    async def _agree(self, profile: Profile) -> None:
        """Ask before many new items are created for real money; without a yes, only what is open is collected."""
        new = (await self.ledger.do(item_counts.count, self.ingest.wanted)).states[State.PENDING]
        if self.confirm is None or self.settings.sandbox or new <= ASK_ABOVE:
            return
        cost = await self.ledger.do(spending.estimated_need, self.ingest.wanted)
        about = "an unknown number of" if cost is None else f"about {amount(cost)}"
        left = "unknown" if profile.balance is None else f"{amount(profile.balance)} credits"
        question = f"create {new:,} items for {about} credits (the balance is {left})?"
        with self.stop.scope("creating"):
            if await self.confirm(question):
                return
        if self.stop.creating:
            return
        self.ingest.refuse(f"not agreed to: {new:,} items were not created", [], "--yes agrees without asking.")

    async def _drive(self, client: Client, guard: Guard, delivery: Delivery, account_id: int) -> None:
        """Create, poll and download side by side until each has nothing left to do."""
        await self.ledger.do(status.precompute)  # what status wants to know is added up from now on
        pacing = Pacing.from_json(await self.ledger.do(runs.learned_value, account_id, "pacing") or [])
        changed = Wakeup()
        slots = Slots(self.settings.concurrency, changed, self.tally)
        throttle = self._throttle(await self.ledger.do(runs.learned_value, account_id, "throttle"))
        shared: dict[str, Any] = {"ledger": self.ledger, "client": client, "stop": self.stop, "tally": self.tally}
        shared |= {"clock": self.clock, "run_id": self.run_id}
        downloader = Downloader(
            **shared, gate=throttle.download, poll_gate=throttle.poll, store=self.store, delivery=delivery
        )
        shared |= {"guard": guard, "slots": slots, "changed": changed}
        patient = self.settings.max_runtime_seconds is not None
        poller = Poller(**shared, gate=throttle.poll, downloader=downloader, pacing=pacing, patient=patient)
        submitter = Submitter(
            **shared,
            gate=throttle.create,
            poller=poller,
            account_id=account_id,
            wanted=self.ingest.wanted,
            max_items=self.settings.max_items,
            max_in_doubt=self.settings.max_in_doubt,
            budget=None if self.settings.max_credits is None else Budget(self.settings.max_credits),
            wait=self.settings.wait,
        )
        await self._take_up_tasks(account_id, slots, poller, downloader)
        self.ledger.group_commits = True
        async with anyio.create_task_group() as beside:
            beside.start_soon(self.progress.follow, self.tally, self.clock)
            async with anyio.create_task_group() as work:
                work.start_soon(self._collect, poller, downloader)
                await submitter.run()
                await self._settle(client, guard)
                poller.no_more()
            beside.cancel_scope.cancel()
        self.ledger.group_commits = False
        self.overdue = list(poller.overdue)
        await self._settle(client, guard)
        for name, lesson in (("pacing", pacing.to_json()), ("throttle", throttle.to_json())):
            await self.ledger.do(runs.save_learned_value, account_id, name, lesson, at=self.clock.now())

    def _throttle(self, learned: dict[str, Any] | None) -> Throttle:
        return Throttle(
            self.clock,
            creates_at_once=min(self.settings.concurrency, _CREATES_AT_ONCE),
            polls_at_once=_POLLS_AT_ONCE,
            downloads_at_once=_DOWNLOADS_AT_ONCE,
            create_rate=self.settings.create_rate,
            poll_rate=self.settings.poll_rate,
            learned=learned,
        )

    async def _take_up_tasks(self, account_id: int, slots: Slots, poller: Poller, downloader: Downloader) -> None:
        """Go on with the tasks that earlier runs left open, whatever became of their rows."""
        if not self.settings.wait:
            return
        for task in await self.ledger.do(collection.open_tasks, account_id, self.ingest.named):
            if task.rendered:
                downloader.add(task, None)
            else:
                slots.take()
                poller.watch(task, at_once=True)

    async def _collect(self, poller: Poller, downloader: Downloader) -> None:
        with self.stop.scope("collecting"):
            async with anyio.create_task_group() as both:
                both.start_soon(downloader.run)
                await poller.run()
                downloader.no_more()

    async def _settle(self, client: Client, guard: Guard) -> None:
        """With the last creates landed, keep the balance that a halt met by this run will be measured against.

        Done again at the end, since a task can fail for lack of credits long after the last create.
        """
        await guard.refresh()
        if guard.tripped and any(halt.kind == "credits" and halt.balance_at is None for halt in guard.halts):
            await guard.settle((await client.profile()).profile)

    def _ending(self, started_at: float) -> Finish:
        return Finish(
            settings=self.settings,
            ledger=self.ledger,
            store=self.store,
            progress=self.progress,
            clock=self.clock,
            run_id=self.run_id,
            started_at=started_at,
            stop=self.stop,
            tally=self.tally,
            ingest=self.ingest,
            profiles=self.profiles,
            halts=self.halts,
            overdue=self.overdue,
            last_end=self.last_end,
        )

    @asynccontextmanager
    async def _api(self) -> AsyncIterator[tuple[Client, Preflight]]:
        """A client for the API, or for a sandbox that lives as long as the client does."""
        with reach(self.settings) as (endpoint, origin):
            async with Client(
                endpoint,
                create_connections=min(self.settings.concurrency, _CREATES_AT_ONCE),
                poll_connections=_POLLS_AT_ONCE,
                fetch_connections=_DOWNLOADS_AT_ONCE,
                now=self.clock.now,
            ) as self.client:
                yield (
                    self.client,
                    Preflight(
                        ledger=self.ledger,
                        client=self.client,
                        stop=self.stop,
                        clock=self.clock,
                        run_id=self.run_id,
                        origin=origin,
                        token=endpoint.token,
                    ),
                )

    async def _heed_signals(self, beside: TaskGroup, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """The first signal ends creating, and collecting a while later; the second all but the recording."""
        # A terminal that was closed ends a run like any signal, unless nohup has it ignored.
        heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        with anyio.open_signal_receiver(*heeded) as signals:
            task_status.started()
            async for _ in signals:
                if self.stop.signalled:
                    self.stop.interrupt()
                    if self.client is not None:
                        self.client.abort_creates()
                    continue
                self.stop.signalled = True
                message = "stopped by a signal; running again goes on from here"
                self.stop.stop_creating(Reason.ASKED, message)
                beside.start_soon(self._stop_all_after, DRAIN_SECONDS, message)
                self.progress.say(
                    f"stopping: nothing more is created; {self.tally.open} open tasks are collected for up to "
                    f"{DRAIN_SECONDS:.0f} s (a second Ctrl-C ends at once)"
                )

    async def _limit_runtime(self) -> None:
        limit = self.settings.max_runtime_seconds
        if limit is None:
            return
        message = "--max-runtime reached"
        reserve = min(0.2 * limit, 120.0)
        await self.clock.sleep(limit - reserve)
        self.stop.stop_creating(Reason.ASKED, message)
        await self._stop_all_after(reserve, message)

    async def _stop_all_after(self, seconds: float, message: str) -> None:
        await self.clock.sleep(seconds)
        self.stop.stop_all(Reason.ASKED, message)
