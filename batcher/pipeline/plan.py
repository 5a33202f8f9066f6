"""Plans a run: what it would do and cost. Reads the ledger without changing it, and the balance from the API."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from batcher.address import Address
from batcher.audio.stores import Stores
from batcher.clock import Clock
from batcher.errors import CredentialsError, ManifestError
from batcher.formatting import rounded
from batcher.item import NEEDS_ATTENTION, OPEN, State
from batcher.ledger.imports import importer
from batcher.ledger.imports.doubts import hint_of
from batcher.ledger.imports.parse_options import FileFacts, file_facts
from batcher.ledger.imports.preview import ImportPreview
from batcher.ledger.ledger import Connection, open_readonly
from batcher.ledger.lifecycle import runs
from batcher.ledger.money.prices import Prices, prices
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.queries.manifest_paths import source_name
from batcher.ledger.storage import bulk, database
from batcher.manifest.faults import Faults
from batcher.manifest.markup.doubts import Doubt
from batcher.manifest.reader import Watch
from batcher.manifest.rows import Record
from batcher.manifest.rules import Rules
from batcher.pipeline.catalogue import Catalogue, Verdict
from batcher.pipeline.connection import profile_error, reach
from batcher.pipeline.ingest import trusted_stamp
from batcher.pipeline.purchase_check import CACHE, add_fault, fix_voices, warnings
from batcher.pipeline.restore import read_owners, why_outdated
from batcher.pipeline.selection import Selection, need_known
from batcher.pipeline.startup import open_manifest
from batcher.provider.answers import Profile
from batcher.settings import Settings, Source

if TYPE_CHECKING:
    from batcher.provider.client import Client

T = TypeVar("T")


@dataclass(kw_only=True)
class Plan:
    """What a run would do. The fields are the keys of `plan --json`; None is unknown."""

    batches: list[str] = field(default_factory=list)
    rows: int = 0  # that the run works on
    not_selected: int = 0  # other rows of the manifests
    items: int = 0
    left_out: int = 0  # rows of the files that --where does not select
    shared: int = 0  # rows that share an item with an earlier row
    new: int = 0  # items to create
    done: int = 0
    in_flight: int = 0
    need_person: int = 0
    skipped: int = 0
    changed: dict[str, list[str]] = field(default_factory=dict)  # by field: ids of rows in which it changed
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # what may be bought by mistake
    refused: dict[str, str] = field(default_factory=dict)  # by batch excluded because of its faults: the hint
    rebuy: str | None = None  # why a run needs --rebuy
    rename: str | None = None  # why a run needs --rename
    doubts: list[dict[str, Any]] = field(default_factory=list)  # contents that are hardly meant to be spoken
    refused_doubts: list[str] = field(default_factory=list)  # those that a run would refuse, for a person
    doubts_hint: str | None = None  # what to do about them
    stripped: int = 0  # rows from whose texts --strip removes something
    outdated: str | None = None  # why a run needs --restored
    notes: list[str] = field(default_factory=list)  # how the manifests are read
    columns_sent: dict[str, str] = field(default_factory=dict)
    columns_carried: list[str] = field(default_factory=list)
    voices: dict[str, int] = field(default_factory=dict)  # rows by voice
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)  # by API name: some values, how many there are
    characters: int = 0
    estimate: dict[str, float] | None = None  # credits, low, high
    estimate_source: str | None = None  # "tasks" that have ended, or else the provider's published "price rule"
    balance: float | None = None
    balance_unknown: str | None = None  # why the balance could not be read, and what to do
    suffices: bool | None = None
    stops_after: int | None = None  # items that the balance pays for, if not all


async def plan(settings: Settings, watch: Watch = lambda rows, _: rows) -> Plan:
    """Plan a run with these settings. Creates neither tasks nor a ledger. `watch` sees the rows that are read.

    Raises:
        LedgerError: the ledger cannot be used.
        UsageError: a setting is invalid, or names a row that does not exist.
    """
    with _ledger(settings) as address, open_readonly(address, settings.world) as conn, bulk.large_cache(conn):
        cancellable = _Cancellable(watch)
        planner = await cancellable.call(lambda: _Planner(settings, conn, cancellable.reading))
        await planner.ask_api()
        return await cancellable.call(planner.finish)


class _Cancellable:
    """Functions on a thread that end soon after their caller is cancelled, and before it goes on: what it closes then
    is theirs until they end."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._working = threading.Lock()
        self._is_cancelled = False

    async def call(self, function: Callable[[], T]) -> T:
        """What the function returns."""
        try:
            return await anyio.to_thread.run_sync(self._work, function, abandon_on_cancel=True)
        except anyio.get_cancelled_exc_class():
            self._is_cancelled = True
            with self._working:
                raise

    def reading(self, rows: Iterator[Record], name: str) -> Iterator[Record]:
        """The rows, until the caller is cancelled."""
        for row in self._watch(rows, name):
            self._need_caller()
            yield row

    def _work(self, function: Callable[[], T]) -> T:
        with self._working:
            self._need_caller()
            return function()

    def _need_caller(self) -> None:
        if self._is_cancelled:
            raise RuntimeError("cancelled")  # nobody receives it


