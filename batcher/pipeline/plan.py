"""Plans a run: what it would do and cost. Reads the ledger without changing it, and the balance from the API."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio

from batcher.audio.store import Store
from batcher.clock import Clock
from batcher.errors import CredentialsError, ManifestError
from batcher.item import NEEDS_ATTENTION, OPEN, State
from batcher.ledger.imports import importer
from batcher.ledger.imports.preview import ImportPreview
from batcher.ledger.ledger import Connection, open_readonly
from batcher.ledger.money.prices import Prices, prices
from batcher.ledger.storage import database
from batcher.manifest.reader import Manifest
from batcher.pipeline.connection import reach, why_no_profile
from batcher.pipeline.restore import why_outdated
from batcher.settings import Settings


@dataclass(kw_only=True)
class Plan:
    """What a run would do. The fields are the keys of `plan --json`; None is unknown."""

    schema: int = 1
    batches: list[str] = field(default_factory=list)
    rows: int = 0
    items: int = 0
    shared: int = 0  # rows that share an item with an earlier row
    new: int = 0  # items to create
    done: int = 0
    in_flight: int = 0
    need_person: int = 0
    skipped: int = 0
    changed: dict[str, list[str]] = field(default_factory=dict)  # by field: ids of rows in which it changed
    faults: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # by batch excluded because of its faults: the hint
    rebuy: str | None = None  # why a run needs --rebuy
    outdated: str | None = None  # why a run needs --restored
    columns_sent: dict[str, str] = field(default_factory=dict)
    columns_carried: list[str] = field(default_factory=list)
    characters: int = 0
    estimate: dict[str, float] | None = None  # credits, low, high
    balance: float | None = None
    balance_unknown: str | None = None  # why the balance could not be read
    suffices: bool | None = None
    stops_after: int | None = None  # items that the balance pays for, if not all


def plan(settings: Settings) -> Plan:
    """Plan a run with these settings. Creates neither tasks nor a ledger.

    Raises:
        LedgerError: the ledger cannot be used.
        UsageError: a setting is invalid.
    """
    balance, unknown = anyio.run(_balance, settings)
    found = plan_offline(settings, balance)
    found.balance_unknown = unknown
    return found


def plan_offline(settings: Settings, balance: float | None = None) -> Plan:
    """Plan a run for an account with this balance, without a request to the API.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    with _ledger(settings) as path, open_readonly(path, settings.world) as conn:
        return _Planner(settings, ImportPreview(conn), balance).run(conn)


@contextmanager
def _ledger(settings: Settings) -> Iterator[Path]:
    """The path of the ledger, or of a temporary empty one if there is none yet."""
    if settings.ledger.exists():
        yield settings.ledger
        return
    with tempfile.TemporaryDirectory(prefix="batcher-plan-") as folder:
        empty = Path(folder) / settings.ledger.name
        database.create(empty, settings.world)
        yield empty


class _Planner:
    def __init__(self, settings: Settings, preview: ImportPreview, balance: float | None) -> None:
        self._settings = settings
        self._preview = preview
        self._plan = Plan(balance=balance)
        self._store = Store(settings.ledger.parent, settings.out_dir)

    def run(self, conn: Connection) -> Plan:
        self._plan.outdated = why_outdated(conn, self._settings)
        self._preview_imports(conn)
        self._count(conn)
        return self._plan

    def _preview_imports(self, conn: Connection) -> None:
        for source in self._settings.sources:
            rules = replace(source.rules, takes=importer.latest_takes(conn, source.rules.batch))
            manifest = Manifest(source.path, rules)
            self._plan.batches.append(rules.batch)
            try:
                out_dir, at = self._store.out_dir, Clock().now()
                changed, rebuy = self._preview.add(manifest, rules, out_dir=out_dir, at=at)
            except ManifestError as error:
                self._plan.faults += error.faults
                self._plan.refused[rules.batch] = error.hint
                continue
            self._plan.faults += manifest.faults.lines()
            self._plan.rebuy = self._plan.rebuy or rebuy
            for name, ids in changed.items():
                self._plan.changed.setdefault(name, []).extend(ids)
            self._plan.columns_sent |= manifest.columns_sent
            self._plan.columns_carried += manifest.columns_carried

    def _count(self, conn: Connection) -> None:
        (found, to_buy), plan = self._preview.counts(), self._plan
        plan.rows, plan.items = found.rows, found.items
        plan.skipped = found.invalid + found.empty
        plan.shared = found.rows - plan.skipped - found.items
        plan.new, plan.done = found.states[State.PENDING], found.states[State.DONE]
        plan.in_flight = sum(found.states[state] for state in (*OPEN, State.RENDERED))
        plan.need_person = sum(found.states[state] for state in NEEDS_ATTENTION)
        plan.characters = sum(characters for _, _, characters in to_buy)
        self._estimate(prices(conn), [(model, size) for model, size, _ in to_buy])

    def _estimate(self, known: Prices, to_buy: list[tuple[str | None, int]]) -> None:
        plan, estimate = self._plan, known.estimate(to_buy)
        if estimate is None:
            return
        plan.estimate = {"credits": estimate.credits, "low": estimate.low, "high": estimate.high}
        if plan.balance is not None and not plan.refused:
            plan.suffices = plan.balance >= estimate.credits
            if not plan.suffices:
                plan.stops_after = _affordable(known, self._preview.sizes_to_buy(), plan.balance)


async def _balance(settings: Settings) -> tuple[float | None, str | None]:
    """The account's balance, or why it is unknown; neither for a sandbox that does not exist yet."""
    if settings.sandbox and not settings.ledger.exists():
        return None, None
    from batcher.provider.client import Client

    try:
        with reach(settings) as (endpoint, origin):
            async with Client(endpoint, create_connections=1) as client:
                answer = await client.profile()
    except CredentialsError as error:
        return None, error.message
    if answer.profile is None:
        return None, why_no_profile(answer, origin)
    balance = answer.profile.balance
    return balance, "the profile has no balance" if balance is None else None


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
