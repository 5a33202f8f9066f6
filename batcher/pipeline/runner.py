"""One run: lock, recover, ingest the manifests, enter the account, create and collect, report."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
import anyio.to_thread

from batcher.audio.io_threads import REQUESTS
from batcher.audio.objects import reporting
from batcher.audio.stores import Stores
from batcher.clock import Clock, Wakeup
from batcher.errors import BatcherError, CredentialsError, TroubleError, UsageError, root_cause
from batcher.formatting import amount
from batcher.item import State
from batcher.ledger.lifecycle import claims, restored_rows, runs
from batcher.ledger.queries import item_counts, status
from batcher.ledger.queries.identity import note_timeline
from batcher.ledger.queries.selection import selected_rows
from batcher.ledger.records import Halt
from batcher.ledger.recovery import recover
from batcher.ledger.storage import database, sharing
from batcher.log import log, within_run
from batcher.pacing.pace import Pacing
from batcher.pipeline import restore
from batcher.pipeline.connection import reach
from batcher.pipeline.context import ApiContext, Confirm, RunContext, new_run_id
from batcher.pipeline.credit_guard import Guard
from batcher.pipeline.delivery import Delivery, recover_files
from batcher.pipeline.descriptors import InFlight, fit, preload
from batcher.pipeline.downloader import Downloader
from batcher.pipeline.drain import limit_runtime, obey
from batcher.pipeline.finish import Finish
from batcher.pipeline.ingest import Ingest
from batcher.pipeline.neighbours import Neighbours, warn_of_doubts
from batcher.pipeline.outbox import Outbox, Post
from batcher.pipeline.poller import Poller
from batcher.pipeline.preflight import Preflight
from batcher.pipeline.purchase_check import check_purchases
from batcher.pipeline.question import ask
from batcher.pipeline.slots import Slots
from batcher.pipeline.startup import need_manifests, open_owned
from batcher.pipeline.stop import Reason, StopRequests
from batcher.pipeline.submitter import Submitter
from batcher.provider.answers import Profile
from batcher.reports.observer import Observer, Work
from batcher.reports.run_report import RunReport
from batcher.settings import Settings
from batcher.throttle.gate import Throttle

if TYPE_CHECKING:
    from batcher.provider.client import Client

ASK_ABOVE: Final = 50
"""A person at a terminal is asked before more new items than this are created for real money."""
_AT_ONCE: Final = InFlight(creates=128, polls=16, downloads=4)
"""Maximum requests in flight, even if `--concurrency` permits more: each has its own connection."""
_COULD_NOT_BEGIN: Final = (2, 5, 8)
"""Exit codes of runs that an error may have kept from creating anything."""


class Ended(NamedTuple):
    """The report of a run, and the error that kept it from creating and collecting, if one did."""

    report: RunReport
    error: BatcherError | None


async def run(
    settings: Settings,
    progress: Observer,
    requests: StopRequests,
    *,
    confirm: Confirm | None = None,
    post: Post | None = None,
) -> Ended:
    """Process the manifests' rows as far as is possible now. Running it again continues from there.

    `requests` end it early. `confirm` asks a person about doubtful texts, and before many new items are created for
    real money; without it nobody is asked. `post` receives the run's report at a halt and at its end.

    Raises:
        LockedError: another run holds the ledger.
        UsageError: there is neither a manifest nor a ledger, or the ledger cannot be used.
        StorageError: the disk is full or refuses writes.
    """
    if not await anyio.to_thread.run_sync(database.exists, settings.ledger):
        need_manifests(settings)
    clock, run_id = Clock(), new_run_id()
    with ExitStack() as held:
        ledger, outdated = await open_owned(held, settings, run_id, progress, clock, requests)
        clock.ahead_seconds = await ledger.ahead_seconds()
        stores = Stores(settings.home)
        ctx = RunContext(settings=settings, ledger=ledger, stores=stores, progress=progress, clock=clock, run_id=run_id)
        with reporting():
            try:
                with within_run(ctx.run_id):
                    return await _Run(ctx, confirm, post).run(outdated, requests)
            except BaseExceptionGroup as errors:
                raise root_cause(errors) from errors


class _Run:
    """The steps of one run, and what they pass on to its end."""

    def __init__(self, ctx: RunContext, confirm: Confirm | None, post: Post | None) -> None:
        self.ctx = ctx
        self.confirm = confirm
        self.outbox = Outbox(ctx.ledger, ctx.run_id, ctx.clock, ctx.progress, post)
        self.begun = ctx.clock.steady()
        self.ingest = Ingest(ctx, confirm)
        self.at_once = _AT_ONCE._replace(creates=min(ctx.settings.concurrency, _AT_ONCE.creates))
        self.error: BatcherError | None = None  # that kept it from reaching the account
        self.client: Client | None = None
        self.profiles: list[Profile] = []
        self.halts: list[Halt] = []
        self.overdue: list[str] = []
        self.last_end: tuple[int | None, str | None] = (None, None)  # exit code and message of the run before

    async def run(self, outdated: bool, requests: StopRequests) -> Ended:
        settings, started_at = self.ctx.settings, self.ctx.clock.now()
        batches = [source.rules.batch for source in settings.sources]
        log.info("run started", ledger=str(settings.ledger), out_dir=str(settings.out_dir), batches=batches)
        async with anyio.create_task_group() as watchers:
            await watchers.start(requests.listen)
            watchers.start_soon(obey, self.ctx, requests, self._abort_creates, watchers)
            watchers.start_soon(limit_runtime, self.ctx)
            watchers.start_soon(self.ctx.ledger.keep)
            # Before this run is recorded, which records the end of those that the server may have lost something of.
            if outdated or self.ctx.settings.restored:
                await restore.import_rows(self.ctx, outdated=outdated)
            await self.ctx.ledger.do(note_timeline)
            await self._recover(started_at)
            watchers.start_soon(self.outbox.run)
            await self.ingest.run()
            delivery = await self._deliver_leftovers()
            await self._announce()
            if await self._has_work():
                await self._work(delivery)
            report = await self._finish().report()
            if not self.ctx.stop.interrupted:
                await self.outbox.flush()
            watchers.cancel_scope.cancel()
        error = self.ingest.error() or self.error
        return Ended(report, error if report.exit_code in _COULD_NOT_BEGIN else None)

    def _abort_creates(self) -> None:
        if self.client is not None:
            self.client.abort_creates()

    async def _recover(self, at: float) -> None:
        """Replay the spill file of an earlier run, and put its unanswered creates in doubt."""
        ctx = self.ctx
        await ctx.ledger.note_intents([])  # a recorded run has the file
        self.last_end = await ctx.ledger.do(runs.begin_run, ctx.run_id, out_dir=str(ctx.settings.out_dir), at=at)
        self.ingest.last_message = self.last_end[1]
        most = ctx.settings.max_in_doubt
        warn_of_doubts(ctx, await recover(ctx.ledger, run_id=ctx.run_id, at=at, max_in_doubt=most))

    async def _deliver_leftovers(self) -> Delivery:
        """Deliver files that an earlier run left at their paths, and link done items to the rows that lack them."""
        delivery = Delivery(ctx=self.ctx, named=[batch.batch_id for batch in self.ingest.named])
        await recover_files(delivery)
        await delivery.link_saved(self.ingest.checked)
        return delivery

    async def _announce(self) -> None:
        """Tell the observer which rows the run works on."""
        ledger, selection = self.ctx.ledger, self.ingest.selection
        chosen = frozenset(await ledger.do(selected_rows)) if selection.is_limited else None
        work = Work(ledger.address, [] if self.ingest.refused else self.ingest.named, chosen, ledger.committed)
        self.ctx.progress.begin(work)

    async def _has_work(self) -> bool:
        ledger = self.ctx.ledger
        counts = await ledger.do(self.ingest.selection.count, self.ingest.named)
        self.ctx.tally.begin(counts.states)
        if counts.states[State.PENDING] and self.ingest.wanted:
            return True
        if await ledger.do(item_counts.collectable) or await ledger.do(restored_rows.due):
            return True
        return await ledger.do(claims.held_by_others, self.ctx.run_id, self.ingest.named, at=self.ctx.clock.now())

    async def _work(self, delivery: Delivery) -> None:
        """Create and collect. An error that prevents it is a reason to stop like any other: the run still reports."""
        try:
            await anyio.to_thread.run_sync(self.ctx.store.prepare)
            preload()
            ends, others = 2 if self.ctx.settings.sandbox else 1, 2 * REQUESTS if self.ctx.store.is_remote else 0
            self.at_once = fit(self.at_once, self.ctx.progress.warn, ends=ends, others=others)
            with reporting():
                async with self._connected() as (client, preflight):
                    await self._work_for_account(client, preflight, delivery)
        except UsageError as error:
            self.ingest.refuse(error.message, [], error.hint)
        except CredentialsError as error:
            self.error = error
            self.ctx.stop.stop_all(Reason.CREDENTIALS, error.one_line())
        except TroubleError as error:
            self.error = error
            self.ctx.stop.stop_all(Reason.TROUBLE, error.one_line())

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[Client, Preflight]]:
        """A client for the API, or for a sandbox that lives as long as the client."""
        from batcher.provider.client import Client

        ctx = self.ctx
        with reach(ctx.settings) as (endpoint, origin):
            async with Client(
                endpoint,
                create_connections=self.at_once.creates,
                poll_connections=self.at_once.polls,
                fetch_connections=self.at_once.downloads,
                now=ctx.clock.now,
            ) as self.client:
                yield self.client, Preflight(ctx=ctx, client=self.client, origin=origin, token=endpoint.token)

    async def _work_for_account(self, client: Client, preflight: Preflight, delivery: Delivery) -> None:
        profile, account_id = await self._enter_account(preflight)
        if account_id is not None:
            await self._take_up_restored(delivery, account_id)
            await check_purchases(self.ctx, client, account_id, self.ingest)
        await self._ask(profile)
        await self._mark_folder()
        guard = None
        if account_id is not None:
            guard = await self._arm_guard(profile, account_id)
            await self._create_and_collect(client, guard, delivery, account_id)
            self.halts = guard.halts
        with self.ctx.stop.on_storage_error():
            await self._read_final_balance(client, guard)

    async def _enter_account(self, preflight: Preflight) -> tuple[Profile, int | None]:
        """Returns the account's profile and number; None for an unknown one, which may not create."""
        profile, account_id = Profile(), None
        with self.ctx.stop.scope("collecting"):
            profile, account_id = await preflight.enter(self.ingest.named)
        self.profiles.append(profile)
        self.ctx.tally.credits = profile.balance
        return profile, account_id

    async def _take_up_restored(self, delivery: Delivery, account_id: int) -> None:
        imported = bool(self.ctx.settings.sources) and self.ingest.refused is None
        await restore.apply_rows(delivery, account_id=account_id, imported=imported)

    async def _ask(self, profile: Profile) -> None:
        """Ask before many new items are created for real money; without a yes, only open tasks are collected."""
        ctx, selection = self.ctx, self.ingest.selection
        new = (await ctx.ledger.do(selection.count, self.ingest.wanted)).states[State.PENDING]
        if self.confirm is None or ctx.settings.sandbox or new <= ASK_ABOVE:
            return
        cost = await ctx.ledger.do(selection.estimated_need, self.ingest.wanted)
        basis = ""
        if cost is None:
            found = await ctx.ledger.do(selection.purchases, self.ingest.wanted)
            cost, basis = sum(one.listed_credits for one in found), " by the provider's price rule"
        balance = "unknown" if profile.balance is None else f"{amount(profile.balance)} credits"
        question = f"create {new:,} items for about {amount(cost)} credits{basis} (the balance is {balance})?"
        if not await ask(ctx, self.confirm, question) and not ctx.stop.creating:
            ctx.stop.cancel()

    async def _mark_folder(self) -> None:
        """Mark the output folder as this ledger's before anything is bought into it."""
        ctx = self.ctx
        if not await ctx.ledger.do(restored_rows.due):
            here = [batch.name for batch in self.ingest.named if batch.out_dir == ctx.store.out_dir]
            await ctx.ledger.do(restore.sign, ctx, here, ended=False)

    async def _arm_guard(self, profile: Profile, account_id: int) -> Guard:
        ctx = self.ctx
        guard = Guard(ctx.ledger, ctx.clock, account_id=account_id, run_id=ctx.run_id, on_halt=self._report_halt)
        await guard.begin(profile, override=self.ctx.settings.override_halt)
        self.ctx.ledger.spill.reserve()
        return guard

    async def _create_and_collect(self, client: Client, guard: Guard, delivery: Delivery, account_id: int) -> None:
        """Create, poll and download side by side until each has nothing left to do."""
        ctx, ledger = self.ctx, self.ctx.ledger
        await ledger.do(status.precompute)
        pacing = Pacing.from_json(await ledger.do(runs.learned_value, account_id, "pacing") or [])
        throttle = await self._throttle(account_id)
        changed = Wakeup()
        api = ApiContext(
            client=client,
            account_id=account_id,
            guard=guard,
            throttle=throttle,
            slots=Slots(ctx.settings.concurrency, changed, ctx.tally, ctx.clock),
            changed=changed,
        )
        downloader = Downloader(ctx, api, delivery)
        poller = Poller(ctx, api, downloader, pacing)
        save_learned = partial(self._save_learned, account_id, pacing, throttle)
        neighbours = Neighbours(
            ctx=ctx, api=api, ingest=self.ingest, poller=poller, downloader=downloader, save_learned=save_learned
        )
        await neighbours.take_over()
        submitter = Submitter(
            ctx,
            api,
            poller,
            self.ingest.wanted,
            take_over=neighbours.take_over,
            only_chosen=self.ingest.selection.is_limited,
        )
        await self._drive(submitter, poller, downloader, neighbours)
        self.overdue = list(poller.overdue)
        with ctx.stop.on_storage_error():
            await ctx.ledger.do(sharing.set_patience, others_wait=False)
            await guard.record_balance(client)
            await save_learned()

    async def _save_learned(self, account_id: int, pacing: Pacing, throttle: Throttle) -> None:
        """Save what was learned about the account, for runs that begin later."""
        for name, learned in (("pacing", pacing.to_json()), ("throttle", throttle.to_json())):
            await self.ctx.ledger.do(runs.save_learned_value, account_id, name, learned, at=self.ctx.clock.now())

    async def _throttle(self, account_id: int) -> Throttle:
        return Throttle(
            self.ctx.clock,
            creates_at_once=self.at_once.creates,
            polls_at_once=self.at_once.polls,
            downloads_at_once=self.at_once.downloads,
            create_rate=self.ctx.settings.create_rate,
            poll_rate=self.ctx.settings.poll_rate,
            learned=await self.ctx.ledger.do(runs.learned_value, account_id, "throttle"),
        )

    async def _drive(
        self, submitter: Submitter, poller: Poller, downloader: Downloader, neighbours: Neighbours
    ) -> None:
        await self.ctx.ledger.do(sharing.set_patience, others_wait=True)
        self.ctx.ledger.group_commits = True
        async with anyio.create_task_group() as watchers:
            watchers.start_soon(neighbours.watch)
            if not self.ctx.stop.cancelled:
                watchers.start_soon(self.ctx.progress.follow, self.ctx.tally, self.ctx.clock)
            async with anyio.create_task_group() as stages:
                stages.start_soon(self._collect, poller, downloader)
                await submitter.run()
                with self.ctx.stop.on_storage_error():
                    await submitter.api.guard.record_balance(submitter.api.client)
                poller.no_more()
            watchers.cancel_scope.cancel()
        self.ctx.ledger.group_commits = False

    async def _collect(self, poller: Poller, downloader: Downloader) -> None:
        with self.ctx.stop.scope("collecting"):
            async with anyio.create_task_group() as both:
                both.start_soon(downloader.run)
                await poller.run()
                downloader.no_more()

    async def _read_final_balance(self, client: Client, guard: Guard | None) -> None:
        with self.ctx.stop.scope("collecting"):
            profile = (await client.profile()).profile
            if profile is not None:
                self.profiles.append(profile)
                if guard is not None:
                    await guard.note(profile)

    async def _report_halt(self, halt: Halt) -> None:
        """Post the report as it is at a halt: the run may collect open tasks for a long time yet."""
        await self._finish().report_halt(halt)
        self.outbox.ring()

    def _finish(self) -> Finish:
        return Finish(
            ctx=self.ctx,
            ingest=self.ingest,
            outbox=self.outbox,
            begun=self.begun,
            profiles=self.profiles,
            halts=self.halts,
            overdue=self.overdue,
            last_end=self.last_end,
        )