@contextmanager
def _ledger(settings: Settings) -> Iterator[Address]:
    """The address of the ledger, or of a temporary empty one if there is none yet."""
    if database.exists(settings.ledger):
        yield settings.ledger
        return
    with tempfile.TemporaryDirectory(prefix="batcher-plan-") as folder:
        empty = Path(folder) / "batcher.db"
        database.create(empty, settings.world)
        yield empty


class _Planner:
    """Makes one plan: previews the manifests, asks the API if possible, and sums up."""

    def __init__(self, settings: Settings, conn: Connection, watch: Watch) -> None:
        self._settings = settings
        self._conn = conn
        self._watch = watch
        self._preview = ImportPreview(conn)
        self._verdict = Verdict()
        self._plan = Plan(outdated=why_outdated(conn, read_owners(settings, current_batches(conn)), settings.ledger))
        self._store = Stores(settings.home).of(settings.out_dir)
        self._refused_types: dict[str, None] = {}
        self._preview_imports()
        self._select_rows()
        self._to_buy = self._preview.purchases()

    def _preview_imports(self) -> None:
        for source in self._settings.sources:
            rules = importer.with_history(self._conn, source.rules)
            self._plan.batches.append(rules.batch)
            try:
                facts = self._reuse(source, rules) or self._read(source, rules)
            except ManifestError as error:
                self._plan.faults += error.faults
                self._plan.refused[rules.batch] = "\n".join(self._settings.ways_out(error))
                continue
            self._plan.left_out += facts.left_out
            self._plan.stripped += facts.stripped
            self._plan.notes += facts.notes
            self._plan.columns_sent |= facts.columns_sent
            self._plan.columns_carried += facts.columns_carried

    def _reuse(self, source: Source, rules: Rules) -> FileFacts | None:
        """Take the batch from the ledger, if the file is as it was at its last import. None if it must be read."""
        trusted = trusted_stamp(source, Clock())
        if trusted is None or self._settings.rescan or self._settings.restored:
            return None
        stored, out_dir = source_name(source.path, self._settings.home), self._store.out_dir
        batch = importer.find_unchanged(self._conn, rules, source=stored, out_dir=out_dir, trusted=trusted)
        facts = None if batch is None else file_facts(self._conn, batch)
        if batch is not None and facts is not None:
            self._preview.add_unchanged(batch)
        return facts

    def _read(self, source: Source, rules: Rules) -> FileFacts:
        """Read the file, and compare it with the ledger."""
        manifest = open_manifest(source, rules, watch=self._watch)
        how = {"refilter": self._settings.refilter, "ignores_case": self._store.ignores_case()}
        found = self._preview.add(manifest, rules, out_dir=self._store.out_dir, at=Clock().now(), **how)
        self._plan.faults += manifest.faults.lines()
        self._plan.warnings += manifest.hints
        self._plan.rebuy = self._plan.rebuy or self._refusal(found.rebuy)
        self._plan.rename = self._plan.rename or self._refusal(found.rename)
        self._add_doubts(manifest.faults.name, found.doubts)
        for name, ids in found.changed.items():
            self._plan.changed.setdefault(name, []).extend(ids)
        return importer.facts_of(manifest)

    def _refusal(self, error: ManifestError | None) -> str | None:
        """What would be refused, and what to do about it."""
        return None if error is None else "\n".join([*error.faults, *self._settings.ways_out(error)])

    def _select_rows(self) -> None:
        selection = Selection(self._settings)
        unknown = selection.limit(self._preview)
        need_known([] if self._plan.refused else unknown)
        self._plan.not_selected = selection.others

    def _add_doubts(self, name: str, doubts: list[Doubt]) -> None:
        self._plan.doubts += [doubt.to_json() for doubt in doubts]
        refused = [doubt for doubt in doubts if doubt.type not in self._settings.allow]
        self._plan.refused_doubts += [doubt.line_in(name) for doubt in refused]
        self._refused_types |= dict.fromkeys(doubt.type for doubt in refused)
        if self._refused_types:
            self._plan.doubts_hint = hint_of(",".join(self._refused_types))

    async def ask_api(self) -> None:
        """Read the account's balance, and check the voices and models of the items to be created.

        Without a token, or for a sandbox that does not exist yet, both stay unknown.
        """
        settings, plan = self._settings, self._plan
        if settings.sandbox and not database.exists(settings.ledger):
            return
        from batcher.provider.client import Client

        try:
            with reach(settings) as (endpoint, origin):
                async with Client(endpoint, create_connections=1) as client:
                    answer = await client.profile()
                    if answer.profile is None:
                        plan.balance_unknown = profile_error(answer, origin).one_line()
                        return
                    await self._check_purchases(client, answer.profile, origin)
        except CredentialsError as error:
            plan.balance_unknown = error.message
            return
        plan.balance = rounded(answer.profile.balance)
        plan.balance_unknown = "the profile has no balance" if plan.balance is None else None

    async def _check_purchases(self, client: Client, profile: Profile, origin: str) -> None:
        account_id = runs.find_account(self._conn, origin=origin, user_id=profile.user_id)
        cached = None if account_id is None else runs.learned_value(self._conn, account_id, CACHE)
        if self._to_buy:
            catalogue = Catalogue(client, Clock(), cached)
            self._verdict = await catalogue.check({one.voice for one in self._to_buy})

    def finish(self) -> Plan:
        """Sum up. Rows with an unknown voice count as those with any other fault."""
        found, plan = self._preview.counts(), self._plan
        plan.rows, plan.items = found.rows, found.items
        plan.skipped = found.invalid + found.empty
        plan.shared = found.rows - plan.skipped - found.items
        plan.new, plan.done = found.states[State.PENDING], found.states[State.DONE]
        plan.in_flight = sum(found.states[state] for state in (*OPEN, State.RENDERED))
        plan.need_person = sum(found.states[state] for state in NEEDS_ATTENTION)
        plan.voices = self._preview.voices()
        plan.parameters = {name: values._asdict() for name, values in self._preview.parameters().items()}
        known = prices(self._conn)
        plan.warnings += warnings(self._to_buy, self._verdict, None if self._settings.sandbox else known)
        if self._verdict.unknown:
            self._reject_unknown()
        plan.characters = sum(one.chars for one in self._to_buy)
        self._estimate(known)
        return plan

    def _reject_unknown(self) -> None:
        """Add the faults of rows with an unknown voice, and leave them out if invalid rows are skipped."""
        plan, sources = self._plan, {source.rules.batch: source for source in self._settings.sources}
        faults = {name: Faults(source.label) for name, source in sources.items()}
        for batch, line, voice in self._preview.lines_with(sorted(self._verdict.unknown)):
            add_fault(faults[batch], line, voice)
        for name, found in faults.items():
            plan.faults += found.lines()
            if found and not sources[name].rules.skip_invalid:
                plan.refused[name] = fix_voices(sandbox=self._settings.sandbox)
        if not plan.refused:
            skipped = [one for one in self._to_buy if one.voice in self._verdict.unknown]
            self._to_buy = [one for one in self._to_buy if one.voice not in self._verdict.unknown]
            plan.skipped += sum(one.rows for one in skipped)
            plan.items -= (items := sum(one.items for one in skipped))
            plan.new -= items

    def _estimate(self, known: Prices) -> None:
        plan, estimate = self._plan, known.estimate((one.model, one.bytes) for one in self._to_buy)
        if estimate is None:
            if not self._settings.sandbox:
                listed = rounded(sum(one.listed_credits for one in self._to_buy)) or 0.0
                plan.estimate, plan.estimate_source = {"credits": listed, "low": listed, "high": listed}, "price rule"
            return
        found = {"credits": estimate.credits, "low": estimate.low, "high": estimate.high}
        plan.estimate = {name: rounded(number) or 0.0 for name, number in found.items()}
        plan.estimate_source = "tasks"
        if plan.balance is not None and not plan.refused:
            plan.suffices = plan.balance >= estimate.credits
            if not plan.suffices:
                plan.stops_after = _affordable(known, self._preview.sizes_to_buy(), plan.balance)


def _affordable(known: Prices, sizes: Iterable[tuple[str | None, int]], balance: float) -> int:
    """The number of items, in the order of their creation, that the balance pays for."""
    number, spent = 0, 0.0
    for size in sizes:
        price = known.estimate([size])
        spent += 0.0 if price is None else price.credits
        if spent > balance:
            break
        number += 1
    return number
